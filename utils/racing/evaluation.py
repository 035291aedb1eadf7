"""Stage 06's work: the report of a set of races, or of dreams, and the film of the best one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.pictures.film import dream_frame, race_frame
from utils.pictures.video import write_video
from utils.racing.agent import Agent, Races
from utils.racing.race import Lap, Race, RunningRace
from utils.runtime.errors import UserError
from utils.simulator.envs import DREAM_ID, FAST_ID
from utils.storage.artifacts import save_json
from utils.storage.networks import TrainedAgent
from utils.storage.provenance import provenance

END_FRAMES = 75  # the last picture of the film stays for a second and a half


def summary(laps: Sequence[Lap]) -> dict[str, float]:
    """What a set of races comes to; sd is the population's, as papers report it.

    Of dreams, which have no tiles, there are no laps.
    """
    scores = np.array([lap.score for lap in laps])
    return {
        "episodes": len(laps),
        "mean": float(scores.mean()),
        "sd": float(scores.std()),
        "min": float(scores.min()),
        "max": float(scores.max()),
        **({} if laps[0].dreamt else {"laps_complete": sum(lap.complete for lap in laps)}),
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
    save_json(
        path,
        {
            "kind": "report",
            **made_from,
            **provenance(),
            "wall_seconds": round(wall, 1),
            "processor_seconds": round(cpu, 1),
            **summary(laps),
            "per_episode": [_episode(lap) for lap in laps],
        },
    )


def _episode(lap: Lap) -> dict[str, Any]:
    told = {"seed": lap.seed, "score": lap.score, "frames": lap.frames}
    if not lap.dreamt:
        told |= {"tiles": lap.tiles, "total_tiles": lap.total_tiles, "lap_complete": lap.complete}
    return told


class Scene(NamedTuple):
    """A frame of a race before a camera."""

    shown: tuple  # what `RunningRace.view` showed before it
    seen: np.ndarray  # (64, 64, 3) uint8, what the agent saw then
    agent: Agent  # and the race, after the frame
    running: RunningRace
    rewards: list[float]  # up to this frame's
    lap: Lap | None  # with the last one


def scenes(env_id: str, trained: TrainedAgent, race: Race, **options: Any) -> Iterator[Scene]:
    """Drive a race frame by frame; `options` are those of the environment."""
    races = Races(env_id, trained.vae, trained.rnn, render_mode="rgb_array", **options)
    races.start(0, race)
    ((_, _, running),) = races.under_way
    rewards: list[float] = []
    lap = None
    while lap is None:
        shown, seen = running.view(), races.agent.frames[0].copy()
        lap = dict(races.advance()).get(0)
        rewards.append(running.reward)
        yield Scene(shown, seen, races.agent, running, [*rewards], lap)


def film(
    path: Path, moving: Path, env_id: str, trained: TrainedAgent, race: Race, lap: Lap
) -> bool:
    """Drive a race once more, in front of a camera.

    Args:
        path, moving: of the film, and of the moving picture that is made of its beginning.
        lap: what came of it before.

    Returns:
        Whether the film was made.

    Raises:
        UserError: the film cannot be written, or the race went otherwise than it did before.
    """

    def pictures() -> Iterator[np.ndarray]:
        for scene in scenes(env_id, trained, race):
            picture, *count = scene.shown
            redrawn, expected, _ = scene.agent.thoughts(0)
            yield race_frame(picture, scene.seen, redrawn, expected, scene.running.action, *count)
        _demand_same(scene.lap, lap)

    return write_video(path, _resting(pictures()), moving)


def film_dream(
    path: Path, options: dict[str, Any], trained: TrainedAgent, race: Race, lap: Lap
) -> bool:
    """Dream `race` once more, beside one of the same agent on the track of the same seed.

    Arguments, result and errors as of `film`; `options` are those of the dream's environment.
    """

    def pictures() -> Iterator[np.ndarray]:
        on_a_track = scenes(FAST_ID, trained, race)
        real = next(on_a_track)
        for dream in scenes(DREAM_ID, trained, race, **options):
            both = dream.shown[0], real.shown[0], dream.rewards, real.rewards
            yield dream_frame(*both, **dream.running.info)
            real = next(on_a_track, real)  # where it is over, its last picture stays
        _demand_same(dream.lap, lap)

    return write_video(path, _resting(pictures()))


def _resting(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same, and at the end the last one for END_FRAMES more."""
    for picture in pictures:
        yield picture
    for _ in range(END_FRAMES):
        yield picture


def _demand_same(filmed: Lap | None, lap: Lap) -> None:
    assert filmed is not None
    if (filmed.score, filmed.frames) != (lap.score, lap.frames):
        what = "dream" if lap.dreamt else "race on track"
        raise UserError(
            f"the filmed {what} {lap.seed} scored {filmed.score:.1f} instead of "
            f"{lap.score:.1f}; run python 06_evaluate.py again."
        )
