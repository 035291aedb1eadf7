"""How long something has taken, how long it still takes, and what it cost."""

import time

from tqdm import tqdm

from utils.runtime.workers import Workers


class Clock:
    """Time since the start, and the time that is left at the present speed."""

    def __init__(self, done: float, total: float) -> None:
        self._start = time.monotonic()
        self._first = done
        self._total = total

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def left(self, done: float) -> str:
        """Time until `done` reaches the total, as HH:MM:SS."""
        speed = (done - self._first) / max(self.seconds, 1e-9)
        return tqdm.format_interval((self._total - done) / speed) if speed > 0 else "?"


class Meter:
    """What something costs: wall time, and the processor time of all processes."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._start = time.monotonic()
        self._cpu = self._processor_seconds()

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self._start

    @property
    def processor_seconds(self) -> float:
        """Processor time that this process and its workers have spent since the start."""
        return self._processor_seconds() - self._cpu

    @property
    def core_hours(self) -> float:
        """The processor time in hours of one core."""
        return self.processor_seconds / 3600

    def _processor_seconds(self) -> float:
        return self._workers.cpu_seconds + time.process_time()
