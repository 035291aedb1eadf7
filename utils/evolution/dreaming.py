"""Candidates drive in M's dream instead of on the track: all from the same real moments, with the
same luck, so that whoever gets more out of it drives better.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.controller import squash, unpack
from models.dream import Luck, World
from models.mdn_rnn import MDNRNN
from utils.runtime.workers import Workers
from utils.world_model.starts import Starts, warm_up

DREAMS = 512  # dreams advanced at once in one process, whoever they belong to
PACE_KEPT = 0.95  # of the average reward in each frame, so that it looks back 20 frames
LOST = 0.15  # points a frame; below it a dream is over, as a race is without a new tile

Seed = tuple[int, ...]


class Dreams(NamedTuple):
    """What some candidates are to dream: each from all of the starts, at most DREAMS dreams."""

    parameters: np.ndarray  # (N, 867) of C on plain [z, h]
    starts: Starts  # S of them
    seeds: Sequence[Seed]  # (S,) of the luck from there on
    horizon: int  # frames


class Dreamer:
    """The function of a `utils.runtime.workers.OneAtATime`: `Dreams` -> what they come to.

    C reads the h of `rnn`, and the dream is another M's, `dreaming`, or if there is none its own.
    The networks always get as many rows, whether or not they are all in use, so that a result
    depends on its C, its start and its seed alone.
    """

    def __init__(self, rnn: MDNRNN, dreaming: MDNRNN | None, temperature: float) -> None:
        self._world = World(dreaming or rnn, temperature)
        self._memory = World(rnn) if dreaming else None

    @torch.inference_mode()
    def __call__(self, dreams: Dreams) -> np.ndarray:
        """Returns (N, S) float32: the rewards that M expects, in points, summed over the frames,
        each weighted by the probability that the race is not over yet.

        A dream without progress is over. M has seen many cars return to the road, and dreams of
        that whatever the driver does; with no more to gain, leaving the road costs what it should.
        """
        starts, count = len(dreams.seeds), len(dreams.parameters)
        candidates = DREAMS // starts

        def for_all(per_start: Tensor) -> Tensor:
            return per_start.expand(candidates, *per_start.shape).flatten(0, 1)

        parameters = np.zeros((candidates, dreams.parameters.shape[1]), np.float32)
        parameters[:count] = dreams.parameters
        weights, bias = map(torch.from_numpy, unpack(parameters))
        weights, bias = weights.transpose(1, 2).contiguous(), bias.unsqueeze(1)

        gumbel, normal = _luck(dreams, self._world)
        z, world_h, world_c = map(for_all, warm_up(self._world, dreams.starts))
        h, c = world_h, world_c
        if self._memory:
            _, h, c = map(for_all, warm_up(self._memory, dreams.starts))
        total, running, pace = torch.zeros(len(z)), torch.ones(len(z)), torch.ones(len(z))
        for t in range(dreams.horizon):
            features = torch.cat([z, h], 1).unflatten(0, (candidates, starts))
            raw = torch.baddbmm(bias, features, weights).flatten(0, 1)
            action = torch.from_numpy(squash(raw.numpy()))
            world_h, world_c = self._world.remember(z, action, world_h, world_c)
            h, c = self._memory.remember(z, action, h, c) if self._memory else (world_h, world_c)
            luck = Luck(for_all(gumbel[t]), for_all(normal[t]))
            z, reward, ended = self._world.imagine(world_h, luck)
            total += running * reward
            pace = PACE_KEPT * pace + (1 - PACE_KEPT) * reward
            running *= (1 - ended) * (pace > LOST)
        return total.unflatten(0, (candidates, starts))[:count].numpy()


def dream(
    workers: Workers, parameters: np.ndarray, starts: Starts, seeds: Sequence[Seed], horizon: int
) -> np.ndarray:
    """Let all candidates dream, behind a progress bar: parameters (N, 867) -> returns (N, S)."""
    share = DREAMS // len(seeds)
    jobs = [
        Dreams(parameters[i : i + share], starts, seeds, horizon)
        for i in range(0, len(parameters), share)
    ]
    with tqdm(total=len(jobs), desc="dreaming", unit="batch", leave=False) as bar:
        return np.concatenate(workers.run(jobs, on_result=lambda *_: bar.update()))


def _luck(dreams: Dreams, world: World) -> tuple[Tensor, Tensor]:
    """gumbel (T, S, Z, K) and normal (T, S, Z) of `models.dream.Luck`, by each start's own seed."""
    latent_dim, mixtures = world.sizes["latent_dim"], world.sizes["mixtures"]
    drawn = []
    for seed in dreams.seeds:
        rng = np.random.default_rng(seed)
        drawn.append((
            rng.gumbel(size=(dreams.horizon, latent_dim, mixtures)).astype(np.float32),
            rng.standard_normal((dreams.horizon, latent_dim), np.float32),
        ))  # fmt: skip
    gumbel, normal = (
        torch.from_numpy(np.stack(arrays)).transpose(0, 1) for arrays in zip(*drawn, strict=True)
    )
    return gumbel, normal
