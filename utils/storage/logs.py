"""CSV logs: a row an episode, epoch or generation."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.storage.files import atomic_path


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
