"""How much is measured, in turns, and how the figures are printed."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch

from utils.runtime.cores import cores

PATIENCE = 300  # frames without progress: a car that got lost must not prolong the measurement

BARS = {  # what the simulator, the loop and the training were built to reach
    "env_over_stock": 33.0,
    "env_over_envpool": 3.7,
    "view_over_stock": 40.0,
    "loop_over_stock": 22.0,
    "two_workers_over_one": 1.9,
    "vae_training_over_plain": 5.0,
    "encode_frames_per_s": 8000.0,
    "dream_over_loop": 30.0,
    "frame_psnr_db": 50.0,
    "frame_psnr_worst_db": 40.0,
    "frame_mae": 0.1,
    "view_psnr_db": 50.0,
    "view_psnr_worst_db": 40.0,
    "view_mae": 0.1,
    "physics_mismatches": 0,
    "env_megabytes": 40.0,
}
AT_MOST = ("frame_mae", "view_mae", "physics_mismatches", "env_megabytes")

Figures = dict[str, Any]


class Effort(NamedTuple):
    """How much is measured."""

    episodes: int  # recorded races, replayed on every simulator
    frames: int  # of each of them, and of a race on the stock loop
    compared: tuple[int, int]  # tracks, and frames of each, on which frames are compared
    physics: tuple[int, int]  # the same for states and rewards
    turns: int
    advances: int  # of the decision loop in a turn, ROWS frames each
    dreamt: int  # frames of each dream
    races: int  # that the workers share out
    patience: int  # in these races
    worker_turns: int  # of the workers, whose processors' speed changes from second to second
    counted: int  # thousands that a processor counts in a turn
    frame_batch: int  # of V's training, at most
    frame_batches: int  # of it in a turn
    paper_batches: int  # the same for the paper's networks
    episode_batch: int  # of M's training, at most
    cores: int  # that training uses


THOROUGH = Effort(
    episodes=4, frames=1000, compared=(15, 280), physics=(24, 400), turns=3, advances=700,
    dreamt=250, races=96, patience=PATIENCE, worker_turns=5, counted=100_000,
    frame_batch=10_000, frame_batches=15, paper_batches=3, episode_batch=1000, cores=cores(),
)  # fmt: skip
QUICK = Effort(
    episodes=1, frames=60, compared=(1, 60), physics=(2, 60), turns=1, advances=20, dreamt=3,
    races=2, patience=1, worker_turns=1, counted=10,
    frame_batch=16, frame_batches=2, paper_batches=1, episode_batch=1, cores=1,
)  # fmt: skip


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
    row = f"  {label:<50}" + "".join(f"{shown(cell):>15}" for cell in cells)
    print(row.rstrip(), flush=True)


def shown(cell: float | str | None) -> str:
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
