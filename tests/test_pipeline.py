"""The six stages on small settings, each through its `main`, and once as a newcomer runs them."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import tiny
import torch

from models.controller import unpack
from models.inference import ROWS, Encoder, Memory
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils import seeds
from utils.artifacts import load_arrays, load_header
from utils.command_line import UserError
from utils.driving import Race, Races
from utils.envs import FAST_ID, STOCK_ID, make_env, shrink
from utils.evaluation import END_FRAMES, load_report
from utils.networks import (
    controller_path,
    load_agent,
    load_rnn,
    load_vae,
    rnn_path,
    save_controller,
    save_network,
    vae_path,
)
from utils.progress import read_log
from utils.rollouts import load_latents, load_rollout, save_rollout
from utils.search import Plan, Search
from utils.workers import Workers

FLAGS = {
    1: {"autopilot_episodes": 2, "random_episodes": 1, "workers": 0},
    2: {"latent_dim": tiny.LATENT_DIM, "epochs": 1, "batch": 32, "pool": 2, "workers": 0,
        "threads": 1},
    3: {"workers": 0},
    4: {"hidden": tiny.HIDDEN, "mixtures": 2, "epochs": 2, "length": 50, "workers": 0,
        "threads": 1},
    5: {"start": "zeros", "generations": 2, "population": 6, "tracks": 1, "sigma": 0.1,
        "select_tracks": 1, "select_every": 1, "patience": 30, "workers": 0},
    6: {"episodes": 2, "first_seed": 6, "controller": "straight_on", "workers": 0},
}  # fmt: skip
EPISODES = ["autopilot_100000.npz", "autopilot_100001.npz", "random_1100000.npz"]
IMITATION = FLAGS[5] | {
    "start": "imitation", "rounds": 2, "laps": 1, "generations": 0, "select_tracks": 0
}  # fmt: skip
DREAMED = 20  # frames, in these tests


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which every stage has run, and what each of them said. Read only."""
    folder, said = tmp_path_factory.mktemp("project"), {}
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("utils.dream.DREAMED", DREAMED)
        for number, flags in FLAGS.items():
            if number == 6:
                tiny.save_c(folder / "checkpoints" / "straight_on.pt", tiny.STRAIGHT_ON)
            said[number] = tiny.stage(number, **flags)
    torch.set_num_threads(before)
    return SimpleNamespace(folder=folder, said=said)


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """The current folder is a copy of the finished one, to be changed at will."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("utils.dream.DREAMED", DREAMED)
    return folder


def contents(folder):
    """Every file below a folder, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def picture(path):
    """A PNG that is not all of one colour."""
    image = cv2.imread(str(path))
    assert image is not None, path
    assert image.std() > 5
    return image


def film_frames(path):
    return [frame.shape for frame in imageio.imiter(path)]


def replace_v(checkpoints="checkpoints"):
    """Another V of the same sizes in place of the one that all else was made with."""
    vae, _ = tiny.networks(seed=1)
    save_network(vae_path(checkpoints), "V", vae, {})


def replace_m(checkpoints="checkpoints"):
    """Another M for the same V."""
    _, header = load_vae(checkpoints)
    tiny.save_networks("other", seed=1)
    other, _ = load_rnn("other", load_vae("other")[1]["fingerprint"])
    save_network(rnn_path(checkpoints), "M", other, {"vae": header["fingerprint"]})


# 01 collect


def test_01_records_whole_episodes_with_who_drove_and_where(finished):
    folder = finished.folder / "data" / "rollouts"
    assert sorted(path.name for path in folder.iterdir()) == EPISODES
    for name in EPISODES:
        header, arrays = load_rollout(folder / name)
        count = len(arrays["action"])
        assert (header["driver"], str(header["seed"])) == tuple(name[:-4].split("_"))
        assert header["env_id"] == FAST_ID
        assert header["versions"]["gymnasium"] == importlib.metadata.version("gymnasium")
        assert header["versions"]["box2d"] == importlib.metadata.version("box2d")
        assert header["score"] == pytest.approx(arrays["reward"].sum(), abs=0.01)
        assert header["frames"] == count
        assert not arrays["terminated"][:-1].any()
        assert arrays["terminated"][-1] or count == 1000
        assert arrays["action"].min() >= -1
        assert arrays["action"].max() <= 1
    settings = [load_header(folder / name, "rollout", "")["settings"] for name in EPISODES]
    assert settings[0].keys() == {"noise", "disturbance", "line_offset", "grip"}
    assert settings[0] != settings[1]
    assert settings[2] == {}


