"""Stage 04: train M, which remembers the drive and dreams how it goes on.

Reads    data/latents/*.npz, checkpoints/vae.pt (and the headers of the rollouts, if there)
Writes   checkpoints/mdn_rnn.pt
         checkpoints/mdn_rnn.csv and mdn_rnn.png (the learning curves)
         checkpoints/dream.mp4: a real drive beside M's dream of it, from the same first second
         and the same actions
Time     about 3 minutes on two cores
Run      python 04_train_mdn_rnn.py

Stopped, it goes on from the last finished epoch when run again.
"""

from utils.runtime.start import run

import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.mdn_rnn import MDNRNN
from models.vae import sample
from utils.runtime.command_line import folder, number, processes, seed, settings, whole
from utils.runtime.cores import cores
from utils.storage.artifacts import demand_writable, sweep
from utils.storage.networks import load_vae, rnn_path, save_network
from utils.world_model.dream import dream_film
from utils.world_model.latents import demand_encoded, latents
from utils.world_model.sequences import Sequence, batches, load_sequences, pieces
from utils.world_model.training import CLIP, Training, is_trained, state_path

# ---- constants: edit them here, or pass them as flags (--epochs 1) ----
HIDDEN = 256  # units of the LSTM, as in the paper; h has this length
MIXTURES = 5  # Gaussians for every dimension of z, as in the paper
EPOCHS = 24  # times that every episode is seen, z drawn anew; 0 leaves M as random as it begins
BATCH = 16  # episodes side by side
LENGTH = 100  # frames through which the gradient flows back: two seconds
LEARNING_RATE = 2e-3  # falls to 2 % of it along a cosine
TEMPERATURE = 0.5  # of the dream: 0 is the likeliest future, 1 as uncertain as M is
SEED = 1  # of the initial weights, the shuffles and every draw of z
WORKERS = cores()  # threads that read the latents; 0 reads in the main one
THREADS = cores()  # processor cores for the network
LATENTS = "data/latents"  # what to learn from
ROLLOUTS = "data/rollouts"  # the same episodes as frames
CHECKPOINTS = "checkpoints"  # where V is and M goes
# -----------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        HIDDEN=whole(1, 8192), MIXTURES=whole(1, 100), EPOCHS=whole(), BATCH=whole(1),
        LENGTH=whole(1), LEARNING_RATE=number(0, 1), TEMPERATURE=number(0, 10), SEED=seed(),
        WORKERS=processes(), THREADS=processes(1), LATENTS=folder(), ROLLOUTS=folder(),
        CHECKPOINTS=folder(),
    )  # fmt: skip
    target = rnn_path(s.CHECKPOINTS)
    log, film = target.with_suffix(".csv"), target.with_name("dream.mp4")
    demand_writable(
        target, log, log.with_suffix(".png"), film, state_path(s.CHECKPOINTS, "mdn_rnn")
    )
    sweep(s.CHECKPOINTS)
    vae, vae_header = load_vae(s.CHECKPOINTS)
    paths, fingerprint = latents(s.LATENTS)
    demand_encoded(paths, vae_header, Path(s.ROLLOUTS))
    constants = ("HIDDEN", "MIXTURES", "EPOCHS", "BATCH", "LENGTH", "LEARNING_RATE", "SEED")
    made_from = {
        "vae": vae_header["fingerprint"],
        "latents": fingerprint,
        **{name: getattr(s, name) for name in constants},
    }
    if is_trained(target, "M", "mdn_rnn", made_from):
        print(f"{target} is trained from these latents already; delete it to train again")
        return

    torch.set_num_threads(s.THREADS)
    torch.manual_seed(s.SEED)
    rnn = MDNRNN(vae_header["sizes"]["latent_dim"], hidden=s.HIDDEN, mixtures=s.MIXTURES)
    training = Training(
        rnn, s.CHECKPOINTS, "mdn_rnn", made_from, s.EPOCHS, s.LEARNING_RATE, CLIP,
        title="M: what comes next",
    )  # fmt: skip
    sequences = load_sequences(paths, s.WORKERS)
    held_out = sequences[::20]
    learned = [q for i, q in enumerate(sequences) if i % 20] or sequences

    bar = tqdm(training.epochs(s.SEED), "M", total=s.EPOCHS, unit="epoch")
    for epoch in bar:
        start = time.monotonic()
        groups = batches(learned, s.BATCH, np.random.default_rng((s.SEED, epoch)))
        for i, group in enumerate(groups):
            for loss, parts in _losses(rnn, group, s.LENGTH):
                training.step(loss, parts, done=i / len(groups))
        validation = _validate(rnn, held_out, s)
        bar.set_postfix({name: f"{value:.3f}" for name, value in validation.items()})
        training.end_epoch(validation, time.monotonic() - start)

    _measure_features(rnn, learned)
    save_network(target, "M", rnn, made_from)
    dream_film(film, vae, rnn, paths[::20], s.TEMPERATURE)
    training.finish()
    print(f"{target} saved; next: python 05_train_controller.py")


def _losses(rnn: MDNRNN, group: list[Sequence], length: int):
    """The loss of each piece of a batch of episodes, the memory carried from piece to piece."""
    state = None
    for (mu, logvar, *rest), mask in pieces(group, length):
        loss, parts, state = rnn.loss(sample(mu, logvar), *rest, mask, state)
        yield loss, parts


@torch.no_grad()
def _validate(rnn: MDNRNN, held_out: list[Sequence], s) -> dict[str, float]:
    torch.manual_seed(s.SEED)
    rows = [
        {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}
        for group in batches(held_out, s.BATCH, np.random.default_rng(s.SEED))
        for loss, parts in _losses(rnn, group, s.LENGTH)
    ]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


@torch.no_grad()
def _measure_features(rnn: MDNRNN, sequences: list[Sequence]) -> None:
    features = []
    for sequence in sequences[:: max(1, len(sequences) // 100)]:
        z = sequence.mu[:-1]
        h, _ = rnn.lstm(torch.cat([z, sequence.action], -1).unsqueeze(0))
        features.append(torch.cat([z[1:], h[0, :-1]], -1))
    sd, mean = torch.std_mean(torch.cat(features), 0)
    rnn.feature_mean.copy_(mean)
    rnn.feature_sd.copy_(sd.clamp(min=1e-3))


if __name__ == "__main__":
    run(main)
