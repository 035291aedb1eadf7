"""Every fault that we could think of, caused for real, and what came of it.

    python tests/faults.py                         23 minutes on two busy cores
    python tests/faults.py --json FILE             the same counts as data
    python tests/faults.py --quick                 a few of each, in a minute or two
    python tests/faults.py --soak-minutes 40       instead: stage 05 at full load, see soak.py

The stages run as the user runs them, as processes in folders of their own, on small settings; the
kills, the full disk and the hostile files are real. A fault is survived if nothing is lost: the
stage says in one sentence what is wrong, or goes on, and in the end its files equal those of a run
that nothing disturbed.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.runtime.start import run

import mutations
import numpy as np
import runs
import soak
import tiny
import torch
from campaign import QUICK, STAGES, THOROUGH, Campaign, Effort, Result, Row, outcome, total
from runs import Run

from utils.racing.agent import Races
from utils.racing.race import Race
from utils.runtime.errors import UserError
from utils.runtime.workers import DEATHS_IN_A_ROW, Workers
from utils.simulator.envs import FAST_ID
from utils.storage.artifacts import save_json
from utils.storage.provenance import provenance

NOTICED_WITHIN = 5.0  # seconds until a dead worker is noticed
ATTEMPTS = 10  # to interrupt a stage before it is done
LIMIT = 8  # seconds that a job may take where a worker is made to hang
MAY_GROW = 5.0  # MB over thousands of resets; workers that were never replaced grow by 13
AT_WORK_BY_NOW = r" [2-9]/\d+ \[|imitation 1/"  # what a stage says when all workers are ready
STOPPED = "the same command goes on from there"


# ---- faults of workers ----


def workers_killed(campaign: Campaign, number: int) -> Result:
    """Kill one worker after the other while the stage goes on."""
    rng = campaign.rng(1, number)
    wanted, caused, worst, losses, said = campaign.effort.workers_killed, 0, 0.0, [], ""
    while caused < wanted:
        stage = Run(folder := campaign.fresh(number, "workers_killed"), number)
        while caused < wanted and stage.wait_until(stage.workers):
            time.sleep(rng.uniform(0, 0.3 * campaign.seconds(number)))
            noticed = _kill_worker(stage, rng)
            if noticed is not None:
                caused, worst = caused + 1, max(worst, noticed)
        losses.append(_ended_well(campaign, stage, folder, number))
        said += stage.said
    losses.append(f"noticed after {worst:.1f} s" if worst > NOTICED_WITHIN else "")
    return outcome(caused, *losses, said=said, noticed=worst)


def _kill_worker(stage: Run, rng: np.random.Generator) -> float | None:
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


def _ended_well(campaign: Campaign, stage: Run, folder: Path, number: int) -> str:
    if stage.wait() != 0:
        return f"stage {number} ended with {stage.process.returncode}: {stage.said[-300:]}"
    return campaign.lost(number, folder) or _orphans(stage)


def _orphans(stage: Run) -> str:
    left, waited = stage.orphans()
    return f"left after {waited:.0f} s by {stage.folder.name}: {left}" if left else ""


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
    return outcome(1, loss, _orphans(stage), said=stage.said, deaths=len(deaths))


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
        len(stopped), loss, _ended_well(campaign, stage, folder, number),
        said=stage.said, waited=waited,
    )  # fmt: skip


# ---- faults of the main process ----


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
            losses.append(_orphans(stage))
            gone = max(gone, time.monotonic() - start)
        losses.append(campaign.finish(number, folder))
    return outcome(caused, *losses, gone=gone)


def main_killed_while_writing(campaign: Campaign, number: int) -> Result:
    """Let the main process kill itself in the middle of a write, before and after the renaming."""
    rng = campaign.rng(3, number)
    folder, caused, losses = campaign.fresh(number, "writing"), 0, []
    for fault in campaign.effort.writes:
        stage = Run(folder, number, fault=(fault, int(rng.integers(1, 4))), workers=0)
        if stage.wait() != 0:
            caused += 1
            losses.append(_orphans(stage))
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
        losses = ["" if told else f"not told how to go on: {stage.said[-300:]}", _orphans(stage)]
        losses.append(campaign.finish(number, folder))
        return outcome(1, *losses, said=stage.said)
    return Result(1, 0, losses=(f"stage {number} went on {ATTEMPTS} times",))


# ---- faults of the disk ----


def disk_full(campaign: Campaign, number: int) -> Result:
    """A tmpfs with less room than the stage's files need."""
    room = _bytes(campaign.whole(number)) - _bytes(campaign.before(number))
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
        losses = [_refusal(stage), _changed(campaign.before(number), folder), _orphans(stage)]
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
    kept = _changed(campaign.before(number), folder)
    return outcome(
        1, _refusal(stage), kept, _orphans(stage), campaign.finish(number, folder), said=stage.said
    )