def test_01_pairs_every_action_with_what_was_seen_and_what_came_of_it(finished):
    _, arrays = load_rollout(finished.folder / "data" / "rollouts" / EPISODES[2])
    env = make_env(FAST_ID)
    obs, _ = env.reset(seed=1_100_000)
    for t, action in enumerate(arrays["action"]):
        assert np.array_equal(shrink(obs), arrays["obs"][t])
        obs, reward, terminated, _, _ = env.step(action)
        assert np.float32(reward) == arrays["reward"][t]
        assert terminated == arrays["terminated"][t]
    assert np.array_equal(shrink(obs), arrays["obs"][-1])


def test_01_logs_and_pictures_the_episodes(finished):
    rows = read_log(finished.folder / "data" / "rollouts.csv")
    assert [str(int(row["seed"])) for row in rows] == [n[:-4].split("_")[1] for n in EPISODES]
    for name, row in zip(EPISODES, rows, strict=True):
        header = load_header(finished.folder / "data" / "rollouts" / name, "rollout", "")
        assert row == {key: header[key] for key in row}
    picture(finished.folder / "data" / "rollouts.png")
    assert "next: python 02_train_vae.py" in finished.said[1]


def test_01_collects_again_only_what_is_missing_or_damaged(project):
    before = contents(project / "data" / "rollouts")
    said = tiny.stage(1, **FLAGS[1])
    assert "3 of 3 episodes are there already" in said
    assert len(read_log("data/rollouts.csv")) == 3

    (project / "data" / "rollouts" / EPISODES[1]).unlink()
    damaged = project / "data" / "rollouts" / EPISODES[2]
    damaged.write_bytes(damaged.read_bytes()[:-99])
    untouched = (project / "data" / "rollouts" / EPISODES[0]).stat().st_mtime_ns
    said = tiny.stage(1, **FLAGS[1])
    assert "1 of 3 episodes are there already" in said
    assert EPISODES[2] in said
    assert contents(project / "data" / "rollouts") == before
    assert (project / "data" / "rollouts" / EPISODES[0]).stat().st_mtime_ns == untouched


def test_01_collects_again_what_was_made_by_other_settings(project):
    before = contents(project / "data" / "rollouts")
    said = tiny.stage(1, **FLAGS[1], noise=0.3)
    assert "1 of 3 episodes are there already" in said  # the random driver has no such setting
    after = contents(project / "data" / "rollouts")
    assert [name for name in EPISODES if before[name] != after[name]] == EPISODES[:2]


def test_01_adds_episodes_to_those_that_are_there(project):
    before = contents(project / "data" / "rollouts")
    tiny.stage(1, **FLAGS[1] | {"random_episodes": 2})
    after = contents(project / "data" / "rollouts")
    assert after.keys() - before.keys() == {"random_1100001.npz"}
    assert after.items() >= before.items()


def test_01_writes_its_log_anew_from_the_episodes(project):
    before = (project / "data" / "rollouts.csv").read_bytes()
    (project / "data" / "rollouts.csv").write_text("seed,score\nfive,many\n")
    tiny.stage(1, **FLAGS[1])
    assert (project / "data" / "rollouts.csv").read_bytes() == before


def test_01_with_nothing_to_do_and_nothing_there_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data/rollouts holds no rollouts"):
        tiny.stage(1, autopilot_episodes=0, random_episodes=0, workers=0)


@pytest.mark.parametrize("workers", [1, 2, pytest.param(72, marks=pytest.mark.slow)])
def test_01_gives_the_same_files_for_any_number_of_workers(finished, project, workers):
    shutil.rmtree("data/rollouts")
    tiny.stage(1, **FLAGS[1] | {"workers": workers})
    expected = contents(finished.folder / "data" / "rollouts")
    assert contents(project / "data" / "rollouts") == expected


# 02 train V


