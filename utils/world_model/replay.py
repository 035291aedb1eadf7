"""M replays a real drive: the first second is watched, the rest imagined from the actions.

Actions that were right on one road are wrong on another: as soon as the dreamt road bends otherwise
than the real one, such a dream ends in the grass, and only its beginning says what M is worth. How
it goes on with somebody at the wheel is seen in `dream_car_racing`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from models.dream import DreamWorld
from models.mdn_rnn import MDNRNN
from models.vae import VAE, decoded
from utils.pictures.film import replay_frame
from utils.pictures.video import write_video
from utils.simulator.envs import FPS
from utils.world_model.foresight import dream_on
from utils.world_model.latents import Encoded, Latents
from utils.world_model.starts import start_at, warm_up

WATCHED = 50  # frames of the real drive that M sees: the first second
DREAMED = 450  # most frames that it goes on alone
SECOND = 50  # frames


def replay(rnn: MDNRNN, drive: Latents, watched: int, temperature: float) -> np.ndarray:
    """Latents of the drive of T actions as M imagines them, (T, Z).

    Args:
        watched: frames, at most T or `starts.FRAMES` + 1, after which M sees only its own dream.
    """
    world, actions = DreamWorld(rnn, temperature), torch.from_numpy(drive.action)
    begun = warm_up(world, start_at(drive, watched - 1))
    dreamt = dream_on(world, *begun, actions[None, watched - 1 : -1], np.random.default_rng(0))
    return np.concatenate([drive.mu[:watched], dreamt[0].numpy()])


def holds_for(errors: np.ndarray, still: np.ndarray) -> int:
    """Frames for which a dream is nearer to the drive than if nothing had changed.

    Args:
        errors, still: (T,) of the dream's frames, and of the last watched one. It is their means
            over a second that are compared, so that nothing is said of less than that: a dream that
            does not hold for one is given its 49 frames.
    """
    if len(errors) < SECOND:
        return len(errors)
    worse = np.convolve(errors - still, np.ones(SECOND), "valid") >= 0
    return SECOND - 1 + int(worse.argmax()) if worse.any() else len(errors)


def replay_film(
    path: Path, vae: VAE, rnn: MDNRNN, episodes: list[Encoded], temperature: float
) -> bool:
    """Film the longest tidy drive among `episodes` beside M's dream of it, both decoded by V.

    The film is cut where the dream no longer holds; a sentence says when that is.

    Returns:
        Whether the film was made.
    """
    _, best = max(episodes, key=lambda e: (e[0].get("driver") == "autopilot", e[1].reward.sum()))
    drive = Latents(*(array[: WATCHED + DREAMED] for array in best))
    action, frames = drive.action, len(drive.action)
    imagined = replay(rnn, drive, min(WATCHED, frames), temperature)
    real, dreamt = decoded(vae, drive.mu[:frames]), decoded(vae, imagined)
    last = real[WATCHED - 1 : WATCHED]  # empty where the drive is that short
    errors, still = _error(dreamt[WATCHED:], real[WATCHED:]), _error(last, real[WATCHED:])
    holds = holds_for(errors, still)
    words = "less than a second" if holds < SECOND else f"{holds / FPS:.2f} s"
    both = [(0.0, 0.0)] * WATCHED + list(zip(errors, still, strict=True))

    def film() -> Iterator[np.ndarray]:
        for t in range(min(frames, WATCHED + holds)):
            yield replay_frame(real[t], dreamt[t], t, action[t], WATCHED, words, both[t])

    print(f"the dream of a drive holds for {words}, of {len(errors) / FPS:.2f}")
    return write_video(path, film())


def _error(frames: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Mean absolute difference of frames (T, 64, 64, 3), in grey levels, (T,)."""
    return np.abs(frames.astype(np.float32) - wanted).mean((1, 2, 3))
