"""Where dreams begin: moments of real drives, each with the second before it, to warm up M."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.dream import DreamWorld
from utils.runtime.errors import UserError
from utils.storage.artifacts import forms, load_arrays, save_arrays
from utils.storage.files import files
from utils.storage.remedies import remedy
from utils.world_model.episodes import demand_this_game
from utils.world_model.latents import Encoded, Latents, load_image, load_of

FRAMES = 50  # that M sees of the real drive before it dreams: a second
SHIPPED_MOMENTS = 64  # that ship, so that who has no data can dream: 0.4 MB
NEWEST = 96  # drives of the agent, of which the older ones show a driver that it no longer is
WITHOUT_TILE = 60  # frames; the next tile is never as far away on the road
IN_MEMORY = 400  # drives: 0.1 GB
BEFORE = (10, 150)  # frames before a failure, at which it may still be averted


class Starts(NamedTuple):
    """N moments. They hold what V saw, not what M made of it, so that every M can begin there."""

    mu: np.ndarray  # (N, FRAMES + 1, Z) float32; the last frame is the moment itself
    action: np.ndarray  # (N, FRAMES, 3) float32
    seen: np.ndarray  # (N,) int64, how many of FRAMES there are; before them are zeros

    def take(self, indices: Sequence[int] | np.ndarray) -> "Starts":
        return Starts(*(array[indices] for array in self))


def start_at(latents: Latents, t: int) -> Starts:
    """The moment at frame t of an episode, 0 <= t <= T, as the only one."""
    first = max(0, t - FRAMES)
    missing = FRAMES - (t - first)
    pad = ((missing, 0), (0, 0))
    return Starts(
        np.pad(latents.mu[first : t + 1], pad)[None],
        np.pad(latents.action[first:t], pad)[None],
        np.array([t - first]),
    )


class Moments:
    """All the moments of the latents in some files, read when they are asked for.

    others: drives of anybody; own: of the agent, of which the latest NEWEST count.
    vae: V's header; a UserError names the first file that another V encoded.
    kept: moments that stand in for the drives of others where there are none.
    """

    def __init__(
        self, others: Sequence[Path], own: Sequence[Path], vae: dict[str, Any],
        kept: Starts | None = None,
    ) -> None:  # fmt: skip
        self._others, self._own, self._kept = list(others), list(own)[-NEWEST:], kept
        self._load = lru_cache(maxsize=IN_MEMORY)(
            lambda path, image: load_image(path, vae) if image else load_of(path, vae)[1]
        )

    @classmethod
    def of(
        cls, latents: str, own: str, known: int, checkpoints: str, vae: dict[str, Any]
    ) -> "Moments":
        """Those of the drives in these folders, or without any of the file that ships with V.

        Args:
            known: so many own drives M has learnt from; any others may be of an earlier agent.
        """
        others = files(latents)
        kept = None if others else load_starts(starts_path(checkpoints), vae)
        return cls(others, files(own)[:known], vae, kept)

    def choose(
        self, rng: np.random.Generator, count: int, own: float = 0.0, failing: float = 0.0,
        beginning: float = 0.0,
    ) -> Starts:  # fmt: skip
        """`count` of them at random, at any frame of any drive or of its mirror image.

        Args:
            own: share of them out of the agent's own drives, where there are any.
            failing: further share of them, some time before the agent came to grief.
            beginning: further share of them, the first frame of a drive, of the agent's own where
                there are any.
        """
        shares = (failing, own, beginning)
        return together([self._choose_one(rng, *np.cumsum(shares)) for _ in range(count)])

    def _choose_one(
        self, rng: np.random.Generator, failing_to: float, own_to: float, beginning_to: float
    ) -> Starts:
        kind = rng.random()  # 0 to failing_to: a failure; up to own_to: any own frame; and so on
        paths = self._own if self._own and kind < beginning_to else self._others
        if not paths and self._kept:
            return self._kept.take([int(rng.integers(len(self._kept.seen)))])
        path = paths[rng.integers(len(paths))]
        latents = self._load(path, rng.random() >= 0.5)
        if own_to <= kind < beginning_to:
            return start_at(latents, 0)
        t = int(rng.integers(len(latents.action) + 1))
        failures = _failures(latents) if paths is self._own and kind < failing_to else []
        if failures:
            t = max(0, failures[rng.integers(len(failures))] - int(rng.integers(*BEFORE)))
        return start_at(latents, t)


def _failures(latents: Latents) -> list[int]:
    """After which frames no tile was visited for WITHOUT_TILE frames, or ever again."""
    gains = np.flatnonzero(latents.reward > 0)
    gaps = np.diff(gains, append=len(latents.reward))
    return gains[gaps > WITHOUT_TILE].tolist()


def some_moment(latents: Latents, rng: np.random.Generator) -> Starts:
    """A moment of an episode at random, with the whole second before it if there is one."""
    count = len(latents.action)
    return start_at(latents, int(rng.integers(min(FRAMES, count - 1), count)))


def together(starts: Sequence[Starts]) -> Starts:
    """All these moments in one `Starts`."""
    return Starts(*(np.concatenate(arrays) for arrays in zip(*starts, strict=True)))


def starts_path(checkpoints: str | Path) -> Path:
    """Where the moments are kept that ship with V."""
    return Path(checkpoints) / "starts.npz"


@torch.inference_mode()
def warm_up(world: DreamWorld, starts: Starts) -> tuple[Tensor, Tensor, Tensor]:
    """z (N, Z) of the moments, and h and c (N, H) of an M that has seen what was before them."""
    z, action, seen = map(torch.from_numpy, starts)
    h, c = world.fresh(len(z))
    for t in range(FRAMES):
        exists = (t >= FRAMES - seen)[:, None]
        after_h, after_c = world.remember(z[:, t], action[:, t], h, c)
        h, c = torch.where(exists, after_h, h), torch.where(exists, after_c, c)
    return z[:, -1], h, c


def save_starts(path: Path, starts: Starts, vae: str, versions: dict[str, str]) -> str:
    """Write them; `vae` is V's fingerprint. Returns their own."""
    return save_arrays(path, "starts", starts._asdict(), vae=vae, versions=versions)


def keep_starts(path: Path, episodes: Sequence[Encoded], vae: dict[str, Any], seed: int) -> None:
    """Write SHIPPED_MOMENTS of these episodes, drawn by `seed`: at any time the same file."""
    rng = np.random.default_rng(seed)
    chosen = [episodes[i * len(episodes) // SHIPPED_MOMENTS] for i in range(SHIPPED_MOMENTS)]
    starts = together([some_moment(latents, rng) for _, latents in chosen])
    save_starts(path, starts, vae["fingerprint"], episodes[0][0]["versions"])


def load_starts(path: Path, vae: dict) -> Starts:
    """Read them back; they must be of the V with this header."""
    header, arrays = load_arrays(path, "starts")
    count, latent_dim = len(np.atleast_1d(arrays.get("seen", 0))), vae["sizes"]["latent_dim"]
    wanted = {
        "mu": ((count, FRAMES + 1, latent_dim), np.float32),
        "action": ((count, FRAMES, 3), np.float32),
        "seen": ((count,), np.int64),
    }
    if forms(arrays) != wanted or not count or not np.isin(arrays["seen"], range(FRAMES + 1)).all():
        raise UserError(f"{path} does not hold where dreams begin; {remedy(path, 'starts')}.")
    if header.get("vae") != vae["fingerprint"]:
        raise UserError(f"{path} was made with another V; {remedy(path, 'starts')}.")
    demand_this_game(path, header)
    return Starts(**arrays)