def test_02_leaves_a_v_that_has_learned(finished):
    vae, header = load_vae(finished.folder / "checkpoints")
    assert header["sizes"] == {"latent_dim": tiny.LATENT_DIM}
    assert header["made_from"]["EPOCHS"] == 1
    assert "gymnasium" in header["provenance"]
    _, arrays = load_rollout(finished.folder / "data" / "rollouts" / EPISODES[1])
    frames = torch.from_numpy(arrays["obs"][::20])
    torch.manual_seed(0)
    _, trained = vae.loss(frames)
    _, untrained = VAE(tiny.LATENT_DIM).loss(frames)
    assert trained["reconstruction"] < 0.5 * untrained["reconstruction"]


def test_02_logs_and_pictures_its_training(finished):
    folder = finished.folder / "checkpoints"
    (row,) = read_log(folder / "vae.csv")
    assert list(row) == [
        "epoch", "loss", "reconstruction", "kl", "val_loss", "val_reconstruction", "val_kl",
        "seconds",
    ]  # fmt: skip
    assert row["loss"] >= row["reconstruction"] > 0
    frames = picture(folder / "vae_frames.png")
    assert frames.shape[1] > 2 * frames.shape[0]
    picture(folder / "vae.png")
    assert not (folder / "vae_training.pt").exists()


def test_02_does_not_train_twice_on_the_same(project):
    before = contents(project)
    assert "trained from these rollouts already" in tiny.stage(2, **FLAGS[2])
    assert contents(project) == before


def test_02_trains_again_when_the_rollouts_have_changed(project):
    shutil.rmtree("data/rollouts")
    tiny.save_episodes(project / "data" / "rollouts", [40, 50])
    _, before = load_vae("checkpoints")
    assert "saved" in tiny.stage(2, **FLAGS[2])
    _, after = load_vae("checkpoints")
    assert after["made_from"]["rollouts"] != before["made_from"]["rollouts"]
    assert after["fingerprint"] != before["fingerprint"]


def test_02_makes_a_damaged_v_anew(project):
    """The training itself is not repeated here."""
    path = project / "checkpoints" / "vae.pt"
    path.write_bytes(path.read_bytes()[:-99])
    shutil.rmtree("data/rollouts")
    with pytest.raises(UserError, match="01_collect_rollouts"):
        tiny.stage(2, **FLAGS[2])
    tiny.save_episodes(project / "data" / "rollouts", [40])
    assert "Making it anew" in tiny.stage(2, **FLAGS[2])
    load_vae("checkpoints")


# 03 encode


def test_03_encodes_every_frame_beside_its_action_and_outcome(finished):
    folder = finished.folder / "data"
    assert sorted(path.name for path in (folder / "latents").iterdir()) == EPISODES
    for name in EPISODES:
        rollout, arrays = load_rollout(folder / "rollouts" / name)
        header, found = load_latents(folder / "latents" / name)
        assert found["mu"].shape == (len(arrays["obs"]), tiny.LATENT_DIM)
        for key in ("action", "reward", "terminated"):
            assert np.array_equal(found[key], arrays[key])
        assert header["driver"] == rollout["driver"]
        assert header["made_from"]["rollout"] == rollout["fingerprint"]
    picture(folder / "latents.png")


def test_03_gives_the_very_numbers_that_the_agent_sees_when_it_drives(finished):
    vae, _ = load_vae(finished.folder / "checkpoints")
    _, arrays = load_rollout(finished.folder / "data" / "rollouts" / EPISODES[2])
    _, found = load_latents(finished.folder / "data" / "latents" / EPISODES[2])
    encoder = Encoder(vae)
    row = torch.zeros(ROWS, 64, 64, 3, dtype=torch.uint8)
    for t in (0, 7, 100, len(arrays["obs"]) - 1):
        row[t % ROWS] = torch.from_numpy(arrays["obs"][t])
        mu, logvar = encoder.encode(row)
        assert np.array_equal(mu[t % ROWS].numpy(), found["mu"][t])
        assert np.array_equal(logvar[t % ROWS].numpy(), found["logvar"][t])
    with torch.no_grad():
        plain, _ = vae.encode(torch.from_numpy(arrays["obs"][::50]))
    spread = found["mu"].std()
    assert np.abs(plain.numpy() - found["mu"][::50]).max() < 0.1 * spread


