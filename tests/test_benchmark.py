"""The benchmark runs, from any folder, and gives every figure that its README quotes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark.measuring import AT_MOST, BARS, Rates

FOLDER = Path(__file__).with_name("benchmark")
PROMISED = {
    "env_over_stock",
    "env_over_physics",
    "env_over_envpool",
    "view_over_stock",
    "loop_over_stock",
    "two_workers_over_one",
    "frame_psnr_db",
    "frame_psnr_worst_db",
    "frame_mae",
    "view_psnr_db",
    "view_psnr_worst_db",
    "view_mae",
    "physics_mismatches",
    "vae_training_over_plain",
    "encode_frames_per_s",
    "dreamt_frames_per_s",
    "dream_over_loop",
}


@pytest.mark.slow
def test_quick_run(tmp_path):
    report, picture = tmp_path / "figures.json", tmp_path / "frames.png"
    done = subprocess.run(
        [sys.executable, FOLDER, "--quick", "--json", report, "--picture", picture],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())
    assert figures.keys() >= PROMISED
    assert figures["physics_mismatches"] == 0
    assert figures["physics_frames_compared"] > 200
    assert figures["same_scores_for_any_workers"]
    assert figures["frame_psnr_worst_db"] > 40
    assert figures["view_psnr_worst_db"] > 40
    assert figures["provenance"]["gymnasium"] in done.stdout
    assert picture.read_bytes()[1:4] == b"PNG"


def test_every_bar_is_on_a_promised_figure():
    assert BARS.keys() - PROMISED == {"env_megabytes"}
    assert set(AT_MOST) <= BARS.keys()


def test_a_ratio_is_taken_turn_by_turn():
    rates = Rates(
        ours=[100.0, 10.0, 70.0], stock=[10.0, 1.0, 10.0]
    )  # the second turn was disturbed
    assert rates.ratio("ours", "stock") == 10
    assert rates.of("ours") == 70
