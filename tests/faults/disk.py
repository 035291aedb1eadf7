"""Faults of the disk."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from faults import runs
from faults.campaign import Campaign, Result, Row, outcome, total
from faults.flags import refused_at_once
from faults.judging import bytes_of, changed, half_written, orphans, refusal
from faults.runs import Run

NO_TMPFS = "skipped: no tmpfs may be mounted here"


def disk_full(campaign: Campaign, number: int) -> Result:
    """A tmpfs with less room than the stage's files need."""
    room = bytes_of(campaign.whole(number)) - bytes_of(campaign.before(number))
    free = int(campaign.rng(5, number).uniform(0, 0.8) * room)
    with mounted(campaign.folder / f"full_{number}", "size=64m") as disk:
        if disk is None:
            return Result(0, 0)
        folder = runs.copy(campaign.before(number), disk / "project")
        filler = disk / "filler"
        with open(filler, "wb") as file:
            size = shutil.disk_usage(disk).free - max(4096, free)
            os.posix_fallocate(file.fileno(), 0, size)
        stage = Run(folder, number, said=campaign.folder / f"full_{number}.said")
        stage.wait()
        losses = [refusal(stage), changed(campaign.before(number), folder), orphans(stage)]
        losses.append(half_written(folder))
        filler.unlink()
        losses.append(campaign.finish(number, folder))
    return outcome(1, *losses, said=stage.said)


def write_fails(campaign: Campaign, number: int) -> Result:
    """No file may become as large as the largest that the stage writes (RLIMIT_FSIZE)."""
    folder = campaign.fresh(number, "limited")
    sizes = [p.stat().st_size for p in _new_files(campaign, number)]
    limit = max(sizes) // 2
    stage = Run(
        folder, number, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    stage.wait()
    kept = changed(campaign.before(number), folder)
    losses = [refusal(stage), kept, half_written(folder), orphans(stage)]
    return outcome(1, *losses, campaign.finish(number, folder), said=stage.said)


def _new_files(campaign: Campaign, number: int) -> list[Path]:
    old = {p.relative_to(campaign.before(number)) for p in campaign.before(number).rglob("*")}
    whole = campaign.whole(number)
    return [p for p in whole.rglob("*") if p.is_file() and p.relative_to(whole) not in old]


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path | None]:
    """A tmpfs, or None where we may not mount one."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def read_only(campaign: Campaign, number: int) -> Result:
    """The whole project is on a disk that takes no writes."""
    with mounted(campaign.folder / f"readonly_{number}", "size=64m") as disk:
        if disk is None:
            return Result(0, 0)
        folder = runs.copy(campaign.before(number), disk / "project")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        stage = Run(folder, number, said=campaign.folder / f"readonly_{number}.said")
        stage.wait()
        return outcome(1, refusal(stage), said=stage.said)


LINKED = [
    (1, "data"), (1, "data/rollouts"), (2, "checkpoints"), (3, "data/latents"),
    (4, "checkpoints"), (5, "data/imitation"), (5, "checkpoints"), (6, "checkpoints/results"),
]  # fmt: skip


def links_away(campaign: Campaign) -> Result:
    """Links to a disk that is not mounted: nothing may be begun."""
    found = []
    for number, path in LINKED[:: max(1, campaign.effort.every // 10)]:
        folder = campaign.fresh(number, "linked")
        shutil.rmtree(folder / path, ignore_errors=True)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(campaign.folder / "not_mounted" / "disk")
        found.append(refused_at_once(folder, number, {}, path))
    return total(found)


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc")  # process numbers of its own


def shared_disk(campaign: Campaign, number: int) -> Result:
    """Two containers run the same stage in the same folder at once: equal process numbers."""
    if shutil.which(CONTAINER[0]) is None or subprocess.run([*CONTAINER, "true"]).returncode:
        return Result(0, 0)
    folder = campaign.fresh(number, "shared")
    two = [
        Run(folder, number, through=CONTAINER, said=campaign.folder / f"shared_{number}_{i}.said")
        for i in range(2)
    ]
    ended = [f"ended with {r.process.returncode}: {r.said[-300:]}" for r in two if r.wait() != 0]
    said = "".join(run.said for run in two)
    return outcome(1, *ended, campaign.lost(number, folder), *map(orphans, two), said=said)


def rows(campaign: Campaign) -> Iterator[Row]:
    """What a disk refuses."""
    stages = campaign.effort.stages
    whole = "one sentence, earlier files whole"
    found = campaign.each(stages, partial(disk_full, campaign))
    yield Row("the disk is full", found, whole if found.caused else NO_TMPFS)
    found = campaign.each(stages, partial(write_fails, campaign))
    yield Row("a write fails", found, whole)
    found = campaign.each(stages, partial(read_only, campaign))
    yield Row("a disk takes no writes", found, "one sentence" if found.caused else NO_TMPFS)
    found = links_away(campaign)
    yield Row("links to a disk that is away", found, "refused before any work")
    found = campaign.each(campaign.effort.shared, partial(shared_disk, campaign))
    skipped = "skipped: no containers may be made here"
    yield Row("two containers, one disk", found, "the same files" if found.caused else skipped)
