"""Episodes on disk: what was seen and done in one race, one file each.

action[t] was chosen on seeing obs[t]; reward[t], terminated[t] and obs[t + 1] are its outcome, so
obs has one frame more than action. Stage 03 adds the latents of every episode in a folder beside.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from utils.runtime.errors import UserError
from utils.simulator.envs import FRAME_SIZE, shrink
from utils.storage.artifacts import fingerprint, load_arrays, load_header, save_arrays
from utils.storage.provenance import game, is_of_this_game

COLLECT = "run python 01_collect_rollouts.py"
ENCODE = "run python 03_encode_dataset.py"


def record(env: Any, driver: Any, obs: np.ndarray) -> dict[str, np.ndarray]:
    """Let `driver` drive the race that `env` has just reset to `obs`; returns its arrays.

    Returns:
        obs (T + 1, 64, 64, 3) uint8, action (T, 3) float32, reward (T,) float32,
        terminated (T,) bool.
    """
    frames, actions, rewards, ends = [shrink(obs)], [], [], []
    over = False
    while not over:
        action = driver.act(obs)
        obs, reward, terminated, truncated, _ = env.step(action)
        frames.append(shrink(obs))
        actions.append(action)
        rewards.append(reward)
        ends.append(terminated)
        over = terminated or truncated or getattr(driver, "quit", False)
    return {
        "obs": np.stack(frames),
        "action": np.array(actions, np.float32),
        "reward": np.array(rewards, np.float32),
        "terminated": np.array(ends, bool),
    }


def save_rollout(path: Path, arrays: dict[str, np.ndarray], **header: Any) -> str:
    """Write one episode, with the versions of the game; returns its fingerprint."""
    return save_arrays(path, "rollout", arrays, **header, versions=game())


def load_rollout(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one episode back, refusing arrays that do not belong together."""
    header, arrays = load_arrays(path, "rollout", f"delete it and {COLLECT}")
    count = len(arrays["action"]) if "action" in arrays else 0
    demand_arrays(
        path, arrays, COLLECT,
        obs=((count + 1, FRAME_SIZE, FRAME_SIZE, 3), np.uint8),
        action=((count, 3), np.float32),
        reward=((count,), np.float32),
        terminated=((count,), np.bool_),
    )  # fmt: skip
    _demand_this_game(path, header)
    return header, arrays


def _demand_this_game(path: Path, header: dict[str, Any]) -> None:
    if not is_of_this_game(header):
        raise UserError(
            f"{path} was driven in another game ({header['versions']}, here {game()}); "
            f"delete it and {COLLECT}."
        )


def demand_arrays(path: Path, arrays: dict[str, np.ndarray], remedy: str, **wanted: tuple) -> None:
    found = {name: (array.shape, array.dtype.type) for name, array in arrays.items()}
    if found != wanted or not len(arrays["action"]):
        raise UserError(f"{path} does not hold the arrays of an episode; delete it and {remedy}.")


def episodes(directory: str | Path, kind: str, remedy: str) -> list[Path]:
    """All episode files of a folder, in the order of their names."""
    directory = Path(directory)
    paths = sorted(p for p in directory.glob("*.npz") if ".tmp." not in p.name)
    if not paths:
        raise UserError(f"{directory} holds no {kind}; {remedy}.")
    return paths


def rollouts(directory: str | Path) -> tuple[list[Path], str]:
    """The rollouts of a folder, and the fingerprint of them all."""
    return with_fingerprint(directory, "rollout", COLLECT)


def with_fingerprint(directory: str | Path, kind: str, remedy: str) -> tuple[list[Path], str]:
    paths = episodes(directory, kind, remedy)
    headers = {path: load_header(path, kind, f"delete it and {remedy}") for path in paths}
    for path, header in headers.items():
        _demand_this_game(path, header)
    return paths, fingerprint({path.name: headers[path]["fingerprint"] for path in paths})


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
        frames = np.concatenate([rest, *(arrays["obs"] for _, arrays in group)])
        group.clear()  # `ahead` still holds the list
        shuffled = rng.permutation(len(frames))
        whole = len(frames) - len(frames) % batch
        for start in range(0, whole, batch):
            yield frames[shuffled[start : start + batch]]
        rest = frames[shuffled[whole:]]


def ahead(paths: list[Path], pool: int, workers: int) -> Iterator[list]:
    """Groups of `pool` rollouts, the next group being read by `workers` threads meanwhile."""
    groups = [paths[i : i + pool] for i in range(0, len(paths), pool)]
    if workers == 0:
        for group in groups:
            yield [load_rollout(path) for path in group]
        return
    with ThreadPoolExecutor(workers) as threads:
        coming = [threads.submit(load_rollout, path) for path in groups[0]]
        for following in [*groups[1:], []]:
            group = [future.result() for future in coming]
            coming = [threads.submit(load_rollout, path) for path in following]
            yield group
