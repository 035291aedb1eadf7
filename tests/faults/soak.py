"""Stage 05 for a long time at full load, a worker killed every so often: does anything get lost?

    python tests/faults --soak-minutes 40                  the shipped V and M, all cores
    python tests/faults --soak-minutes 1 --soak-tiny       untrained ones, small settings

The first run is harmed and, when its time is up, stopped by Ctrl-C; the same command then brings it
to its end. The second one goes undisturbed from the start through as many generations. Their files
must be the same to the last bit, but for the times in them.
"""

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from faults.runs import Run, differences
from faults.workers import kill_worker
from utils.runtime.cores import cores
from utils.storage.artifacts import load_header, save_json
from utils.storage.networks import rnn_path, vae_path
from utils.storage.outputs import prepare
from utils.storage.provenance import ROOT, provenance

FULL = {"start": "zeros", "sigma": 0.1, "population": 32, "tracks": 4, "patience": 100,
        "select_tracks": 8, "select_every": 10, "workers": cores()}  # fmt: skip
TINY = {"population": 6, "tracks": 2, "select_tracks": 1, "patience": 30, "workers": 2}
ENDLESS = 1_000_000  # generations


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The soak's own flags."""
    parser.add_argument("--soak-minutes", type=float, metavar="N", help="run the soak instead")
    parser.add_argument(
        "--soak-kill-seconds", type=float, default=30.0, metavar="S", help="between two kills"
    )
    parser.add_argument("--soak-json", metavar="FILE", help="write the soak's figures as data")
    parser.add_argument("--soak-tiny", action="store_true", help="untrained networks, small races")


def main(chosen: argparse.Namespace) -> int:
    """Run the soak, print what it came to; returns the exit status."""
    flags = FULL | (TINY if chosen.soak_tiny else {})
    if chosen.soak_json:
        prepare({Path(chosen.soak_json): "soak"})
    with tempfile.TemporaryDirectory(prefix="faults_soak_") as name:
        harmed, undisturbed = Path(name) / "harmed", Path(name) / "undisturbed"
        for folder in (harmed, undisturbed):
            _prepare(folder, chosen.soak_tiny)
        figures = _harm(harmed, flags, chosen.soak_minutes, chosen.soak_kill_seconds, chosen.seed)
        flags["generations"] = figures["generations"]
        figures["resumed"] = _go_through(harmed, flags)[0]
        figures["repeated"], figures["undisturbed_minutes"] = _go_through(undisturbed, flags)
        differ = differences(harmed, undisturbed)
    figures |= {"differences": differ, "flags": flags}
    if chosen.soak_json:
        save_json(chosen.soak_json, {"kind": "soak", **figures, "provenance": provenance()})
    report(figures)
    ends = figures["stopped"], figures["resumed"], figures["repeated"]
    sound = not differ and ends == (130, 0, 0) and not figures["orphans"]
    sound = sound and figures["killed"] == figures["restarts"]
    return 0 if sound else 1


def report(figures: dict[str, Any]) -> None:
    """The figures, to read."""
    print(f"\n{figures['minutes']:.0f} minutes of stage 05 with {figures['workers']} workers")
    for label, text in {
        "generations": f"{figures['generations']:,}",
        "races": f"{figures['races']:,}",
        "workers killed": f"{figures['killed']}",
        "workers restarted": f"{figures['restarts']}",
        "noticed after, at worst": f"{figures['noticed']:.1f} s",
        "memory after a generation": f"{figures['memory_start'] / 1e6:,.0f} MB",
        "memory at the end": f"{figures['memory_end'] / 1e6:,.0f} MB",
        "memory at most": f"{figures['memory_most'] / 1e6:,.0f} MB",
        "the undisturbed run took": f"{figures['undisturbed_minutes']:.0f} minutes",
        "its files, to the bit": ", ".join(figures["differences"]) or "the same",
    }.items():
        print(f"  {label:<30}{text}")


def _prepare(folder: Path, small: bool) -> None:
    checkpoints = folder / "checkpoints"
    if small:
        tiny.save_networks(checkpoints)
        return
    checkpoints.mkdir(parents=True)
    for path in (vae_path(ROOT / "checkpoints"), rnn_path(ROOT / "checkpoints")):
        shutil.copy(path, checkpoints)


def _harm(
    folder: Path, flags: dict[str, Any], minutes: float, pause: float, seed: int
) -> dict[str, Any]:
    """The run whose workers are killed."""
    stage = Run(folder, 5, **flags, generations=ENDLESS)
    stage.wait_until(lambda: "generation 0," in stage.said)
    memory, noticed, rng = [stage.memory()], [], np.random.default_rng(seed)
    deadline = time.monotonic() + 60 * minutes
    for _ in _beats(pause, deadline):
        if not stage.runs:
            break
        memory.append(stage.memory())
        if (after := kill_worker(stage, rng)) is not None:
            noticed.append(after)
    os.kill(stage.process.pid, signal.SIGINT)
    stopped = stage.wait()
    state = folder / "checkpoints" / "controller_evolution.npz"
    history = load_header(state, "evolution")["history"]
    generations = sum("mean" in row for row in history)  # the others only measure
    return {
        "minutes": minutes, "workers": flags["workers"], "stopped": stopped,
        "generations": generations,
        "races": generations * flags["population"] * flags["tracks"],
        "killed": len(noticed), "restarts": stage.said.count("was killed by signal 9"),
        "noticed": max(noticed, default=0.0), "memory_start": memory[0],
        "memory_end": memory[-1], "memory_most": max(memory), "orphans": stage.orphans()[0],
    }  # fmt: skip


def _beats(pause: float, deadline: float) -> Iterator[None]:
    """Once every `pause` seconds until the deadline."""
    following = time.monotonic() + pause
    while following < deadline:
        time.sleep(max(0.0, following - time.monotonic()))
        yield
        following += pause
    time.sleep(max(0.0, deadline - time.monotonic()))


def _go_through(folder: Path, flags: dict[str, Any]) -> tuple[int, float]:
    """Run stage 05 to its end in peace; returns its status and its minutes."""
    stage = Run(folder, 5, **flags)
    return stage.wait(24 * 3600), (time.monotonic() - stage.started) / 60
