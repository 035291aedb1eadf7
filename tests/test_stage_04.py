"""Stage 04 on small settings: an M for this V, its features, its film."""

import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tiny
import torch
from stages import DREAMED, EPISODES, FLAGS, contents, film_frames, picture, read_log, unmarked

from models.inference import ROWS, Memory
from models.mdn_rnn import MDNRNN
from utils.runtime.errors import UserError
from utils.simulator.envs import DREAM_ID
from utils.storage.artifacts import load_arrays, load_tensors, save_arrays, save_tensors
from utils.storage.networks import (
    dreaming_path,
    load_dreaming,
    load_networks,
    load_rnn,
    load_vae,
    rnn_path,
)
from utils.world_model.episodes import save_rollout
from utils.world_model.latents import load_latents
from utils.world_model.training import Training, state_path


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
        _, episode = load_latents(folder / "data" / "latents" / name)
        memory = Memory(rnn)
        for t, action in enumerate(episode.action):
            z, a = (torch.from_numpy(np.tile(x, (ROWS, 1))) for x in (episode.mu[t], action))
            if t > 0:
                features.append(torch.cat([z[0], memory.h[0]]).numpy())
            memory.remember(z, a)
    assert np.allclose(rnn.feature_mean, np.mean(features, 0), atol=0.02)
    assert np.allclose(rnn.feature_sd, np.std(features, 0).clip(1e-3), rtol=0.03, atol=1e-4)


def test_04_films_a_dream_beside_the_drive(finished):
    shapes = film_frames(finished.folder / "checkpoints" / "dream_replay.mp4")
    assert len(shapes) == 50 + DREAMED
    assert shapes[0][1] > 800


def test_04_without_an_ffmpeg_keeps_m_and_films_another_time(project, monkeypatch):
    checkpoints = project / "checkpoints"
    mark = load_vae(checkpoints)[1]["fingerprint"]
    trained = load_rnn(checkpoints, mark)[1]["fingerprint"]
    (checkpoints / "mdn_rnn.pt").unlink()
    with monkeypatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
        said = tiny.stage(4, **FLAGS[4])
    assert "dream_replay.mp4 is left out" in said
    assert "/nowhere/ffmpeg" in said
    assert "mdn_rnn.pt saved" in said
    assert load_rnn(checkpoints, mark)[1]["fingerprint"] == trained
    assert not (checkpoints / "dream_replay.mp4").exists()
    monkeypatch.setattr(Training, "end_epoch", None)  # nothing is trained again
    tiny.stage(4, **FLAGS[4])
    assert film_frames(checkpoints / "dream_replay.mp4")
    assert "trained from these latents already" in tiny.stage(4, **FLAGS[4])


def test_04_does_not_train_twice_on_the_same(project):
    before = contents(project)
    assert "trained from these latents already" in tiny.stage(4, **FLAGS[4])
    assert contents(project) == before


def test_04_without_epochs_leaves_m_as_random_as_it_begins(project):
    tiny.stage(4, **FLAGS[4] | {"epochs": 0, "seed": 5})
    assert not any(Path(f"checkpoints/mdn_rnn{end}").exists() for end in (".csv", ".png"))
    rnn, header = load_rnn("checkpoints", load_vae("checkpoints")[1]["fingerprint"])
    torch.manual_seed(5)
    random = MDNRNN(**header["sizes"])
    for name, weight in random.named_parameters():
        assert torch.equal(rnn.get_parameter(name), weight)
    assert (rnn.feature_sd != 1).all()  # it is measured all the same
    film = Path("checkpoints/dream_replay.mp4")
    film.unlink()  # as if it could not be made
    assert "saved" in tiny.stage(4, **FLAGS[4] | {"epochs": 0, "seed": 5})
    assert film.exists()
    assert "already" in tiny.stage(4, **FLAGS[4] | {"epochs": 0, "seed": 5})


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("epochs", [0, 1])
def test_04_refuses_a_race_that_is_too_short_to_learn_from(tmp_path, monkeypatch, frames, epochs):
    monkeypatch.chdir(tmp_path)
    tiny.save_episodes(tmp_path / "data" / "rollouts", [frames])
    tiny.save_networks("checkpoints")
    tiny.stage(3, **FLAGS[3])
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"too few frames .*longer: run python 01_collect"):
        tiny.stage(4, **FLAGS[4] | {"epochs": epochs})
    assert contents(tmp_path) == before


def test_04_learns_from_a_race_of_three_frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_episodes(tmp_path / "data" / "rollouts", [3])
    tiny.save_networks("checkpoints")
    tiny.stage(3, **FLAGS[3])
    tiny.stage(4, **FLAGS[4] | {"epochs": 1})
    rnn, _ = load_rnn("checkpoints", load_vae("checkpoints")[1]["fingerprint"])
    assert rnn.feature_sd.isfinite().all()


@pytest.mark.parametrize("versions", [None, {"gymnasium": "9.9.9", "box2d": "2.3.10"}])
def test_04_refuses_latents_of_another_game_or_of_none(project, monkeypatch, versions):
    shutil.rmtree("data/rollouts")
    if versions is None:
        unmarked(project / "data" / "latents" / EPISODES[0])
    else:
        monkeypatch.setattr("utils.storage.provenance.game", lambda: versions)
    with pytest.raises(UserError, match=rf"{EPISODES[0]} was driven in another game .*03_encode"):
        tiny.stage(4, **FLAGS[4])


# With the agent's own drives


