"""Candidates drive in M's dream instead of on the track: all from the same real moments, with the
same luck, so that whoever gets more out of it drives better.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.controller import squash, unpack
from models.dream import DreamWorld, Luck
from models.inference import arithmetic
from models.mdn_rnn import MDNRNN
from utils.evolution.fitness import Groups
from utils.runtime.cluster import Cluster
from utils.runtime.progress import run_jobs
from utils.runtime.workers import OneAtATime, Workers
from utils.world_model.starts import Starts, warm_up

DREAMS = 256  # dreams advanced at once in one process; 64 candidates are two such jobs
PACE_KEPT = 0.95  # of the average reward in each frame, so that it looks back 20 frames
LOST = 0.15  # points a frame; below it a dream is over, as a race is without a new tile
WARMED = 64  # memories warmed up at once

Seed = tuple[int, ...]


class Dreams(NamedTuple):
    """What some candidates are to dream, in all at most DREAMS dreams."""

    parameters: np.ndarray  # (N, 867) of C on plain [z, h]
    starts: Starts  # U of them
    seeds: Sequence[Seed]  # (U,) of the luck from there on
    which: np.ndarray  # (N, S) of the starts are a candidate's
    horizon: int  # frames


class Dreamer:
    """The function of a `utils.runtime.workers.OneAtATime`: `Dreams` -> what they come to.

    C reads the h of `rnn`, and the dream is that of `dreaming`, another M or the very same; both in
    the arithmetic in which V sees, for bfloat16 is three times as fast where there is any.
    The networks always get as many rows, whether or not they are all in use, so that a result
    depends on its C, its start and its seed alone.
    """

    def __init__(self, rnn: MDNRNN, dreaming: MDNRNN, temperature: float) -> None:
        dtype = getattr(torch, arithmetic())
        self._world = DreamWorld(dreaming, temperature, dtype)
        another = dreaming is not rnn  # asked here in the main process: a worker gets copies
        self._memory = DreamWorld(rnn, dtype=dtype) if another else None

    @torch.inference_mode()
    def __call__(self, dreams: Dreams) -> np.ndarray:
        """Returns (N, S) float32: the rewards that M expects, in points, summed over the frames,
        each weighted by the probability that the race is not over yet.

        A dream without progress is over. M has seen many cars return to the road, and dreams of
        that whatever the driver does; with no more to gain, leaving the road costs what it should.
        """
        count, starts = dreams.which.shape
        candidates = DREAMS // starts
        which = np.zeros((candidates, starts), int)
        which[:count] = dreams.which
        of_row = torch.from_numpy(which.ravel())
        parameters = np.zeros((candidates, dreams.parameters.shape[1]), np.float32)
        parameters[:count] = dreams.parameters
        weights, bias = map(torch.from_numpy, unpack(parameters))
        weights, bias = weights.transpose(1, 2).contiguous(), bias.unsqueeze(1)

        luck = _luck(dreams, self._world)
        z, world_h, world_c = _warmed_up(self._world, dreams.starts, of_row)
        h, c = world_h, world_c
        if self._memory:
            _, h, c = _warmed_up(self._memory, dreams.starts, of_row)
        total, running, pace = torch.zeros(len(z)), torch.ones(len(z)), torch.ones(len(z))
        for t in range(dreams.horizon):
            features = torch.cat([z, h], 1).unflatten(0, (candidates, starts))
            raw = torch.baddbmm(bias, features, weights).flatten(0, 1)
            action = torch.from_numpy(squash(raw.numpy()))
            world_h, world_c = self._world.remember(z, action, world_h, world_c)
            h, c = self._memory.remember(z, action, h, c) if self._memory else (world_h, world_c)
            now = Luck(luck.gumbel[t, of_row], luck.normal[t, of_row])
            z, reward, ended = self._world.imagine(world_h, now)
            total += running * reward
            pace = PACE_KEPT * pace + (1 - PACE_KEPT) * reward
            running *= (1 - ended) * (pace > LOST)
        return total.unflatten(0, (candidates, starts))[:count].numpy()


def dream(
    workers: Workers, parameters: np.ndarray, groups: Groups, starts: Starts,
    seeds: Sequence[Seed], horizon: int,
) -> np.ndarray:  # fmt: skip
    """Let all candidates dream, behind a progress bar: parameters (N, 867) -> returns (N, S).

    Each group dreams from starts of its own, all its members from the same: the first from the
    first S of them, the second from the next.
    """
    each = len(seeds) // len(groups)
    share, of_candidate = DREAMS // each, np.empty((len(parameters), each), int)
    for i, group in enumerate(groups):
        of_candidate[list(group)] = np.arange(i * each, (i + 1) * each)
    order = np.concatenate([np.asarray(group) for group in groups])
    jobs, dreamers = [], [order[i : i + share] for i in range(0, len(order), share)]
    for some in dreamers:
        used, which = np.unique(of_candidate[some], return_inverse=True)
        jobs.append(Dreams(
            parameters[some], starts.take(used), [seeds[i] for i in used],
            which.reshape(-1, each), horizon,
        ))  # fmt: skip
    returns = np.empty(of_candidate.shape, np.float32)
    found = run_jobs(workers, jobs, "dreaming", "batch", leave=False)
    for some, values in zip(dreamers, found, strict=True):
        returns[some] = values
    return returns


def _warmed_up(world: DreamWorld, starts: Starts, of_row: Tensor) -> list[Tensor]:
    """`warm_up`, always of as many at once, for the rows that begin there."""
    count, found = len(starts.seen), []
    for i in range(0, count, WARMED):
        found.append(warm_up(world, starts.take(np.arange(i, i + WARMED) % count)))
    return [torch.cat(parts)[of_row] for parts in zip(*found, strict=True)]


def _luck(dreams: Dreams, world: DreamWorld) -> Luck:
    """The luck of all frames, (T, S, ...), drawn by each start's own seed."""
    drawn = [Luck.draw(np.random.default_rng(s), dreams.horizon, world.sizes) for s in dreams.seeds]
    return Luck(*(torch.stack(parts, 1) for parts in zip(*drawn, strict=True)))


def dreaming_workers(
    count: int, rnn: MDNRNN, dreaming: MDNRNN, temperature: float, cluster: Cluster | None = None
) -> Workers:
    """So many workers, each of whom is a `Dreamer`."""
    setup = {"function": Dreamer(rnn, dreaming, temperature)}
    return Workers(count, OneAtATime, setup, cluster=cluster)
