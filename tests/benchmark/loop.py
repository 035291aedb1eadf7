"""The decision loop (simulate, shrink, V, C, M): beside the same on stock, and its parts."""

import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import gymnasium as gym
import numpy as np
import torch

from benchmark.measuring import (
    PATIENCE,
    Effort,
    Figures,
    heading,
    line,
    speed_lines,
    take_turns,
)
from models.controller import pack, squash, unpack
from models.inference import ROWS, Encoder, Memory
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.racing import agent as driving
from utils.racing.agent import Agent, Races
from utils.racing.race import Race
from utils.simulator import fast_car_racing as simulator
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID, STOCK_ID, make_env, shrink
from utils.simulator.fast_car_racing import FastCarRacing
from utils.simulator.track_canvas import TrackCanvas
from utils.storage.networks import (
    controller_path,
    load_agent,
    rnn_path,
    vae_path,
)

CIRCLES = (0.3, -0.5, -1.0)  # bias of the C that stands in for a trained one: round and round


class Networks(NamedTuple):
    """V, M and C's parameters."""

    vae: VAE
    rnn: MDNRNN
    parameters: np.ndarray
    trained: bool


def load_networks(checkpoints: Path) -> Networks:
    """What is shipped, or networks of random weights and a C that drives in circles."""
    path = str(checkpoints)
    if all(p.exists() for p in (vae_path(path), rnn_path(path), controller_path(path))):
        agent = load_agent(path)
        return Networks(agent.vae, agent.rnn, agent.parameters, trained=True)
    torch.manual_seed(0)
    vae, rnn = (network.eval().requires_grad_(False) for network in (VAE(), MDNRNN()))
    width = vae.sizes["latent_dim"] + rnn.sizes["hidden"]
    parameters = pack(np.zeros((3, width)), np.array(CIRCLES)).astype(np.float32)
    return Networks(vae, rnn, parameters, trained=False)


def stock_race(env: gym.Env, networks: Networks, seed: int, most: int) -> int:
    """The decision loop as one would write it first: stock, batch 1, float32; returns frames."""
    vae, rnn, parameters, _ = networks
    weights, bias = (torch.from_numpy(part) for part in unpack(parameters))
    state, h = None, torch.zeros(1, rnn.sizes["hidden"])
    obs, _ = env.reset(seed=seed)
    count, over = 0, False
    with torch.no_grad():
        while not over and count < most:
            z, _ = vae.encode(torch.from_numpy(shrink(obs))[None])
            action = squash((torch.cat([z, h], -1) @ weights.T + bias).numpy())
            obs, _, terminated, truncated, _ = env.step(action[0])
            memory, state = rnn.lstm(torch.cat([z, torch.from_numpy(action)], -1)[None], state)
            h = memory[0]
            count, over = count + 1, terminated or truncated
    return count


class EndlessRaces:
    """Our decision loop with every row taken: a race that ends makes room for the next."""

    def __init__(self, networks: Networks) -> None:
        self._parameters = networks.parameters
        self._seeds = itertools.count(seeds.EVOLUTION)
        self._races = Races(FAST_ID, networks.vae, networks.rnn)
        for _ in range(ROWS):
            self._begin()

    def drive(self, advances: int) -> int:
        for _ in range(advances):
            for _ in self._races.advance():
                self._begin()
        return advances * ROWS

    def _begin(self) -> None:
        self._races.start(0, Race(next(self._seeds), self._parameters, PATIENCE))


def measure_loop(networks: Networks, effort: Effort) -> Figures:
    """Simulate, shrink, V, C, M: ours beside the same on the stock environment."""
    env, races = gym.make(STOCK_ID, disable_env_checker=True), EndlessRaces(networks)
    stock, ours = "stock, one race at a time, float32", f"ours, {ROWS} races in lock-step"
    stock_race(env, networks, 0, 20)
    races.drive(20)
    rates = take_turns(
        {
            stock: lambda turn: stock_race(env, networks, seeds.EVOLUTION + turn, effort.frames),
            ours: lambda turn: races.drive(effort.advances),
        },
        effort.turns,
        time.process_time,
    )
    heading("Decision loop on one core", "frames/s", "us a frame", "of stock")
    speed_lines(rates, stock)
    return {
        "stock_loop_frames_per_s": rates.of(stock),
        "loop_frames_per_s": rates.of(ours),
        "loop_over_stock": rates.ratio(ours, stock),
        "trained_networks": networks.trained,
    }


class Stopwatch:
    """Adds up the processor time spent in functions."""

    def __init__(self) -> None:
        self.seconds = defaultdict(float)

    def on(self, name: str, function: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            self.seconds[name] += time.process_time() - start
            return result

        return timed


def measure_parts(networks: Networks, effort: Effort) -> Figures:
    """Where the time of our loop goes."""
    watch = Stopwatch()

    def timed_env(env_id: str, render_mode: str | None = None) -> gym.Env:
        env = make_env(env_id)
        env.step, env.reset = watch.on("step", env.step), watch.on("reset", env.reset)
        return env

    with ExitStack() as stack:
        for owner, name in (
            (Encoder, "encode"), (Memory, "remember"), (Agent, "decide"),
            (FastCarRacing, "_observe"), (TrackCanvas, "view"), (TrackCanvas, "paint"),
            (simulator, "draw_dashboard"), (simulator, "draw_car"),
        ):  # fmt: skip
            stack.enter_context(
                mock.patch.object(owner, name, watch.on(name, getattr(owner, name)))
            )
        stack.enter_context(mock.patch.object(driving, "make_env", timed_env))
        races = EndlessRaces(networks)
        races.drive(20)
        watch.seconds.clear()
        start = time.process_time()
        count = races.drive(effort.advances * min(effort.turns, 2))
        total = time.process_time() - start
    spent = watch.seconds
    parts = {
        "simulate: physics": spent["step"] - spent["_observe"],
        "simulate: draw the road": spent["view"],
        "simulate: draw the car": spent["draw_car"],
        "simulate: draw the dashboard": spent["draw_dashboard"],
        "simulate: draw, the rest": spent["_observe"]
        - spent["view"]
        - spent["draw_car"]
        - spent["draw_dashboard"],
        "simulate: paint, spread over the races": spent["paint"],
        "simulate: the rest of resets": spent["reset"] - spent["paint"],
        "encode (V)": spent["encode"],
        "decide (C)": spent["decide"] - spent["encode"],
        "remember (M)": spent["remember"],
    }
    parts["bookkeeping, and the stopwatch itself"] = total - sum(parts.values())
    micro = {name: 1e6 * seconds / count for name, seconds in parts.items()}
    heading("... its parts", "us a frame", "share")
    for name, value in micro.items():
        line(name, f"{value:.1f}", f"{value / sum(micro.values()):.0%}")
    return {"loop_parts_us": micro}
