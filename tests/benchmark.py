"""Every figure of the README's table: how fast, and how true to stock, all measured in one run.

    python tests/benchmark.py                       about two minutes on two quiet cores
    python tests/benchmark.py --json FILE           the same figures as data
    python tests/benchmark.py --picture FILE.png    frames of stock and ours, and the difference
    python tests/benchmark.py --quick               seconds: is it the same game, does it all run?

Whatever is compared takes turns, so that a disturbance hits both. A figure is the median of its
turns, a ratio the median of the turns' ratios. On one core time is that core's processor time, on
several it is the clock on the wall. The shipped V, M and C drive where they are present; without
them networks of random weights do the same work.
"""

import argparse
import gc
import importlib
import itertools
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.runtime.start import run

import cv2
import frames
import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.box2d.car_racing import CarRacing
from torch import nn

from models.controller import pack, squash, unpack
from models.inference import ROWS, Encoder, Memory
from models.mdn_rnn import MDNRNN
from models.vae import VAE, sample, to_floats
from utils.racing import agent as driving
from utils.racing.agent import Agent, Races
from utils.racing.race import Race
from utils.runtime.workers import OneAtATime, Workers
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID, STOCK_ID, make_env, shrink
from utils.simulator.fast_car_racing import FastCarRacing
from utils.storage.artifacts import save_json
from utils.storage.networks import (
    controller_path,
    load_controller,
    load_rnn,
    load_vae,
    rnn_path,
    vae_path,
)
from utils.storage.provenance import ROOT, provenance
from utils.world_model.collection import Collector, plan
from utils.world_model.episodes import batches_of_frames, load_rollout
from utils.world_model.latents import Encoding, encode
from utils.world_model.sequences import batches, load_sequences
from utils.world_model.training import CLIP, Training

PATIENCE = 300  # frames without progress: a car that got lost must not prolong the measurement
CIRCLES = (0.3, -0.5, -1.0)  # bias of the C that stands in for a trained one: round and round

BARS = {  # what the simulator, the loop and the training were built to reach
    "env_over_stock": 25.0,
    "loop_over_stock": 15.0,
    "two_workers_over_one": 1.85,
    "vae_training_over_plain": 5.0,
    "encode_frames_per_s": 8000.0,
    "frame_psnr_db": 50.0,
    "frame_psnr_worst_db": 40.0,
    "frame_mae": 0.1,
    "physics_mismatches": 0,
    "env_megabytes": 40.0,
}
AT_MOST = ("frame_mae", "physics_mismatches", "env_megabytes")

Figures = dict[str, Any]


class Effort(NamedTuple):
    """How much is measured."""

    episodes: int  # recorded races, replayed on every simulator
    frames: int  # of each of them, and of a race on the stock loop
    compared: tuple[int, int]  # tracks, and frames of each, on which frames are compared
    physics: tuple[int, int]  # the same for states and rewards
    turns: int
    advances: int  # of the decision loop in a turn, ROWS frames each
    races: int  # that the workers share out
    patience: int  # in these races
    frame_batch: int  # of V's training, at most
    frame_batches: int  # of it in a turn
    paper_batches: int  # the same for the paper's networks
    episode_batch: int  # of M's training, at most
    cores: int  # that training uses


THOROUGH = Effort(
    episodes=4, frames=1000, compared=(15, 280), physics=(24, 400), turns=3, advances=700,
    races=96, patience=PATIENCE, frame_batch=10_000, frame_batches=15, paper_batches=3,
    episode_batch=1000, cores=os.cpu_count(),
)  # fmt: skip
QUICK = Effort(
    episodes=1, frames=60, compared=(1, 60), physics=(2, 60), turns=1, advances=20,
    races=2, patience=1, frame_batch=16, frame_batches=2, paper_batches=1,
    episode_batch=1, cores=1,
)  # fmt: skip


class Networks(NamedTuple):
    """V, M and C's parameters."""

    vae: VAE
    rnn: MDNRNN
    parameters: np.ndarray
    trained: bool


