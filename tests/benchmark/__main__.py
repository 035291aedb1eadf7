"""Every figure of the table in README.md: how fast, and how true to stock, measured in one run.

    python tests/benchmark                       five to twelve minutes on two quiet cores
    python tests/benchmark --json FILE           the same figures as data
    python tests/benchmark --picture FILE.png    frames of stock and ours, and the difference
    python tests/benchmark --quick               seconds: is it the same game, does it all run?

Whatever is compared takes turns, so that a disturbance hits both. A figure is the median of its
turns, a ratio the median of the turns' ratios. On one core time is that core's processor time, on
several it is the clock on the wall. The shipped V, M and C drive where they are present; without
them networks of random weights do the same work.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project

from utils.runtime.start import run

import cv2
import torch

from benchmark.cluster import measure_cluster
from benchmark.dreams import measure_dreams
from benchmark.fidelity import measure_fidelity
from benchmark.learning import measure_encoding, measure_rnn_training, measure_vae_training
from benchmark.loop import load_networks, measure_loop, measure_parts
from benchmark.measuring import (
    AT_MOST,
    BARS,
    QUICK,
    THOROUGH,
    Effort,
    Figures,
    heading,
    line,
    shown,
)
from benchmark.simulators import measure_memory, measure_simulators, record_races
from benchmark.workers import measure_workers
from utils.storage.artifacts import save_json
from utils.storage.outputs import prepare
from utils.storage.provenance import ROOT, provenance


def measure(effort: Effort, picture: str | None) -> Figures:
    """Everything, in the order in which it is printed."""
    start = time.monotonic()
    networks = load_networks(ROOT / "checkpoints")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = measure_memory()
        rollouts = record_races(folder / "rollouts", effort)
        figures |= measure_simulators(rollouts, effort)
        figures |= measure_fidelity(effort, figures, picture)
        figures |= measure_loop(networks, effort)
        figures |= measure_parts(networks, effort)
        figures |= measure_workers(networks, effort)
        figures |= measure_dreams(networks, effort)
        figures |= measure_encoding(rollouts, networks, folder / "latents")
        figures |= measure_vae_training(rollouts, effort, folder)
        figures |= measure_rnn_training(folder / "latents", effort, folder)
    return {**figures, "seconds": time.monotonic() - start}


def compare(effort: Effort) -> Figures:
    """The simulators alone."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_simulators(record_races(Path(folder), effort), effort)
    return {**figures, "seconds": time.monotonic() - start}


def verdict(figures: Figures) -> None:
    """What was wanted, and what was measured."""
    heading("What it was built to reach", "measured", "wanted")
    for name, bar in BARS.items():
        value = figures[name]
        missed = value is not None and (value > bar if name in AT_MOST else value < bar)
        wanted = f"{'<=' if name in AT_MOST else '>='} {shown(bar)}"
        line(name, value, wanted, "missed" if missed else "")


def where(figures: Figures, origin: dict[str, str]) -> None:
    """Where and with what it was measured."""
    versions = ("gymnasium", "box2d", "torch", "numpy", "opencv-python", "pygame-ce", "python")
    print(f"\n{origin['machine']}; {figures['seconds']:.0f} s; commit {origin['commit']}")
    print(", ".join(f"{name} {origin[name]}" for name in versions))
    if "trained_networks" in figures:
        drivers = "the shipped" if figures["trained_networks"] else "untrained"
        print(f"{drivers} networks, V in {origin['arithmetic']}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as data")
    parser.add_argument("--picture", metavar="FILE", help="write frames side by side, as a PNG")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny version; its speeds mean little"
    )
    parser.add_argument(
        "--simulators", action="store_true", help="these alone, EnvPool too if it is installed"
    )
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="a worker on this Ray cluster alone, beside one here"
    )
    chosen = parser.parse_args(argv)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if chosen.json:
        prepare({Path(chosen.json): "benchmark"})

    effort = QUICK if chosen.quick else THOROUGH
    if chosen.cluster:
        start = time.monotonic()
        figures = measure_cluster(load_networks(ROOT / "checkpoints"), effort, chosen.cluster)
        figures["seconds"] = time.monotonic() - start
    else:
        figures = compare(effort) if chosen.simulators else measure(effort, chosen.picture)
    origin = provenance()
    if chosen.json:
        contents = {"kind": "benchmark", "quick": chosen.quick, **figures, "provenance": origin}
        save_json(chosen.json, contents)
    if chosen.quick:
        print("\nA quick run: too short for its figures to mean much.")
    elif not chosen.simulators and not chosen.cluster:
        verdict(figures)
    where(figures, origin)


if __name__ == "__main__":
    run(main)
