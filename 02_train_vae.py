"""Stage 02: train V, which turns a frame into 32 numbers and back.

Reads    data/rollouts/*.npz
Writes   checkpoints/vae.pt
         checkpoints/vae.csv and vae.png (the learning curves)
         checkpoints/vae_frames.png (real frames over what V makes of them)
Time     5 minutes on two cores with bfloat16, 16 without
Run      python 02_train_vae.py

Stopped, it goes on from the last finished epoch when run again.
"""

from utils.runtime.start import run

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.inference import arithmetic
from models.vae import VAE, to_frames
from utils.pictures.plots import reconstructions
from utils.runtime import command_line as flag
from utils.runtime.command_line import chosen, settings, stage_command
from utils.runtime.cores import cores
from utils.storage.networks import save_network, vae_path
from utils.storage.outputs import prepare
from utils.world_model.episodes import batches_of_frames, count_frames, load_rollout, rollouts
from utils.world_model.training import (
    Training,
    averages,
    files_of,
    is_trained,
    learning_rate,
    split,
)

# ---- constants: edit them here, or pass them as flags (--epochs 1) ----
LATENT_DIM = 32  # length of z, as in the paper; change it and run all stages from here
EPOCHS = 4  # times that every frame is seen; a fifth would lower the error by 2 %
BATCH = 128  # frames a step
LEARNING_RATE = 2e-3  # falls to 2 % of it along a cosine; the paper's constant 1e-4 is slower
KL_TOLERANCE = 0.5  # nats per latent dimension that are free of charge, as in the paper
KL_RAMP = 0.4  # of the training, in which KL's weight rises from 0 to 1; else small things are lost
POOL = 24  # episodes in memory at a time, about 250 MB, and as many again being read
SEED = 1  # of the initial weights and of every shuffle
WORKERS = cores()  # threads that read and unpack the next episodes; 0 reads in between
THREADS = cores()  # processor cores for the network
ROLLOUTS = "data/rollouts"  # what to learn from
CHECKPOINTS = "checkpoints"  # where V goes
# ------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        LATENT_DIM=flag.whole(1, 1024), EPOCHS=flag.whole(1), BATCH=flag.whole(1),
        LEARNING_RATE=flag.number(1e-9, 1), KL_TOLERANCE=flag.number(0),
        KL_RAMP=flag.number(0, 1), POOL=flag.whole(1), SEED=flag.seed(),
        WORKERS=flag.processes(), THREADS=flag.processes(1),
        ROLLOUTS=flag.folder(), CHECKPOINTS=flag.folder(),
    )  # fmt: skip
    target = vae_path(s.CHECKPOINTS)
    frames_picture = target.with_name("vae_frames.png")
    prepare({**files_of(target, "V"), frames_picture: "picture"})
    paths, fingerprint = rollouts(s.ROLLOUTS)
    made_from = {"rollouts": fingerprint} | chosen(
        s, "LATENT_DIM", "EPOCHS", "BATCH", "LEARNING_RATE", "KL_TOLERANCE", "KL_RAMP", "POOL",
        "SEED",
    )  # fmt: skip
    if is_trained(target, "V", made_from):
        print(f"{target} is trained from these rollouts already; delete it to train again")
        return

    torch.set_num_threads(s.THREADS)
    torch.manual_seed(s.SEED)
    vae = VAE(s.LATENT_DIM).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), s.LEARNING_RATE, fused=True)
    training = Training(vae, optimizer, target, made_from, s.EPOCHS, title="V: error of a frame")
    train, validation = split(paths)
    steps = max(1, count_frames(train) // s.BATCH)

    for epoch in training.epochs(s.SEED):
        rng = np.random.default_rng((s.SEED, epoch))
        batches = batches_of_frames(train, s.BATCH, s.POOL, rng, s.WORKERS)
        bar = tqdm(batches, f"epoch {epoch + 1}/{s.EPOCHS}", total=steps, unit="batch")
        for i, frames in enumerate(bar):
            progress = training.progress(i / steps)
            kl_weight = min(1.0, progress / s.KL_RAMP) if s.KL_RAMP else 1.0
            loss, parts = _loss(vae, frames, s.KL_TOLERANCE, kl_weight)
            training.note(loss, parts)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(s.LEARNING_RATE, progress)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if i % 20 == 0:
                bar.set_postfix({name: f"{v:.3g}" for name, v in training.average().items()})
        batches = batches_of_frames(validation, s.BATCH, 4, np.random.default_rng(0), workers=0)
        found = averages(_loss(vae, frames, s.KL_TOLERANCE) for frames in batches)
        training.end_epoch(found)

    save_network(target, "V", vae, made_from, frames_picture)
    _picture(vae, validation, frames_picture)
    training.finish()
    said = stage_command("03_encode_dataset", rollouts=s.ROLLOUTS, checkpoints=s.CHECKPOINTS)
    print(f"{target} saved; next: {said}")


def _loss(
    vae: VAE, frames: np.ndarray, tolerance: float, kl_weight: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", torch.bfloat16, enabled=arithmetic() == "bfloat16"):
        return vae.loss(torch.from_numpy(frames), tolerance, kl_weight)


@torch.no_grad()
def _picture(vae: VAE, paths: list[Path], target: Path) -> None:
    obs = np.concatenate([load_rollout(path)[1].obs for path in paths[:12]])
    frames = obs[np.linspace(0, len(obs) - 1, 14).astype(int)]
    mu, _ = vae.encode(torch.from_numpy(frames))
    reconstructions(target, frames, to_frames(vae.decode(mu)).numpy())


if __name__ == "__main__":
    run(main)
