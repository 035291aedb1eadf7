"""Stage 05 for a long time at full load, a worker killed every so often: does anything get lost?

    python tests/faults.py --soak-minutes 40                  the shipped V and M, all cores
    python tests/faults.py --soak-minutes 1 --soak-tiny       untrained ones, small settings

The first run is harmed and, when its time is up, stopped by Ctrl-C. The second one goes undisturbed
from the start through as many generations. Their states must be the same to the last bit.
"""

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from runs import Run

from utils.artifacts import load_arrays, load_header, save_json
from utils.networks import controller_path, rnn_path, vae_path
from utils.provenance import ROOT, provenance

FULL = {"start": "zeros", "sigma": 0.1, "population": 32, "tracks": 4, "patience": 100,
        "select_tracks": 8, "select_every": 10, "workers": os.cpu_count()}  # fmt: skip
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
    with tempfile.TemporaryDirectory(prefix="faults_soak_") as name:
        harmed, undisturbed = Path(name) / "harmed", Path(name) / "undisturbed"
        for folder in (harmed, undisturbed):
            _prepare(folder, chosen.soak_tiny)
        figures = _harm(harmed, flags, chosen.soak_minutes, chosen.soak_kill_seconds, chosen.seed)
        figures |= _repeat(undisturbed, flags, figures["generations"])
        differ = _differences(harmed, undisturbed)
    figures |= {"differences": differ, "flags": flags}
    report(figures)
    if chosen.soak_json:
        save_json(chosen.soak_json, {"kind": "soak", **figures, "provenance": provenance()})
    sound = not differ and figures["status"] == 130 and figures["killed"] == figures["restarts"]
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
        "its state, to the bit": ", ".join(figures["differences"]) or "the same",
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
        noticed.append(_kill_one(stage, rng))
        memory.append(stage.memory())
    os.kill(stage.process.pid, signal.SIGINT)
    status = stage.wait()
    said, header = stage.said, _state(folder)[0]
    history = header["history"]
    driven = [row["generation"] for row in history if "mean" in row]
    return {
        "minutes": minutes, "workers": flags["workers"], "status": status,
        "generations": len(driven),
        "races": len(driven) * flags["population"] * flags["tracks"],
        "killed": len(noticed), "restarts": said.count("was killed by signal 9"),
        "noticed": max(noticed, default=0.0), "memory_start": memory[0],
        "memory_end": memory[-1], "memory_most": max(memory), "orphans": len(stage.orphans()),
    }  # fmt: skip


def _beats(pause: float, deadline: float) -> Iterator[None]:
    """Once every `pause` seconds until the deadline."""
    following = time.monotonic() + pause
    while following < deadline:
        time.sleep(max(0.0, following - time.monotonic()))
        yield
        following += pause
    time.sleep(max(0.0, deadline - time.monotonic()))


def _kill_one(stage: Run, rng: np.random.Generator) -> float:
    """Kill a worker; returns the seconds until that was noticed."""
    workers = stage.workers()
    victim = workers[rng.integers(len(workers))]
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    stage.wait_until(lambda: f"worker process {victim} was killed" in stage.said, 60)
    return time.monotonic() - start


def _repeat(folder: Path, flags: dict[str, Any], generations: int) -> dict[str, Any]:
    """The run that nothing disturbs: as many generations, and no measurement after the last."""
    stage = Run(folder, 5, **flags, generations=generations)
    stage.wait(24 * 3600)
    return {"undisturbed_minutes": (time.monotonic() - stage.started) / 60}


def _differences(harmed: Path, undisturbed: Path) -> list[str]:
    """Names of what differs in the two states: arrays to the bit, rows of the history by score."""
    (header, arrays), (other_header, others) = _state(harmed), _state(undisturbed)
    differ = [name for name in arrays if arrays[name].tobytes() != others[name].tobytes()]
    rows, other_rows = (
        [row["mean"] for row in found["history"] if "mean" in row]
        for found in (header, other_header)
    )
    return differ if rows == other_rows else [*differ, "history"]


def _state(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    path = Path(str(controller_path(folder / "checkpoints")).replace(".pt", "_evolution.npz"))
    load_header(path, "evolution", "")
    return load_arrays(path, "evolution", "")
