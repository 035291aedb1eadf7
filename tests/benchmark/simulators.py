"""The same races on stock, ours and EnvPool: how fast, and how much memory ours takes."""

import gc
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from benchmark.measuring import (
    Effort,
    Figures,
    heading,
    line,
    speed_lines,
    take_turns,
)
from utils.simulator.envs import FAST_ID, FRAME_SIZE, STOCK_ID, make_env
from utils.world_model.collection import collect, plan
from utils.world_model.episodes import load_rollout


def record_races(folder: Path, effort: Effort) -> list[Path]:
    """Some laps of the autopilot: the actions to replay, the frames to learn from."""
    races = plan(str(folder), FAST_ID, {"autopilot": effort.episodes}, {})
    for race in races:
        collect(race)
    return [Path(race.path) for race in races]


def measure_simulators(rollouts: list[Path], effort: Effort) -> Figures:
    """The same races, action for action, on all simulators: resets and first second included."""
    episodes = []
    for path in rollouts:
        header, episode = load_rollout(path)
        episodes.append((header["seed"], episode.action[: effort.frames]))
    rewards = defaultdict(dict)

    def contender(name: str, env: Any, times: int = 1) -> Callable[[int], int]:
        env.reset(seed=0)

        def replay(turn: int) -> int:
            seed, actions = episodes[turn % len(episodes)]
            for _ in range(times):
                env.reset(seed=seed)
                rewards[turn][name] = [env.step(action)[1] for action in actions]
            return times * len(actions)

        return replay

    def environment(env_id: str, **options: int) -> gym.Env:
        return gym.make(env_id, disable_env_checker=True, **options)

    undrawn_stock, undrawn = environment(STOCK_ID), environment(FAST_ID)
    undrawn_stock.unwrapped._render = lambda mode: None
    undrawn.unwrapped._observe = lambda: None
    undrawn.unwrapped.canvas.paint = lambda *world: None
    undrawn.unwrapped.canvas.recolor_tile = lambda *tile: None
    stock, bound, ours = "stock CarRacing-v3", "physics alone: stock, drawing nothing", "ours"
    view = f"ours, the agent's view: {FRAME_SIZE}x{FRAME_SIZE}"
    contenders = {
        stock: contender(stock, environment(STOCK_ID)),
        bound: contender(bound, undrawn_stock, times=4),
        ours: contender(ours, environment(FAST_ID), times=4),
        view: contender(view, environment(FAST_ID, frame_size=FRAME_SIZE), times=4),
        "ours, drawing nothing": contender("ours, drawing nothing", undrawn, times=4),
    }
    envpool = make_envpool()
    if envpool is not None:
        contenders["EnvPool"] = envpool_contender(envpool, [actions for _, actions in episodes])
    rates = take_turns(contenders, min(effort.turns, len(episodes)), time.process_time)

    heading("Simulators, whole races on one core", "frames/s", "us a frame", "of stock")
    speed_lines(rates, stock)
    if envpool is None:
        line("EnvPool", "not installed")
    different = sum(
        a != b
        for seen in rewards.values()
        for name in (ours, view)
        for a, b in zip(seen[stock], seen[name], strict=True)
    )
    return {
        "stock_frames_per_s": rates.of(stock),
        "physics_frames_per_s": rates.of(bound),
        "env_frames_per_s": rates.of(ours),
        "env_over_stock": rates.ratio(ours, stock),
        "env_over_physics": rates.ratio(ours, bound),
        "env_over_envpool": rates.ratio(ours, "EnvPool") if envpool is not None else None,
        "view_frames_per_s": rates.of(view),
        "view_over_stock": rates.ratio(view, stock),
        "env_undrawn_frames_per_s": rates.of("ours, drawing nothing"),
        "envpool_frames_per_s": rates.of("EnvPool") if envpool is not None else None,
        "replayed_frames": sum(len(seen[stock]) for seen in rewards.values()),
        "replayed_rewards_that_differ": different,
    }


def make_envpool() -> Any:
    """EnvPool's CarRacing, or None where it is not installed (or not whole)."""
    try:
        import envpool
    except (ImportError, OSError):
        return None
    return envpool.make_gymnasium("CarRacing-v3", num_envs=1, num_threads=1, seed=0)


def envpool_contender(env: Any, actions: list[np.ndarray]) -> Callable[[int], int]:
    """Its tracks are others, so the actions lead elsewhere: the work is the same in kind."""
    env.reset()

    def replay(turn: int) -> int:
        env.reset()
        for action in actions[turn % len(actions)]:
            env.step(action[None])
        return len(actions[turn % len(actions)])

    return replay


def measure_memory() -> Figures:
    """Resident memory that one more environment of the loop takes, tracks painted, frames drawn.

    To be called first: later, environments would settle in memory that others have left.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return {"env_megabytes": None}
    count = 6

    def driven_env(seed: int) -> gym.Env:
        env = make_env(FAST_ID)
        for race in range(2):
            env.reset(seed=seed + race)
            for _ in range(60):
                env.step(np.array([0.1, 0.3, 0], np.float32))
        return env

    def resident() -> int:
        gc.collect()
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    envs = [driven_env(0)]
    before = resident()
    envs += [driven_env(10 * i) for i in range(1, count + 1)]
    megabytes = (resident() - before) / count / 1e6
    return {"env_megabytes": megabytes}
