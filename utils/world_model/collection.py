"""Stage 01's work: which episodes to collect, and how one is driven and recorded."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.drivers.registry import DRIVERS
from utils.runtime.errors import UserError
from utils.simulator import seeds
from utils.simulator.envs import DREAM_ID, STOCK_ID, make_env
from utils.world_model.episodes import Episode, load_rollout, record, save_rollout

COLUMNS = ("seed", "score", "frames", "tiles", "total_tiles")  # of the log
MOST_EPISODES = len(seeds.ROLLOUTS["autopilot"])  # of a driver, as many as it has tracks


class Assignment(NamedTuple):
    """One episode to drive and record: plain data, enough to drive it anywhere."""

    path: str
    driver: str
    seed: int
    settings: Mapping[str, float]  # of the driver
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
    return {
        "driver": assignment.driver,
        "seed": assignment.seed,
        "settings": assignment.settings,
        "env_id": assignment.env_id,
    }


def is_collected(assignment: Assignment) -> bool:
    """Whether the episode is on disk, whole, and made as planned."""
    path = Path(assignment.path)
    if not path.exists():
        return False
    try:
        found, _ = load_rollout(path)
    except UserError as error:
        print(f"{error} Collecting it again.")
        return False
    wanted = header(assignment)
    if assignment.driver == "agent":  # its search has gone on since
        del wanted["settings"]
    return wanted.items() <= found.items()


class Collector:
    """Drives and saves episodes, all in one environment: making one costs more than a reset."""

    def __init__(self) -> None:
        self._envs: dict[str, Any] = {}

    def __call__(self, assignment: Assignment) -> dict[str, float]:
        """Drive and save one episode; returns a row for the log."""
        if assignment.env_id not in self._envs:
            self._envs[assignment.env_id] = make_env(assignment.env_id)
        env = self._envs[assignment.env_id]
        obs, _ = env.reset(seed=assignment.seed)
        rng = seeds.stream(assignment.seed, seeds.Draw.DRIVER)
        driver = DRIVERS[assignment.driver](env, rng, **assignment.settings)
        return _record_and_save(assignment, env, driver, obs)


def drive_by_keyboard(directory: str, episodes: int) -> Iterator[dict[str, float]]:
    """Races that the user drives in a window, until `episodes` are saved or Esc is pressed."""
    from utils.drivers.keyboard import Keyboard, Window

    taken = {path.name for path in Path(directory).glob("keyboard_*.npz")}
    seed = seeds.ROLLOUTS["keyboard"][0]
    with Window() as window:
        env = make_env(STOCK_ID, render_mode="rgb_array")
        for _ in range(episodes):
            while f"keyboard_{seed}.npz" in taken:
                seed += 1
            path = str(Path(directory) / f"keyboard_{seed}.npz")
            assignment = Assignment(path, "keyboard", seed, {}, STOCK_ID)
            obs, _ = env.reset(seed=seed)
            driver = Keyboard(env, window)
            row = _record_and_save(assignment, env, driver, obs)
            seed += 1
            yield row
            if driver.quit:
                return


def dream_by_keyboard(episodes: int, **options: Any) -> Iterator[dict[str, float]]:
    """Dreams that the user drives through in a window, until there were `episodes` or Esc is
    pressed. None of them is kept: V and M learn from what is real.

    Args:
        options: of the dream's environment.
    """
    from utils.drivers.keyboard import Keyboard, Window

    env = make_env(DREAM_ID, render_mode="rgb_array", **options)
    with Window() as window:
        for seed in range(episodes):
            obs, _ = env.reset(seed=seed)
            driver = Keyboard(env, window)
            episode = record(env, driver, obs)
            score = float(episode.reward.astype(float).sum())
            yield {"seed": seed, "score": score, "frames": len(episode.action)}
            if driver.quit:
                return


def _record_and_save(
    assignment: Assignment, env: Any, driver: Any, obs: np.ndarray
) -> dict[str, float]:
    episode, car_env = record(env, driver, obs), env.unwrapped
    return save(assignment, episode, car_env.tile_visited_count, len(car_env.track))


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
