"""What M is worth: foresight, returns and the predicted end against worlds that are known."""

import json
import math

import numpy as np
import pytest
import tiny
import torch
from stages import picture, replace_m

from models.controller import FeatureScale, unpack
from models.dream import Imagined
from utils.evolution import worth
from utils.evolution.worth import RealDrives, around, compared, moments, returns
from utils.racing.race import Race
from utils.runtime.errors import UserError
from utils.simulator.envs import FAST_ID
from utils.storage.files import files
from utils.storage.networks import dreaming_path, load_dreaming, load_networks, rnn_path
from utils.world_model.foresight import AHEAD, FRAMES, MOMENTS_EACH, calibration, errors
from utils.world_model.latents import Latents

Z = tiny.LATENT_DIM


def latents(frames, seed=0, reward=1.0, failed=False):
    """A drive in which every action moves all of z by as much as it steers."""
    rng = np.random.default_rng(seed)
    action = rng.normal(size=(frames, 3)).astype(np.float32)
    mu = rng.normal(size=Z) + np.r_[0, action[:, 0].cumsum(dtype=float)][:, None]
    ended = np.zeros(frames, bool)
    ended[-1] = failed
    logvar, rewards = np.full_like(mu, -np.inf, np.float32), np.full(frames, reward, np.float32)
    return Latents(mu.astype(np.float32), logvar, action, rewards, ended)


class Knowing:
    """The world of these drives."""

    def __init__(self):
        self.sizes = {"latent_dim": Z, "mixtures": 2}

    def fresh(self, count):
        return torch.zeros(count, Z + 3), torch.zeros(count, 1)

    def remember(self, z, action, h, c):
        return torch.cat([z, action], 1), c

    def imagine(self, h, luck):
        nothing = torch.zeros(len(h))
        return Imagined(h[:, :Z] + h[:, Z : Z + 1], nothing, nothing)


class Lost(Knowing):
    """Its z is pure luck."""

    def imagine(self, h, luck):
        return super().imagine(h, luck)._replace(z=luck.normal)


# Foresight


def test_who_knows_the_world_errs_in_nothing_and_who_knows_nothing_errs():
    vae, _ = tiny.networks()
    drives = [latents(200 + 30 * i, i) for i in range(3)]
    found = errors(vae, {"knowing": Knowing(), "lost": Lost()}, drives, 0)
    assert list(found) == [str(ahead) for ahead in AHEAD]
    for by in found.values():
        assert by["knowing"]["z"]["mean"] == pytest.approx(0, abs=1e-8)
        assert by["knowing"]["frame"]["mean"] == pytest.approx(0, abs=1e-8)
        assert by["lost"]["z"]["mean"] > 0.5


@torch.inference_mode()
def test_nothing_changes_errs_by_what_changes():
    vae, _ = tiny.networks()
    drives = [latents(200 + 30 * i, i) for i in range(3)]
    found = errors(vae, {}, [latents(FRAMES + AHEAD[-1] - 1), *drives], 0)
    for ahead in AHEAD:
        z, frame = [], []
        for drive in drives:
            first = np.linspace(FRAMES, len(drive.action) - AHEAD[-1], MOMENTS_EACH).astype(int)
            before, after = (torch.from_numpy(drive.mu[at]) for at in (first, first + ahead))
            z.append((before - after).square().mean().item())
            frame.append((vae.decode(before) - vae.decode(after)).square().mean().item())
        for name, means in (("z", z), ("frame", frame)):
            figure = found[str(ahead)]["nothing changes"][name]
            assert figure["mean"] == pytest.approx(np.mean(means), rel=1e-4)
            assert figure["standard_error"] == pytest.approx(np.std(means) / 2**0.5, rel=1e-3)


def test_drives_that_are_too_short_say_so():
    with pytest.raises(UserError, match=r"none has 150 frames; run python 01_collect"):
        errors(tiny.networks()[0], {}, [latents(149)], 0)