class PaperVAE(nn.Module):
    """The networks of World Models (2018), appendix A.1, plainly in PyTorch."""

    def __init__(self, latent_dim: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=2), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 128, 4, stride=2), nn.ReLU(),
            nn.Conv2d(128, 256, 4, stride=2), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.mu = nn.Linear(1024, latent_dim)
        self.logvar = nn.Linear(1024, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 1024), nn.Unflatten(1, (1024, 1, 1)),
            nn.ConvTranspose2d(1024, 128, 5, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 5, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 6, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 6, stride=2), nn.Sigmoid(),
        )  # fmt: skip

    def loss(self, frames: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error plus KL, as stage 02's; frames (B, 64, 64, 3) uint8."""
        images = to_floats(frames).contiguous()
        x = self.encoder(images)
        mu, logvar = self.mu(x), self.logvar(x)
        decoded = self.decoder(sample(mu, logvar))
        reconstruction = (decoded - images).square().sum((1, 2, 3)).mean()
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()
        return reconstruction + kl, {"reconstruction": reconstruction, "kl": kl}


# ---- measuring and printing ----


class Rates(dict):
    """Frames per second of every contender, one for each turn."""

    def of(self, name: str) -> float:
        return median(self[name])

    def ratio(self, name: str, other: str) -> float:
        return median(a / b for a, b in zip(self[name], self[other], strict=True))


def take_turns(
    contenders: dict[str, Callable[[int], int]], turns: int, clock: Callable[[], float]
) -> Rates:
    """Call each contender with the number of the turn; it returns how many frames it did."""
    rates = Rates({name: [] for name in contenders})
    gc.collect()
    for turn in range(turns):
        for name, work in contenders.items():
            start = clock()
            count = work(turn)
            rates[name].append(count / (clock() - start))
    return rates


def heading(title: str, *columns: str) -> None:
    print(f"\n{title:<52}" + "".join(f"{column:>15}" for column in columns), flush=True)


def line(label: str, *cells: float | str) -> None:
    row = f"  {label:<50}" + "".join(f"{_shown(cell):>15}" for cell in cells)
    print(row.rstrip(), flush=True)


def _shown(cell: float | str | None) -> str:
    if isinstance(cell, str | None):
        return "-" if cell is None else cell
    return f"{cell:,.0f}" if abs(cell) >= 1000 or cell == int(cell) else f"{cell:.4g}"


def speed_lines(rates: Rates, base: str) -> None:
    for name in rates:
        line(name, rates.of(name), 1e6 / rates.of(name), f"{rates.ratio(name, base):.2f} x")


@contextmanager
def threads(count: int) -> Iterator[None]:
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(1)


# ---- what is measured ----


def record_races(folder: Path, effort: Effort) -> list[Path]:
    """Some laps of the autopilot: the actions to replay, the frames to learn from."""
    races = plan(str(folder), FAST_ID, {"autopilot": effort.episodes}, {})
    collect = Collector()
    for race in races:
        collect(race)
    return [Path(race.path) for race in races]


def measure_simulators(rollouts: list[Path], effort: Effort) -> Figures:
    """The same races, action for action, on all simulators: resets and first second included."""
    episodes = []
    for path in rollouts:
        header, arrays = load_rollout(path)
        episodes.append((header["seed"], arrays["action"][: effort.frames]))
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

    def environment(env_id: str) -> gym.Env:
        return gym.make(env_id, disable_env_checker=True)

    undrawn_stock, undrawn = environment(STOCK_ID), environment(FAST_ID)
    undrawn_stock.unwrapped._render = lambda mode: None
    undrawn.unwrapped._observe = lambda: None
    undrawn.unwrapped.canvas.paint = lambda *world: None
    stock, bound, ours = "stock CarRacing-v3", "physics alone: stock, drawing nothing", "ours"
    contenders = {
        stock: contender(stock, environment(STOCK_ID)),
        bound: contender(bound, undrawn_stock, times=4),
        ours: contender(ours, environment(FAST_ID), times=4),
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
        a != b for seen in rewards.values() for a, b in zip(seen[stock], seen[ours], strict=True)
    )
    return {
        "stock_frames_per_s": rates.of(stock),
        "physics_frames_per_s": rates.of(bound),
        "env_frames_per_s": rates.of(ours),
        "env_over_stock": rates.ratio(ours, stock),
        "env_over_physics": rates.ratio(ours, bound),
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


def measure_fidelity(effort: Effort, replay: Figures, picture: str | None) -> Figures:
    """Frames, and to the bit states, rewards and tracks, beside stock's."""
    parts = {"later": frames.Comparison(), "opening": frames.Comparison()}
    pairs = {}
    tracks, steps = effort.compared
    for number, behaviour in zip(range(tracks), itertools.cycle(frames.BEHAVIOURS), strict=False):
        found = frames.compare_frames([number], steps, (behaviour,))
        for name, part in zip(parts, found, strict=True):
            _merge(parts[name], part)
            kind = behaviour if name == "later" else name
            if part.frames and part.worst <= pairs.get(kind, (np.inf,))[0]:
                pairs[kind] = part.worst, part.worst_frame[1:]
    if picture:
        frames.write_picture(picture, [pair for _, pair in pairs.values()])

    later, opening = parts["later"], parts["opening"]
    different = later.mismatches + opening.mismatches
    driven = later.frames + opening.frames + replay["replayed_frames"]
    tracks, steps = effort.physics
    numbers = range(500, 500 + tracks)
    for seed, behaviour in zip(numbers, itertools.cycle(frames.BEHAVIOURS), strict=False):
        envs = CarRacing(), FastCarRacing()
        driven += frames.compare_physics(*envs, seed, behaviour, steps, different)
    mismatches = len(different) + replay["replayed_rewards_that_differ"]

    heading("Is it the same game? ours beside stock", "frames", "PSNR", "worst", "mean error")
    for label, part in (("frames", later), ("frames of the zooming first second", opening)):
        decibels = f"{part.psnr:.1f} dB", f"{part.worst:.1f} dB"
        line(label, part.frames, *decibels, f"{part.mae:.3f} of 255")
    line("states, rewards, ends and tracks, to the bit", driven, f"{mismatches} differ")
    return {
        "frame_psnr_db": later.psnr,
        "frame_psnr_worst_db": later.worst,
        "frame_mae": later.mae,
        "frames_compared": later.frames,
        "opening_psnr_db": opening.psnr,
        "opening_psnr_worst_db": opening.worst,
        "opening_mae": opening.mae,
        "physics_mismatches": mismatches,
        "physics_frames_compared": driven,
    }


def _merge(total: frames.Comparison, part: frames.Comparison) -> None:
    total.frames += part.frames
    total.squared += part.squared
    total.absolute += part.absolute
    total.mismatches += part.mismatches
    total.worst = min(total.worst, part.worst)


def measure_memory() -> Figures:
    """Resident memory that one more environment takes, tracks painted and frames drawn.

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


def load_networks(checkpoints: Path) -> Networks:
    """What is shipped, or networks of random weights and a C that drives in circles."""
    path = str(checkpoints)
    if all(p.exists() for p in (vae_path(path), rnn_path(path), controller_path(path))):
        vae, vae_header = load_vae(path)
        rnn, rnn_header = load_rnn(path, vae_header["fingerprint"])
        parameters, _ = load_controller(controller_path(path), vae_header, rnn_header)
        return Networks(vae, rnn, parameters, trained=True)
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

    def timed_env(env_id: str) -> gym.Env:
        env = make_env(env_id)
        env.step, env.reset = watch.on("step", env.step), watch.on("reset", env.reset)
        return env

    with ExitStack() as stack:
        for owner, name in (
            (Encoder, "encode"), (Memory, "remember"), (Agent, "decide"), (driving, "shrink"),
            (FastCarRacing, "_observe"),
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
        "simulate: draw": spent["_observe"],
        "simulate: resets, spread over their races": spent["reset"],
        "shrink to 64x64": spent["shrink"],
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


def measure_workers(networks: Networks, effort: Effort) -> Figures:
    """The same races shared out to no, one and two worker processes."""
    setup = {"env_id": FAST_ID, "vae": networks.vae, "rnn": networks.rnn}
    first, patience = seeds.EVOLUTION, effort.patience
    races = [
        Race(seed, networks.parameters, patience) for seed in range(first, first + effort.races)
    ]
    scores = {}
    with ExitStack() as stack:

        def contender(count: int) -> Callable[[int], int]:
            workers = stack.enter_context(
                Workers(count, Races, setup, slots=ROWS, preload=["utils.racing.agent"])
            )
            # Every row of every worker gets its environment before time is taken.
            workers.run([Race(0, networks.parameters, patience=1)] * ROWS * max(count, 1))

            def drive(turn: int) -> int:
                laps = workers.run(races if count else races[::8])
                scores[count] = [lap.score for lap in laps]
                return sum(lap.frames for lap in laps)

            return drive

        names = {"in the main process": 0, "one worker": 1, "two workers": 2}
        contenders = {name: contender(count) for name, count in names.items()}
        rates = take_turns(contenders, min(effort.turns, 2), time.perf_counter)
    same = scores[1] == scores[2] and scores[1][::8] == scores[0]
    heading(f"Workers, {effort.races} races", "frames/s", "us a frame", "of one")
    speed_lines(rates, "one worker")
    line("their scores, to the last digit", "the same" if same else "DIFFERENT")
    return {
        "worker_frames_per_s": [rates.of(name) for name in names],
        "two_workers_over_one": rates.ratio("two workers", "one worker"),
        "same_scores_for_any_workers": same,
    }


def measure_encoding(rollouts: list[Path], networks: Networks, folder: Path) -> Figures:
    """Stage 03's way from rollouts on disk to latents on disk, on two cores."""
    folder.mkdir()
    jobs = [
        Encoding(str(path), str(folder / f"{copy}_{path.name}"), "benchmark")
        for copy in range(4)
        for path in rollouts
    ]
    with Workers(2, OneAtATime, {"function": encode, "vae": networks.vae}) as workers:
        workers.run(jobs[:1] * 4)
        rates = take_turns(
            {"encode": lambda turn: sum(workers.run(jobs))}, turns=3, clock=time.perf_counter
        )
    heading("Learning, on all cores", "frames/s", "us a frame", "of plain")
    line("03: rollouts to latents, two workers", rates.of("encode"), 1e6 / rates.of("encode"))
    return {"encode_frames_per_s": rates.of("encode")}


def measure_vae_training(rollouts: list[Path], effort: Effort, folder: Path) -> Figures:
    """Stage 02's steps, reading included, beside the paper's networks on frames in memory."""
    stage = importlib.import_module("02_train_vae")
    ours, paper = VAE().to(memory_format=torch.channels_last), PaperVAE()
    ours_training = _training(ours, folder, stage.LEARNING_RATE)
    paper_training = _training(paper, folder, stage.LEARNING_RATE)
    rng = np.random.default_rng(0)
    batch = min(stage.BATCH, effort.frame_batch)

    endless = itertools.chain.from_iterable(
        batches_of_frames(rollouts * 16, batch, 4, rng, stage.WORKERS) for _ in itertools.count()
    )
    kept = next(endless)

    def train_ours(turn: int) -> int:
        for pixels in itertools.islice(endless, effort.frame_batches):
            ours_training.step(*stage._loss(ours, pixels, stage.KL_TOLERANCE), done=0.0)
        return effort.frame_batches * batch

    def train_paper(turn: int) -> int:
        for _ in range(effort.paper_batches):
            paper_training.step(*paper.loss(torch.from_numpy(kept)), done=0.0)
        return effort.paper_batches * batch

    with threads(effort.cores):
        names = "02: V as trained here", "    the paper's networks in plain float32"
        contenders = dict(zip(names, (train_ours, train_paper), strict=True))
        rates = take_turns(contenders, 3 * effort.turns, time.perf_counter)
    speed_lines(rates, names[1])
    return {
        "vae_training_frames_per_s": rates.of(names[0]),
        "plain_vae_training_frames_per_s": rates.of(names[1]),
        "vae_training_over_plain": rates.ratio(*names),
    }


def measure_rnn_training(latents: Path, effort: Effort, folder: Path) -> Figures:
    """Stage 04's steps on whole episodes."""
    stage = importlib.import_module("04_train_mdn_rnn")
    rnn = MDNRNN(hidden=stage.HIDDEN, mixtures=stage.MIXTURES)
    training = _training(rnn, folder, stage.LEARNING_RATE, CLIP)
    sequences = load_sequences(sorted(latents.glob("*.npz")), workers=0)
    count = min(stage.BATCH, effort.episode_batch)
    sequences = list(itertools.islice(itertools.cycle(sequences), count))
    (group,) = batches(sequences, count, np.random.default_rng(0))

    def train(turn: int) -> int:
        for loss, parts in stage._losses(rnn, group, stage.LENGTH):
            training.step(loss, parts, done=0.0)
        return sum(len(sequence.action) for sequence in group)

    name = "04: M"
    with threads(effort.cores):
        rates = take_turns({name: train}, effort.turns, time.perf_counter)
    line(name, rates.of(name), 1e6 / rates.of(name))
    return {"rnn_training_frames_per_s": rates.of(name)}


def _training(network: nn.Module, folder: Path, rate: float, clip: float | None = None) -> Training:
    training = Training(network, folder, type(network).__name__, {}, 1, rate, clip)
    next(training.epochs(seed=0))
    return training


def measure(effort: Effort, picture: str | None) -> Figures:
    """Everything, in the order in which it is printed."""
    start = time.monotonic()
    networks = load_networks(ROOT / "checkpoints")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = measure_memory()
        rollouts = record_races(folder / "rollouts", effort)
        figures |= measure_simulators(rollouts, effort)
        figures |= measure_fidelity(effort, figures, picture)
        figures |= measure_loop(networks, effort)
        figures |= measure_parts(networks, effort)
        figures |= measure_workers(networks, effort)
        figures |= measure_encoding(rollouts, networks, folder / "latents")
        figures |= measure_vae_training(rollouts, effort, folder)
        figures |= measure_rnn_training(folder / "latents", effort, folder)
    return {**figures, "seconds": time.monotonic() - start}


def verdict(figures: Figures) -> None:
    """What was wanted, and what was measured."""
    heading("What it was built to reach", "measured", "wanted")
    for name, bar in BARS.items():
        value = figures[name]
        missed = value is not None and (value > bar if name in AT_MOST else value < bar)
        wanted = f"{'<=' if name in AT_MOST else '>='} {_shown(bar)}"
        line(name, value, wanted, "missed" if missed else "")


def where(figures: Figures, origin: dict[str, str]) -> None:
    """Where and with what it was measured."""
    versions = ("gymnasium", "box2d", "torch", "numpy", "opencv-python", "pygame-ce", "python")
    print(f"\n{origin['machine']}; {figures['seconds']:.0f} s; commit {origin['commit']}")
    print(", ".join(f"{name} {origin[name]}" for name in versions))
    drivers = "the shipped" if figures["trained_networks"] else "untrained"
    print(f"{drivers} networks, V in {origin['arithmetic']}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as data")
    parser.add_argument("--picture", metavar="FILE", help="write frames side by side, as a PNG")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny version; its speeds mean little"
    )
    chosen = parser.parse_args(argv)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    figures = measure(QUICK if chosen.quick else THOROUGH, chosen.picture)
    origin = provenance()
    if chosen.quick:
        print("\nA quick run: too short for its figures to mean much.")
    else:
        verdict(figures)
    where(figures, origin)
    if chosen.json:
        contents = {"kind": "benchmark", "quick": chosen.quick, **figures, "provenance": origin}
        save_json(chosen.json, contents)


if __name__ == "__main__":
    run(main)
