"""Stage 04: train M, which remembers the drive and dreams how it goes on.

Reads    data/latents/*.npz and, in data/latents/mirrored, their images; checkpoints/vae.pt (and the
         headers of the rollouts, if there)
Writes   checkpoints/mdn_rnn.pt
         checkpoints/mdn_rnn.csv and mdn_rnn.png (the learning curves)
         checkpoints/starts.npz, real moments with which dreams begin where there is no data
         checkpoints/dream_replay.mp4: a real drive beside M's dream of it, from the same first
         second and the same actions, for as long as the dream holds
Time     about 5 minutes on two cores
Run      python 04_train_mdn_rnn.py
         python 04_train_mdn_rnn.py --drives 32  (goes on with the agent's own drives: reads
         data/dream/latents, too, and writes checkpoints/mdn_rnn_dream.pt, .csv and .png)

Stopped, it goes on from the last finished epoch when run again.
"""

from utils.runtime.start import run

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.mdn_rnn import MDNRNN
from models.vae import sample
from utils.runtime import command_line as flag
from utils.runtime.command_line import chosen, settings, stage_command
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.simulator.envs import HOTTEST
from utils.storage.networks import (
    dreaming_path,
    load_dreaming,
    load_networks,
    load_vae,
    rnn_path,
    save_network,
)
from utils.storage.outputs import prepare
from utils.storage.remedies import COLLECT
from utils.world_model.chunks import batches, chunks, measure_features, rehearsal
from utils.world_model.episodes import episodes
from utils.world_model.latents import Latents, load_all, load_image, load_some
from utils.world_model.replay import replay_film
from utils.world_model.starts import keep_starts, starts_path
from utils.world_model.training import (
    Training,
    averages,
    clear_away,
    files_of,
    is_trained,
    learning_rate,
    split,
)

