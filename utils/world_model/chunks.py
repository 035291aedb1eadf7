"""What M trains on: batches of whole episodes, cut into chunks of truncated backpropagation; which
episodes it goes on with; and how its features are spread over them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.mdn_rnn import MDNRNN
from models.vae import sample
from utils.world_model.latents import Latents
from utils.world_model.training import split


class Chunk(NamedTuple):
    """T frames of B episodes side by side; T + 1 latents, of which the last is only predicted."""

    mu: Tensor  # (B, T + 1, Z)
    logvar: Tensor  # (B, T + 1, Z)
    action: Tensor  # (B, T, 3)
    reward: Tensor  # (B, T)
    terminated: Tensor  # (B, T), 0 or 1
    weight: Tensor  # (B, T), the same for every frame, 0 where its episode is over


def batches(episodes: list[Latents], batch: int, rng: np.random.Generator) -> list[list[Latents]]:
    """Every episode once, in random batches of roughly equal length."""
    lengths = np.array([len(episode.action) for episode in episodes])
    order = np.argsort(lengths + rng.uniform(0, 200, len(lengths)))
    groups = [order[i : i + batch] for i in range(0, len(order), batch)]
    return [[episodes[i] for i in groups[j]] for j in rng.permutation(len(groups))]


def chunks(group: list[Latents], length: int) -> Iterator[Chunk]:
    """A batch of episodes from their first frame to their last, `length` frames at a time.

    The weights of a batch come to 1 a chunk on average, however many of its episodes go on to the
    last ones: as means of their own, chunks in which few are left would count an end many times.
    """
    mu, logvar, action, reward, terminated = (
        pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True).float()
        for arrays in zip(*group, strict=True)
    )
    lengths = torch.tensor([len(episode.action) for episode in group])
    longest = int(lengths.max())
    starts = range(0, longest, length)
    weight = (torch.arange(longest) < lengths[:, None]) * (len(starts) / lengths.sum())
    for start in starts:
        now, next_too = slice(start, start + length), slice(start, start + length + 1)
        yield Chunk(
            mu[:, next_too], logvar[:, next_too],
            action[:, now], reward[:, now], terminated[:, now], weight[:, now],
        )  # fmt: skip


def rehearsal(
    rng: np.random.Generator, others: list[Path], old: int, own: list[Path], known: int,
    earlier: int,
) -> tuple[list[Path], list[Path]]:  # fmt: skip
    """What an M goes on with that knows the first `known` of the agent's own drives.

    Returns:
        To train on, all drives that are new to it, and of those that it must not forget `earlier`
        of its own and `old` of the others; and for validation, every twentieth of its own.
    """
    train, validation = split(own)
    former, _ = split(own[:known])
    new = [path for path in own[known:] if path in train]
    remembered = [others[i] for i in rng.permutation(len(others))[:old]]
    remembered += [former[i] for i in rng.permutation(len(former))[:earlier]]
    return [*remembered, *new], validation


@torch.no_grad()
def measure_features(rnn: MDNRNN, episodes: list[Latents], noise: float) -> None:
    """Keep mean and sd of [z, h] in M: stage 05 standardises what C reads by them.

    z is drawn as M saw it in training and sees it in its dreams. What V doubts is then as wide as
    its doubt, and C learns to leave it alone.
    """
    features = []
    for latents in episodes:
        mu, logvar, action = map(torch.from_numpy, latents[:3])
        z = sample(mu[:-1], logvar[:-1], noise)
        h, _ = rnn.lstm(torch.cat([z, action], -1).unsqueeze(0))
        features.append(torch.cat([z[1:], h[0, :-1]], -1))
    sd, mean = torch.std_mean(torch.cat(features), 0)
    rnn.feature_mean.copy_(mean)
    rnn.feature_sd.copy_(sd.clamp(min=1e-3))
