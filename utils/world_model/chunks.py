"""What M trains on: batches of whole episodes, cut into chunks of truncated backpropagation."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from utils.world_model.latents import Latents


class Chunk(NamedTuple):
    """T frames of B episodes side by side; T + 1 latents, of which the last is only predicted."""

    mu: Tensor  # (B, T + 1, Z)
    logvar: Tensor  # (B, T + 1, Z)
    action: Tensor  # (B, T, 3)
    reward: Tensor  # (B, T)
    terminated: Tensor  # (B, T), 0 or 1
    mask: Tensor  # (B, T), 1 where the frame exists, 0 where its episode is over


def batches(episodes: list[Latents], batch: int, rng: np.random.Generator) -> list[list[Latents]]:
    """Every episode once, in random batches of roughly equal length."""
    lengths = np.array([len(episode.action) for episode in episodes])
    order = np.argsort(lengths + rng.uniform(0, 200, len(lengths)))
    groups = [order[i : i + batch] for i in range(0, len(order), batch)]
    return [[episodes[i] for i in groups[j]] for j in rng.permutation(len(groups))]


def chunks(group: list[Latents], length: int) -> Iterator[Chunk]:
    """A batch of episodes from their first frame to their last, `length` frames at a time."""
    mu, logvar, action, reward, terminated = (
        pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True).float()
        for arrays in zip(*group, strict=True)
    )
    lengths = torch.tensor([len(episode.action) for episode in group])
    longest = int(lengths.max())
    mask = (torch.arange(longest) < lengths[:, None]).float()
    for start in range(0, longest, length):
        now, next_too = slice(start, start + length), slice(start, start + length + 1)
        yield Chunk(
            mu[:, next_too], logvar[:, next_too],
            action[:, now], reward[:, now], terminated[:, now], mask[:, now],
        )  # fmt: skip
