"""Stage 02 on small settings: V learns, its training is logged, and what is stale is made anew."""

import shutil

import pytest
import tiny
import torch
from stages import EPISODES, FLAGS, contents, picture, read_log

from models.vae import VAE
from utils.runtime.errors import UserError
from utils.storage.networks import (
    load_vae,
)
from utils.world_model.episodes import load_rollout


def test_02_leaves_a_v_that_has_learned(finished):
    vae, header = load_vae(finished.folder / "checkpoints")
    assert header["sizes"] == {"latent_dim": tiny.LATENT_DIM}
    assert header["made_from"]["EPOCHS"] == 1
    assert "gymnasium" in header["provenance"]
    _, episode = load_rollout(finished.folder / "data" / "rollouts" / EPISODES[1])
    frames = torch.from_numpy(episode.obs[::20])
    torch.manual_seed(0)
    _, trained = vae.loss(frames)
    _, untrained = VAE(tiny.LATENT_DIM).loss(frames)
    assert trained["reconstruction"] < 0.75 * untrained["reconstruction"]


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
