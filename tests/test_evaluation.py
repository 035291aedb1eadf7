"""The report of a set of races, and the film that has to show what was reported."""

import importlib.metadata
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
import torch
from stages import load_report

from models.mdn_rnn import expected_next
from utils.pictures import plots
from utils.racing import agent as agents
from utils.racing import evaluation
from utils.racing.agent import Races
from utils.racing.race import Lap, Race
from utils.runtime.errors import UserError
from utils.simulator.envs import FAST_ID, make_env, shrink
from utils.simulator.fast_car_racing import FastCarRacing
from utils.storage.networks import TrainedAgent

SEED = 6  # straight on it takes 197 frames to leave the field here


def laps():
    return [
        Lap(seed, score, frames, tiles, 300, complete)
        for seed, score, frames, tiles, complete in (
            (0, 930.0, 700, 300, True), (1, 850.5, 1000, 285, False), (2, -20.25, 150, 28, False),
        )
    ]  # fmt: skip


@pytest.fixture(scope="module")
def agent():
    return TrainedAgent(*tiny.networks(), {}, {}, tiny.STRAIGHT_ON, {})


@pytest.fixture(scope="module")
def lap(agent):
    return drive(agent, Race(SEED, agent.parameters, trace=True))


def drive(agent, race):
    races = Races(FAST_ID, agent.vae, agent.rnn)
    races.start(0, race)
    while not (finished := races.advance()):
        pass
    return finished[0][1]


# The report


def test_the_summary_is_numpys():
    scores = np.array([930.0, 850.5, -20.25])
    found = evaluation.summary(laps())
    assert found == {
        "episodes": 3, "mean": pytest.approx(scores.mean()), "sd": pytest.approx(scores.std()),
        "min": -20.25, "max": 930.0, "laps_complete": 1, "frames": 1850,
    }  # fmt: skip


def test_the_sentence_says_the_summary():
    scores = np.array([930.0, 850.5, -20.25])
    said = evaluation.sentence(laps())
    assert f"{scores.mean():.1f} ± {scores.std():.1f} over 3 tracks" in said
    assert "(min -20.2, max 930.0), 1 of 3 laps complete" in said


def test_the_report_holds_every_race_and_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/06_evaluate.py", "--name", "two words"])
    path = tmp_path / "results" / "x.json"
    origin = {"env_id": "CarRacing-v3", "vae": "v", "rnn": "m", "controller": "c"}
    evaluation.save_report(path, laps(), origin, wall=12.34, cpu=23.45)
    report = load_report(path)
    assert report.items() >= origin.items()
    assert report.items() >= evaluation.summary(laps()).items()
    assert report["gymnasium"] == importlib.metadata.version("gymnasium")
    assert report["box2d"] == importlib.metadata.version("box2d")
    assert report["command"] == "python 06_evaluate.py --name 'two words'"
    assert (report["wall_seconds"], report["processor_seconds"]) == (12.3, 23.4)
    assert report["per_episode"] == [
        {"seed": lap.seed, "score": lap.score, "frames": lap.frames, "tiles": lap.tiles,
         "total_tiles": lap.total_tiles, "lap_complete": lap.complete}
        for lap in laps()
    ]  # fmt: skip
    json.loads(path.read_text())  # plain JSON: no NaN, no NumPy


