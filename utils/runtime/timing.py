"""How long something has taken, how long it still takes, and what it cost."""

import time

from tqdm import tqdm

from utils.runtime.workers import Workers


class Clock:
    """Tells how long something still takes of which so much is done already."""

    def __init__(self, done: int, total: int) -> None:
        self._start, self._first, self._total = time.monotonic(), done, total

    def left(self, done: int) -> str:
        """Time to the end at the speed until now, as HH:MM:SS; more is `done` than at first."""
        seconds_each = (time.monotonic() - self._start) / (done - self._first)
        return tqdm.format_interval((self._total - done) * seconds_each)


class Meter:
    """What something costs: wall time, and the processor time of all processes."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._start = time.monotonic()
        self._cpu = self._processor_seconds()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def processor_seconds(self) -> float:
        """Processor time that this process and its workers have spent since the start."""
        return self._processor_seconds() - self._cpu

    @property
    def core_hours(self) -> float:
        return self.processor_seconds / 3600

    def _processor_seconds(self) -> float:
        return self._workers.cpu_seconds + time.process_time()
