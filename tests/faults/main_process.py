"""The main process is killed, dies in the middle of a write, or is asked to stop."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from faults.campaign import (
    Campaign,
    Result,
    Row,
    note,
    outcome,
    total,
)
from faults.judging import orphans
from faults.runs import Run

ATTEMPTS = 10  # to interrupt a stage before it is done
STOPPED = "the same command goes on from there"


def main_killed(campaign: Campaign, number: int) -> Result:
    """Kill the main process at random moments, again and again, until it gets through."""
    rng = campaign.rng(2, number)
    caused, losses, gone = 0, [], 0.0
    while caused < campaign.effort.kills:
        folder = campaign.fresh(number, "killed")
        while caused < campaign.effort.kills:
            stage = Run(folder, number)
            with suppress(subprocess.TimeoutExpired):
                stage.process.wait(rng.uniform(0.3, 1.0) * campaign.seconds(number))
                break  # it was faster
            stage.process.kill()
            stage.wait()
            caused, start = caused + 1, time.monotonic()
            losses.append(orphans(stage))
            gone = max(gone, time.monotonic() - start)
        losses.append(campaign.finish(number, folder))
    return outcome(caused, *losses, gone=gone)


def main_killed_while_writing(campaign: Campaign, number: int) -> Result:
    """Let the main process kill itself in the middle of a write, before and after the renaming."""
    rng = campaign.rng(3, number)
    folder, caused, losses = campaign.fresh(number, "writing"), 0, []
    for fault in campaign.effort.writes:
        stage = Run(folder, number, fault=(fault, int(rng.integers(1, 4))), workers=0)
        if stage.wait() == -signal.SIGKILL:
            caused += 1
            losses.append(orphans(stage))
    return outcome(caused, *losses, campaign.finish(number, folder))


def interrupted(campaign: Campaign, number: int, by: int = signal.SIGINT) -> Result:
    """Ctrl-C as a terminal sends it, to every process of the stage."""
    rng = campaign.rng(4, number)
    for _ in range(ATTEMPTS):
        stage = Run(folder := campaign.fresh(number, "interrupted"), number)
        stage.wait_until(lambda stage=stage: stage.said)
        time.sleep(rng.uniform(0, 0.2) * campaign.seconds(number))
        if not stage.runs:
            continue
        os.killpg(stage.process.pid, by)
        if stage.wait() == 0:
            continue  # its very last moment
        told = stage.process.returncode == 130 and STOPPED in stage.complaint
        losses = ["" if told else f"not told how to go on: {stage.said[-300:]}", orphans(stage)]
        losses.append(campaign.finish(number, folder))
        return outcome(1, *losses, said=stage.said)
    return Result(1, 0, losses=(f"stage {number} went on {ATTEMPTS} times",))


def rows(campaign: Campaign) -> Iterator[Row]:
    """What ends a stage before its time."""
    stages = campaign.effort.stages
    found = campaign.each(stages, partial(main_killed, campaign))
    gone = f"all processes gone after {note(found, 'gone'):.1f} s at worst, the same files"
    yield Row("the main process is killed", found, gone)
    found = campaign.each(stages, partial(main_killed_while_writing, campaign))
    yield Row("... in the middle of a write", found, "nothing half-written is ever read")
    by_terminate = partial(interrupted, campaign, by=signal.SIGTERM)
    found = total(
        [campaign.each(stages, partial(interrupted, campaign)), campaign.each((5,), by_terminate)]
    )
    yield Row("Ctrl-C, and SIGTERM", found, "status 130, one line, the same files in the end")
