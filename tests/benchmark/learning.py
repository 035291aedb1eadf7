"""Stages 02 to 04: encoding, and the training of V and M."""

import importlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.loop import Networks
from benchmark.measuring import Effort, Figures, heading, line, speed_lines, take_turns, threads
from models.mdn_rnn import MDNRNN
from models.vae import VAE, sample, to_floats
from utils.runtime.workers import OneAtATime, Workers
from utils.world_model.chunks import batches
from utils.world_model.episodes import batches_of_frames
from utils.world_model.latents import Encoding, encode, load_latents
from utils.world_model.training import Training


class PaperVAE(nn.Module):
    """The networks of World Models (2018), appendix A.1, plainly in PyTorch."""

    def __init__(self, latent_dim: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=2), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 128, 4, stride=2), nn.ReLU(),
            nn.Conv2d(128, 256, 4, stride=2), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.mu = nn.Linear(1024, latent_dim)
        self.logvar = nn.Linear(1024, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 1024), nn.Unflatten(1, (1024, 1, 1)),
            nn.ConvTranspose2d(1024, 128, 5, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 5, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 6, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 6, stride=2), nn.Sigmoid(),
        )  # fmt: skip

    def loss(self, frames: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error plus KL, as stage 02's; frames (B, 64, 64, 3) uint8."""
        images = to_floats(frames).contiguous()
        x = self.encoder(images)
        mu, logvar = self.mu(x), self.logvar(x)
        decoded = self.decoder(sample(mu, logvar))
        reconstruction = (decoded - images).square().sum((1, 2, 3)).mean()
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()
        return reconstruction + kl, {"reconstruction": reconstruction, "kl": kl}


def measure_encoding(rollouts: list[Path], networks: Networks, folder: Path) -> Figures:
    """Stage 03's way from rollouts on disk to latents on disk, on two cores."""
    folder.mkdir()
    jobs = [
        Encoding(str(path), str(folder / f"{copy}_{path.name}"), "benchmark")
        for copy in range(4)
        for path in rollouts
    ]
    with Workers(2, OneAtATime, {"function": encode, "vae": networks.vae}) as workers:
        workers.run(jobs[:1] * 4)
        rates = take_turns(
            {"encode": lambda turn: sum(workers.run(jobs))}, turns=3, clock=time.perf_counter
        )
    heading("Learning, on all cores", "frames/s", "us a frame", "of plain")
    line("03: rollouts to latents, two workers", rates.of("encode"), 1e6 / rates.of("encode"))
    return {"encode_frames_per_s": rates.of("encode")}


def measure_vae_training(rollouts: list[Path], effort: Effort, folder: Path) -> Figures:
    """Stage 02's steps, reading included, beside the paper's networks on frames in memory."""
    stage = importlib.import_module("02_train_vae")
    ours, paper = VAE().to(memory_format=torch.channels_last), PaperVAE()
    step_ours, step_paper = (
        _stepper(network, folder, stage.LEARNING_RATE) for network in (ours, paper)
    )
    rng = np.random.default_rng(0)
    batch = min(stage.BATCH, effort.frame_batch)

    endless = itertools.chain.from_iterable(
        batches_of_frames(rollouts * 16, batch, 4, rng, stage.WORKERS) for _ in itertools.count()
    )
    kept = next(endless)

    def train_ours(turn: int) -> int:
        for pixels in itertools.islice(endless, effort.frame_batches):
            step_ours(*stage._loss(ours, pixels, stage.KL_TOLERANCE))
        return effort.frame_batches * batch

    def train_paper(turn: int) -> int:
        for _ in range(effort.paper_batches):
            step_paper(*paper.loss(torch.from_numpy(kept)))
        return effort.paper_batches * batch

    with threads(effort.cores):
        names = "02: V as trained here", "    the paper's networks in plain float32"
        contenders = dict(zip(names, (train_ours, train_paper), strict=True))
        rates = take_turns(contenders, 3 * effort.turns, time.perf_counter)
    speed_lines(rates, names[1])
    return {
        "vae_training_frames_per_s": rates.of(names[0]),
        "plain_vae_training_frames_per_s": rates.of(names[1]),
        "vae_training_over_plain": rates.ratio(*names),
    }


def measure_rnn_training(latents: Path, effort: Effort, folder: Path) -> Figures:
    """Stage 04's steps on whole episodes."""
    stage = importlib.import_module("04_train_mdn_rnn")
    rnn = MDNRNN(hidden=stage.HIDDEN, mixtures=stage.MIXTURES)
    step = _stepper(rnn, folder, stage.LEARNING_RATE, stage.CLIP)
    episodes = [load_latents(path)[1] for path in sorted(latents.glob("*.npz"))]
    count = min(stage.BATCH, effort.episode_batch)
    episodes = list(itertools.islice(itertools.cycle(episodes), count))
    (group,) = batches(episodes, count, np.random.default_rng(0))

    def train(turn: int) -> int:
        for loss, parts in stage._losses(rnn, group, stage.LENGTH, stage.NOISE):
            step(loss, parts)
        return sum(len(episode.action) for episode in group)

    name = "04: M"
    with threads(effort.cores):
        rates = take_turns({name: train}, effort.turns, time.perf_counter)
    line(name, rates.of(name), 1e6 / rates.of(name))
    return {"rnn_training_frames_per_s": rates.of(name)}


def _stepper(
    network: nn.Module, folder: Path, rate: float, clip: float | None = None
) -> Callable[[Tensor, dict[str, Tensor]], None]:
    """One step down the gradient, as the stages have it on their pages."""
    optimizer = torch.optim.Adam(network.parameters(), rate, fused=True)
    training = Training(network, optimizer, folder / type(network).__name__, {}, epochs=1)
    next(training.epochs(seed=0))

    def step(loss: Tensor, parts: dict[str, Tensor]) -> None:
        training.note(loss, parts)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()

    return step
