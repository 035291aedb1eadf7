"""The table of a campaign: its lines, as they come, and its totals."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults import disk, files, flags, main_process, surroundings, workers
from faults.campaign import Campaign, Effort, Row, total


def rows(campaign: Campaign) -> Iterator[Row]:
    """Every line of the table, as it comes."""
    yield from workers.rows(campaign)
    yield from main_process.rows(campaign)
    yield from disk.rows(campaign)
    yield from files.rows(campaign)
    yield from flags.rows(campaign)
    yield from surroundings.rows(campaign)
    yield from workers.memory(campaign)


def heading() -> None:
    print(f"{'fault':<34}{'caused':>8}{'survived':>10}   what was seen", flush=True)


def line(row: Row) -> None:
    result = row.result
    print(f"{row.fault:<34}{result.caused:>8,}{result.survived:>10,}   {row.seen}", flush=True)
    for loss in result.losses:
        print(f"    lost: {loss}", flush=True)


def counts(table: list[Row]) -> dict[str, Any]:
    """The totals, as data; plain resets are no faults and are counted apart."""
    faults = total(row.result for row in table if row.counted_as == "faults")
    resets = total(row.result for row in table if row.counted_as == "resets")
    hostile = [row.result.caused for row in table if "hostile" in row.fault or "NaN" in row.fault]
    return {
        "caused": faults.caused,
        "survived": faults.survived,
        "lost": faults.caused - faults.survived,
        "hostile_files": sum(hostile),
        "tracebacks": faults.tracebacks,
        "resets": resets.caused,
        "resets_gone_wrong": resets.caused - resets.survived,
        "rows": [
            {"fault": row.fault, "seen": row.seen, **row.result._asdict()} for row in table
        ],
    }  # fmt: skip


def summary(found: dict[str, Any]) -> str:
    """The totals in a line."""
    return (
        f"{found['caused']:,} faults caused, {found['lost']} lost; {found['hostile_files']} "
        f"hostile files, {found['tracebacks']} tracebacks; {found['resets']:,} resets, "
        f"{found['resets_gone_wrong']} gone wrong; {found['seconds'] / 60:.0f} minutes"
    )


def run_campaign(effort: Effort, seed: int) -> dict[str, Any]:
    """Cause everything, print the table, return the counts."""
    start = time.monotonic()
    heading()
    table = []
    with tempfile.TemporaryDirectory(prefix="faults_") as name:
        for row in rows(Campaign(Path(name), effort, seed)):
            table.append(row)
            line(row)
    found = counts(table) | {"seconds": time.monotonic() - start}
    print("\n" + summary(found))
    return found
