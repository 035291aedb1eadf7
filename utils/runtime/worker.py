"""A worker as the main process sees it, whatever carries its messages."""

import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from utils.runtime.child import pack

Said = tuple["Worker", bytes | None]  # who, and a message or the end of all messages


class Worker(ABC):
    """Its jobs and its clocks. All that it says goes to the pool's `heard`, and None at its end."""

    name: str  # by which it is spoken of
    reached = True  # whether it may be given jobs
    places = 1  # for jobs, or as many as the pool says with each job that it gives

    def __init__(self) -> None:
        self.jobs: dict[int, float] = {}  # index -> time.monotonic() when it began
        self.given = 0
        self.ready = False
        self.cpu_seconds = 0.0
        self.born = time.monotonic()

    def give(self, index: int, job: Any) -> None:
        self.given += 1
        self.jobs[index] = time.monotonic()
        self.send(pack((index, job)))

    def begin(self, process: int) -> None:
        """It has a place to run, and its time begins."""
        self.reached, self.born = True, time.monotonic()

    def become_ready(self) -> None:
        self.ready = True
        self.jobs = dict.fromkeys(self.jobs, time.monotonic())

    def read(self, message: bytes) -> Any:
        """The kind of a message from it, the content, and the processor time spent until then."""
        return pickle.loads(message)

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Send without waiting for the worker."""

    @abstractmethod
    def epitaph(self) -> str:
        """What became of it, as the end of a sentence."""

    @abstractmethod
    def kill(self) -> None:
        """Let it end at once, whatever it is doing."""

    @abstractmethod
    def end(self) -> None:
        """Kill it and clear away what is left."""


class Carrier(ABC):
    """Where workers come from: this machine, for which the defaults are, or a cluster."""

    patience = float("inf")  # seconds after which it wants to be asked for another again
    crowding = 1.0  # workers for each processor, at least 1
    wanted: int  # workers, at present

    @abstractmethod
    def another(self, workers: Sequence[Any]) -> Worker | None:
        """A new worker beside these, if one is missing and can be started."""

    def is_lost(self, worker: Any) -> bool:
        """Whether the machine is gone that it was on, for which no job is to blame."""
        return False

    def refuse(self, worker: Any, why: str) -> None:
        """Take no more workers from where this one came from."""
        raise AssertionError("a process of this machine is never refused")

    def described(self) -> str:
        """What carries the workers, for the status line; "" for this machine."""
        return ""