def test_the_predicted_end_is_counted_beside_the_real_one():
    _, rnn = tiny.networks()
    rnn.outcome.weight.zero_()
    rnn.outcome.bias[1] = math.log(0.04 / 0.96)
    (row,) = calibration(rnn, [latents(20, failed=True), latents(30), latents(50, failed=True)])
    assert row == {"frames": 100, "predicted": pytest.approx(0.04), "ended": 0.02, "ends": 2}


def test_predictions_are_told_apart():
    _, rnn = tiny.networks()
    rnn.outcome.weight *= 50
    drives = [latents(60, seed) for seed in range(3)]
    rows = calibration(rnn, drives)
    assert len(rows) > 2
    assert sum(row["frames"] for row in rows) == 180
    assert [row["predicted"] for row in rows] == sorted(row["predicted"] for row in rows)


# Returns


def test_a_drive_is_what_the_agent_saw_and_did():
    handler = RealDrives(FAST_ID, *tiny.networks())
    for i in range(2):
        handler.start(i, Race(6 + i, tiny.STRAIGHT_ON))
    found, saw = {}, []
    while len(found) < 2:
        found |= dict(handler.advance())
        saw.append(handler.agent.features[0, :Z].copy())
    drive = found[0]
    frames = len(drive.action)
    assert np.array_equal(drive.mu[:-1], saw[:frames])
    assert np.array_equal(drive.action, np.tile(tiny.STRAIGHT_ON_ACTION, (frames, 1)))
    assert drive.terminated.tolist() == [False] * (frames - 1) + [True]
    assert drive.reward[-1] < -99
    assert len(found[1].action) != frames


def test_moments_stand_for_all_frames_whose_future_is_known():
    horizon, count = worth.HORIZON, worth.MOMENTS_EACH
    for drive, known in (
        (latents(600, failed=True), 600), (latents(1000), 1000 - horizon), (latents(100), 1)
    ):  # fmt: skip
        found = moments(drive)
        assert len(found) == count
        assert np.mean(found) == pytest.approx((known - 1) / 2, abs=0.5)
        assert (found[0], known - 1 - found[-1]) == pytest.approx((known / count / 2,) * 2, abs=1)


@pytest.fixture
def small(monkeypatch):
    for name, value in (("TRACKS", 2), ("MOMENTS_EACH", 2), ("HORIZON", 20), ("DRAWS", 1)):
        monkeypatch.setattr(worth, name, value)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("two", [False, True])
def test_an_m_that_knows_the_rewards_returns_what_is_real(two):
    knowing, other = tiny.networks(0)[1], tiny.networks(1)[1]
    knowing.outcome.weight.zero_()
    knowing.outcome.bias[:] = torch.tensor([3.0, -30.0])
    controllers = [(0.0, tiny.lively(0)), (0.1, tiny.lively(1)), (None, tiny.STRAIGHT_ON)]
    drives = [[latents(60, seed, reward=3.0) for seed in range(2)] for _ in controllers]
    rnn, dreaming = (other, knowing) if two else (knowing, knowing)
    real, dreamt = returns(rnn, dreaming, 1.0, controllers, drives, 0)
    assert real == pytest.approx(np.full((3, 2), 60.0))
    assert dreamt == pytest.approx(real)


@pytest.mark.usefixtures("small")
def test_what_is_real_is_summed_over_the_horizon_from_each_moment():
    drive = latents(45)
    drive.reward[:] = np.arange(45)
    _, rnn = tiny.networks()
    drives = [[drive] * 2]
    real, _ = returns(rnn, rnn, 1.0, [(0.0, tiny.lively(0))], drives, 0)
    assert real == pytest.approx(np.mean([sum(range(6, 26)), sum(range(18, 38))]))


