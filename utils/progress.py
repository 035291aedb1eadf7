"""What a long run shows and leaves behind: a CSV log that survives being stopped."""

import csv
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from utils.artifacts import atomic_path
from utils.workers import Workers


class Log:
    """A CSV file with one row a step; columns are those of the first row.

    A resumed run starts from the rows that its saved state knows of, so a row that was written
    after that state, by a run that then died, does not appear twice.
    """

    def __init__(self, path: str | Path, rows: int = 0) -> None:
        self.path = Path(path)
        self.rows = read_log(self.path)[:rows] if rows else []

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row and bring the file up to date."""
        self.rows.append(dict(row))
        write_log(self.path, list(self.rows[0]), self.rows)


def write_log(
    path: str | Path, columns: Sequence[str], rows: Sequence[Mapping[str, float]]
) -> None:
    """Write a whole CSV log; what a row lacks stays empty."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The rows of a CSV log; an empty cell is left out. A missing or damaged log has no rows."""
    path = Path(path)
    rows: list[dict[str, float]] = []
    with (
        suppress(OSError, ValueError, UnicodeDecodeError, csv.Error),
        open(path, newline="", encoding="utf-8") as file,
    ):
        for row in csv.DictReader(file):
            rows.append({key: float(value) for key, value in row.items() if value})
    return rows


class Clock:
    """Time since the start, and the time that is left at the present speed."""

    def __init__(self, done: float, total: float) -> None:
        self._start = time.monotonic()
        self._first = done
        self._total = total

    @property
    def seconds(self) -> float:
        """Since the start."""
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
        """Of wall time."""
        return time.monotonic() - self._start

    @property
    def core_hours(self) -> float:
        """Of processor time, measured, of this process and its workers."""
        return (self._processor_seconds() - self._cpu) / 3600

    def _processor_seconds(self) -> float:
        return self._workers.cpu_seconds + time.process_time()
