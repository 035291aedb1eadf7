"""Latents on disk: the episodes as V sees them, by the very encoder that the driver uses."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from models.inference import ROWS, Encoder, arithmetic
from models.vae import VAE
from utils.runtime.errors import UserError
from utils.storage.artifacts import fingerprint, if_sound, load_arrays, load_header, save_arrays
from utils.storage.files import files
from utils.storage.remedies import remedy
from utils.world_model.episodes import demand_arrays, demand_this_game, episodes, load_rollout
from utils.world_model.mirror import mirror_image, mirrored


class Latents(NamedTuple):
    """One episode of T actions, encoded: 273 bytes a frame, so that a million fit into memory."""

    mu: np.ndarray  # (T + 1, Z) float32
    logvar: np.ndarray  # (T + 1, Z) float32
    action: np.ndarray  # (T, 3) float32
    reward: np.ndarray  # (T,) float32
    terminated: np.ndarray  # (T,) bool


Encoded = tuple[dict[str, Any], Latents]  # an episode's header and its latents


class Encoding(NamedTuple):
    """One episode to encode."""

    rollout: str
    latents: str
    vae_fingerprint: str
    mirrored: bool = False


def encodings(rollouts: Sequence[Path], latents: str, vae: str) -> list[Encoding]:
    """Of every rollout and its mirror image; `vae` is V's fingerprint."""
    targets = [Path(latents) / rollout.name for rollout in rollouts]
    return [
        Encoding(str(rollout), str(mirror_image(target) if mirrored else target), vae, mirrored)
        for mirrored in (False, True)
        for rollout, target in zip(rollouts, targets, strict=True)
    ]


def made_from(job: Encoding, rollout_fingerprint: str) -> dict[str, Any]:
    """What the latents depend on: the frames, V, and the arithmetic in which V runs here."""
    return {
        "rollout": rollout_fingerprint,
        "vae": job.vae_fingerprint,
        "arithmetic": arithmetic(),
        **({"mirrored": True} if job.mirrored else {}),
    }


def encode(job: Encoding, vae: VAE) -> int:
    """Encode one episode and save mu and logvar beside what M needs; returns its frames.

    V encodes them ROWS at a time, as it does at the wheel.
    """
    header, episode = load_rollout(Path(job.rollout))
    if job.mirrored:
        episode = mirrored(episode)
    encoder = Encoder(vae)
    pairs = [encoder.encode(frames) for frames in torch.from_numpy(episode.obs).split(ROWS)]
    mu, logvar = (torch.cat(parts).numpy() for parts in zip(*pairs, strict=True))
    latents = Latents(mu, logvar, episode.action, episode.reward, episode.terminated)
    save_arrays(
        job.latents, "latents", latents._asdict(),
        made_from=made_from(job, header["fingerprint"]), versions=header["versions"],
        driver=header.get("driver"), seed=header.get("seed"),
    )  # fmt: skip
    return len(mu)


def is_encoded(job: Encoding) -> bool:
    """Whether the latents are on disk, whole, and of this rollout and this V."""
    loaded = if_sound(Path(job.latents), load_latents, "Encoding it again.")
    if loaded is None:
        return False
    mark = load_header(job.rollout, "rollout")["fingerprint"]
    return loaded[0]["made_from"] == made_from(job, mark)


def load_latents(path: Path) -> Encoded:
    """Read the latents of one episode, refusing arrays that do not belong together."""
    header, arrays = load_arrays(path, "latents")
    count = len(np.atleast_1d(arrays.get("action", 0)))
    width = arrays["mu"].shape[-1] if "mu" in arrays and arrays["mu"].ndim else 0
    demand_arrays(
        path, "latents", arrays,
        mu=((count + 1, width), np.float32),
        logvar=((count + 1, width), np.float32),
        action=((count, 3), np.float32),
        reward=((count,), np.float32),
        terminated=((count,), np.bool_),
    )  # fmt: skip
    origin = header.get("made_from")
    if not isinstance(origin, dict) or not {"rollout", "vae"} <= origin.keys():
        raise UserError(f"{path} does not say what it was made from; {remedy(path, 'latents')}.")
    demand_this_game(path, header)
    return header, Latents(**arrays)


def load_of(path: Path, vae: dict[str, Any]) -> Encoded:
    """The latents of one episode, which the V with this header must have encoded."""
    header, latents = load_latents(path)
    width = vae["sizes"]["latent_dim"]
    if header["made_from"]["vae"] != vae["fingerprint"] or latents.mu.shape[1] != width:
        raise UserError(f"{path} was encoded by another V; {_encode(path, vae)}.")
    return header, latents


def load_image(path: Path, vae: dict[str, Any]) -> Latents:
    """The mirror image of the episode with these latents; a UserError if it is of another one."""
    image = mirror_image(path)
    header, latents = load_of(image, vae)
    if header["made_from"] != load_header(path, "latents")["made_from"] | {"mirrored": True}:
        raise UserError(f"{image} is the mirror image of another drive; {_encode(path, vae)}.")
    return latents


def load_all(
    directory: str, vae: dict[str, Any], rollouts: str, workers: int
) -> tuple[list[Encoded], str]:
    """All episodes of a folder, each read once by so many threads, and the fingerprint of all.

    Args:
        vae: V's header.
        rollouts: the folder they come from; what it no longer holds is not asked for.

    Raises:
        UserError: naming the first latents that stage 03 would encode anew, or the first rollout
            that it has not encoded yet.
    """
    paths = episodes(directory, "latents")
    with ThreadPoolExecutor(workers or 1) as threads:
        loaded = list(threads.map(lambda path: load_of(path, vae), paths))
    for path, (header, _) in zip(paths, loaded, strict=True):
        found = header["made_from"]
        rollout = Path(rollouts) / path.name
        if not rollout.exists():
            continue
        job = Encoding(str(rollout), str(path), vae["fingerprint"])
        if found != made_from(job, load_header(rollout, "rollout")["fingerprint"]):
            raise UserError(
                f"{path} was encoded from another {rollout}, or in another arithmetic than this "
                f"machine's; {_encode(path, vae)}."
            )
    encoded = {path.name for path in paths}
    for rollout in files(rollouts):
        if rollout.name not in encoded:
            raise UserError(f"{rollout} is not encoded yet; {_encode(Path(directory), vae)}.")
    return loaded, _fingerprint(paths, loaded)


def load_some(paths: Sequence[Path], vae: dict[str, Any]) -> tuple[list[Latents], str]:
    """The episodes with these latents, and the fingerprint of all."""
    loaded = [load_of(path, vae) for path in paths]
    return [latents for _, latents in loaded], _fingerprint(paths, loaded)


def _encode(path: Path, vae: dict[str, Any]) -> str:
    return remedy(path, "latents", missing=True, checkpoints=vae["folder"])


def _fingerprint(paths: Sequence[Path], loaded: Sequence[Encoded]) -> str:
    return fingerprint(
        {path.name: header["fingerprint"] for path, (header, _) in zip(paths, loaded, strict=True)}
    )
