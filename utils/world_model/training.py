"""Training by epochs that can be interrupted: what it takes to go on, the log and the curves."""

import ctypes
import math
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.pictures.plots import training_curves
from utils.runtime.errors import UserError, system_trouble
from utils.storage.artifacts import if_sound, load_tensors, save_tensors
from utils.storage.logs import write_log
from utils.storage.networks import is_made_from
from utils.storage.remedies import COLLECT

LAST_SHARE = 0.02  # of the learning rate is left at the end of its cosine
STATE = "training state"  # the kind of file

# Names of mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def state_path(target: Path) -> Path:
    """Where the training of a network is kept from its first epoch until `Training.finish`."""
    return target.with_name(f"{target.stem}_training.pt")


def files_of(target: Path, kind: str) -> dict[Path, str]:
    """All that a training writes for the network at `target`, with the kind of each file."""
    return {
        target: kind,
        target.with_suffix(".csv"): "log by epoch",
        target.with_suffix(".png"): "picture",
        state_path(target): STATE,
    }


def is_trained(target: Path, kind: str, made_from: dict[str, Any]) -> bool:
    """Whether the network at `target` was made from exactly this, with nothing left to do."""
    done = is_made_from(target, kind, made_from)
    return done and not is_made_from(state_path(target), STATE, made_from)


def clear_away(target: Path, made_from: dict[str, Any]) -> None:
    """Remove the state of the training that made `target`, if it was killed before it could."""
    if is_made_from(state_path(target), STATE, made_from):
        state_path(target).unlink()


def split(episodes: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Those to train on, and every twentieth for validation; a single one has to serve for both."""
    validation = list(episodes[::20])
    return [e for i, e in enumerate(episodes) if i % 20] or validation, validation


def learning_rate(highest: float, progress: float) -> float:
    """A cosine that falls from `highest` to LAST_SHARE of it as `progress` goes from 0 to 1."""
    share = LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * min(progress, 1))) / 2
    return highest * share


@torch.no_grad()
def averages(losses: Iterable[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, float]:
    """The means of losses and their parts over the batches of a validation."""
    rows = [{"loss": loss, **parts} for loss, parts in losses]
    names = rows[0] if rows else ()
    return {name: float(np.mean([row[name].item() for row in rows])) for name in names}


class Training:
    """What a training has reached, saved after each epoch; it goes on from there when made anew.

    Args:
        network, optimizer: what is trained, with its random initial weights, and Adam on it.
        target: where the network will be saved; state, log and picture stand beside it.
        made_from: whatever decides the result; a saved state made from anything else is stale.
        epochs: how many there are to come.
        title: of the picture.
        before: the history of an earlier training that this one goes on from.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        target: Path,
        made_from: dict[str, Any],
        epochs: int,
        title: str = "",
        before: Sequence[dict[str, float]] = (),
    ) -> None:
        _keep_freed_memory()
        self.network = network
        self.history = list(before)  # a row an epoch
        self.curves = (target.with_suffix(".csv"), target.with_suffix(".png"))
        self.optimizer = optimizer
        self._path = state_path(target)
        self._made_from = made_from
        self._before = len(self.history)
        self._epochs = self._before + epochs
        self._title = title
        self._resume()

    def epochs(self, seed: int) -> Iterator[int]:
        """The epochs still to do; each has random numbers of its own, whatever came before."""
        while len(self.history) < self._epochs:
            epoch = len(self.history)
            torch.manual_seed(seed * 100_003 + epoch)
            self._sums: dict[str, float] = defaultdict(float)
            self._steps, self._start = 0, time.monotonic()
            yield epoch

    @property
    def left(self) -> int:
        return self._epochs - len(self.history)

    def progress(self, share: float) -> float:
        """How far the training is, from 0 to 1, `share` of the present epoch being done."""
        return (len(self.history) - self._before + share) / (self._epochs - self._before)

    def note(self, loss: Tensor, parts: dict[str, Tensor]) -> None:
        """Take a step's loss into the epoch's averages; a UserError if it is NaN or infinite."""
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss became {loss.item()} in epoch {len(self.history) + 1}: training "
                "diverged; lower LEARNING_RATE and run the same command again."
            )
        self._steps += 1
        for name, value in {"loss": loss, **parts}.items():
            self._sums[name] += value.item()

    def average(self) -> dict[str, float]:
        """Means over the epoch so far."""
        return {name: total / max(1, self._steps) for name, total in self._sums.items()}

    def end_epoch(self, validation: dict[str, float]) -> None:
        """Save, so that the training can be resumed from here; then log and draw."""
        if not self._steps:
            raise UserError(f"all episodes do not fill one batch; lower BATCH, or {COLLECT}.")
        row = {"epoch": len(self.history) + 1, **self.average()}
        row |= {f"val_{name}": value for name, value in validation.items()}
        self.history.append({**row, "seconds": time.monotonic() - self._start})
        tensors = {f"weight/{k}": v for k, v in self.network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{k}": v for k, v in state.items()}
        save_tensors(
            self._path, STATE, tensors,
            epoch=len(self.history), history=self.history, made_from=self._made_from,
        )  # fmt: skip
        self._publish()

    def _publish(self) -> None:
        log, picture = self.curves
        write_log(log, list(self.history[0]), self.history)
        training_curves(picture, self.history, self._title)

    def finish(self) -> None:
        """Remove the state between epochs: the result and all its pictures are saved."""
        self._path.unlink(missing_ok=True)

    def _resume(self) -> None:
        saved = if_sound(self._path, partial(load_tensors, kind=STATE), "Starting over.")
        if saved is None:
            return
        if saved.get("made_from") != self._made_from:
            print(f"{self._path} belongs to other data or settings: starting over")
            return
        try:
            self._restore(saved)
        except Exception as error:  # a foreign file can hold anything; by now the network may too
            if system_trouble(error):
                raise
            raise UserError(f"{self._path} holds no training; delete it to start over.") from error
        print(f"resuming after epoch {saved['epoch']} (delete {self._path} to start over)")
        self._publish()  # the log may have been lost since

    def _restore(self, saved: dict[str, Any]) -> None:
        count, rows = saved["epoch"], saved["history"]
        if type(count) is not int or not self._before < count <= self._epochs:
            raise ValueError("no such epoch")
        if [row["epoch"] for row in rows] != list(range(1, count + 1)):
            raise ValueError("epochs without a row")
        history = [
            {name: float(value) for name, value in row.items()} | {"epoch": epoch}
            for epoch, row in enumerate(rows, 1)
        ]
        weights: dict[str, Tensor] = {}
        adam: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in saved["weights"].items():
            kind, rest = name.split("/", 1)
            if kind == "weight":
                weights[rest] = tensor
            else:
                index, key = rest.split("/")
                adam[int(index)][key] = tensor
        self.network.load_state_dict(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(adam), "param_groups": groups})
        self.history = history


def _keep_freed_memory() -> None:
    """Let glibc keep what one step frees for the next one, which needs the same again.

    Left alone it returns tensors of megabytes to the system and takes them back page by page: a
    fifth of V's training went there. What is larger than 32 MB, its limit, still comes and goes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
