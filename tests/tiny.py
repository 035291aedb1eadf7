"""Small untrained networks, made-up episodes and stages on small settings, for quick tests."""

import contextlib
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.controller import pack, parameter_count
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.storage.networks import (
    load_rnn,
    load_vae,
    rnn_path,
    save_controller,
    save_network,
    vae_path,
)
from utils.world_model.episodes import Episode, save_rollout

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = (
    "01_collect_rollouts", "02_train_vae", "03_encode_dataset", "04_train_mdn_rnn",
    "05_train_controller", "06_evaluate",
)  # fmt: skip
LATENT_DIM, HIDDEN = 4, 8
FEATURES = LATENT_DIM + HIDDEN

# Half gas and no steering: the car leaves the field after 200 to 360 frames on every track, and
# what V and M think of it does not matter. So its score is known from a plain loop.
STRAIGHT_ON = np.zeros(parameter_count(LATENT_DIM, HIDDEN), np.float32)
STRAIGHT_ON_ACTION = np.array([0, 0.5, 0], np.float32)


def networks(seed: int = 0) -> tuple[VAE, MDNRNN]:
    """An untrained V, whose z nevertheless changes visibly from frame to frame, and an M."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        vae, rnn = VAE(LATENT_DIM), MDNRNN(LATENT_DIM, hidden=HIDDEN, mixtures=2)
        vae.mu.weight *= 100
    return vae.eval().requires_grad_(False), rnn.eval().requires_grad_(False)


def lively(seed: int) -> np.ndarray:
    """A C that steers by z and h, to no purpose."""
    rng = np.random.default_rng(seed)
    bias = np.array([0.0, -0.5, -1.0])
    return pack(rng.normal(0, 0.4, (3, FEATURES)), bias).astype(np.float32)


def save_networks(checkpoints: str | Path, seed: int = 0) -> tuple[dict, dict]:
    """V and M on disk, M made for this V; returns their headers."""
    vae, rnn = networks(seed)
    mark = save_network(vae_path(checkpoints), "V", vae, {"seed": seed})
    save_network(rnn_path(checkpoints), "M", rnn, {"vae": mark})
    return headers(checkpoints)


def headers(checkpoints: str | Path) -> tuple[dict, dict]:
    """Of V and M."""
    _, vae = load_vae(checkpoints)
    _, rnn = load_rnn(checkpoints, vae["fingerprint"])
    return vae, rnn


def save_c(path: Path, parameters: np.ndarray, start: str = "zeros") -> None:
    """C on disk, made for the V and M beside it."""
    vae, rnn = headers(path.parent)
    made_from = {"vae": vae["fingerprint"], "rnn": rnn["fingerprint"], "START": start}
    save_controller(path, parameters, made_from)


def episode(frames: int, seed: int = 0) -> Episode:
    """A made-up episode of so many actions: a square that wanders over a plain ground."""
    rng = np.random.default_rng(seed)
    obs = np.empty((frames + 1, 64, 64, 3), np.uint8)
    obs[:] = rng.integers(0, 256, 3)
    for t, (x, y) in enumerate(rng.integers(0, 48, (frames + 1, 2))):
        obs[t, y : y + 16, x : x + 16] = rng.integers(0, 256, 3)
    ends = np.zeros(frames, bool)
    ends[-1] = True
    action, reward = rng.random((frames, 3), np.float32), rng.random(frames, np.float32)
    return Episode(obs, action, reward, ends)


def save_episodes(folder: Path, lengths: list[int]) -> list[Path]:
    """Made-up rollouts of these lengths."""
    paths = [folder / f"random_{i:03d}.npz" for i in range(len(lengths))]
    for i, (path, length) in enumerate(zip(paths, lengths, strict=True)):
        save_rollout(path, episode(length, i), driver="random", seed=i)
    return paths


def arguments(flags: dict[str, Any]) -> list[str]:
    """{"latent_dim": 4} -> ["--latent-dim", "4"]."""
    return [
        word for name, value in flags.items()
        for word in ("--" + name.replace("_", "-"), str(value))
    ]  # fmt: skip


def stage(number: int, **flags: Any) -> str:
    """Run a stage in this process, in the current folder; returns what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        importlib.import_module(SCRIPTS[number - 1]).main(arguments(flags))
    return said.getvalue()
