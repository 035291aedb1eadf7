"""Files that are not what they should be."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from faults import mutations
from faults.campaign import Campaign, Result, Row, note


def hostile_files(campaign: Campaign, cases: Callable[..., list]) -> Result:
    """Spoilt files, one after the other, and the stage that reads each."""
    scratch = campaign.folder / "mutations"
    project = scratch / "whole" / "project"
    if not project.exists():
        mutations.make_project(project)
    judged = [
        (case, mutations.judge(case, project, scratch)) for case in cases(project, project.parent)
    ]
    losses = tuple(
        f"stage {case.number}, {case.path}, {case.how}: {verdict.what[:300]}"
        for case, verdict in judged if not verdict.good
    )  # fmt: skip
    fates = Counter(verdict.what for _, verdict in judged if verdict.good)
    tracebacks = sum(verdict.traceback for _, verdict in judged)
    return Result(len(judged), len(judged) - len(losses), dict(fates), losses, tracebacks)


def damaged_files(campaign: Campaign) -> Result:
    rng = campaign.rng(6)
    return hostile_files(campaign, partial(mutations.damaged, rng, campaign.effort.every))


def unfit_files(campaign: Campaign) -> Result:
    every = max(1, campaign.effort.every // 4)
    return hostile_files(campaign, lambda *_: mutations.unfit()[::every])


def fates(result: Result) -> str:
    """How many files were refused and how many the stage made anew."""
    refused, healed = (int(note(result, name)) for name in ("refused", "healed"))
    return f"{refused} refused by name, {healed} made anew or harmless"


def rows(campaign: Campaign) -> Iterator[Row]:
    """Spoilt files of every kind."""
    found = damaged_files(campaign)
    yield Row("damaged and hostile files", found, fates(found))
    found = unfit_files(campaign)
    yield Row("sizes, NaN, versions, origins", found, fates(found))