def test_03_encodes_only_what_is_new_stale_or_damaged(project):
    folder = project / "data" / "latents"
    before = contents(folder)
    assert "3 of 3 episodes are encoded already" in tiny.stage(3, **FLAGS[3])
    (folder / EPISODES[0]).unlink()
    damaged = folder / EPISODES[1]
    damaged.write_bytes(damaged.read_bytes()[:-99])
    said = tiny.stage(3, **FLAGS[3])
    assert "1 of 3 episodes are encoded already" in said
    assert EPISODES[1] in said
    assert contents(folder) == before


def test_03_encodes_all_again_for_another_v(project):
    before = contents(project / "data" / "latents")
    replace_v()
    assert "already" not in tiny.stage(3, **FLAGS[3])
    after = contents(project / "data" / "latents")
    assert before.keys() == after.keys()
    assert not any(before[name] == after[name] for name in before)


def test_03_removes_latents_whose_rollout_is_gone(project):
    (project / "data" / "rollouts" / EPISODES[2]).unlink()
    assert f"{EPISODES[2]} removed" in tiny.stage(3, **FLAGS[3])
    assert sorted(contents(project / "data" / "latents")) == EPISODES[:2]


@pytest.mark.parametrize("workers", [1, 2, pytest.param(72, marks=pytest.mark.slow)])
def test_03_gives_the_same_files_for_any_number_of_workers(finished, project, workers):
    shutil.rmtree("data/latents")
    tiny.stage(3, workers=workers)
    expected = contents(finished.folder / "data" / "latents")
    assert contents(project / "data" / "latents") == expected


# 04 train M


