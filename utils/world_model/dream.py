"""M's dream of a real drive: the first second is watched, the rest imagined from the actions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.mdn_rnn import MDNRNN, sample_next
from models.vae import VAE, decoded
from utils.pictures.film import dream_frame, write_video
from utils.world_model.latents import Latents

WATCHED = 50  # frames of the real drive that M sees: the first second
DREAMED = 450  # frames that it goes on alone


@torch.inference_mode()
def dream(
    rnn: MDNRNN, mu: np.ndarray, action: np.ndarray, watched: int, temperature: float
) -> np.ndarray:
    """Latents of the drive as M imagines them, (T, Z).

    Args:
        mu: (>= watched, Z) what V saw; action: (T, 3) what was done in the real drive.
        watched: frames after which M sees only its own dream.
    """
    seen = torch.from_numpy(np.array(mu))
    actions = torch.from_numpy(np.array(action))
    z, state, latents = seen[0], None, []
    for t in range(len(actions)):
        latents.append(z)
        prediction, state = rnn(z.view(1, 1, -1), actions[t].view(1, 1, -1), state)
        imagined = sample_next(prediction, temperature)[0, 0]
        z = seen[t + 1] if t + 1 < watched else imagined
    return torch.stack(latents).numpy()


def dream_film(
    path: Path,
    vae: VAE,
    rnn: MDNRNN,
    episodes: list[tuple[dict[str, Any], Latents]],
    temperature: float,
) -> None:
    """Film the longest tidy drive among `episodes` beside M's dream of it, both decoded by V.

    Args:
        episodes: headers and latents, as `load_all` reads them.
    """
    _, best = max(episodes, key=lambda e: (e[0].get("driver") == "autopilot", e[1].reward.sum()))
    frames = min(len(best.action), WATCHED + DREAMED)
    mu, action = best.mu[: frames + 1], best.action[:frames]
    torch.manual_seed(0)
    imagined = dream(rnn, mu, action, WATCHED, temperature)

    def film() -> Iterator[np.ndarray]:
        for t in range(frames):
            real, dreamt = decoded(vae, np.stack([mu[t], imagined[t]]))
            yield dream_frame(real, dreamt, t, action[t], WATCHED)

    write_video(path, film())
