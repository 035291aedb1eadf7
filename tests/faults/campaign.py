"""How a campaign of faults is counted, and the undisturbed runs that it is measured by."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from faults import mutations, runs
from faults.runs import Run

STAGES = (1, 2, 3, 4, 5, 6)
AT_WORK = (1, 5, 6)  # stages whose workers are killed


NOTHING = MappingProxyType({})


class Effort(NamedTuple):
    """How much is caused."""

    workers_killed: int  # in each stage that has workers to speak of
    kills: int  # of the main process, in each stage
    writes: tuple[str, ...]  # in which moments of a write it is killed
    stages: tuple[int, ...]
    workers_of: tuple[int, ...]
    every: int  # of so many hostile files is tried
    resets: int
    foreign: tuple[int, ...]  # stages that find others' files
    surroundings: tuple[int, ...]  # stages in terminals and on machines of other kinds
    shared: tuple[int, ...]  # stages that two containers run at once


THOROUGH = Effort(
    4, 4, ("half", "before", "after"), STAGES, AT_WORK, 1, 5000, (1, 2, 3, 4), STAGES, (1, 3, 5)
)
QUICK = Effort(1, 1, ("half",), (3,), (3,), 40, 100, (3,), (1, 2, 3), (3,))


class Result(NamedTuple):
    """What one fault, or several of a kind, came to."""

    caused: int
    survived: int
    notes: Mapping[str, float] = NOTHING  # the largest of each is shown
    losses: tuple[str, ...] = ()  # what went wrong, a line each
    tracebacks: int = 0


class Row(NamedTuple):
    """A line of the table."""

    fault: str
    result: Result
    seen: str
    counted_as: str = "faults"  # or "resets", which disturb nothing


class Campaign:
    """A scratch folder, the undisturbed runs to compare with, and how much is to be done."""

    def __init__(self, folder: Path, effort: Effort, seed: int) -> None:
        self.folder = folder
        self.effort = effort
        self._seed = seed
        self._whole: dict[int, tuple[Path, float]] = {}

    def rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, *key))

    def prepare(self, numbers: tuple[int, ...]) -> None:
        """Run the stages undisturbed, two at a time as all later ones."""
        numbers = tuple(n for n in numbers if n not in self._whole)
        for number in numbers:
            self.before(number)
        with ThreadPoolExecutor(2) as threads:
            self._whole |= dict(zip(numbers, threads.map(self._undisturbed, numbers), strict=True))

    def before(self, number: int) -> Path:
        """What the stage finds."""
        folder = self.folder / f"before_{number}"
        if not folder.exists():
            runs.prepare(folder, number)
        return folder

    def finished(self) -> Path:
        """A project in which every stage has run."""
        folder = self.folder / "finished" / "project"
        if not folder.exists():
            mutations.make_project(folder)
        return folder

    def whole(self, number: int) -> Path:
        """What the stage leaves."""
        return self._whole[number][0]

    def seconds(self, number: int) -> float:
        """How long it takes."""
        return self._whole[number][1]

    def fresh(self, number: int, name: str) -> Path:
        """A folder in which the stage can run."""
        return runs.copy(self.before(number), self.folder / f"{name}_{number}")

    def finish(self, number: int, folder: Path) -> str:
        """Run the stage to its end after a fault; returns what is lost, "" if nothing is."""
        again = Run(folder, number)
        if again.wait() != 0:
            return f"stage {number} ended with {again.process.returncode}: {again.said[-300:]}"
        if "Traceback" in again.said:
            return f"stage {number} went on with a traceback: {again.said[-300:]}"
        return self.lost(number, folder)

    def lost(self, number: int, folder: Path) -> str:
        differ = runs.differences(folder, self.whole(number))
        return f"stage {number} left other files: {', '.join(differ)}" if differ else ""

    def each(self, numbers: tuple[int, ...], cause: Callable[[int], Result]) -> Result:
        """`cause(number)` for these stages, two at a time, added up."""
        self.prepare(numbers)
        with ThreadPoolExecutor(2) as threads:
            return total(threads.map(cause, numbers))

    def _undisturbed(self, number: int) -> tuple[Path, float]:
        whole = runs.copy(self.before(number), self.folder / f"whole_{number}")
        undisturbed = Run(whole, number)
        if undisturbed.wait() != 0:
            raise RuntimeError(f"stage {number} fails by itself:\n{undisturbed.said}")
        return whole, time.monotonic() - undisturbed.started


def total(results: Iterable[Result]) -> Result:
    """Counts added up, of the notes the largest."""
    caused, survived, tracebacks, notes, losses = 0, 0, 0, Counter(), ()
    for result in results:
        caused, survived = caused + result.caused, survived + result.survived
        tracebacks += result.tracebacks
        notes |= Counter(result.notes)
        losses += result.losses
    return Result(caused, survived, dict(notes), losses, tracebacks)


def outcome(caused: int, *losses: str, said: str = "", **notes: float) -> Result:
    """All survived if nothing is lost, else none."""
    losses = tuple(loss for loss in losses if loss)
    return Result(caused, 0 if losses else caused, notes, losses, said.count("Traceback"))


def note(result: Result, name: str) -> float:
    """A note, or 0 where there was nothing to note."""
    return result.notes.get(name, 0.0)