@pytest.fixture
def with_own_drives(project):
    """The finished folder with six drives of the agent, encoded."""
    paths = [f"data/dream/rollouts/agent_{2_000_000 + i}.npz" for i in range(6)]
    for i, path in enumerate(paths):
        save_rollout(project / path, tiny.episode(60, i), driver="agent", seed=2_000_000 + i)
    tiny.stage(3, **FLAGS[3], rollouts="data/dream/rollouts", latents="data/dream/latents")
    return project


OWN = FLAGS[4] | {"own_rate": 7e-4, "own_epochs": 2, "old": 1, "earlier": 2}


def test_04_goes_on_with_the_agent_s_drives_as_a_second_m(with_own_drives):
    files = contents(with_own_drives)
    assert "knows 4 drives" in tiny.stage(4, **OWN, drives=4)
    then = contents(with_own_drives)
    new = then.keys() - files.keys()
    assert {name for name in new if "dream_training" not in name} == {
        f"checkpoints/mdn_rnn_dream{suffix}" for suffix in (".pt", ".csv", ".png")
    }
    assert files.items() <= then.items()  # M itself, and C, which reads its h, stay
    networks = load_networks("checkpoints")
    first, began = networks.rnn, networks.rnn_header
    second, header = load_dreaming("checkpoints", networks)
    assert header["made_from"]["drives"] == 4
    assert header["made_from"]["former"] == header["made_from"]["rnn"] == began["fingerprint"]
    before, after = (torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second))
    assert 0 < (before - after).abs().max() < 0.05  # it has not begun from nothing

    assert "knows 4 drives of the agent already" in tiny.stage(4, **OWN, drives=4)
    assert "knows 4 drives of the agent already" in tiny.stage(4, **OWN, drives=2)
    assert contents(with_own_drives) == then
    tiny.stage(4, **OWN, drives=6)
    rows = read_log("checkpoints/mdn_rnn_dream.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


def test_04_clears_away_the_state_of_a_finished_second_m_alone(with_own_drives, monkeypatch):
    target = dreaming_path("checkpoints")
    state = state_path(target)

    def killed_before_its_state_is_gone(drives):
        with monkeypatch.context() as patched:
            patched.setattr(Training, "finish", lambda self: None)
            tiny.stage(4, **OWN, drives=drives)
        assert state.exists()

    killed_before_its_state_is_gone(4)
    tiny.stage(4, **OWN, drives=4)
    assert not state.exists()

    finished = target.read_bytes()
    killed_before_its_state_is_gone(6)
    target.write_bytes(finished)  # as if that training were still under way
    tiny.stage(4, **OWN, drives=4)
    assert state.exists()


def test_a_second_m_of_another_first_one_is_refused_and_kept(with_own_drives):
    tiny.stage(4, **OWN, drives=4)
    second = dreaming_path("checkpoints").read_bytes()
    path = rnn_path("checkpoints")
    weights = load_tensors(path, "M")
    changed = {name: tensor + 1 for name, tensor in weights["weights"].items()}
    kept = {name: weights[name] for name in ("sizes", "made_from")}
    save_tensors(path, "M", changed, **kept)
    sentence = r"mdn_rnn_dream\.pt began as another M than .*mdn_rnn\.pt; delete it"
    with pytest.raises(UserError, match=sentence):
        tiny.stage(4, **OWN, drives=6)
    with pytest.raises(UserError, match=sentence):
        gym.make(DREAM_ID, checkpoints="checkpoints", latents="data/latents")
    assert dreaming_path("checkpoints").read_bytes() == second


@pytest.mark.slow
def test_04_killed_with_the_agent_s_drives_ends_where_an_undisturbed_one_ends(
    with_own_drives, monkeypatch
):
    tiny.stage(4, **OWN, drives=4)
    tiny.stage(4, **OWN, drives=6)
    expected = contents(with_own_drives / "checkpoints")["mdn_rnn_dream.pt"]
    for path in with_own_drives.glob("checkpoints/mdn_rnn_dream*"):
        path.unlink()

    class KilledError(Exception):
        pass

    def end_epoch(self, *args):
        kept(self, *args)
        raise KilledError

    kept = Training.end_epoch
    tiny.stage(4, **OWN, drives=4)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "end_epoch", end_epoch)
        with pytest.raises(KilledError):
            tiny.stage(4, **OWN, drives=6)
    assert "knows 4 drives of the agent already" in tiny.stage(4, **OWN, drives=4)
    tiny.stage(4, **OWN, drives=6)
    weights = load_tensors("checkpoints/mdn_rnn_dream.pt", "M")["weights"]
    (with_own_drives / "expected.pt").write_bytes(expected)
    for name, tensor in load_tensors("expected.pt", "M")["weights"].items():
        assert torch.equal(weights[name], tensor), name


def test_04_asked_for_more_drives_than_there_are_says_so(with_own_drives):
    with pytest.raises(UserError, match=r"data/dream/latents holds 6 drives of the agent, not 7"):
        tiny.stage(4, **OWN, drives=7)
    shutil.rmtree("data/dream/latents")
    with pytest.raises(UserError, match=r"data/dream/latents holds no latents"):
        tiny.stage(4, **OWN, drives=1)


def test_04_refuses_drives_that_another_v_encoded(with_own_drives):
    path = Path("data/dream/latents/agent_2000001.npz")
    header, arrays = load_arrays(path, "latents")
    header["made_from"]["vae"] = "another"
    kept = {name: header[name] for name in ("made_from", "versions")}
    save_arrays(path, "latents", arrays, **kept)
    with pytest.raises(UserError, match=r"agent_2000001\.npz was encoded by another V"):
        tiny.stage(4, **OWN, drives=4)
