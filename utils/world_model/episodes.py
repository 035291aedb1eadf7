"""Episodes on disk: what was seen and done in one race, one file each, called rollouts.

action[t] was chosen on seeing obs[t]; reward[t], terminated[t] and obs[t + 1] are its outcome, so
obs has one frame more than action. The header holds driver, seed, settings, env_id, score, frames,
tiles and total_tiles, and the versions of the game. Where the driver may change, as in a window, a
further array says who it was in every frame. Stage 03 adds the latents in a folder beside.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.runtime.errors import UserError
from utils.simulator.envs import FRAME_SIZE, shrink
from utils.storage.artifacts import fingerprint, forms, load_arrays, load_header, save_arrays
from utils.storage.files import files
from utils.storage.provenance import game, is_of_this_game
from utils.storage.remedies import remedy, whereabouts


class Episode(NamedTuple):
    """One race of T actions, as the driver saw it."""

    obs: np.ndarray  # (T + 1, 64, 64, 3) uint8
    action: np.ndarray  # (T, 3) float32: steering -1..1, gas 0..1, brake 0..1
    reward: np.ndarray  # (T,) float32
    terminated: np.ndarray  # (T,) bool
    by_agent: np.ndarray | None = None  # (T,) bool: who drove, where that is not always the same

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: array for name, array in self._asdict().items() if array is not None}


class Recorder:
    """An episode under way, in frames or in what V makes of them."""

    def __init__(self) -> None:
        self._frames: list[tuple] = []  # as noted

    def note(
        self, frame: np.ndarray, action: np.ndarray, reward: float, ended: bool,
        by_agent: bool | None = None,
    ) -> None:  # fmt: skip
        """What was seen, done, and gained by it; frame (64, 64, 3), or z (Z,), and action (3,).

        Args:
            by_agent: who did it, where that may change from frame to frame.
        """
        self._frames.append((frame, action.copy(), reward, ended, by_agent))

    def episode(self, last: np.ndarray) -> Episode:
        """The whole of it, up to the frame that was seen last."""
        frames, actions, rewards, ends, who = ([row[i] for row in self._frames] for i in range(5))
        return Episode(
            np.stack([*frames, last]),
            np.array(actions, np.float32).reshape(-1, 3),
            np.array(rewards, np.float32),
            np.array(ends, bool),
            None if None in who else np.array(who, bool),
        )


def record(env: Any, driver: Any, obs: np.ndarray) -> Episode:
    """Let `driver` drive the race that `env` has just reset to `obs`, or as far as it wants to."""
    recorder, frame, over = Recorder(), shrink(obs), False
    while not over and (action := driver.act(frame)) is not None:
        obs, reward, terminated, truncated, _ = env.step(action)
        by_agent = getattr(driver, "by_agent", None)
        recorder.note(frame, action, float(reward), terminated, by_agent)
        frame, over = shrink(obs), terminated or truncated
    return recorder.episode(frame)


def save_rollout(path: Path, episode: Episode, **header: Any) -> str:
    """Write one episode, with its length and the versions of the game; returns its fingerprint."""
    header |= {"frames": len(episode.action), "versions": game()}
    return save_arrays(path, "rollout", episode.arrays(), **header)


def load_rollout(path: Path) -> tuple[dict[str, Any], Episode]:
    """Read one episode back, refusing arrays that do not belong together."""
    header, arrays = load_arrays(path, "rollout")
    count = len(np.atleast_1d(arrays.get("action", 0)))
    who = {"by_agent": ((count,), np.bool_)} if "by_agent" in arrays else {}
    demand_arrays(
        path, "rollout", arrays, **who,
        obs=((count + 1, FRAME_SIZE, FRAME_SIZE, 3), np.uint8),
        action=((count, 3), np.float32),
        reward=((count,), np.float32),
        terminated=((count,), np.bool_),
    )  # fmt: skip
    demand_this_game(path, header)
    return header, Episode(**arrays)


def demand_this_game(path: Path, header: dict[str, Any]) -> None:
    """Refuse what was driven in another game, or does not say in which."""
    if not is_of_this_game(header):
        raise UserError(
            f"{path} was driven in another game ({header.get('versions', 'versions unknown')}, "
            f"here {game()}); {remedy(path, header['kind'])}."
        )


def demand_arrays(path: Path, kind: str, arrays: dict[str, np.ndarray], **wanted: tuple) -> None:
    """Refuse arrays of other names, shapes or types, and an episode without a frame."""
    if forms(arrays) != wanted or not len(arrays["action"]):
        raise UserError(f"{path} does not hold the arrays of an episode; {remedy(path, kind)}.")


def episodes(directory: str | Path, kind: str) -> list[Path]:
    """The files of all episodes of a folder, rollouts or latents, in the order of their names."""
    paths = files(directory)
    if not paths:
        raise UserError(
            f"{directory} holds no {kind.rstrip('s')}s{whereabouts(directory)}; "
            f"{remedy(directory, kind, missing=True)}."
        )
    return paths


def rollouts(directory: str | Path) -> tuple[list[Path], str]:
    """The rollouts of a folder, and the fingerprint of them all."""
    paths, marks = episodes(directory, "rollout"), {}
    for path in paths:
        header = load_header(path, "rollout")
        demand_this_game(path, header)
        if type(header.get("frames")) is not int:
            raise UserError(f"{path} does not say how long it is; {remedy(path, 'rollout')}.")
        marks[path.name] = header["fingerprint"]
    return paths, fingerprint(marks)


def count_frames(paths: list[Path]) -> int:
    """How many frames the rollouts hold, by their headers alone."""
    return sum(load_header(path, "rollout")["frames"] + 1 for path in paths)


def batches_of_frames(
    paths: list[Path], batch: int, pool: int, rng: np.random.Generator, workers: int
) -> Iterator[np.ndarray]:
    """All frames of all episodes once, shuffled, in batches (batch, 64, 64, 3).

    `pool` episodes at a time are in memory, their frames shuffled together, while `workers`
    threads read the next ones; which episodes share a pool changes with every call. So memory
    stays the same whatever the size of the data set. The last, incomplete batch is left out.
    """
    order = [paths[i] for i in rng.permutation(len(paths))]
    rest = np.zeros((0, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    for group in ahead(order, pool, workers):
        frames = np.concatenate([rest, *(episode.obs for episode in group)])
        group.clear()  # `ahead` still holds the list
        shuffled = rng.permutation(len(frames))
        whole = len(frames) - len(frames) % batch
        for start in range(0, whole, batch):
            yield frames[shuffled[start : start + batch]]
        rest = frames[shuffled[whole:]]


def ahead(paths: list[Path], pool: int, workers: int) -> Iterator[list[Episode]]:
    """Groups of `pool` episodes, the next group being read by `workers` threads meanwhile."""
    groups = [paths[i : i + pool] for i in range(0, len(paths), pool)]
    if workers == 0:
        for group in groups:
            yield [load_rollout(path)[1] for path in group]
        return
    with ThreadPoolExecutor(workers) as threads:
        coming = [threads.submit(load_rollout, path) for path in groups[0]]
        for following in [*groups[1:], []]:
            read = [future.result()[1] for future in coming]
            coming = [threads.submit(load_rollout, path) for path in following]
            yield read
