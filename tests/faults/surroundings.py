"""Machines and terminals that lack something, or bring habits of their own."""

import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import tiny

from faults import runs
from faults.campaign import STAGES, Campaign, Result, Row, outcome, total
from faults.judging import ended_well, orphans, refusal, sentence_or_success
from faults.runs import Run

NOBODY = 65534  # the user who owns nothing; here he may read where this project is
USER = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    "--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search",
)  # fmt: skip
MEGABYTES = 8  # that are left when a race of 12 is read
STYLE = """
text.usetex: True
savefig.bbox: tight
font.size: 30
axes.facecolor: black
"""
STOPPED = "the same command goes on from there"


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
    without_room = (
        "best_lap.mp4",
        "checkpoints/pictures/best_lap.gif",
        "checkpoints/dream_straight_on.html",
    )
    differ = [name for name in runs.differences(folder, whole) if name not in without_room]
    told = "" if "The scores are safe" in stage.complaint else "not told that scores are safe"
    lost = f"lost: {differ}" if differ else ""
    return outcome(1, refusal(stage), told, lost, campaign.finish(6, folder), said=stage.said)


# ---- terminals ----

FIRST_LINE = ("bash", "-c", '"$0" "$@" | head -n 1; exit "${PIPESTATUS[0]}"')


def reader_leaves(campaign: Campaign, number: int) -> Result:
    """`python stage | head -n 1`: nobody reads the rest."""
    folder = campaign.fresh(number, "unread")
    stage = Run(folder, number, through=FIRST_LINE)
    stage.wait()
    quiet = "Traceback" not in stage.said and "BrokenPipe" not in stage.said
    loud = "" if quiet else f"stage {number} said {stage.said[-300:]}"
    return outcome(1, loud, orphans(stage), campaign.finish(number, folder), said=stage.said)


def ascii_output(campaign: Campaign, number: int) -> Result:
    """The terminal knows no ±."""
    folder = campaign.fresh(number, "ascii")
    stage = Run(folder, number, env={"PYTHONIOENCODING": "ascii"})
    return outcome(1, ended_well(campaign, stage, folder, number), said=stage.said)


def interrupted_at_once(campaign: Campaign, number: int) -> Result:
    """Ctrl-C while the libraries are being loaded."""
    rng = campaign.rng(7, number)
    stage = Run(campaign.fresh(number, "at_once"), number)
    loaded = Path(f"/proc/{stage.process.pid}/maps")
    stage.wait_until(lambda: "numpy" in loaded.read_text())  # the first large one
    time.sleep(rng.uniform(0, 1))
    os.killpg(stage.process.pid, signal.SIGINT)
    status = stage.wait()
    good = status == 130 and "Traceback" not in stage.said and STOPPED in stage.complaint
    told = "" if good else f"stage {number}: status {status}, said {stage.said[-300:]}"
    return outcome(1, told, orphans(stage), said=stage.said)


# ---- machines ----


def little_memory(campaign: Campaign, number: int) -> Result:
    """Too little for a sound race of 12 MB: never the race's fault."""
    folder = campaign.fresh(number, "memory")
    (race,) = tiny.save_episodes(folder / "data" / "rollouts", [1000])
    race = race.rename(race.with_name("keyboard_1000000.npz"))
    contents = race.read_bytes()
    few = {"autopilot_episodes": 0, "random_episodes": 1} if number == 1 else {}
    stage = Run(folder, number, fault=("memory", MEGABYTES), **few | {"workers": 0})
    stage.wait()
    blamed = f"stage {number} blames the race: {stage.said[-300:]}"
    losses = [refusal(stage), blamed if race.name in stage.said and "delete" in stage.said else ""]
    again = Run(folder, number, **few)
    losses.append("" if again.wait() == 0 else f"again: {again.said[-300:]}")
    losses.append("" if race.read_bytes() == contents else "the race was changed")
    return outcome(1, *losses, said=stage.said)


