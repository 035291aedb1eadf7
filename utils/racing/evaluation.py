"""Stage 06's work: the report of a set of races, and the film of the best one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.mdn_rnn import expected_next
from models.vae import decoded
from utils.pictures.film import race_frame, write_video
from utils.racing.agent import Races
from utils.racing.race import Lap, Race
from utils.runtime.errors import UserError
from utils.storage.artifacts import load_json, save_json
from utils.storage.networks import TrainedAgent
from utils.storage.provenance import provenance

END_FRAMES = 75  # the last picture of the film stays for a second and a half


def summary(laps: Sequence[Lap]) -> dict[str, float]:
    """What a set of races comes to; sd is the population's, as papers report it."""
    scores = np.array([lap.score for lap in laps])
    return {
        "episodes": len(laps),
        "mean": float(scores.mean()),
        "sd": float(scores.std()),
        "min": float(scores.min()),
        "max": float(scores.max()),
        "laps_complete": sum(lap.complete for lap in laps),
        "frames": sum(lap.frames for lap in laps),
    }


def sentence(laps: Sequence[Lap]) -> str:
    """The summary, to print."""
    found = summary(laps)
    return (
        f"{found['mean']:.1f} ± {found['sd']:.1f} over {found['episodes']} tracks "
        f"(min {found['min']:.1f}, max {found['max']:.1f}), "
        f"{found['laps_complete']} of {found['episodes']} laps complete"
    )


def save_report(
    path: Path, laps: Sequence[Lap], made_from: dict[str, Any], wall: float, cpu: float
) -> None:
    """Write every race, what they come to, and where it all comes from."""
    episodes = [
        {
            "seed": lap.seed,
            "score": lap.score,
            "frames": lap.frames,
            "tiles": lap.tiles,
            "total_tiles": lap.total_tiles,
            "lap_complete": lap.complete,
        }
        for lap in laps
    ]
    save_json(
        path,
        {
            "kind": "report",
            **made_from,
            **provenance(),
            "wall_seconds": round(wall, 1),
            "processor_seconds": round(cpu, 1),
            **summary(laps),
            "per_episode": episodes,
        },
    )


def load_report(path: Path) -> dict[str, Any]:
    """Read a report back."""
    return load_json(path, "report")


def film(
    path: Path, moving: Path, env_id: str, trained: TrainedAgent, lap: Lap, look_every: int = 1,
    blind: str = "hold",
) -> bool:  # fmt: skip
    """Drive `lap` once more, in front of a camera.

    Args:
        path, moving: of the film, and of the moving picture that is made of its beginning.

    Returns:
        Whether the film was made.

    Raises:
        UserError: the film cannot be written, or the race went otherwise than it did before.
    """
    return write_video(path, _filmed(env_id, trained, lap, look_every, blind), moving)


@torch.inference_mode()
def _filmed(
    env_id: str, trained: TrainedAgent, lap: Lap, look_every: int, blind: str = "hold"
) -> Iterator[np.ndarray]:
    vae, rnn, parameters, _ = trained
    races = Races(env_id, vae, rnn, render_mode="rgb_array")
    races.start(0, Race(lap.seed, parameters, look_every=look_every, blind=blind))
    agent, begun = races.agent, races.running[0]
    assert begun is not None
    _, running = begun
    driven: list[tuple[int, Lap]] = []
    while not driven:
        (race, score, frames, tiles, total), seen = running.view(), agent.frames[0].copy()
        driven = races.advance()
        z = agent.features[0, : vae.sizes["latent_dim"]]
        expected = expected_next(rnn.predict(agent.h[:1].clone().unsqueeze(0)))[0, 0].numpy()
        redrawn, ahead = decoded(vae, np.stack([z, expected]))
        picture = race_frame(
            race, seen, redrawn, ahead, running.action, score, frames, tiles, total
        )
        yield picture
    _, filmed = driven[0]
    if (filmed.score, filmed.frames) != (lap.score, lap.frames):
        raise UserError(
            f"the filmed race on track {lap.seed} scored {filmed.score:.1f} instead of "
            f"{lap.score:.1f}; run python 06_evaluate.py again."
        )
    for _ in range(END_FRAMES):
        yield picture