def _new_files(campaign: Campaign, number: int) -> list[Path]:
    old = {p.relative_to(campaign.before(number)) for p in campaign.before(number).rglob("*")}
    whole = campaign.whole(number)
    return [p for p in whole.rglob("*") if p.is_file() and p.relative_to(whole) not in old]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _refusal(stage: Run) -> str:
    """Whether it ended with status 2 and one sentence."""
    good = stage.process.returncode == 2 and stage.complaint and "Traceback" not in stage.said
    return "" if good else f"status {stage.process.returncode}, said {stage.said[-300:]!r}"


def _changed(before: Path, folder: Path) -> str:
    """Earlier artefacts must be whole."""
    old = [p.relative_to(before) for p in before.rglob("*") if p.is_file()]
    harmed = [str(p) for p in old if (folder / p).read_bytes() != (before / p).read_bytes()]
    return f"harmed: {', '.join(harmed)}" if harmed else ""


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


# ---- files and flags ----


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


NONSENSE = [
    *((n, {"workers": w}) for n in STAGES for w in (-1, "two", 10**9)),
    (1, {"autopilot_episodes": -3}), (1, {"random_episodes": 10**12}), (1, {"noise": "nan"}),
    (1, {"env_id": "Pong-v5"}), (1, {"rollouts": "a_file"}), (1, {"rollouts": ""}),
    (1, {"grip": 1}), (2, {"epochs": 0}), (2, {"batch": 0}), (2, {"learning_rate": "inf"}),
    (2, {"seed": 10**30}), (2, {"threads": 0}), (2, {"checkpoints": "a_file/below"}),
    (3, {"latents": "a_file"}), (4, {"hidden": 0}), (4, {"temperature": -1}),
    (4, {"length": 1.5}), (5, {"population": 5}), (5, {"start": "scratch"}),
    (5, {"name": "../up"}), (5, {"sigma": 0}), (5, {"tracks": 0}), (5, {"select_tracks": 10**6}),
    (6, {"episodes": 0}), (6, {"driver": "nobody"}), (6, {"film": "up/there.mp4"}),
    (6, {"controller": "no/name"}), (6, {"first_seed": -1}), (6, {"seed": 1}),
]  # fmt: skip
IN_THE_WAY = [
    (1, "data/rollouts.csv"), (2, "checkpoints/vae.csv"), (2, "checkpoints/vae_frames.png"),
    (3, "data/latents.png"), (4, "checkpoints/mdn_rnn.pt"), (4, "checkpoints/dream.mp4"),
    (5, "checkpoints/controller.csv"), (5, "checkpoints/controller_evolution.npz"),
    (6, "checkpoints/results/latest.json"), (6, "best_lap.mp4"),
]  # fmt: skip


def nonsense(campaign: Campaign) -> Result:
    """Flags that make no sense, and folders where files belong: nothing may be begun."""
    found = []
    for number, wrong in NONSENSE:
        folder = campaign.fresh(number, "nonsense")
        (folder / "a_file").touch()
        (name,) = wrong
        found.append(_refused_at_once(folder, number, wrong, f"--{name.replace('_', '-')}"))
    for number, path in IN_THE_WAY:
        folder = campaign.fresh(number, "in_the_way")
        (folder / path).mkdir(parents=True)
        found.append(_refused_at_once(folder, number, {}, path))
    return total(found)


def _refused_at_once(folder: Path, number: int, flags: dict[str, Any], named: str) -> Result:
    before = sorted(folder.rglob("*"))
    try:
        begun = mock.patch("utils.runtime.workers.Workers.run", side_effect=BegunError)
        with runs.inside(folder), begun:
            tiny.stage(number, **runs.FLAGS[number] | flags)
    except UserError as error:
        if named not in str(error) or "\n" in str(error):
            return outcome(1, f"stage {number} with {flags or named}: {error}")
    except BaseException as error:
        what = f"stage {number} with {flags or named}: {type(error).__name__}: {error}"
        return outcome(1, what)._replace(tracebacks=1)
    else:
        return outcome(1, f"stage {number} took {flags or named}")
    return outcome(1, "" if sorted(folder.rglob("*")) == before else f"{number} left something")


class BegunError(Exception):
    """Work was begun."""


# ---- faults of the surroundings ----


def read_only(campaign: Campaign, number: int) -> Result:
    """The whole project is on a disk that takes no writes."""
    with mounted(campaign.folder / f"readonly_{number}", "size=64m") as disk:
        if disk is None:
            return Result(0, 0)
        folder = runs.copy(campaign.before(number), disk / "project")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        stage = Run(folder, number, said=campaign.folder / f"readonly_{number}.said")
        stage.wait()
        return outcome(1, _refusal(stage), said=stage.said)


def no_display(campaign: Campaign) -> Result:
    """The keyboard's races need a window."""
    folder = campaign.folder / "windowless"
    folder.mkdir(exist_ok=True)
    stage = Run(folder, 1, keyboard_episodes=1)
    stage.wait()
    told = "" if "needs a display" in stage.complaint else "the display is not mentioned"
    return outcome(1, _refusal(stage), told, said=stage.said)


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
    return outcome(1, _refusal(stage), told, lost, campaign.finish(6, folder), said=stage.said)


def surroundings(campaign: Campaign) -> Result:
    """No display, no write permission, a film that cannot be written."""
    read_only_ones = campaign.each(campaign.effort.stages, partial(read_only, campaign))
    return total([read_only_ones, no_display(campaign), film_fails(campaign)])


