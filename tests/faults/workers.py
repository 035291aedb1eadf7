"""Faults of worker processes, and memory over thousands of their races."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import tiny

from faults import runs
from faults.campaign import Campaign, Result, Row, note, outcome
from faults.judging import ended_well, orphans
from faults.runs import Run
from utils.racing.agent import racing_workers
from utils.racing.race import Race
from utils.runtime.workers import DEATHS_IN_A_ROW, OneAtATime, Workers
from utils.simulator.envs import FAST_ID

NOTICED_WITHIN = 5.0  # seconds until a dead worker is noticed
HANGS_AFTER = 60.0  # seconds after which a main process is taken to wait for ever
LIMIT = 8  # seconds that a job may take where a worker is made to hang
MAY_GROW = 5.0  # MB over thousands of resets; workers that were never replaced grow by 13
AT_WORK_BY_NOW = r" [2-9]/\d+ \[|imitation 1/"  # what a stage says when all workers are ready


def workers_killed(campaign: Campaign, number: int) -> Result:
    """Kill one worker after the other while the stage goes on."""
    rng = campaign.rng(1, number)
    wanted, caused, worst, losses, said = campaign.effort.workers_killed, 0, 0.0, [], ""
    while caused < wanted:
        stage = Run(folder := campaign.fresh(number, "workers_killed"), number)
        while caused < wanted and stage.wait_until(stage.workers):
            time.sleep(rng.uniform(0, 0.3 * campaign.seconds(number)))
            noticed = kill_worker(stage, rng)
            if noticed is not None:
                caused, worst = caused + 1, max(worst, noticed)
        losses.append(ended_well(campaign, stage, folder, number))
        said += stage.said
    losses.append(f"noticed after {worst:.1f} s" if worst > NOTICED_WITHIN else "")
    return outcome(caused, *losses, said=said, noticed=worst)


def kill_worker(stage: Run, rng: np.random.Generator) -> float | None:
    """Seconds until the main process says so; None where there was nobody to kill any more."""
    workers = stage.workers()
    if not workers or not stage.runs:
        return None
    victim = workers[rng.integers(len(workers))]
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    sentence = f"worker process {victim} was killed by signal 9"
    if stage.wait_until(lambda: sentence in stage.said, 60) or sentence in stage.said:
        return time.monotonic() - start
    return 60.0 if stage.runs else None  # it was just about to be closed


def workers_killed_for_ever(campaign: Campaign, number: int) -> Result:
    """Kill every worker as soon as it is there: the stage has to give up, and say so."""
    stage = Run(campaign.fresh(number, "for_ever"), number)
    deaths = set()
    while stage.runs and time.monotonic() - stage.started < runs.PATIENCE:
        for worker in stage.workers():
            deaths.add(worker)
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.005)
    stopped = stage.wait() == 2 and "worker processes died" in stage.complaint
    good = stopped and len(deaths) > DEATHS_IN_A_ROW
    loss = "" if good else f"no clear stop: {stage.said[-300:]}"
    return outcome(1, loss, orphans(stage), said=stage.said, deaths=len(deaths))


def worker_hangs(campaign: Campaign, number: int) -> Result:
    """Stop a worker with SIGSTOP, so that nothing in it can tell."""
    folder = campaign.fresh(number, "hangs")
    stage = Run(folder, number, fault=("limit", LIMIT))
    stage.wait_until(lambda: re.search(AT_WORK_BY_NOW, stage.said))
    stopped, start = stage.workers()[:1], time.monotonic()
    for worker in stopped:
        os.kill(worker, signal.SIGSTOP)
    stage.wait_until(lambda: f"after {LIMIT} s and was ended" in stage.said)
    waited = time.monotonic() - start
    loss = "" if f"after {LIMIT} s and was ended" in stage.said else "the hanging was not noticed"
    return outcome(
        len(stopped), loss, ended_well(campaign, stage, folder, number),
        said=stage.said, waited=waited,
    )  # fmt: skip


def send_half(connection: Connection, data: bytes, write: Callable = os.write) -> None:
    """In place of `Connection._send`: a process that is stopped while its message is on its way."""
    write(connection.fileno(), data[: min(len(data) // 2, 4096)])
    os.kill(os.getpid(), signal.SIGSTOP)


def large_result(job: int, folder: str) -> bytes:
    """2 MB, far more than a pipe holds; the first worker that sends them is stopped."""
    with suppress(FileExistsError):
        (Path(folder) / "stopped").touch(exist_ok=False)
        Connection._send = send_half
    return bytes([job]) * 2_000_000


def stopped_while_sending(campaign: Campaign) -> Result:
    """A worker is stopped (SIGSTOP) when half of a large result is in the pipe."""
    folder = campaign.folder / "sending"
    folder.mkdir(exist_ok=True)
    start, limit = time.monotonic(), 3.0
    setup = {"function": large_result, "folder": str(folder)}
    with Workers(2, OneAtATime, setup, job_seconds=limit) as workers:
        alarm = threading.Timer(HANGS_AFTER, lambda: [w.process.kill() for w in workers._workers])
        alarm.start()  # without it a main process that waits for ever would wait for ever
        results = workers.run(range(6))
        alarm.cancel()
    waited = time.monotonic() - start
    wrong = "" if results == [bytes([i]) * 2_000_000 for i in range(6)] else "other results"
    hung = "" if waited < HANGS_AFTER else "main waited for ever"
    return outcome(1, wrong, hung, "" if workers.restarts == 1 else "nobody was replaced")


def resets(campaign: Campaign) -> Result:
    """Memory of all processes over thousands of races; a race here is a reset and little else."""
    count, batch = campaign.effort.resets, max(20, campaign.effort.resets // 20)
    vae, rnn = tiny.networks()
    workers_hold, main_holds, pids = [], [], set()
    with racing_workers(2, FAST_ID, vae, rnn) as workers:
        for first in range(0, count, batch):
            workers.run([Race(first + i, tiny.STRAIGHT_ON, patience=1) for i in range(batch)])
            now = [worker.process.pid for worker in workers._workers]
            pids.update(now)
            workers_hold.append(runs.resident(now) / 1e6)
            main_holds.append(runs.resident([os.getpid()]) / 1e6)
        restarts = workers.restarts
    growths = [max(held[2:]) - held[2] for held in (workers_hold, main_holds)]  # all cars are made
    grown = "" if max(growths) <= MAY_GROW else f"workers and main grew by {growths} MB"
    memory = [sum(held) for held in zip(workers_hold, main_holds, strict=True)]
    unsettled = f"{restarts} workers died" if restarts else ""
    return outcome(
        count, grown, unsettled, start=memory[2], end=memory[-1], grew=max(growths),
        processes=len(pids),
    )  # fmt: skip


def rows(campaign: Campaign) -> Iterator[Row]:
    """What befalls workers while a stage is at work."""
    at_work = campaign.effort.workers_of
    found = campaign.each(at_work, partial(workers_killed, campaign))
    yield Row("a worker is killed", found, f"noticed after {note(found, 'noticed'):.2f} s at worst")
    found = campaign.each(at_work, partial(workers_killed_for_ever, campaign))
    yield Row("all workers, for ever", found, "a sentence and status 2")
    found = campaign.each(at_work[:2], partial(worker_hangs, campaign))
    waited = f"limit {LIMIT} s, ended after {note(found, 'waited'):.1f} s"
    yield Row("a worker hangs", found, waited)
    found = stopped_while_sending(campaign)
    yield Row("... in the middle of a message", found, "replaced, its job done again")


def memory(campaign: Campaign) -> Iterator[Row]:
    """What the processes hold after thousands of races."""
    found = resets(campaign)
    yield Row("thousands of resets", found, (
        f"{note(found, 'start'):,.0f} MB at first, {note(found, 'end'):,.0f} MB in the end, "
        f"{note(found, 'grew'):.1f} MB more at worst"
    ), counted_as="resets")  # fmt: skip
