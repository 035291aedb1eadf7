"""What the machine lacks."""

import resource
from collections.abc import Iterator

from faults import runs
from faults.campaign import Campaign, Result, Row, outcome, total
from faults.judging import refusal
from faults.runs import Run


def no_display(campaign: Campaign) -> Result:
    """The keyboard's races need a window."""
    folder = campaign.folder / "windowless"
    folder.mkdir(exist_ok=True)
    stage = Run(folder, 1, keyboard_episodes=1)
    stage.wait()
    told = "" if "needs a display" in stage.complaint else "the display is not mentioned"
    return outcome(1, refusal(stage), told, said=stage.said)


def film_fails(campaign: Campaign) -> Result:
    """The film of stage 06 finds no room: the scores are kept."""
    campaign.prepare((6,))
    folder, whole = campaign.fresh(6, "unfilmed"), campaign.whole(6)
    limit = (whole / "best_lap.mp4").stat().st_size // 2
    kept = ("checkpoints/results/latest.json", "checkpoints/results/latest.png")
    limit = max(limit, *((whole / name).stat().st_size + 1 for name in kept))
    stage = Run(folder, 6, before=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (limit, limit)))  # fmt: skip
    stage.wait()
    differ = [name for name in runs.differences(folder, whole) if name != "best_lap.mp4"]
    told = "" if "The scores are safe" in stage.complaint else "not told that scores are safe"
    lost = f"lost: {differ}" if differ else ""
    return outcome(1, refusal(stage), told, lost, campaign.finish(6, folder), said=stage.said)


def rows(campaign: Campaign) -> Iterator[Row]:
    """What a machine lacks."""
    found = total([no_display(campaign), film_fails(campaign)])
    yield Row("no display, no room for the film", found, "one sentence; scores outlive their film")
