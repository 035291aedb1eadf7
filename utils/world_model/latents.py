"""Stage 03's work: the latents of one episode, by the very encoder that the driver uses."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from models.inference import ROWS, Encoder, arithmetic
from models.vae import VAE
from utils.runtime.errors import UserError
from utils.storage.artifacts import load_arrays, load_header, save_arrays
from utils.world_model.episodes import (
    COLLECT,
    ENCODE,
    demand_arrays,
    load_rollout,
    with_fingerprint,
)


class Encoding(NamedTuple):
    """One episode to encode."""

    rollout: str
    latents: str
    vae_fingerprint: str


def made_from(job: Encoding, rollout_fingerprint: str) -> dict[str, Any]:
    """What the latents depend on: the frames, V, and the arithmetic in which V runs here."""
    return {
        "rollout": rollout_fingerprint,
        "vae": job.vae_fingerprint,
        "arithmetic": arithmetic(),
    }


def is_encoded(job: Encoding) -> bool:
    """Whether the latents are on disk, whole, and of this rollout and this V."""
    if not Path(job.latents).exists():
        return False
    mark = _fingerprint(Path(job.rollout))
    try:
        header, _ = load_latents(Path(job.latents))
    except UserError as error:
        print(f"{error} Encoding it again.")
        return False
    return header.get("made_from") == made_from(job, mark)


def demand_encoded(paths: list[Path], vae: dict[str, Any], rollouts: Path) -> None:
    """Refuse latents that stage 03 would encode anew, and rollouts that it has not encoded yet.

    Args:
        paths: of the latents.
        vae: V's header.
        rollouts: the folder they come from; what it no longer holds is not asked for.

    Raises:
        UserError: naming the first such file.
    """
    for path in paths:
        header, arrays = load_latents(path)
        found = header["made_from"]
        width = arrays["mu"].shape[1]
        if found.get("vae") != vae["fingerprint"] or width != vae["sizes"]["latent_dim"]:
            raise UserError(f"{path} was encoded by another V; {ENCODE}.")
        rollout = rollouts / path.name
        job = Encoding(str(rollout), str(path), vae["fingerprint"])
        if rollout.exists() and found != made_from(job, _fingerprint(rollout)):
            raise UserError(
                f"{path} was encoded from another {rollout}, or in another arithmetic than this "
                f"machine's; {ENCODE}."
            )
    encoded = {path.name for path in paths}
    for rollout in sorted(rollouts.glob("*.npz")):
        if rollout.name not in encoded and ".tmp." not in rollout.name:
            raise UserError(f"{rollout} is not encoded yet; {ENCODE}.")


def load_latents(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read the latents of one episode: mu, logvar (T + 1, Z), action, reward, terminated."""
    header, arrays = load_arrays(path, "latents", f"delete it and {ENCODE}")
    count = len(arrays["action"]) if "action" in arrays else 0
    width = arrays["mu"].shape[-1] if "mu" in arrays and arrays["mu"].ndim else 0
    demand_arrays(
        path, arrays, ENCODE,
        mu=((count + 1, width), np.float32),
        logvar=((count + 1, width), np.float32),
        action=((count, 3), np.float32),
        reward=((count,), np.float32),
        terminated=((count,), np.bool_),
    )  # fmt: skip
    made_from = header.get("made_from")
    if not isinstance(made_from, dict) or not {"rollout", "vae"} <= made_from.keys():
        raise UserError(f"{path} does not say what it was made from; delete it and {ENCODE}.")
    return header, arrays


def latents(directory: str | Path) -> tuple[list[Path], str]:
    """The latents of a folder, and the fingerprint of them all."""
    return with_fingerprint(directory, "latents", ENCODE)


def encode(job: Encoding, vae: VAE) -> int:
    """Encode one episode and save mu and logvar beside what M needs; returns its frames."""
    header, arrays = load_rollout(Path(job.rollout))
    mu, logvar = encode_frames(Encoder(vae), arrays.pop("obs"))
    save_arrays(
        job.latents, "latents", {"mu": mu, "logvar": logvar, **arrays},
        made_from=made_from(job, header["fingerprint"]),
        driver=header.get("driver"), seed=header.get("seed"),
    )  # fmt: skip
    return len(mu)


def encode_frames(encoder: Encoder, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """frames (N, 64, 64, 3) uint8 -> mu, logvar (N, Z) float32, as a car that sees them would."""
    pairs = [
        encoder.encode(torch.from_numpy(frames[i : i + ROWS])) for i in range(0, len(frames), ROWS)
    ]
    mu, logvar = (torch.cat(parts).numpy() for parts in zip(*pairs, strict=True))
    return mu, logvar


def _fingerprint(rollout: Path) -> str:
    return load_header(rollout, "rollout", f"delete it and {COLLECT}")["fingerprint"]
