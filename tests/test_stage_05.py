"""Stage 05 on small settings: it begins, resumes, and refuses what it cannot drive."""

import numpy as np
import pytest
import tiny
from stages import FLAGS, IMITATION, contents, picture

from models.controller import unpack
from utils.evolution.search import Plan, Search
from utils.racing.agent import Races
from utils.racing.race import Race
from utils.runtime.errors import UserError
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID, STOCK_ID, make_env
from utils.storage.artifacts import load_arrays, load_header
from utils.storage.logs import read_log
from utils.storage.networks import (
    load_agent,
)


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
