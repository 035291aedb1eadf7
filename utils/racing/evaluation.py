"""Stage 06's work: the report of a set of races, or of dreams, and the film of the best one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from models.mdn_rnn import expected_next
from models.vae import decoded
from utils.pictures.film import dreaming_frame, race_frame, write_video
from utils.racing.agent import Races
from utils.racing.race import Lap, Race
from utils.runtime.errors import UserError
from utils.simulator.envs import DREAM_ID, FAST_ID
from utils.storage.artifacts import load_json, save_json
from utils.storage.networks import TrainedAgent
from utils.storage.provenance import provenance

END_FRAMES = 75  # the last picture of the film stays for a second and a half


def summary(laps: Sequence[Lap]) -> dict[str, float]:
    """What a set of races comes to; sd is the population's, as papers report it.

    Of dreams, which have no tiles, there are no laps.
    """
    scores = np.array([lap.score for lap in laps])
    complete = {"laps_complete": sum(lap.complete for lap in laps)}
    return {
        "episodes": len(laps),
        "mean": float(scores.mean()),
        "sd": float(scores.std()),
        "min": float(scores.min()),
        "max": float(scores.max()),
        **({} if laps[0].dreamt else complete),
        "frames": sum(lap.frames for lap in laps),
    }


def sentence(laps: Sequence[Lap]) -> str:
    """The summary, to print."""
    found = summary(laps)
    kind, further = "tracks", f"{found.get('laps_complete')} of {found['episodes']} laps complete"
    if laps[0].dreamt:
        kind, further = "dreams", f"{found['frames'] / found['episodes']:.0f} frames each"
    return (
        f"{found['mean']:.1f} ± {found['sd']:.1f} over {found['episodes']} {kind} "
        f"(min {found['min']:.1f}, max {found['max']:.1f}), {further}"
    )


def save_report(
    path: Path, laps: Sequence[Lap], made_from: dict[str, Any], wall: float, cpu: float
) -> None:
    """Write every race, what they come to, and where it all comes from."""
    episodes = [_episode(lap) for lap in laps]
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


def _episode(lap: Lap) -> dict[str, Any]:
    of_the_track = {
        "tiles": lap.tiles,
        "total_tiles": lap.total_tiles,
        "lap_complete": lap.complete,
    }
    came_to = {"seed": lap.seed, "score": lap.score, "frames": lap.frames}
    return came_to | ({} if lap.dreamt else of_the_track)


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
    _demand_same(driven[0][1], lap)
    for _ in range(END_FRAMES):
        yield picture


def film_dream(
    path: Path,
    options: dict[str, Any],
    trained: TrainedAgent,
    lap: Lap,
    look_every: int = 1,
    blind: str = "hold",
) -> bool:
    """Dream `lap` once more, beside a race of the same agent on the track of the same seed.

    Args:
        options: of the dream's environment.

    Returns:
        Whether the film was made.

    Raises:
        UserError: the film cannot be written, or the dream went otherwise than it did before.
    """
    return write_video(path, _filmed_dream(options, trained, lap, look_every, blind))


def _filmed_dream(
    options: dict[str, Any], trained: TrainedAgent, lap: Lap, look_every: int, blind: str
) -> Iterator[np.ndarray]:
    race = Race(lap.seed, trained.parameters, look_every=look_every, blind=blind)
    on_a_track = _scenes(FAST_ID, trained, race)
    real = next(on_a_track)
    for dream in _scenes(DREAM_ID, trained, race, **options):
        picture = dreaming_frame(
            dream.picture, real.picture, dream.rewards, real.rewards, **dream.info
        )
        yield picture
        real = next(on_a_track, real)  # where it is over, its last picture stays
    assert dream.lap is not None
    _demand_same(dream.lap, lap)
    for _ in range(END_FRAMES):
        yield picture


class _Scene(NamedTuple):
    picture: np.ndarray
    rewards: list[float]  # up to this frame's
    info: dict[str, Any]  # what the environment says of what came of it
    lap: Lap | None  # with the last frame


@torch.inference_mode()
def _scenes(env_id: str, trained: TrainedAgent, race: Race, **options: Any) -> Iterator[_Scene]:
    """A race before a camera, frame by frame."""
    races = Races(env_id, trained.vae, trained.rnn, render_mode="rgb_array", **options)
    races.start(0, race)
    begun = races.running[0]
    assert begun is not None
    _, running = begun
    rewards: list[float] = []
    lap: Lap | None = None
    while lap is None:
        picture, *_ = running.view()
        driven = races.advance()
        lap = driven[0][1] if driven else None
        rewards.append(running.reward)
        yield _Scene(picture, [*rewards], running.info, lap)


def _demand_same(filmed: Lap, lap: Lap) -> None:
    if (filmed.score, filmed.frames) != (lap.score, lap.frames):
        what = "dream" if lap.dreamt else "race on track"
        raise UserError(
            f"the filmed {what} {lap.seed} scored {filmed.score:.1f} instead of "
            f"{lap.score:.1f}; run python 06_evaluate.py again."
        )
