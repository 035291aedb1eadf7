"""All stages together: what is missing or stale, and all of it as a newcomer runs it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from stages import EPISODES, FLAGS, contents, film_frames, picture, replace_m, replace_v

from utils.racing.evaluation import END_FRAMES
from utils.runtime.errors import UserError
from utils.simulator.envs import STOCK_ID
from utils.storage.networks import (
    controller_path,
    load_agent,
    save_controller,
)
from utils.world_model.episodes import save_rollout
from utils.world_model.latents import load_latents

# Whatever is missing, stale or of another kind


MISSING = [
    (2, "data/rollouts", "data/rollouts .*01_collect_rollouts.py"),
    (3, "data/rollouts", "data/rollouts .*01_collect_rollouts.py"),
    (3, "checkpoints/vae.pt", "vae.pt .*02_train_vae.py"),
    (4, "checkpoints/vae.pt", "vae.pt .*02_train_vae.py"),
    (4, "data/latents", "data/latents .*03_encode_dataset.py"),
    (5, "checkpoints/vae.pt", "vae.pt .*02_train_vae.py"),
    (5, "checkpoints/mdn_rnn.pt", "mdn_rnn.pt .*04_train_mdn_rnn.py"),
    (6, "checkpoints/vae.pt", "vae.pt .*02_train_vae.py"),
    (6, "checkpoints/mdn_rnn.pt", "mdn_rnn.pt .*04_train_mdn_rnn.py"),
    (6, "checkpoints/straight_on.pt", "straight_on.pt .*05_train_controller.py"),
]


@pytest.mark.parametrize(("number", "lost", "sentence"), MISSING)
def test_what_is_missing_is_named_with_the_command_that_makes_it(project, number, lost, sentence):
    path = project / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(project)
    with pytest.raises(UserError, match=sentence) as error:
        tiny.stage(number, **FLAGS[number])
    assert "\n" not in str(error.value)
    assert contents(project) == before


DESTROYING = [
    (1, {"rollouts": "data/latents"}, "autopilot_100000.npz is no rollout file"),
    (1, {"rollouts": "checkpoints/vae"}, "vae.csv is no log by seed file"),
    (3, {"latents": "data/rollouts"}, "autopilot_100000.npz is no latents file"),
    (3, {"latents": "linked"}, "autopilot_100000.npz is no latents file"),
    (3, {"latents": "checkpoints"}, "controller_evolution.npz is no latents file"),
    (5, {"name": "vae"}, "vae.pt is no C file"),
    (5, {"name": "mdn_rnn"}, "mdn_rnn.pt is no C file"),
    (5, {"name": "Controller"}, "differs .* in upper and lower case alone"),
    (5, {"name": "mine"}, "mine.pt is no C file"),
    (5, {"imitation": "data", "name": "rollouts"}, "autopilot_100000.npz is no imitation round"),
    (6, {"name": "mine"}, "mine.json is no report file"),
    (6, {"name": "LATEST"}, "differs .* in upper and lower case alone"),
    (6, {"film": "notes.mp4"}, "notes.mp4 is no film file"),
]


@pytest.mark.parametrize(("number", "flags", "sentence"), DESTROYING)
def test_no_name_makes_a_stage_destroy_what_is_not_its_own(project, number, flags, sentence):
    (project / "linked").symlink_to("data/rollouts")
    torch.save({"my": "network"}, project / "checkpoints" / "mine.pt")
    (project / "checkpoints" / "results" / "mine.json").write_text('{"my": "notes"}')
    (project / "notes.mp4").write_text("no film at all")
    before = contents(project)
    with pytest.raises(UserError, match=sentence):
        tiny.stage(number, **FLAGS[number] | flags)
    assert contents(project) == before


def test_hidden_and_half_written_files_are_nobodys(project):
    for folder in (project / "data" / "rollouts", project / "data" / "latents"):
        for name in ("._autopilot_100000.npz", ".random_1.tmp.0a1b.npz", "random_1.tmp.77.npz"):
            (folder / name).write_bytes(b"no archive")
    before = contents(project)
    assert "3 episodes in" in tiny.stage(1, **FLAGS[1])
    assert "trained from these rollouts already" in tiny.stage(2, **FLAGS[2])
    said = tiny.stage(3, **FLAGS[3])
    assert "6 of 6 drives and images are encoded already" in said
    assert "removed" not in said
    assert "trained from these latents already" in tiny.stage(4, **FLAGS[4])
    after = contents(project)
    assert {k: v for k, v in after.items() if not k.endswith(".png")} == {
        k: v for k, v in before.items() if not k.endswith(".png")
    }


@pytest.mark.parametrize("number", [2, 4])
def test_a_picture_that_fails_leaves_the_network_and_no_former_picture(
    project, monkeypatch, number
):
    name, kind, picture = {
        2: ("02_train_vae.reconstructions", "vae.pt", "vae_frames.png"),
        4: ("04_train_mdn_rnn.replay_film", "mdn_rnn.pt", "dream_replay.mp4"),
    }[number]

    def fail(*_):
        raise RuntimeError("latex could not be found")

    before = (project / "checkpoints" / kind).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(name, fail)
        with pytest.raises(RuntimeError, match="latex"):
            tiny.stage(number, **FLAGS[number] | {"seed": 2})
    saved = (project / "checkpoints" / kind).read_bytes()
    assert saved != before
    assert not (project / "checkpoints" / picture).exists()
    assert "saved" in tiny.stage(number, **FLAGS[number] | {"seed": 2})
    assert (project / "checkpoints" / picture).exists()


def test_04_refuses_latents_of_another_v(project):
    replace_v()
    with pytest.raises(UserError, match=r"\.npz .*another V.*03_encode_dataset\.py"):
        tiny.stage(4, **FLAGS[4])


def test_04_refuses_latents_of_other_rollouts(project):
    (path,) = tiny.save_episodes(project / "data" / "rollouts", [30])
    path.replace(project / "data" / "rollouts" / EPISODES[1])
    with pytest.raises(UserError, match=r"autopilot_100001\.npz .*03_encode_dataset\.py"):
        tiny.stage(4, **FLAGS[4])


def test_04_refuses_latents_of_another_arithmetic(project, monkeypatch):
    monkeypatch.setattr("utils.world_model.latents.arithmetic", lambda: "another")
    with pytest.raises(UserError, match=r"\.npz .*another arithmetic.*03_encode_dataset\.py"):
        tiny.stage(4, **FLAGS[4])
    shutil.rmtree(project / "data" / "rollouts")
    assert "already" in tiny.stage(4, **FLAGS[4])  # nobody could encode them anew


def test_04_refuses_to_leave_out_rollouts_that_are_not_encoded_yet(project):
    save_rollout(project / "data" / "rollouts" / "random_9.npz", tiny.episode(30))
    with pytest.raises(UserError, match=r"random_9\.npz is not encoded .*03_encode_dataset\.py"):
        tiny.stage(4, **FLAGS[4])
    shutil.rmtree(project / "data" / "rollouts")
    assert "already" in tiny.stage(4, **FLAGS[4])  # latents alone are enough


@pytest.mark.parametrize("number", [5, 6])
def test_an_m_for_another_v_is_refused(project, number):
    replace_v()
    with pytest.raises(UserError, match=r"mdn_rnn\.pt .*another V.*04_train_mdn_rnn\.py"):
        tiny.stage(number, **FLAGS[number])


def test_05_refuses_the_evolution_for_another_m(project):
    state = (project / "checkpoints" / "controller_evolution.npz").read_bytes()
    replace_m()
    with pytest.raises(UserError, match=r"controller_evolution\.npz .*delete it .*NAME"):
        tiny.stage(5, **FLAGS[5])
    assert (project / "checkpoints" / "controller_evolution.npz").read_bytes() == state


def test_06_refuses_a_c_for_another_m(project):
    replace_m()
    with pytest.raises(UserError, match=r"straight_on\.pt .*another .*05_train_controller\.py"):
        tiny.stage(6, **FLAGS[6])


def test_06_refuses_a_c_of_another_size(project):
    save_controller(controller_path("checkpoints", "big"), np.zeros(867), {})
    with pytest.raises(UserError, match=r"big\.pt .*39 numbers"):
        tiny.stage(6, **FLAGS[6] | {"controller": "big"})


def test_a_refusal_ends_the_command_with_status_2_and_one_sentence(tmp_path):
    done = run_script(tmp_path, 6)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("06_evaluate.py: checkpoints/vae.pt")
    assert "python 02_train_vae.py" in done.stderr
    assert not list(tmp_path.iterdir())


# As a newcomer runs them


def run_script(folder, number, **flags):
    """`python .../0N_name.py --flags` in a folder, as from a shell without a display."""
    script = tiny.ROOT / f"{tiny.SCRIPTS[number - 1]}.py"
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [sys.executable, script, *tiny.arguments(flags)],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_all_stages_from_an_empty_folder(tmp_path):
    flags = {
        1: {"autopilot_episodes": 3, "random_episodes": 1},
        2: {"epochs": 1, "batch": 64},
        3: {},
        4: {"epochs": 2},
        5: {"generations": 1, "population": 6, "select_tracks": 1},
        6: {"episodes": 1},
    }  # fmt: skip
    for number in flags:
        done = run_script(tmp_path, number, **flags[number])
        assert done.returncode == 0, done.stderr
        last = done.stdout.strip().splitlines()[-1]
        following = f"next: python {tiny.SCRIPTS[number]}.py" if number < 6 else "shows the best"
        assert following in last

    made = set(contents(tmp_path))
    assert {f"checkpoints/{name}" for name in (
        "vae.pt", "vae.csv", "vae.png", "vae_frames.png", "mdn_rnn.pt", "mdn_rnn.csv",
        "mdn_rnn.png", "dream_replay.mp4", "starts.npz", "controller.pt", "controller.csv",
        "controller.png", "controller_evolution.npz", "results/latest.json", "results/latest.png",
        "pictures/best_lap.gif", "dream.html",
    )} | {"best_lap.mp4", "data/rollouts.csv", "data/rollouts.png", "data/latents.png"} | {
        f"data/{kind}/{driver}.npz" for kind in ("rollouts", "latents", "latents/mirrored")
        for driver in ("autopilot_100000", "autopilot_100001", "autopilot_100002",
                       "random_1100000")
    } == made  # fmt: skip

    agent = load_agent(tmp_path / "checkpoints")
    assert agent.parameters.shape == (867,)
    report = json.loads((tmp_path / "checkpoints" / "results" / "latest.json").read_text())
    assert report["env_id"] == STOCK_ID
    assert {name: report[name] for name in agent.origin} == agent.origin
    (episode,) = report["per_episode"]
    assert episode["seed"] == 0
    assert report["mean"] == episode["score"]
    assert -200 < episode["score"] < 1000
    assert len(film_frames(tmp_path / "best_lap.mp4")) == episode["frames"] + END_FRAMES
    assert len(film_frames(tmp_path / "checkpoints" / "dream_replay.mp4")) in range(50 + 49, 501)
    for name in ("vae_frames", "mdn_rnn", "controller", "results/latest"):
        picture(tmp_path / "checkpoints" / f"{name}.png")
    _, learned = load_latents(tmp_path / "data" / "latents" / "autopilot_100000.npz")
    assert learned.mu.shape[1] == 32
    assert learned.mu.std() > 0.01
