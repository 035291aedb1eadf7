"""Files that are not what they should be."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from faults import mutations
from faults.campaign import Campaign, Result, Row, note, outcome
from faults.judging import sentence_or_success
from faults.runs import Run


def hostile_files(campaign: Campaign, cases: Callable[..., list]) -> Result:
    """Spoilt files, one after the other, and the stage that reads each."""
    scratch, project = campaign.folder / "mutations", campaign.finished()
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


FOREIGN = {  # as others leave them beside ours
    "._random_000.npz": b"\0\5\x16\7\0\2\0\0Mac OS X        ",  # by a Mac, on a disk that it shares
    ".DS_Store": b"\0\0\0\1Bud1",
    ".random_000.tmp.1f2e3d4c5b6a.npz": b"PK\3\4 half",  # still being written, elsewhere
    "random_000.tmp.4242.npz": b"PK\3\4 half",  # the same, under the name that it had long ago
}


def foreign_files(campaign: Campaign, number: int) -> Result:
    """A Mac's hidden files and another machine's temporary ones, then somebody else's .npz."""
    folder = campaign.fresh(number, "foreign")
    places = [folder / "data" / name for name in ("rollouts", "latents")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        for name, contents in FOREIGN.items():
            (place / name).write_bytes(contents)
    stage = Run(folder, number)
    stage.wait()
    ignored = "" if stage.process.returncode == 0 else f"not ignored: {stage.said[-300:]}"
    removed = [n for place in places for n, c in FOREIGN.items() if not _still(place / n, c)]
    for place in places:
        for name in FOREIGN:
            (place / name).unlink(missing_ok=True)
    differ = campaign.lost(number, folder)

    shutil.copytree(campaign.before(number), folder, dirs_exist_ok=True)
    for place in places:
        np.savez(place / "embeddings.npz", words=np.arange(5))
    theirs = (places[0] / "embeddings.npz").read_bytes()
    stage = Run(folder, number)
    stage.wait()
    removed += [p.name for p in places if not _still(p / "embeddings.npz", theirs)]
    said = "" if not sentence_or_success(stage) else f"another's .npz: {stage.said[-300:]}"
    gone = f"stage {number} removed {', '.join(removed)}" if removed else ""
    return outcome(2, ignored, differ, said, gone, said=stage.said)


def _still(path: Path, contents: bytes) -> bool:
    return path.exists() and path.read_bytes() == contents


def rows(campaign: Campaign) -> Iterator[Row]:
    """Spoilt files of every kind."""
    found = damaged_files(campaign)
    yield Row("damaged and hostile files", found, fates(found))
    found = unfit_files(campaign)
    yield Row("sizes, NaN, versions, origins", found, fates(found))
    found = campaign.each(campaign.effort.foreign, partial(foreign_files, campaign))
    yield Row("others' files in our folders", found, "left as they are, or named")