def test_04_leaves_an_m_for_this_v(finished):
    folder = finished.folder / "checkpoints"
    _, vae_header = load_vae(folder)
    _, header = load_rnn(folder, vae_header["fingerprint"])
    assert header["sizes"] == {
        "latent_dim": tiny.LATENT_DIM, "action_dim": 3, "hidden": tiny.HIDDEN, "mixtures": 2
    }  # fmt: skip
    rows = read_log(folder / "mdn_rnn.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert {"z_nll", "reward_error", "terminated_nll", "val_loss"} <= rows[0].keys()
    picture(folder / "mdn_rnn.png")
    assert not (folder / "mdn_rnn_training.pt").exists()


def test_04_measures_the_features_as_a_driver_has_them(finished):
    """h when frame t is seen has taken in the frames before it, and frame t itself not yet."""
    folder = finished.folder
    rnn, _ = load_rnn(folder / "checkpoints", load_vae(folder / "checkpoints")[1]["fingerprint"])
    features = []
    for name in EPISODES[1:]:  # the first is held out
        _, arrays = load_latents(folder / "data" / "latents" / name)
        memory = Memory(rnn)
        for t, action in enumerate(arrays["action"]):
            z, a = (torch.from_numpy(np.tile(x, (ROWS, 1))) for x in (arrays["mu"][t], action))
            if t > 0:
                features.append(torch.cat([z[0], memory.h[0]]).numpy())
            memory.remember(z, a)
    assert np.allclose(rnn.feature_mean, np.mean(features, 0), atol=0.02)
    assert np.allclose(rnn.feature_sd, np.std(features, 0).clip(1e-3), rtol=0.03, atol=1e-4)


def test_04_films_a_dream_beside_the_drive(finished):
    shapes = film_frames(finished.folder / "checkpoints" / "dream.mp4")
    assert len(shapes) == 50 + DREAMED
    assert shapes[0][1] > 800


def test_04_does_not_train_twice_on_the_same(project):
    before = contents(project)
    assert "trained from these latents already" in tiny.stage(4, **FLAGS[4])
    assert contents(project) == before


def test_04_without_epochs_leaves_m_as_random_as_it_begins(project):
    Path("checkpoints/mdn_rnn.pt").unlink()
    tiny.stage(4, **FLAGS[4] | {"epochs": 0, "seed": 5})
    rnn, header = load_rnn("checkpoints", load_vae("checkpoints")[1]["fingerprint"])
    torch.manual_seed(5)
    random = MDNRNN(**header["sizes"])
    for name, weight in random.named_parameters():
        assert torch.equal(rnn.get_parameter(name), weight)
    assert (rnn.feature_sd != 1).all()  # it is measured all the same


# 05 evolve C


def test_05_leaves_the_best_mean_and_the_score_that_it_has(finished):
    folder = finished.folder / "checkpoints"
    agent = load_agent(folder)
    header = load_header(folder / "controller_evolution.npz", "evolution", "")
    assert agent.origin["controller_made_from"]["START"] == "zeros"
    measured = [row["select_mean"] for row in header["history"]]
    assert len(measured) == 3  # before both generations and after them
    assert header["best_score"] == max(measured)
    races = Races(FAST_ID, agent.vae, agent.rnn)
    races.start(0, Race(seeds.SELECT[0], agent.parameters))
    while not (laps := races.advance()):
        pass
    assert laps[0][1].score == header["best_score"]


def test_05_begins_at_zero_and_logs_every_generation(finished):
    folder = finished.folder / "checkpoints"
    rows = read_log(folder / "controller.csv")
    assert [row["generation"] for row in rows] == [0, 1, 2]
    env = make_env(FAST_ID)
    env.reset(seed=seeds.SELECT[0])
    score, over = 0.0, False
    while not over:  # zeros are half gas straight on
        _, reward, terminated, truncated, _ = env.step(tiny.STRAIGHT_ON_ACTION)
        score, over = score + float(reward), terminated or truncated
    assert rows[0]["select_mean"] == pytest.approx(score, abs=1e-9)
    assert 0 < rows[0]["frames"] < rows[1]["frames"]
    assert rows[0]["best"] > rows[0]["mean"]
    assert "mean" not in rows[2]  # the last one only measures
    picture(folder / "controller.png")


def test_05_refuses_to_drive_no_new_tracks(project):
    with pytest.raises(UserError, match=r"REPLAYED .*below TRACKS, 1"):
        tiny.stage(5, **FLAGS[5] | {"replayed": 1})


def test_05_resumes_and_says_so(project):
    before = read_log("checkpoints/controller.csv")
    parameters = load_agent("checkpoints").parameters
    said = tiny.stage(5, **FLAGS[5])
    assert "resuming at generation 2" in said
    assert read_log("checkpoints/controller.csv") == before
    assert np.array_equal(load_agent("checkpoints").parameters, parameters)

    said = tiny.stage(5, **FLAGS[5] | {"generations": 3})
    assert "resuming at generation 2" in said
    after = read_log("checkpoints/controller.csv")
    assert after[:3] == before
    assert [row["generation"] for row in after] == [0, 1, 2, 2, 3]


def test_05_goes_on_with_a_larger_population_in_duels(project):
    larger = FLAGS[5] | {"generations": 3, "population": 8, "tracks": 2, "fitness": "duels"}
    tiny.stage(5, **larger)
    rows = read_log("checkpoints/controller.csv")[-2:]  # the new generation, and where it led
    assert [row.get("population") for row in rows] == [8, None]
    header, arrays = load_arrays("checkpoints/controller_evolution.npz", "evolution", "")
    assert (arrays["population"], arrays["generation"]) == (8, 3)
    driven = {track for track, _ in header["driven"]} & set(seeds.evolution(2))
    assert len(driven) == 4 * 2


def test_05_drives_as_its_constants_say(project, monkeypatch):
    plans = []

    def advance(search, workers, scale, plan, select, on_lap):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        tiny.stage(
            5, **FLAGS[5] | {"name": "other", "tracks": 5, "patience": 33, "replayed": 2},
            scouted=4, least_sigma=0.01, most_sigma=0.3, mean_rate=0.7, fitness="duels",
        )  # fmt: skip
    assert plans == [
        Plan(tracks=5, patience=33, replayed=2, scouted=4, least_sigma=0.01, most_sigma=0.3,
             mean_rate=0.7, duels=True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"fitness": "duels", "population": 7}, r"POPULATION .*even for duels, not 7"),
        ({"fitness": "duels", "tracks": 333, "scouted": 2}, "1000 tracks, not 1001"),
        ({"tracks": 999, "scouted": 2}, "1000 tracks, not 1001"),
        ({"least_sigma": 0.3}, r"LEAST_SIGMA .*at most MOST_SIGMA, 0\.2"),
    ],
)
def test_05_refuses_plans_that_cannot_be_driven(project, flags, sentence):
    before = contents(project / "checkpoints")
    with pytest.raises(UserError, match=sentence):
        tiny.stage(5, **FLAGS[5] | flags)
    assert contents(project / "checkpoints") == before


