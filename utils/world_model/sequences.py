"""What M trains on: whole episodes of latents, in batches, piece after piece in order."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from utils.world_model.latents import load_latents


class Sequence(NamedTuple):
    """One episode, or a batch of padded ones (B in front); T actions, T + 1 latents."""

    mu: Tensor  # (T + 1, Z)
    logvar: Tensor  # (T + 1, Z)
    action: Tensor  # (T, 3)
    reward: Tensor  # (T,)
    terminated: Tensor  # (T,), 0 or 1


class Piece(NamedTuple):
    """`length` frames of a batch of episodes."""

    sequence: Sequence
    mask: Tensor  # (B, T), 1 where the frame exists


def load_sequences(paths: list[Path], workers: int) -> list[Sequence]:
    """All episodes, as tensors: 276 bytes a frame, so that a million frames fit easily."""

    def load(path: Path) -> Sequence:
        _, arrays = load_latents(path)
        return Sequence(*(torch.from_numpy(arrays[name]).float() for name in Sequence._fields))

    if workers == 0:
        return [load(path) for path in paths]
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(load, paths))


def batches(
    sequences: list[Sequence], batch: int, rng: np.random.Generator
) -> list[list[Sequence]]:
    """Every episode once, in random batches of roughly equal length."""
    lengths = np.array([len(sequence.action) for sequence in sequences])
    order = np.argsort(lengths + rng.uniform(0, 200, len(lengths)))
    groups = [order[i : i + batch] for i in range(0, len(order), batch)]
    return [[sequences[i] for i in groups[j]] for j in rng.permutation(len(groups))]


def pieces(group: list[Sequence], length: int) -> Iterator[Piece]:
    """A batch of episodes from their first frame to their last, `length` frames at a time."""
    lengths = torch.tensor([len(sequence.action) for sequence in group])
    padded = Sequence(
        *(pad_sequence(parts, batch_first=True) for parts in zip(*group, strict=True))
    )
    longest = int(lengths.max())
    mask = (torch.arange(longest) < lengths[:, None]).float()
    for start in range(0, longest, length):
        now, next_too = slice(start, start + length), slice(start, start + length + 1)
        yield Piece(
            Sequence(
                padded.mu[:, next_too], padded.logvar[:, next_too],
                padded.action[:, now], padded.reward[:, now], padded.terminated[:, now],
            ),
            mask[:, now],
        )  # fmt: skip
