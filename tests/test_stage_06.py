"""Stage 06 on small settings: the report, the film, and the same scores for any workers."""

import importlib.metadata
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
from stages import (
    expect_the_end,
    film_frames,
    load_report,
    picture,
)

from utils.racing import evaluation
from utils.racing.evaluation import END_FRAMES
from utils.racing.race import Race
from utils.runtime.errors import UserError
from utils.runtime.workers import Workers
from utils.simulator.envs import DREAM_ID, FAST_ID, STOCK_ID, make_env
from utils.storage.networks import (
    dreaming_path,
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


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(0, 1, 2), (0, 72)])
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
        tiny.stage(
            6, episodes=2, first_seed=6, controller="straight_on", look_every=3, blind="dream"
        )
    looks = [(race.seed, race.look_every, race.blind) for race in driven]
    assert looks == [(6, 3, "dream"), (7, 3, "dream")]


def test_06_lets_other_drivers_race(project):
    tiny.stage(6, episodes=1, env_id=FAST_ID, driver="autopilot", name="pilot", workers=0)
    report = load_report(project / "checkpoints" / "results" / "pilot.json")
    assert report["driver"] == "autopilot"
    assert "controller" not in report
    assert report["laps_complete"] == 1
    assert report["mean"] > 900


# In the dream

DREAM = {
    "episodes": 2, "controller": "straight_on", "env_id": DREAM_ID, "workers": 0, "name": "dream",
}  # fmt: skip


@pytest.fixture
def soon_over(project):
    """The project with a dream that ends one frame in twenty-one."""
    expect_the_end(dreaming_path("checkpoints"), np.log(1 / 20))
    return project


def dreamt_return(seed, **options):
    """Of half gas and no steering, in the dream of this seed."""
    env = make_env(DREAM_ID, **options)
    env.reset(seed=seed)
    score, frames, over = 0.0, 0, False
    while not over:
        _, reward, terminated, truncated, _ = env.step(tiny.STRAIGHT_ON_ACTION)
        score, frames, over = score + reward, frames + 1, terminated or truncated
    return {"seed": seed, "score": score, "frames": frames}


@pytest.mark.parametrize("workers", [0, 2])
def test_06_lets_the_agent_drive_in_its_dream(soon_over, workers):
    said = tiny.stage(6, **DREAM | {"workers": workers}, temperature=0.5, film="none")
    report = load_report(soon_over / "checkpoints" / "results" / "dream.json")
    wanted = [dreamt_return(seed, temperature=0.5) for seed in (0, 1)]
    assert report["per_episode"] == wanted
    assert [dreamt_return(seed) for seed in (0, 1)] != wanted
    assert report["mean"] == pytest.approx(np.mean([lap["score"] for lap in wanted]))
    assert (report["env_id"], report["temperature"]) == (DREAM_ID, 0.5)
    assert report["dreaming_rnn"] != report["rnn"]
    assert "laps_complete" not in report
    frames = np.mean([lap["frames"] for lap in wanted])
    assert re.search(rf"over 2 dreams \(min .*\), {frames:.0f} frames each", said)
    assert not list((soon_over / "checkpoints" / "results").glob("dream.png"))
    assert "shows" not in said


def test_06_films_the_dream_and_leaves_the_film_of_the_race_alone(soon_over):
    lap, moving = (soon_over / "best_lap.mp4"), (soon_over / "checkpoints/pictures/best_lap.gif")
    before = lap.read_bytes(), moving.read_bytes()
    said = tiny.stage(6, **DREAM)
    best = max((dreamt_return(seed) for seed in (0, 1)), key=lambda lap: lap["score"])
    shapes = film_frames(soon_over / "checkpoints" / "dream_straight_on.mp4")
    assert shapes == [(720, 1280, 3)] * (best["frames"] + END_FRAMES)
    assert (
        f"dream_straight_on.mp4 shows the best one: dream {best['seed']}, score {best['score']:.1f}"
        in said
    )
    assert (lap.read_bytes(), moving.read_bytes()) == before


def test_06_leaves_no_map_of_other_races_beside_a_dream(soon_over):
    picture(soon_over / "checkpoints" / "results" / "latest.png")
    tiny.stage(6, **DREAM | {"name": "latest"}, film="none")
    assert not (soon_over / "checkpoints" / "results" / "latest.png").exists()


def test_the_film_of_a_dream_shows_both_worlds_and_rests_at_its_end(soon_over, monkeypatch):
    drawn = []
    monkeypatch.setattr(evaluation, "write_video", lambda path, film: len(list(film)))
    monkeypatch.setattr(
        evaluation, "dream_frame", lambda *shown, **info: drawn.append((shown, info))
    )
    monkeypatch.setattr(evaluation, "END_FRAMES", 3)
    agent, wanted = load_agent("checkpoints", "straight_on"), dreamt_return(4)
    lap = evaluation.Lap(4, wanted["score"], wanted["frames"], 0, 0, False)
    race = Race(4, agent.parameters)
    assert evaluation.film_dream("x.mp4", {}, agent, race, lap) == wanted["frames"] + 3
    dream, real = make_env(DREAM_ID, "rgb_array"), make_env(FAST_ID)
    dream.reset(seed=4)
    real.reset(seed=4)
    sums = [0.0, 0.0]
    first = drawn[0][0][0]
    assert np.array_equal(first, dream.render())
    for _ in range(wanted["frames"]):
        *_, info = dream.step(tiny.STRAIGHT_ON_ACTION)
        sums[0] = dream.unwrapped.reward
        sums[1] += float(real.step(tiny.STRAIGHT_ON_ACTION)[1])
    (_, picture, dreamt, driven), told = drawn[-1]
    assert told == info
    assert picture.shape == (400, 600, 3)
    assert (sum(dreamt), sum(driven)) == (pytest.approx(sums[0]), pytest.approx(sums[1]))
    with pytest.raises(UserError, match=r"dream 4 scored .* instead of 5\.0"):
        evaluation.film_dream("x.mp4", {}, agent, race, replace(lap, score=5.0))


def test_06_lets_random_actions_into_the_dream_and_no_autopilot(soon_over):
    tiny.stage(6, **DREAM | {"driver": "random"})
    report = load_report(soon_over / "checkpoints" / "results" / "dream.json")
    assert report["driver"] == "random"
    assert len({lap["score"] for lap in report["per_episode"]}) == 2
    (soon_over / "checkpoints" / "results" / "dream.json").unlink()
    with pytest.raises(UserError, match=r"autopilot reads the track.*--driver agent\)\.$"):
        tiny.stage(6, **DREAM | {"driver": "autopilot"})
    assert not (soon_over / "checkpoints" / "results" / "dream.json").exists()


def test_06_dreams_in_the_folder_of_its_networks(soon_over):
    for folder in ("checkpoints", "elsewhere"):
        if folder == "elsewhere":
            (soon_over / "checkpoints").rename("elsewhere")
        tiny.stage(6, **DREAM, film="none", checkpoints=folder)
    with pytest.raises(UserError, match=r"gone/vae\.pt .*is missing"):
        tiny.stage(6, **DREAM, checkpoints="gone")


@pytest.mark.parametrize("workers", [0, 1])
def test_06_names_what_a_dream_lacks(soon_over, workers):
    (soon_over / "checkpoints" / "starts.npz").unlink()
    for path in (soon_over / "data" / "latents").glob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match=r"starts\.npz .*; run python 04_train_mdn_rnn\.py\.$"):
        tiny.stage(6, **DREAM | {"workers": workers})