@pytest.mark.parametrize(("features", "unread"), [("z", slice(4, None)), ("h", slice(4))])
@pytest.mark.parametrize("start", ["zeros", "imitation"])
def test_05_leaves_out_the_features_that_c_may_not_read(project, features, unread, start):
    flags = IMITATION | {"start": start, "features": features, "name": features}
    tiny.stage(5, **flags | {"generations": 1})
    weights, _ = unpack(load_agent("checkpoints", features).parameters)
    assert weights.any()
    assert not weights[:, unread].any()


def test_05_refuses_the_evolution_of_other_settings_and_keeps_it(project):
    before = contents(project / "checkpoints")
    for flags in ({"sigma": 0.2}, {"seed": 8}, {"start": "imitation"}, {"env_id": STOCK_ID}):
        (name,) = flags
        with pytest.raises(UserError, match=f"controller_evolution.npz .*{name.upper()}.*NAME"):
            tiny.stage(5, **FLAGS[5] | flags)
        assert contents(project / "checkpoints") == before


def test_05_keeps_experiments_apart_by_name(project):
    before = contents(project / "checkpoints")
    said = tiny.stage(5, **FLAGS[5] | {"generations": 0, "name": "other", "select_tracks": 0})
    assert "next: python 06_evaluate.py --controller other\n" in said
    after = contents(project / "checkpoints")
    assert after.items() >= before.items()
    assert "other.pt" in after


@pytest.mark.parametrize("select_tracks", [0, 1])
def test_05_without_generations_saves_where_it_starts(project, select_tracks):
    flags = FLAGS[5] | {"generations": 0, "name": "start", "select_tracks": select_tracks}
    assert "start.pt saved" in tiny.stage(5, **flags)
    parameters = load_agent("checkpoints", "start").parameters
    assert np.array_equal(parameters, np.zeros_like(parameters))
    said = tiny.stage(5, **flags | {"generations": 1})
    assert "resuming at generation 0" in said


def test_05_imitates_first_and_does_not_repeat_finished_rounds(project):
    flags = IMITATION | {"name": "pupil"}
    said = tiny.stage(5, **flags)
    assert "imitation 1/2: score" in said
    assert "imitation 2/2: score" in said
    rounds = contents(project / "data" / "imitation" / "pupil")
    assert list(rounds) == ["round_000.npz", "round_001.npz"]
    agent = load_agent("checkpoints", "pupil")
    assert agent.parameters.any()
    assert agent.origin["controller_made_from"]["START"] == "imitation"

    (project / "checkpoints" / "pupil_evolution.npz").unlink()
    times = [p.stat().st_mtime_ns for p in sorted((project / "data/imitation/pupil").iterdir())]
    tiny.stage(5, **flags)
    assert np.array_equal(load_agent("checkpoints", "pupil").parameters, agent.parameters)
    after = [p.stat().st_mtime_ns for p in sorted((project / "data/imitation/pupil").iterdir())]
    assert after == times


# 06 evaluate


