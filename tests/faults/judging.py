"""How a disturbed stage is judged: what is lost, what is left, what is said."""

from pathlib import Path

import stages

from faults.campaign import Campaign
from faults.runs import Run


def ended_well(campaign: Campaign, stage: Run, folder: Path, number: int) -> str:
    if stage.wait() != 0:
        return f"stage {number} ended with {stage.process.returncode}: {stage.said[-300:]}"
    return campaign.lost(number, folder) or orphans(stage)


def orphans(stage: Run) -> str:
    left, waited = stage.orphans()
    return f"left after {waited:.0f} s by {stage.folder.name}: {left}" if left else ""


def refusal(stage: Run) -> str:
    """Whether it ended with status 2 and one sentence."""
    good = stage.process.returncode == 2 and stage.complaint and "Traceback" not in stage.said
    return "" if good else f"status {stage.process.returncode}, said {stage.said[-300:]!r}"


def sentence_or_success(stage: Run) -> str:
    """Whether it ended in peace, or with status 2 and one sentence."""
    return "" if stage.process.returncode == 0 and "Traceback" not in stage.said else refusal(stage)


def changed(before: Path, folder: Path) -> str:
    """Earlier artefacts must be whole."""
    now = stages.contents(folder)
    harmed = [name for name, old in stages.contents(before).items() if now.get(name) != old]
    return f"harmed: {', '.join(harmed)}" if harmed else ""


def half_written(folder: Path) -> str:
    """A stage that was not killed takes its temporary files with it."""
    left = [path.name for path in folder.rglob("*") if ".tmp." in path.name]
    return f"half-written: {', '.join(left)}" if left else ""


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
