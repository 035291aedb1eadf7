"""How long something has taken, how long it still takes, and what it cost."""

import time

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
        """Hours and minutes until `done` reaches the total."""
        speed = (done - self._first) / max(self.seconds, 1e-9)
        return duration((self._total - done) / speed) if speed > 0 else "?"


def duration(seconds: float) -> str:
    """3725 -> '1 h 02 min'; 95 -> '1 min 35 s'."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


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
