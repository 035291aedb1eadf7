"""C by imitation: the fit, its loss, and rounds that are driven once."""

import numpy as np
import pytest
import torch

from models.controller import FeatureScale, pack, squash, unpack
from utils.evolution.imitation import Round, fit, imitate, imitation_loss
from utils.racing.race import Lap
from utils.simulator import seeds
from utils.storage.artifacts import load_arrays

WIDTH = 5
TEACHER = {"line_offset": 0.0, "grip": 0.9}


def policy(seed=0):
    """A linear policy whose brake is used now and then."""
    rng = np.random.default_rng(seed)
    return pack(rng.normal(0, 0.5, (3, WIDTH)), np.array([0.1, 0.3, -0.2])).astype(np.float32)


def act(parameters, features):
    weights, bias = unpack(parameters)
    return squash((features @ weights.T + bias).astype(np.float32))


def test_a_known_policy_is_recovered():
    features = np.random.default_rng(1).normal(size=(3000, WIDTH)).astype(np.float32)
    advice = act(policy(), features)
    assert 0.2 < (advice[:, 2] > 0).mean() < 0.8
    found = fit(features, advice, np.zeros(3 * (WIDTH + 1), np.float32))
    assert found.dtype == np.float32
    fresh = np.random.default_rng(2).normal(size=(1000, WIDTH)).astype(np.float32)
    assert np.abs(act(found, fresh) - act(policy(), fresh)).max() < 0.02


def test_the_fit_goes_on_from_its_start():
    features = np.random.default_rng(1).normal(size=(500, WIDTH)).astype(np.float32)
    advice = act(policy(), features)
    start = policy()
    before = start.copy()
    assert np.abs(fit(features, advice, start) - policy()).max() < 0.05
    assert np.array_equal(start, before)