def resets(campaign: Campaign) -> Result:
    """Memory of all processes over thousands of races; a race here is a reset and little else."""
    count, batch = campaign.effort.resets, max(20, campaign.effort.resets // 20)
    vae, rnn = tiny.networks()
    workers_hold, main_holds, pids = [], [], set()
    with Workers(2, Races, {"env_id": FAST_ID, "vae": vae, "rnn": rnn}, slots=8) as workers:
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


# ---- the table ----


def rows(campaign: Campaign) -> Iterator[Row]:
    """Every line of the table, as it comes."""
    stages, at_work = campaign.effort.stages, campaign.effort.workers_of
    each = campaign.each

    def cause(fault: Callable[..., Result], numbers: tuple[int, ...]) -> Result:
        return each(numbers, partial(fault, campaign))

    found = cause(workers_killed, at_work)
    yield Row("a worker is killed", found, f"noticed after {note(found, 'noticed'):.2f} s at worst")
    found = cause(workers_killed_for_ever, at_work)
    yield Row("all workers, for ever", found, "a sentence and status 2")
    found = cause(worker_hangs, at_work[:2])
    yield Row(
        "a worker hangs", found, f"limit {LIMIT} s, ended after {note(found, 'waited'):.1f} s"
    )
    found = cause(main_killed, stages)
    yield Row("the main process is killed", found, (
        f"all processes gone after {note(found, 'gone'):.1f} s at worst, the same files"
    ))  # fmt: skip
    found = cause(main_killed_while_writing, stages)
    yield Row("... in the middle of a write", found, "nothing half-written is ever read")
    found = total([
        cause(interrupted, stages),
        each((5,), lambda number: interrupted(campaign, number, by=signal.SIGTERM)),
    ])  # fmt: skip
    yield Row("Ctrl-C, and SIGTERM", found, "status 130, one line, the same files in the end")
    found = cause(disk_full, stages)
    yield Row("the disk is full", found, "one sentence, earlier files whole" if found.caused
              else "skipped: no tmpfs may be mounted here")  # fmt: skip
    found = cause(write_fails, stages)
    yield Row("a write fails", found, "one sentence, earlier files whole")
    found = damaged_files(campaign)
    yield Row("damaged and hostile files", found, fates(found))
    found = unfit_files(campaign)
    yield Row("sizes, NaN, versions, origins", found, fates(found))
    found = nonsense(campaign)
    yield Row("nonsense in flags and paths", found, "refused before any work")
    found = surroundings(campaign)
    yield Row("no display, no right to write", found, "one sentence; scores outlive their film")
    found = resets(campaign)
    yield Row("thousands of resets", found, (
        f"{note(found, 'start'):,.0f} MB at first, {note(found, 'end'):,.0f} MB in the end, "
        f"{note(found, 'grew'):.1f} MB more at worst"
    ))  # fmt: skip


def note(result: Result, name: str) -> float:
    """A note, or 0 where there was nothing to note."""
    return result.notes.get(name, 0.0)


def fates(result: Result) -> str:
    """How many files were refused and how many the stage made anew."""
    refused, healed = (int(note(result, name)) for name in ("refused", "healed"))
    return f"{refused} refused by name, {healed} made anew or harmless"


def heading() -> None:
    print(f"{'fault':<32}{'caused':>8}{'survived':>10}   what was seen", flush=True)


def line(row: Row) -> None:
    result = row.result
    print(f"{row.fault:<32}{result.caused:>8,}{result.survived:>10,}   {row.seen}", flush=True)
    for loss in result.losses:
        print(f"    lost: {loss}", flush=True)


def counts(table: list[Row]) -> dict[str, Any]:
    """The totals, as data."""
    everything = total(row.result for row in table)
    hostile = [row.result.caused for row in table if "hostile" in row.fault or "NaN" in row.fault]
    return {
        "caused": everything.caused,
        "survived": everything.survived,
        "lost": everything.caused - everything.survived,
        "hostile_files": sum(hostile),
        "tracebacks": everything.tracebacks,
        "rows": [
            {"fault": row.fault, "seen": row.seen, **row.result._asdict()} for row in table
        ],
    }  # fmt: skip


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
    print(
        f"\n{found['caused']:,} faults caused, {found['lost']} lost; {found['hostile_files']} "
        f"hostile files, {found['tracebacks']} tracebacks; {found['seconds'] / 60:.0f} minutes"
    )
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the counts as data")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the damage")
    parser.add_argument("--quick", action="store_true", help="a few of each fault")
    soak.add_flags(parser)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    if chosen.soak_minutes:
        sys.exit(soak.main(chosen))
    found = run_campaign(QUICK if chosen.quick else THOROUGH, chosen.seed)
    if chosen.json:
        contents = {"kind": "faults", "quick": chosen.quick, "seed": chosen.seed, **found}
        save_json(chosen.json, {**contents, "provenance": provenance()})
    sys.exit(1 if found["lost"] or found["tracebacks"] else 0)


if __name__ == "__main__":
    run(main)