def test_06_reports_every_race_and_where_the_figures_come_from(finished):
    folder = finished.folder / "checkpoints"
    report = load_report(folder / "results" / "latest.json")
    scores = []
    env = make_env(STOCK_ID)
    for seed, episode in zip((6, 7), report["per_episode"], strict=True):
        env.reset(seed=seed)
        score, frames, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(tiny.STRAIGHT_ON_ACTION)
            score, frames, over = score + float(reward), frames + 1, terminated or truncated
        assert episode == {
            "seed": seed, "score": score, "frames": frames, "lap_complete": False,
            "tiles": env.unwrapped.tile_visited_count, "total_tiles": len(env.unwrapped.track),
        }  # fmt: skip
        scores.append(score)
    assert report["mean"] == pytest.approx(np.mean(scores))
    assert report["sd"] == pytest.approx(np.std(scores))
    assert (report["min"], report["max"]) == (min(scores), max(scores))
    assert (report["episodes"], report["laps_complete"]) == (2, 0)

    agent = load_agent(folder, "straight_on")
    assert report["env_id"] == STOCK_ID
    assert report["driver"] == "agent"
    assert {name: report[name] for name in agent.origin} == agent.origin
    assert report["vae"] == load_vae(folder)[1]["fingerprint"]
    assert report["gymnasium"] == importlib.metadata.version("gymnasium")
    assert report["box2d"] == importlib.metadata.version("box2d")
    assert report["command"].startswith("python ")
    assert report["wall_seconds"] > 0
    assert report["processor_seconds"] > 0
    assert f"{np.mean(scores):.1f} ± {np.std(scores):.1f} over 2 tracks" in finished.said[6]
    picture(folder / "results" / "latest.png")


def test_06_films_the_best_lap_to_its_end(finished):
    report = load_report(finished.folder / "checkpoints" / "results" / "latest.json")
    best = max(report["per_episode"], key=lambda episode: episode["score"])
    shapes = film_frames(finished.folder / "best_lap.mp4")
    assert len(shapes) == best["frames"] + END_FRAMES
    assert set(shapes) == {(720, 1280, 3)}
    assert f"track {best['seed']}, score {best['score']:.1f}" in finished.said[6]


@pytest.mark.parametrize("counts", [(0, 1, 2), pytest.param((0, 72), marks=pytest.mark.slow)])
def test_06_scores_are_the_same_for_any_number_of_workers(project, counts):
    flags = {"episodes": 4, "first_seed": 6, "controller": "straight_on", "env_id": FAST_ID}
    scores = []
    for count in counts:
        tiny.stage(6, **flags, film="none", workers=count, name=f"by_{count}")
        report = load_report(project / "checkpoints" / "results" / f"by_{count}.json")
        scores.append(report["per_episode"])
    assert all(score == scores[0] for score in scores)
    assert len({episode["score"] for episode in scores[0]}) == 4


def test_06_lets_v_look_less_often(project, monkeypatch):
    driven = []

    def run(workers, races, on_result):
        driven.extend(races)
        raise KeyboardInterrupt

    monkeypatch.setattr(Workers, "run", run)
    with pytest.raises(KeyboardInterrupt):
        tiny.stage(6, episodes=2, first_seed=6, controller="straight_on", look_every=3)
    assert [(race.seed, race.look_every) for race in driven] == [(6, 3), (7, 3)]


def test_06_lets_other_drivers_race(project):
    tiny.stage(6, episodes=1, env_id=FAST_ID, driver="autopilot", name="pilot", workers=0)
    report = load_report(project / "checkpoints" / "results" / "pilot.json")
    assert report["driver"] == "autopilot"
    assert "controller" not in report
    assert report["laps_complete"] == 1
    assert report["mean"] > 900


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
    monkeypatch.setattr("utils.encoding.arithmetic", lambda: "another")
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
        5: {"generations": 1, "population": 6, "tracks": 1, "select_tracks": 1, "rounds": 2,
            "laps": 2},
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
        "mdn_rnn.png", "dream.mp4", "controller.pt", "controller.csv", "controller.png",
        "controller_evolution.npz", "results/latest.json", "results/latest.png",
    )} | {"best_lap.mp4", "data/rollouts.csv", "data/rollouts.png", "data/latents.png"} | {
        f"data/{kind}/{driver}.npz" for kind in ("rollouts", "latents")
        for driver in ("autopilot_100000", "autopilot_100001", "autopilot_100002",
                       "random_1100000")
    } | {f"data/imitation/controller/round_{i:03d}.npz" for i in range(2)} == made  # fmt: skip

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
    assert len(film_frames(tmp_path / "checkpoints" / "dream.mp4")) == 500
    for name in ("vae_frames", "mdn_rnn", "controller", "results/latest"):
        picture(tmp_path / "checkpoints" / f"{name}.png")
    _, learned = load_latents(tmp_path / "data" / "latents" / "autopilot_100000.npz")
    assert learned["mu"].shape[1] == 32
    assert learned["mu"].std() > 0.01
