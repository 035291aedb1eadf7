"""Stage 03 on small settings: the latents are those that the agent sees when it drives."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from stages import EPISODES, FLAGS, contents, picture, replace_v, unmarked

from models.inference import ROWS, Encoder
from utils.runtime.errors import UserError
from utils.storage.networks import load_vae
from utils.world_model.episodes import load_rollout
from utils.world_model.latents import load_image, load_latents, load_of
from utils.world_model.mirror import mirror_image


def test_03_encodes_every_frame_beside_its_action_and_outcome(finished):
    folder = finished.folder / "data"
    assert sorted(path.name for path in (folder / "latents").glob("*.npz")) == EPISODES
    for name in EPISODES:
        rollout, episode = load_rollout(folder / "rollouts" / name)
        header, found = load_latents(folder / "latents" / name)
        assert found.mu.shape == (len(episode.obs), tiny.LATENT_DIM)
        for key in ("action", "reward", "terminated"):
            assert np.array_equal(getattr(found, key), getattr(episode, key))
        assert header["driver"] == rollout["driver"]
        assert header["made_from"]["rollout"] == rollout["fingerprint"]
        _, image = load_latents(folder / "latents" / "mirrored" / name)
        assert np.array_equal(image.action[:, 0], -episode.action[:, 0])
        assert np.array_equal(image.reward, episode.reward)
        assert not np.array_equal(image.mu, found.mu)
    picture(folder / "latents.png")


def test_03_gives_the_very_numbers_that_the_agent_sees_when_it_drives(finished):
    vae, _ = load_vae(finished.folder / "checkpoints")
    _, episode = load_rollout(finished.folder / "data" / "rollouts" / EPISODES[2])
    _, found = load_latents(finished.folder / "data" / "latents" / EPISODES[2])
    encoder = Encoder(vae)
    row = torch.zeros(ROWS, 64, 64, 3, dtype=torch.uint8)
    for t in (0, 7, 100, len(episode.obs) - 1):
        row[t % ROWS] = torch.from_numpy(episode.obs[t])
        mu, logvar = encoder.encode(row)
        assert np.array_equal(mu[t % ROWS].numpy(), found.mu[t])
        assert np.array_equal(logvar[t % ROWS].numpy(), found.logvar[t])
    with torch.no_grad():
        plain, _ = vae.encode(torch.from_numpy(episode.obs[::50]))
    spread = found.mu.std()
    assert np.abs(plain.numpy() - found.mu[::50]).max() < 0.1 * spread


def test_03_encodes_only_what_is_new_stale_or_damaged(project):
    folder = project / "data" / "latents"
    before = contents(folder)
    assert "6 of 6 drives and images are encoded already" in tiny.stage(3, **FLAGS[3])
    (folder / EPISODES[0]).unlink()
    damaged = folder / EPISODES[1]
    damaged.write_bytes(damaged.read_bytes()[:-99])
    said = tiny.stage(3, **FLAGS[3])
    assert "4 of 6 drives and images are encoded already" in said
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
    assert tiny.stage(3, **FLAGS[3]).count(f"{EPISODES[2]} removed") == 2
    images = [f"mirrored/{name}" for name in EPISODES[:2]]
    assert sorted(contents(project / "data" / "latents")) == sorted([*EPISODES[:2], *images])


def test_03_removes_nothing_that_is_not_known_to_be_latents(project):
    damaged = project / "data" / "latents" / "mine.npz"
    damaged.write_bytes((project / "data" / "latents" / EPISODES[0]).read_bytes()[:-99])
    tiny.stage(3, **FLAGS[3])
    assert damaged.exists()


def test_03_removes_nothing_where_the_two_folders_do_not_belong_together(project):
    before = contents(project / "data" / "latents")
    shutil.copytree("data/rollouts", "data/dream/rollouts")
    for path in (project / "data" / "dream" / "rollouts").iterdir():
        path.rename(path.with_name(f"agent_{path.name}"))
    with pytest.raises(UserError, match="data/latents holds latents of other rollouts"):
        tiny.stage(3, **FLAGS[3], rollouts="data/dream/rollouts")
    assert contents(project / "data" / "latents") == before


@pytest.mark.usefixtures("project")
def test_the_mirror_image_of_another_drive_is_refused():
    path, other = (Path("data/latents") / name for name in EPISODES[:2])
    _, vae = load_vae("checkpoints")
    assert len(load_image(path, vae).mu) == len(load_of(path, vae)[1].mu)
    shutil.copy(mirror_image(other), mirror_image(path))
    with pytest.raises(UserError, match=r"is the mirror image of another drive; run python 03"):
        load_image(path, vae)


def test_03_encodes_anew_what_does_not_say_in_which_game_it_was_driven(project, monkeypatch):
    before = contents(project / "data" / "latents")
    unmarked(project / "data" / "latents" / EPISODES[0])
    assert "unknown" in (said := tiny.stage(3, **FLAGS[3]))
    assert f"{EPISODES[0]} was driven in another game" in said
    assert "5 of 6 drives and images are encoded already" in said
    assert contents(project / "data" / "latents") == before


@pytest.mark.parametrize("workers", [1, 2, pytest.param(72, marks=pytest.mark.slow)])
def test_03_gives_the_same_files_for_any_number_of_workers(finished, project, workers):
    shutil.rmtree("data/latents")
    tiny.stage(3, workers=workers)
    expected = contents(finished.folder / "data" / "latents")
    assert contents(project / "data" / "latents") == expected
