"""Stage 06 on small settings: the report, the film, and the same scores for any workers."""

import importlib.metadata
import re

import numpy as np
import pytest
import tiny
from stages import (
    film_frames,
    picture,
)

from utils.racing.evaluation import END_FRAMES, load_report
from utils.runtime.workers import Workers
from utils.simulator.envs import FAST_ID, STOCK_ID, make_env
from utils.storage.networks import (
    load_agent,
    load_vae,
)


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
    moving = film_frames(finished.folder / "checkpoints" / "pictures" / "best_lap.gif")
    assert len(moving) == pytest.approx((best["frames"] + END_FRAMES) / 3, abs=1)
    assert set(moving) == {(360, 640, 3)}


def test_06_without_an_ffmpeg_keeps_the_scores_and_says_so(project, monkeypatch):
    film = (project / "best_lap.mp4").read_bytes()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    flags = {"episodes": 1, "first_seed": 6, "controller": "straight_on", "env_id": FAST_ID}
    said = tiny.stage(6, **flags, workers=0, name="unfilmed")
    assert re.search(r"best_lap\.mp4 is left out \(.*/nowhere/ffmpeg", said)
    assert "over 1 tracks" in said
    assert "shows" not in said
    results = project / "checkpoints" / "results"
    assert load_report(results / "unfilmed.json")["episodes"] == 1
    picture(results / "unfilmed.png")
    assert (project / "best_lap.mp4").read_bytes() == film


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
        tiny.stage(6, episodes=2, first_seed=6, controller="straight_on",
                   look_every=3, blind="dream")
    looks = [(race.seed, race.look_every, race.blind) for race in driven]
    assert looks == [(6, 3, "dream"), (7, 3, "dream")]


def test_06_lets_other_drivers_race(project):
    tiny.stage(6, episodes=1, env_id=FAST_ID, driver="autopilot", name="pilot", workers=0)
    report = load_report(project / "checkpoints" / "results" / "pilot.json")
    assert report["driver"] == "autopilot"
    assert "controller" not in report
    assert report["laps_complete"] == 1
    assert report["mean"] > 900
