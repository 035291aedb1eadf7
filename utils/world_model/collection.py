"""Stage 01's work: which episodes to collect, and how one is driven and recorded."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.drivers.registry import DRIVERS
from utils.runtime.errors import UserError
from utils.simulator import seeds
from utils.simulator.envs import DREAM_ID, make_env
from utils.simulator.road import road_of
from utils.storage.artifacts import if_sound
from utils.world_model.episodes import Episode, load_rollout, record, save_rollout

if TYPE_CHECKING:  # what a window needs is loaded where there is one
    from utils.drivers.keyboard import Copilot

COLUMNS = ("seed", "score", "frames", "tiles", "total_tiles")  # of the log
MOST_EPISODES = len(seeds.ROLLOUTS["autopilot"])  # of a driver that needs nobody at the keys


class Assignment(NamedTuple):
    """One episode to drive and record: plain data, enough to drive it anywhere."""

    path: str
    driver: str
    seed: int
    settings: Mapping[str, Any]  # of the driver
    env_id: str
    parameters: np.ndarray | None = None  # of C on plain [z, h], where the agent drives


def plan(
    directory: str, env_id: str, counts: dict[str, int], ranges: dict[str, tuple[float, float]]
) -> list[Assignment]:
    """`counts` episodes of each driver, every one on a track of its own.

    The autopilot's settings are drawn for each episode from `ranges`: the data needs slow and
    fast, tidy and sloppy driving alike, or V and M know nothing of the states where help is needed.
    """
    planned = []
    for driver, count in counts.items():
        for seed in seeds.ROLLOUTS[driver][:count]:
            rng = seeds.stream(seed, seeds.Draw.SETTINGS)
            drawn = {name: round(float(rng.uniform(*span)), 4) for name, span in ranges.items()}
            settings = drawn if driver == "autopilot" else {}
            path = Path(directory) / f"{driver}_{seed}.npz"
            planned.append(Assignment(str(path), driver, seed, settings, env_id))
    return planned


def header(assignment: Assignment) -> dict[str, Any]:
    """What the episode's file says about how it was made."""
    told = assignment._asdict()
    del told["path"], told["parameters"]
    return told


def is_collected(assignment: Assignment) -> bool:
    """Whether the episode is on disk, whole, and made as planned.

    Raises:
        UserError: it is a drive of the agent in another search, which nothing could bring back.
    """
    path = Path(assignment.path)
    loaded = if_sound(path, load_rollout, "Collecting it again.")
    if loaded is None:
        return False
    found, wanted = loaded[0], header(assignment)
    settings = found.get("settings")
    if assignment.driver == "agent" and isinstance(settings, dict):
        if settings.get("search") != assignment.settings["search"]:
            raise UserError(
                f"{path} was driven in another search, whose M learns from it; choose another "
                "folder (--own-rollouts), or delete that one."
            )
        wanted["settings"] = settings  # of an earlier generation, maybe
    return wanted.items() <= found.items()


_the_env = functools.cache(make_env)  # making one costs more than a reset


def collect(assignment: Assignment) -> dict[str, float]:
    """Drive and save one episode; returns a row for the log."""
    env = _the_env(assignment.env_id)
    obs, _ = env.reset(seed=assignment.seed)
    rng = seeds.stream(assignment.seed, seeds.Draw.DRIVER)
    driver = DRIVERS[assignment.driver](env, rng, **assignment.settings)
    episode, road = record(env, driver, obs), road_of(env)
    return save(assignment, episode, road.tiles, road.total_tiles)


def drive_by_keyboard(
    directory: str, episodes: int, env_id: str, copilot: "Copilot", hand_back: float, **options: Any
) -> Iterator[dict[str, float]]:
    """Races that the user drives in a window, until `episodes` came to their end or Esc is pressed.

    A race is kept as far as it was driven, unless it was dreamt: V and M learn from what is real.

    Args:
        copilot, hand_back: as of the keyboard driver.
        options: of the environment.

    Yields:
        A row for every race with a frame.
    """
    from utils.drivers.keyboard import Keyboard, Window

    taken = {path.name for path in Path(directory).glob("keyboard_*.npz")}
    free = (s for s in seeds.ROLLOUTS["keyboard"] if f"keyboard_{s}.npz" not in taken)
    roads = itertools.count() if env_id == DREAM_ID else free
    env = make_env(env_id, **options)
    with Window() as window:
        driver = Keyboard(env, window, copilot, hand_back)
        while episodes and not driver.quit:
            seed = next(roads)
            obs, _ = env.reset(seed=seed)
            driver.begin()
            episode = record(env, driver, obs)
            score, frames = float(episode.reward.astype(float).sum()), len(episode.action)
            if frames and env_id == DREAM_ID:
                yield {"seed": seed, "score": score, "frames": frames}
            elif frames:
                path = str(Path(directory) / f"keyboard_{seed}.npz")
                assignment = Assignment(path, "keyboard", seed, {}, env_id)
                road = road_of(env)
                yield save(assignment, episode, road.tiles, road.total_tiles)
            if not (driver.quit or driver.next_road):
                episodes -= 1
                last = bool(episode.terminated[-1]), float(episode.reward[-1])
                driver.conclude(episode.obs[-1], score, *last)


def save(
    assignment: Assignment, episode: Episode, tiles: int, total_tiles: int,
    score: float | None = None,
) -> dict[str, float]:  # fmt: skip
    """Write an episode as it was planned; returns its row for the log.

    Without a `score` it is the sum of the rewards.
    """
    summary = {
        "score": float(episode.reward.astype(float).sum()) if score is None else score,
        "frames": len(episode.action),
        "tiles": tiles,
        "total_tiles": total_tiles,
    }
    save_rollout(Path(assignment.path), episode, **header(assignment), **summary)
    return {"seed": assignment.seed, **summary}