def few_processes(campaign: Campaign, number: int) -> Result:
    """Another user than root, who may start eight processes and threads."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("setpriv", "prlimit"))):
        return Result(0, 0)
    with tempfile.TemporaryDirectory(prefix="faults_") as name:
        folder = runs.copy(campaign.before(number), Path(name) / "project")
        for path in (Path(name), folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        if subprocess.run([*USER, sys.executable, "-c", ""], capture_output=True).returncode:
            return Result(0, 0)
        stage = Run(
            folder, number, through=[*USER, "prlimit", "--nproc=8"],
            env={"HOME": name, "MPLCONFIGDIR": name},
        )  # fmt: skip
        stage.wait()
        losses = [sentence_or_success(stage), orphans(stage), campaign.finish(number, folder)]
        return outcome(1, *losses, said=stage.said)


def no_ffmpeg(campaign: Campaign, number: int) -> Result:
    """imageio-ffmpeg without its program, and a variable that points nowhere."""
    source = Path(importlib.util.find_spec("imageio_ffmpeg").origin).parent
    bare = campaign.folder / f"bare_{number}"
    shutil.copytree(
        source, bare / source.name, ignore=shutil.ignore_patterns("ffmpeg*", "__pycache__"),
        dirs_exist_ok=True,
    )  # fmt: skip
    lacks = {"PYTHONPATH": str(bare), "PATH": str(bare)}
    found = []
    for env in (lacks, {"IMAGEIO_FFMPEG_EXE": "/nowhere/ffmpeg"}):
        folder = campaign.fresh(number, "no_ffmpeg")
        stage = Run(folder, number, env=env)
        stage.wait()
        named = "" if "ffmpeg" in stage.said.lower() else "ffmpeg is not mentioned"
        losses = [sentence_or_success(stage), named, campaign.finish(number, folder)]
        found.append(outcome(1, *losses, said=stage.said))
    return total(found)


def notebook(campaign: Campaign, number: int) -> Result:
    """Started from a notebook's cell, which asks for a backend that is not installed here."""
    folder = campaign.fresh(number, "notebook")
    stage = Run(folder, number, env={"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    return outcome(1, ended_well(campaign, stage, folder, number), said=stage.said)


def own_style(campaign: Campaign, number: int) -> Result:
    """The user's matplotlibrc asks for LaTeX, which is not there, and for a style of its own."""
    style = campaign.folder / f"style_{number}"
    style.mkdir()
    (style / "matplotlibrc").write_text(STYLE)
    folder = campaign.fresh(number, "own_style")
    stage = Run(folder, number, env={"MPLCONFIGDIR": str(style)})
    return outcome(1, ended_well(campaign, stage, folder, number), said=stage.said)


def rows(campaign: Campaign) -> Iterator[Row]:
    """What a machine or a terminal lacks."""
    chosen = campaign.effort.surroundings

    def cause(fault: Callable[..., Result], numbers: tuple[int, ...]) -> Result:
        numbers = tuple(number for number in numbers if number in chosen)
        return campaign.each(numbers, partial(fault, campaign))

    found = cause(reader_leaves, (1, 5))
    yield Row("a reader that goes away", found, "no traceback, the same files in the end")
    found = cause(ascii_output, (1, 5, 6))
    yield Row("output in ASCII", found, "the same files")
    found = cause(interrupted_at_once, STAGES)
    yield Row("Ctrl-C while libraries load", found, "status 130, one line")
    found = cause(little_memory, (1, 2, 3))
    yield Row("little memory", found, "one sentence, no race is blamed")
    found = cause(few_processes, (1, 5))
    yield Row("few processes", found, "one sentence, or the same files" if found.caused
              else "skipped: only root can become another user")  # fmt: skip
    found = cause(no_ffmpeg, (4, 6))
    yield Row("no ffmpeg", found, "one sentence, the same files in the end")
    found = total([cause(notebook, (2, 6)), cause(own_style, (2, 5, 6))])
    yield Row("a notebook's and LaTeX's settings", found, "the same files, pictures too")
    found = total([no_display(campaign), film_fails(campaign)])
    yield Row("no display, no room for the film", found, "one sentence; scores outlive their film")
