"""Stage 06's work: the report of a set of races, and the film of the best one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.mdn_rnn import expected_next
from models.vae import decoded
from utils.pictures.film import race_frame, write_video
from utils.pictures.plots import worst_laps
from utils.racing.agent import Agent
from utils.racing.race import Lap
from utils.runtime.errors import UserError
from utils.simulator.envs import make_env, shrink
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


def picture_worst(path: Path, laps: Sequence[Lap]) -> None:
    """Maps of the worst laps, each with the spot of the first tile that was never touched."""
    maps = [
        {
            "seed": lap.seed,
            "score": lap.score,
            "frames": lap.frames,
            "tiles": lap.tiles,
            "total_tiles": lap.total_tiles,
            "track": lap.track,
            "path": lap.positions,
            "lost_at": tuple(lap.track[lap.missed[0]]) if lap.missed else None,
        }
        for lap in laps
    ]
    worst_laps(path, maps)


def load_report(path: Path) -> dict[str, Any]:
    """Read a report back."""
    return load_json(path, "report")


def film(
    path: Path, env_id: str, trained: TrainedAgent, lap: Lap, look_every: int = 1
) -> None:
    """Drive `lap` once more, in front of a camera.

    Raises:
        UserError: the film cannot be written, or the race went otherwise than it did before.
    """
    write_video(path, _filmed(env_id, trained, lap, look_every))


@torch.inference_mode()
def _filmed(
    env_id: str, trained: TrainedAgent, lap: Lap, look_every: int
) -> Iterator[np.ndarray]:
    vae, rnn, parameters, _ = trained
    env = make_env(env_id, render_mode="rgb_array")
    car_env = env.unwrapped
    agent = Agent(vae, rnn)
    agent.begin(0, parameters, look_every)
    obs, _ = env.reset(seed=lap.seed)
    score, frames, over = 0.0, 0, False
    latent_dim = vae.sizes["latent_dim"]
    picture = None
    while not over:
        agent.frames[0] = shrink(obs)
        actions = agent.decide()
        agent.remember(actions)
        z = agent.features[0, :latent_dim].copy()
        expected = expected_next(rnn.predict(agent.h[:1].clone().unsqueeze(0)))[0, 0].numpy()
        reconstruction, ahead = decoded(vae, np.stack([z, expected]))
        picture = race_frame(
            env.render(), agent.frames[0], reconstruction, ahead, actions[0], score, frames,
            car_env.tile_visited_count, len(car_env.track),
        )  # fmt: skip
        yield picture
        obs, reward, terminated, truncated, _ = env.step(actions[0])
        score += float(reward)
        frames += 1
        over = terminated or truncated
    env.close()
    if (score, frames) != (lap.score, lap.frames):
        raise UserError(
            f"the filmed race on track {lap.seed} scored {score:.1f} instead of {lap.score:.1f}; "
            "run python 06_evaluate.py again."
        )
    for _ in range(END_FRAMES):
        yield picture
