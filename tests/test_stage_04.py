"""Stage 04 on small settings: an M for this V, its features, its film."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from stages import DREAMED, EPISODES, FLAGS, contents, film_frames, picture, unmarked

from models.inference import ROWS, Memory
from models.mdn_rnn import MDNRNN
from utils.runtime.errors import UserError
from utils.storage.logs import read_log
from utils.storage.networks import (
    load_rnn,
    load_vae,
)
from utils.world_model.latents import load_latents
from utils.world_model.training import Training


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