# ---- constants: edit them here, or pass them as flags (--epochs 1) ----
HIDDEN = 256  # units of the LSTM, as in the paper; h has this length
MIXTURES = 5  # Gaussians for every dimension of z, as in the paper
EPOCHS = 12  # times that every episode is seen; 0 leaves M as random as it begins
NOISE = 1.0  # of V's uncertainty, with which z is drawn around mu as in the paper; 0 learns mu
BATCH = 16  # episodes side by side
LENGTH = 100  # frames through which the gradient flows back: two seconds
LEARNING_RATE = 2e-3  # falls to 2 % of it along a cosine
CLIP = 1.0  # largest norm of the gradient, as in the paper
TEMPERATURE = 0.5  # of the film's dream: 0 is the likeliest future, 1 as uncertain as M is
SEED = 1  # of the initial weights, the shuffles and every draw of z
WORKERS = cores()  # threads that read the latents
THREADS = cores()  # processor cores for the network
DRIVES = 0  # of the agent, from which a second M learns, in which C dreams; 0 trains M itself
OWN_EPOCHS = 8  # of the second M, over the newest drives and those that it knows already
OWN_LENGTH = 32  # frames through which its gradient flows back: shorter chunks, more steps
OLD = 24  # drives of LATENTS that the second M goes through again, lest it forgets them
EARLIER = 100  # drives of the agent that it goes through again
OWN_RATE = 1e-3  # learning rate of the second M, which falls likewise
LATENTS = "data/latents"  # what to learn from
OWN_LATENTS = "data/dream/latents"  # the agent's own drives
ROLLOUTS = "data/rollouts"  # the same episodes as frames
CHECKPOINTS = "checkpoints"  # where V is and M goes
# -----------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        HIDDEN=flag.whole(1, 8192), MIXTURES=flag.whole(1, 100), EPOCHS=flag.whole(),
        NOISE=flag.number(0, 1), BATCH=flag.whole(1), LENGTH=flag.whole(1),
        LEARNING_RATE=flag.number(1e-9, 1), CLIP=flag.number(1e-9),
        TEMPERATURE=flag.number(0, HOTTEST), SEED=flag.seed(), WORKERS=flag.processes(),
        THREADS=flag.processes(1), DRIVES=flag.whole(), OWN_EPOCHS=flag.whole(1),
        OWN_LENGTH=flag.whole(1), OLD=flag.whole(), EARLIER=flag.whole(),
        OWN_RATE=flag.number(1e-9, 1), LATENTS=flag.folder(), OWN_LATENTS=flag.folder(),
        ROLLOUTS=flag.folder(), CHECKPOINTS=flag.folder(),
    )  # fmt: skip
    if s.DRIVES:
        go_on(s)
        return
    target = rnn_path(s.CHECKPOINTS)
    film = target.with_name("dream_replay.mp4")
    starts = starts_path(s.CHECKPOINTS)
    prepare({**files_of(target, "M"), film: "film", starts: "starts"})
    vae, vae_header = load_vae(s.CHECKPOINTS)
    encoded, fingerprint = load_all(s.LATENTS, vae_header, s.ROLLOUTS, s.WORKERS)
    made_from = {"vae": vae_header["fingerprint"], "latents": fingerprint} | chosen(
        s, "HIDDEN", "MIXTURES", "EPOCHS", "NOISE", "BATCH", "LENGTH", "LEARNING_RATE", "CLIP",
        "SEED",
    )  # fmt: skip
    film_is_due = not s.EPOCHS and not film.exists()  # no state between epochs says so
    if is_trained(target, "M", made_from) and not film_is_due:
        keep_starts(starts, encoded[::20], vae_header, s.SEED)
        print(f"{target} is trained from these latents already; delete it to train again")
        return

    torch.set_num_threads(s.THREADS)
    torch.manual_seed(s.SEED)
    rnn = MDNRNN(vae_header["sizes"]["latent_dim"], hidden=s.HIDDEN, mixtures=s.MIXTURES)
    train, validation = split([latents for _, latents in encoded])
    paths, _ = split(episodes(s.LATENTS, "latents"))  # of `train`: M must not see the others
    measured = train[:: max(1, len(train) // 100)]
    if sum(len(latents.action) - 1 for latents in measured) < 2:
        raise UserError(f"{s.LATENTS} holds too few frames to train M; drive longer: {COLLECT}.")
    optimizer = torch.optim.Adam(rnn.parameters(), s.LEARNING_RATE, fused=True)
    training = Training(rnn, optimizer, target, made_from, s.EPOCHS, title="M: what comes next")

    train = [*train, *(load_image(path, vae_header) for path in paths)]
    fit(rnn, training, train, validation, s, s.LEARNING_RATE, s.LENGTH)
    torch.manual_seed(s.SEED)
    measure_features(rnn, measured, s.NOISE)
    keep_starts(starts, encoded[::20], vae_header, s.SEED)
    save_network(target, "M", rnn, made_from, film, *([] if training.history else training.curves))
    if replay_film(film, vae, rnn, encoded[::20], s.TEMPERATURE):
        training.finish()  # and if not, the next run makes the film alone
    said = stage_command("05_train_controller", checkpoints=s.CHECKPOINTS)
    print(f"{target} saved; next: {said}")


def go_on(s: SimpleNamespace) -> None:
    """Let a second M, which begins as the first, learn what the agent's own drives are like.

    C goes on reading the h of the first: what it has learnt to read does not change under it.
    """
    target = dreaming_path(s.CHECKPOINTS)
    prepare(files_of(target, "M"))
    networks = load_networks(s.CHECKPOINTS)
    rnn, former = load_dreaming(s.CHECKPOINTS, networks)
    known = former["made_from"].get("drives", 0)
    own = episodes(s.OWN_LATENTS, "latents")[: s.DRIVES]
    if known >= s.DRIVES:
        clear_away(target, former["made_from"])
        print(f"{target} knows {known} drives of the agent already")
        return
    if len(own) < s.DRIVES:
        raise UserError(
            f"{s.OWN_LATENTS} holds {len(own)} drives of the agent, not {s.DRIVES}: "
            "run python 01_collect_rollouts.py with --agent-episodes, then stage 03."
        )
    rng = np.random.default_rng((s.SEED, s.DRIVES))
    others, _ = split(episodes(s.LATENTS, "latents"))
    paths, kept_out = rehearsal(rng, others, s.OLD, own, known, s.EARLIER)
    vae = networks.vae_header
    (train, mark), (validation, _) = (load_some(some, vae) for some in (paths, kept_out))
    train += [load_image(path, vae) for path in paths]
    origin = {"former": former["fingerprint"], "drives": s.DRIVES, "latents": mark}
    made_from = networks.fingerprints | origin | chosen(
        s, "NOISE", "BATCH", "CLIP", "SEED", "OLD", "EARLIER", "OWN_EPOCHS", "OWN_LENGTH",
        "OWN_RATE",
    )  # fmt: skip
    rnn.train().requires_grad_(True)
    optimizer = torch.optim.Adam(rnn.parameters(), s.OWN_RATE, fused=True)
    training = Training(
        rnn, optimizer, target, made_from, s.OWN_EPOCHS, "M, with the agent's own drives",
        former.get("history", []),
    )  # fmt: skip
    fit(rnn, training, train, validation, s, s.OWN_RATE, s.OWN_LENGTH)
    save_network(target, "M", rnn, made_from, history=training.history)
    training.finish()
    said = stage_command(
        "05_train_controller", world="dream", own_latents=s.OWN_LATENTS, checkpoints=s.CHECKPOINTS
    )
    print(f"{target} knows {s.DRIVES} drives of the agent; next: {said}")


def fit(
    rnn: MDNRNN, training: Training, train: list[Latents], validation: list[Latents],
    s: SimpleNamespace, highest: float, length: int,
) -> None:  # fmt: skip
    """Every episode once an epoch, in random batches, by truncated backpropagation through time."""
    optimizer = training.optimizer
    bar = tqdm(training.epochs(s.SEED), "M", total=training.left, unit="epoch")
    for epoch in bar:
        groups = batches(train, s.BATCH, np.random.default_rng((s.SEED, epoch)))
        for i, group in enumerate(groups):
            for loss, parts in _losses(rnn, group, length, s.NOISE):
                training.note(loss, parts)
                for parameters in optimizer.param_groups:
                    parameters["lr"] = learning_rate(highest, training.progress(i / len(groups)))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(rnn.parameters(), s.CLIP)
                optimizer.step()
        torch.manual_seed(s.SEED)
        found = averages(
            losses
            for group in batches(validation, s.BATCH, np.random.default_rng(s.SEED))
            for losses in _losses(rnn, group, length, s.NOISE)
        )
        bar.set_postfix({name: f"{value:.3f}" for name, value in found.items()})
        training.end_epoch(found)


def _losses(
    rnn: MDNRNN, group: list[Latents], length: int, noise: float
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The loss of each chunk of a batch of episodes, the memory carried from chunk to chunk."""
    state = None
    for mu, logvar, *outcome in chunks(group, length):
        loss, parts, state = rnn.loss(sample(mu, logvar, noise), *outcome, state)
        yield loss, parts


if __name__ == "__main__":
    run(main)