def test_the_map_marks_the_first_tile_that_was_missed(tmp_path, lap, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    whole = replace(lap, missed=[])
    plots.worst_laps(tmp_path / "x.png", [vars(lap), vars(whole)])
    assert lap.positions.shape == (lap.frames, 2)
    assert len(lap.missed) == lap.total_tiles - lap.tiles
    lost, kept = ([line.get_xydata() for line in axes.lines] for axes in drawn[0].axes)
    assert np.allclose(lost[0], lap.positions)
    assert np.allclose(lost[2], lap.track[lap.missed[0]])
    assert len(kept) == 2, "a complete lap has no mark"


# The film


def race_of(agent, **settings):
    return Race(SEED, agent.parameters, **settings)


def filmed(agent, lap, monkeypatch):
    """The frames that the film would have, and what was drawn in each."""
    frames, drawn = [], []
    plain = evaluation.race_frame

    def race_frame(*shown):
        drawn.append([np.copy(x) if isinstance(x, np.ndarray) else x for x in shown])
        return plain(*shown) if len(drawn) < 3 else np.zeros((720, 1280, 3), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "race_frame", race_frame)
        patch.setattr(evaluation, "write_video", lambda path, film, moving: frames.extend(film))
        evaluation.film("x.mp4", "x.gif", FAST_ID, agent, race_of(agent), lap)
    return frames, drawn


def test_the_film_shows_the_race_frame_by_frame_and_rests_at_its_end(agent, lap, monkeypatch):
    frames, drawn = filmed(agent, lap, monkeypatch)
    assert len(drawn) == lap.frames
    assert len(frames) == lap.frames + evaluation.END_FRAMES

    env = make_env(FAST_ID)
    obs, _ = env.reset(seed=SEED)
    score = 0.0
    for t, (race, seen, decoded, expected, action, shown, number, tiles, total) in enumerate(drawn):
        assert np.array_equal(action, tiny.STRAIGHT_ON_ACTION)
        assert (shown, number) == (score, t)
        assert tiles == env.unwrapped.tile_visited_count
        assert total == len(env.unwrapped.track)
        if t == 100:
            assert race.shape == (400, 600, 3)
            assert np.abs(seen.astype(int) - shrink(obs)).mean() < 0.5
            assert decoded.shape == expected.shape == (64, 64, 3)
            assert not np.array_equal(decoded, expected)
        obs, reward, *_ = env.step(tiny.STRAIGHT_ON_ACTION)
        score += float(reward)


@pytest.fixture
def undrawn(monkeypatch):
    """Films of nothing: drawing is the slow part."""
    monkeypatch.setattr(FastCarRacing, "render", lambda self: None)
    monkeypatch.setattr(evaluation, "race_frame", lambda *_: None)


@pytest.mark.usefixtures("undrawn")
def test_the_film_pictures_z_and_what_m_expects_next(agent, lap, monkeypatch):
    pictured = []
    monkeypatch.setattr(evaluation, "write_video", lambda path, film, moving: list(film))
    monkeypatch.setattr(agents, "decoded", lambda vae, z: pictured.append(z) or z)
    evaluation.film("x.mp4", "x.gif", FAST_ID, agent, race_of(agent), lap)
    obs, _ = make_env(FAST_ID).reset(seed=SEED)
    with torch.no_grad():
        z, _ = agent.vae.encode(torch.from_numpy(shrink(obs))[None])
        prediction, _ = agent.rnn(z[None], torch.from_numpy(tiny.STRAIGHT_ON_ACTION)[None, None])
        wanted = torch.cat([z, expected_next(prediction)[0]]).numpy()
    assert np.allclose(pictured[0], wanted, atol=0.02 * np.abs(wanted).max(1, keepdims=True))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_film_looks_as_seldom_as_the_race_did(agent, monkeypatch):
    monkeypatch.setattr(evaluation, "write_video", lambda path, film, moving: list(film))
    lively = agent._replace(parameters=tiny.lively(1))
    reported = drive(lively, race_of(lively, look_every=3))
    evaluation.film("x.mp4", "x.gif", FAST_ID, lively, race_of(lively, look_every=3), reported)
    for other in ({}, {"look_every": 3, "blind": "dream"}):
        with pytest.raises(UserError, match="instead of"):
            evaluation.film("x.mp4", "x.gif", FAST_ID, lively, race_of(lively, **other), reported)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("change", [{"score": 500.0}, {"frames": 123}])
def test_a_race_that_goes_otherwise_than_reported_is_not_filmed(agent, lap, change, monkeypatch):
    monkeypatch.setattr(evaluation, "write_video", lambda path, film, moving: list(film))
    reported = replace(lap, **change)
    with pytest.raises(UserError, match=r"track \d+ scored .* 06_evaluate\.py"):
        evaluation.film("x.mp4", "x.gif", FAST_ID, agent, race_of(agent), reported)


def test_no_film_is_left_of_such_a_race(tmp_path, agent, lap, monkeypatch):
    small = np.zeros((16, 16, 3), np.uint8)
    monkeypatch.setattr(FastCarRacing, "render", lambda self: None)
    monkeypatch.setattr(evaluation, "race_frame", lambda *_: small)
    reported, paths = replace(lap, score=500.0), (tmp_path / "x.mp4", tmp_path / "x.gif")
    with pytest.raises(UserError, match="instead of 500"):
        evaluation.film(*paths, FAST_ID, agent, race_of(agent), reported)
    assert not list(tmp_path.iterdir())
    evaluation.film(*paths, FAST_ID, agent, race_of(agent), lap)
    film = cv2.VideoCapture(str(tmp_path / "x.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == lap.frames + evaluation.END_FRAMES
