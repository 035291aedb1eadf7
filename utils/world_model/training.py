"""Training by epochs that can be interrupted: the optimiser's state, the log and the pace."""

import ctypes
import math
import platform
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.pictures.plots import training_curves
from utils.runtime.errors import UserError
from utils.storage.artifacts import load_tensors, save_tensors
from utils.storage.logs import write_log
from utils.storage.networks import is_made_from

LAST_SHARE = 0.02  # of the learning rate is left at the end of its cosine
CLIP = 1.0  # largest norm of M's gradient, as in the paper
STATE = "training state"  # the kind of file

# Names of mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def state_path(folder: str | Path, name: str) -> Path:
    """Where a training is kept from its first epoch until `Training.finish`."""
    return Path(folder) / f"{name}_training.pt"


def is_trained(target: Path, kind: str, name: str, made_from: dict[str, Any]) -> bool:
    """Whether the network at `target` was made from exactly this, with nothing left to do."""
    left = state_path(target.parent, name)
    return is_made_from(target, kind, made_from) and not is_made_from(left, STATE, made_from)


class Training:
    """Adam with a cosine learning rate over a fixed number of epochs, saved after each one.

    Args:
        network: what is trained, with its random initial weights.
        folder: where the state between two epochs, the log and its picture are kept.
        name: of the files in it.
        made_from: whatever decides the result; a saved state made from anything else is stale.
        title: of the picture.
    """

    def __init__(
        self,
        network: nn.Module,
        folder: str | Path,
        name: str,
        made_from: dict[str, Any],
        epochs: int,
        learning_rate: float,
        clip: float | None = None,
        title: str = "",
    ) -> None:
        _keep_freed_memory()
        self.network = network
        self.history: list[dict[str, float]] = []  # a row an epoch
        self._title = title
        self._path = state_path(folder, name)
        self._log = Path(folder) / f"{name}.csv"
        self._made_from = made_from
        self._epochs = epochs
        self._learning_rate = learning_rate
        self._clip = clip
        self._optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
        self._epoch = self._resume()

    def epochs(self, seed: int) -> Iterator[int]:
        """The epochs still to do; each has random numbers of its own, whatever came before."""
        while self._epoch < self._epochs:
            torch.manual_seed(seed * 100_003 + self._epoch)
            self._sums: dict[str, float] = defaultdict(float)
            self._steps = 0
            yield self._epoch

    def step(self, loss: Tensor, parts: dict[str, Tensor], done: float) -> None:
        """One step down the gradient; `done` is the share of the epoch that lies behind."""
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss became {loss.item()} in epoch {self._epoch + 1}: training diverged; "
                "lower LEARNING_RATE and run the same command again."
            )
        progress = (self._epoch + done) / self._epochs
        share = LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * min(progress, 1))) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * share
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._clip)
        self._optimizer.step()
        self._steps += 1
        for name, value in {"loss": loss, **parts}.items():
            self._sums[name] += value.item()

    def average(self) -> dict[str, float]:
        """Means over the epoch so far."""
        return {name: total / max(1, self._steps) for name, total in self._sums.items()}

    def summary(self) -> str:
        """The averages in one short line."""
        return ", ".join(f"{name} {value:.3g}" for name, value in self.average().items())

    def end_epoch(self, validation: dict[str, float], seconds: float) -> None:
        """Log, draw and save, so that the run can be resumed from here."""
        if not self._steps:
            raise UserError(
                "all episodes together do not fill one batch; lower BATCH, or collect more by "
                "python 01_collect_rollouts.py."
            )
        self._epoch += 1
        row = {"epoch": self._epoch, **self.average()}
        row |= {f"val_{name}": value for name, value in validation.items()}
        self.history.append({**row, "seconds": seconds})
        write_log(self._log, list(self.history[0]), self.history)
        training_curves(self._log.with_suffix(".png"), self.history, self._title)
        tensors = {f"weight/{k}": v for k, v in self.network.state_dict().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{k}": v for k, v in state.items()}
        save_tensors(
            self._path, STATE, tensors,
            epoch=self._epoch, history=self.history, made_from=self._made_from,
        )  # fmt: skip

    def finish(self) -> None:
        """Remove the state between epochs: the result and all its pictures are saved."""
        self._path.unlink(missing_ok=True)

    def _resume(self) -> int:
        if not self._path.exists():
            return 0
        try:
            saved = load_tensors(self._path, STATE, "delete it")
        except UserError as error:
            tqdm.write(f"{error} Starting over.")
            return 0
        if saved.get("made_from") != self._made_from:
            tqdm.write(f"{self._path} belongs to other data or settings: starting over")
            return 0
        try:
            self._restore(saved)
        except Exception as error:  # a foreign file can hold anything; by now the network may too
            raise UserError(f"{self._path} holds no training; delete it to start over.") from error
        tqdm.write(f"resuming after epoch {saved['epoch']} (delete {self._path} to start over)")
        return saved["epoch"]

    def _restore(self, saved: dict[str, Any]) -> None:
        if type(saved["epoch"]) is not int or not 0 < saved["epoch"] <= self._epochs:
            raise ValueError("no such epoch")
        self.history = [{k: float(v) for k, v in row.items()} for row in saved["history"]]
        if [row["epoch"] for row in self.history] != list(range(1, saved["epoch"] + 1)):
            raise ValueError("epochs without a row")
        weights, adam = {}, defaultdict(dict)
        for name, tensor in saved["weights"].items():
            kind, rest = name.split("/", 1)
            if kind == "weight":
                weights[rest] = tensor
            else:
                index, key = rest.split("/")
                adam[int(index)][key] = tensor
        self.network.load_state_dict(weights)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": dict(adam), "param_groups": groups})


def _keep_freed_memory() -> None:
    """Let glibc keep what one step frees for the next one, which needs the same again.

    Left alone it returns tensors of megabytes to the system and takes them back page by page: a
    fifth of V's training went there. What is larger than 32 MB, its limit, still comes and goes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