def test_a_feature_that_says_nothing_is_not_leant_on():
    """Neither noise, nor what hardly varies here but may elsewhere."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2000, WIDTH)).astype(np.float32)
    features[:, 4] *= 1e-4
    weights, bias = (part.copy() for part in unpack(policy()))
    weights[:, 3:] = 0
    found, _ = unpack(fit(features, act(pack(weights, bias), features), policy(9)))
    assert np.abs(found[:, 3:]).max() < 0.03


def test_the_loss_is_the_plain_formula():
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1.5, (400, 3))
    advice = rng.uniform((-1, 0, 0), 1, (400, 3))
    advice[::2, 2] = 0
    total = 0.0
    for (steering, gas, brake), wanted in zip(np.tanh(raw), advice, strict=True):
        total += (steering - wanted[0]) ** 2 + ((gas + 1) / 2 - wanted[1]) ** 2
        total += (brake - wanted[2]) ** 2 if wanted[2] > 0 else max(brake, 0) ** 2
    loss = imitation_loss(torch.from_numpy(raw), torch.from_numpy(advice))
    assert loss.item() == pytest.approx(total / 400)


def test_a_brake_stuck_at_zero_learns_when_some_is_advised_and_rests_when_none_is():
    raw = torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, -2.0], [0.0, 0.0, 2.0]], requires_grad=True)
    advice = torch.tensor([[0.0, 0.5, 0.4], [0.0, 0.5, 0.0], [0.0, 0.5, 0.0]])
    imitation_loss(raw, advice).backward()
    pressed, idle, wrong = raw.grad[:, 2].tolist()
    assert pressed < 0  # going down the gradient presses it
    assert idle == 0
    assert wrong > 0


class Track:
    """Workers whose every lap teaches `policy`, from features that depend on the track."""

    cpu_seconds = 0.0

    def __init__(self, stop_in=None):
        self.rounds = []
        self._stop_in = stop_in

    def run(self, races, on_result=None):
        if len(self.rounds) == self._stop_in:
            raise KeyboardInterrupt
        self.rounds.append(races)
        return [self._lap(race) for race in races]

    def _lap(self, race):
        features = np.random.default_rng(race.seed).normal(2, 3, (60, WIDTH)).astype(np.float32)
        return Lap(
            race.seed, 5.0, 60, 9, 300, False, features=features, advice=act(policy(), features)
        )


def scale():
    return FeatureScale(np.full(WIDTH, 2.0, np.float32), np.full(WIDTH, 3.0, np.float32))


def learn(folder, workers, rounds=4, made_from=None):
    made_from = made_from or {"vae": "a"}
    student, spent = imitate(workers, scale(), TEACHER, rounds, 2, made_from, folder)
    assert spent["frames"] == rounds * 2 * 60
    return student


def test_rounds_drive_new_tracks_with_the_latest_student_and_ever_less_teacher(tmp_path, capsys):
    track = Track()
    student = learn(tmp_path, track)
    driven = [[race.seed for race in races] for races in track.rounds]
    first = seeds.IMITATION
    assert driven == [[first + 2 * i, first + 2 * i + 1] for i in range(4)]
    shares = [{race.teacher_share for race in races} for races in track.rounds]
    assert shares == [{1.0}, {0.5}, {0.0}, {0.0}]
    races = [race for races in track.rounds for race in races]
    assert all(race.teacher == TEACHER and race.patience == 100 for race in races)
    said = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in said] == [
        f"imitation {i}/4: score 5 ± 0" for i in (1, 2, 3, 4)
    ]  # fmt: skip

    paths = sorted(tmp_path.iterdir())
    rounds = [Round(**load_arrays(path, "imitation round")[1]) for path in paths]
    mean, sd = scale()
    expected = np.zeros(3 * (WIDTH + 1), np.float32)
    for i in range(4):  # each round is fitted to all data so far, from the last map
        seen = rounds[: i + 1]
        features = (np.concatenate([r.features for r in seen]) - mean) / sd
        expected = fit(features, np.concatenate([r.advice for r in seen]), expected)
        if i < 3:
            (parameters,) = {race.parameters.tobytes() for race in track.rounds[i + 1]}
            assert parameters == scale().plain(expected).tobytes()
    assert np.array_equal(student, expected)


def test_the_core_hours_are_those_of_driving_and_of_fitting(tmp_path, monkeypatch):
    class Costly(Track):
        """An hour for every round that is driven; ten for every fit."""

        def run(self, races, on_result=None):
            self.cpu_seconds += 3600
            return super().run(races, on_result)

        def fit(self, *data):
            self.cpu_seconds += 36_000
            return fit(*data)

    track = Costly()
    monkeypatch.setattr("utils.evolution.imitation.fit", track.fit)
    _, spent = imitate(track, scale(), TEACHER, 3, 2, {"vae": "a"}, tmp_path)
    assert spent["core_hours"] == pytest.approx(33, abs=0.1)


def test_the_student_comes_to_act_like_its_teacher(tmp_path):
    student = learn(tmp_path, Track())
    features = np.random.default_rng(5).normal(2, 3, (200, WIDTH)).astype(np.float32)
    found = act(scale().plain(student), features)
    assert np.abs(found - act(policy(), features)).mean() < 0.05


def test_finished_rounds_are_not_driven_again(tmp_path):
    whole = learn(tmp_path / "whole", Track())
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "stopped", Track(stop_in=2))
    assert len(list((tmp_path / "stopped").iterdir())) == 2
    again = Track()
    student = learn(tmp_path / "stopped", again)
    assert [races[0].seed for races in again.rounds] == [
        seeds.IMITATION + 4, seeds.IMITATION + 6
    ]  # fmt: skip
    assert np.array_equal(student, whole)
    for path in (tmp_path / "whole").iterdir():
        rounds = [
            load_arrays(tmp_path / name / path.name, "imitation round")[1]
            for name in ("whole", "stopped")
        ]
        for name in ("features", "advice", "scores", "complete"):
            assert np.array_equal(rounds[0][name], rounds[1][name])


def test_more_rounds_go_on_from_the_finished_ones(tmp_path):
    learn(tmp_path, Track(), rounds=2)
    more = Track()
    assert np.array_equal(learn(tmp_path, more, rounds=3), learn(tmp_path / "x", Track(), rounds=3))
    assert len(more.rounds) == 1


def test_rounds_of_another_v_or_damaged_ones_are_driven_again(tmp_path, capsys):
    learn(tmp_path, Track(), made_from={"vae": "b"})
    other = Track()
    learn(tmp_path, other)
    assert len(other.rounds) == 4
    damaged = tmp_path / "round_001.npz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    repaired = Track()
    learn(tmp_path, repaired)
    assert len(repaired.rounds) == 1
    learn(tmp_path, Track(stop_in=0))  # none is left to drive
    assert "round_001.npz" in capsys.readouterr().out


def test_rounds_of_another_precision_are_driven_again_and_said_to_be(tmp_path, monkeypatch, capsys):
    learn(tmp_path, Track())
    monkeypatch.setattr("utils.evolution.imitation.arithmetic", lambda: "another")
    learn(tmp_path, other := Track())
    assert len(other.rounds) == 4
    assert "round_003.npz was driven with another" in capsys.readouterr().out