@pytest.mark.usefixtures("small")
def test_the_figures_of_the_comparison():
    real = np.array([[100.0, 140.0], [50.0, 30.0], [-10.0, -20.0]])
    found = compared([0.0, 0.1, None], real, real * 0.5 + [[0, 2]])
    assert found["ratio"] == pytest.approx(61 / 120)
    ratios = (72 / 140, 50 / 100)  # without the one track, and without the other
    assert found["ratio_standard_error"] == pytest.approx(abs(ratios[0] - ratios[1]) / 2)
    assert found["correlation"] == pytest.approx(1)
    assert compared([0.0, None], real[:2], np.ones((2, 2)))["correlation"] == 0
    assert (found["mean_real"], found["mean_dreamt"]) == pytest.approx((290 / 6, 25.1667), rel=1e-5)
    first = found["controllers"][0]["real"]
    assert first == {"mean": 120, "standard_error": pytest.approx(20)}


def test_controllers_scatter_around_the_one_at_hand():
    rng = np.random.default_rng(0)
    at_hand = tiny.lively(0)
    scale = FeatureScale(rng.normal(size=tiny.FEATURES), rng.uniform(1, 5, tiny.FEATURES))
    first, *drawn, last = around(at_hand, scale)
    assert first[0] == 0
    assert np.array_equal(first[1], at_hand)
    assert last[0] is None
    assert not last[1].any()
    assert [sigma for sigma, _ in drawn] == sorted(worth.SIGMAS * worth.DRAWS)
    for sigma, parameters in drawn:
        weights, _ = unpack(parameters - at_hand)
        assert (weights * scale.sd).std() == pytest.approx(sigma, rel=0.5)


# The report


@pytest.mark.usefixtures("small")
def test_06_measures_m(project):
    flags = {"measure": "m", "controller": "straight_on", "workers": 0}
    said = tiny.stage(6, **flags)
    path = project / "checkpoints" / "results" / "m_straight_on.json"
    report = json.loads(path.read_text())
    rnn = load_dreaming("checkpoints", load_networks("checkpoints"))[1]
    assert report["kind"] == "report on M"
    assert report["rnn"] == report["dreaming_rnn"] == rnn["fingerprint"]
    assert report["command"].startswith("python ")
    assert list(report["errors"]["1"]) == [
        "nothing changes", "M", "M, likeliest future", "untrained M",
    ]  # fmt: skip
    assert len(report["returns"]["controllers"]) == len(worth.SIGMAS) + 2
    assert f"{report['returns']['ratio']:.2f}" in said
    picture(path.with_suffix(".png"))

    tiny.stage(6, **flags)
    again = json.loads(path.read_text())
    assert all(again[name] == report[name] for name in ("errors", "returns", "end"))

    assert "other drives" not in said
    files("data/latents")[-1].unlink()
    assert "M was trained from other drives than data/latents holds" in tiny.stage(6, **flags)


@pytest.mark.usefixtures("small")
def test_06_measures_the_m_that_dreams(project, monkeypatch):
    kept = rnn_path("checkpoints").read_bytes()
    replace_m()
    rnn_path("checkpoints").rename(dreaming_path("checkpoints"))
    rnn_path("checkpoints").write_bytes(kept)
    measured = []

    def returns(rnn, dreaming, *_):
        measured.append((rnn, dreaming))
        raise KeyboardInterrupt

    monkeypatch.setattr(worth, "drive_for_real", lambda *_: [])
    monkeypatch.setattr(worth, "returns", returns)
    with pytest.raises(KeyboardInterrupt):
        tiny.stage(6, measure="m", controller="straight_on", workers=0)
    ((rnn, dreaming),) = measured
    assert not torch.equal(rnn.outcome.weight, dreaming.outcome.weight)


def test_06_without_real_drives_names_what_encodes_them(project):
    with pytest.raises(UserError, match=r"nowhere holds no latents.*run python 03_encode"):
        tiny.stage(6, measure="m", controller="straight_on", latents="nowhere")
