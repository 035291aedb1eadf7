"""The evolution of C: what drives where, what is kept, and a killed run that loses nothing."""

import importlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiny
from stages import read_log

from models.controller import FeatureScale
from utils.evolution.cma_es import Evolution
from utils.evolution.history import COLUMNS
from utils.evolution.plan import Plan
from utils.evolution.search import Files, Search, found_at
from utils.evolution.worlds import Track
from utils.racing.race import Lap
from utils.runtime.errors import UserError
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID, MAX_FRAMES
from utils.storage.artifacts import load_arrays, load_header, load_tensors, save_arrays

N = 6
MEAN, SD = np.array([3.0], np.float32), np.array([0.5], np.float32)  # of the one feature
SCALE = FeatureScale(MEAN, SD)
PLAN = {
    "population": 8, "tracks": 3, "replayed": 0, "lasting": 0.0, "patience": 50,
    "least_sigma": 0.0, "most_sigma": 1e9, "mean_rate": 0.5, "fitness": "score",
    "most_difference": 40.0, "grass_cost": 0.3,
    "select_tracks": 0, "select_every": 1, "arithmetic": "float32",
    "world": "track", "starts": 4, "horizon": 20, "temperature": 1.0, "own": 0.3, "failing": 0.4,
    "beginning": 0.2, "averaged": 2,
}  # fmt: skip
STAGE = importlib.import_module(tiny.SCRIPTS[4])
TIMING = ("seconds", "core_hours")
MADE_FROM = {"vae": "v", "rnn": "m", "SIGMA": 0.1}


@pytest.fixture(autouse=True)
def _quick_pictures(monkeypatch):
    """A picture a generation takes longer than all else here."""
    monkeypatch.setattr("utils.evolution.search.learning_curve", lambda path, rows: path.touch())


class Hill:
    """Workers whose races score by the parameters (6,) and the track, without a car."""

    cpu_seconds = 0.0
    where = ""

    def __init__(self, selection=None, stop_in=None):
        self.runs = []
        self._selection = iter(selection) if selection is not None else None
        self._stop_in = stop_in

    def run(self, races, on_result=None):
        if len(self.runs) == self._stop_in:
            raise KeyboardInterrupt
        self.runs.append(races)
        chosen = next(self._selection) if self._selection and is_measured(races) else None
        return [self._lap(race, chosen) for race in races]

    def _lap(self, race, chosen):
        score = -float(((race.parameters - 1) ** 2).sum()) + (race.seed % 7) / 100
        if race.seed in seeds.SELECT and chosen is not None:
            score = chosen
        return Lap(race.seed, score, 100, 9, 300, complete=race.seed % 2 == 0)


def is_measured(races):
    return any(race.seed in seeds.SELECT for race in races)


def begin(folder, frames=0, core_hours=0.0, **changed):
    evolution = Evolution(np.zeros(N), 0.1, 8, seed=1)
    spent = {"frames": frames, "core_hours": core_hours}
    made_from = MADE_FROM | changed
    plans = [{"generation": 0, **Plan(**PLAN).settings()}]
    search = Search(evolution, plain(evolution.mean), made_from, spent, found_at(0), plans)
    return placed(search, Files.of(str(folder), "c"))


def resume(folder, **changed):
    files = Files.of(str(folder), "c")
    search = Search.load(files, N)
    if search:
        search.follow(Plan(**PLAN), MADE_FROM | changed, {}, files)
        placed(search, files)
    return search


def placed(search, files):
    search.files = files  # where these tests keep it
    search.save(files)
    return search


def advance(search, workers, generations=1, **changed):
    until = search.evolution.generation + generations
    plan = Plan(**PLAN | changed)
    STAGE.evolve(search, plan, Track(workers, SCALE), until, search.files)


def measure(search, workers, select_tracks=4):
    plan = Plan(**PLAN | {"select_tracks": select_tracks})
    STAGE.measure(search, plan, Track(workers, SCALE), search.files)


def untimed(history):
    return [{k: v for k, v in row.items() if k not in TIMING} for row in history]


def saved_c(folder, name="c"):
    header = load_tensors(folder / f"{name}.pt", "C")
    return header["weights"]["parameters"].numpy(), header


def plain(mean):
    return SCALE.plain(mean)


# What drives where


def test_all_candidates_drive_the_same_tracks_and_every_generation_new_ones(tmp_path):
    search, hill = begin(tmp_path), Hill()
    asked = search.evolution.ask()
    advance(search, hill, 2)
    for generation, races in enumerate(hill.runs):
        assert [race.seed for race in races] == list(seeds.evolution(generation)[:3]) * 8
        assert {race.patience for race in races} == {50}
        assert not set(seeds.SELECT) & {race.seed for race in races}
    for i, race in enumerate(hill.runs[0]):
        assert np.array_equal(race.parameters, plain(asked[i // 3]))
        assert race.parameters.dtype == np.float32


def test_more_tracks_may_be_driven_as_the_search_converges(tmp_path):
    search, hill = begin(tmp_path), Hill()
    advance(search, hill, 1, tracks=3)
    advance(resumed := resume(tmp_path), hill, 1, tracks=5)
    few, many = ({race.seed for race in races} for races in hill.runs)
    assert (len(few), len(many)) == (3, 5)
    assert not few & many
    assert [row["tracks"] for row in resumed.history] == [3, 5]


def test_the_worst_tracks_are_driven_again_until_others_are_worse(tmp_path):
    class Harder(Hill):
        """Each new track is worse than those before, until it is driven a second time."""

        def _lap(self, race, chosen):
            met = sum(race.seed == other.seed for races in self.runs for other in races) > 8
            return Lap(race.seed, 900.0 if met else -race.seed / 1e6, 100, 9, 300, complete=met)

    def driven(hill):
        return [[race.seed for race in races[: len(races) // 8]] for races in hill.runs]

    whole, parts = Harder(), Harder()
    search = begin(tmp_path / "whole")
    for _ in range(3):
        advance(search, whole, replayed=2)
        begun = resume(tmp_path / "parts") or begin(tmp_path / "parts")
        advance(begun, parts, replayed=2)
    first, second, third = (seeds.evolution(generation)[0] for generation in range(3))
    assert driven(whole) == [
        [first, first + 1, first + 2], [first + 2, first + 1, second], [second, first, third],
    ]  # fmt: skip
    assert driven(parts) == driven(whole)


def test_the_log_tells_of_the_new_tracks_alone_and_bad_ones_are_forgotten(tmp_path, monkeypatch):
    class Cursed(Hill):
        """The very first track goes badly, for ever."""

        def _lap(self, race, chosen):
            cursed = race.seed == seeds.EVOLUTION
            return Lap(race.seed, -50.0 if cursed else 900.0, 100, 9, 300, complete=not cursed)

    monkeypatch.setattr("utils.evolution.curriculum.FORGOTTEN_AFTER", 1)
    search, cursed = begin(tmp_path), Cursed()
    for _ in range(4):
        advance(search, cursed, replayed=1)
    again = [seeds.EVOLUTION in {race.seed for race in races} for races in cursed.runs]
    assert again == [True, True, True, False]
    rows = search.history
    assert [row["replayed"] for row in rows] == [0, 1, 1, 1]
    assert [row["mean"] for row in rows] == [pytest.approx(1750 / 3), 900, 900, 900]
    assert [row["laps"] for row in rows] == [pytest.approx(2 / 3), 1, 1, 1]


def test_the_candidates_keep_to_the_limits_of_sigma_whenever_the_run_was_stopped(tmp_path):
    for name, generations in ("whole", [3]), ("stopped", [1, 2]):
        begin(tmp_path / name)
        for count in generations:
            search, hill = resume(tmp_path / name), Hill()
            for _ in range(count):
                advance(search, hill, most_sigma=0.02)
    drawn = np.array([race.parameters for race in hill.runs[-1]])
    assert drawn.std(0).mean() < 2 * 0.02 / SD  # the features' scale turns 0.1 into 0.2
    whole, stopped = (untimed(resume(tmp_path / name).history) for name in ("whole", "stopped"))
    assert whole == stopped
    assert max(row["sigma"] for row in whole) < 0.1


def test_sigma_is_raised_to_its_lower_limit(tmp_path):
    search, hill = begin(tmp_path), Hill()
    advance(search, hill, least_sigma=0.5)
    drawn = np.array([race.parameters for race in hill.runs[0]])
    assert drawn.std(0).mean() > 0.5 * 0.5 / SD


def test_when_a_setting_was_last_set(tmp_path):
    search = begin(tmp_path)
    assert search.since("MOST_SIGMA", "GRASS_COST") == 0
    for generation, changed in ((3, {"GRASS_COST": 0.1}), (5, {"TRACKS": 2})):
        search.plans.append(search.plans[-1] | changed | {"generation": generation})
    assert search.since("MOST_SIGMA", "GRASS_COST") == 1
    assert search.since("MOST_SIGMA") == 0


def test_the_distribution_takes_the_share_of_the_step_that_is_planned(tmp_path):
    steps = []
    for name, share in ("half", 0.5), ("whole", 1.0):
        search = begin(tmp_path / name)
        advance(search, Hill(), mean_rate=share)
        steps.append(search.evolution.mean)
    assert steps[1] == pytest.approx(2 * steps[0])


def test_with_duels_every_pair_drives_tracks_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.evolution.schedule.for_beginners", lambda plan: plan)
    search, hill = begin(tmp_path), Hill()
    plan = {"replayed": 1, "fitness": "duels"}
    advance(search, hill, **plan)
    asked, pairs = search.evolution.ask(), search.evolution.pairs
    seen = dict(search.driven)
    assert len(seen) == 4 * 3
    advance(search, hill, **plan)
    races = hill.runs[1]
    driven = [[race.seed for race in races[3 * i : 3 * i + 3]] for i in range(8)]
    assert {row[0] for row in driven} == set(sorted(seen, key=seen.get)[:4])
    for first, second in pairs:
        assert driven[first] == driven[second]
        assert asked[first] + asked[second] == pytest.approx(2 * asked.mean(0))
    new = [seed for row in driven for seed in row[1:]]
    assert set(new) <= set(seeds.evolution(1))
    assert len(set(new)) == 4 * 2


def test_a_search_grows_when_it_is_a_masters_whole_or_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.evolution.schedule.PLATEAUS", 0)
    monkeypatch.setattr("utils.evolution.schedule.is_skilled", lambda row: True)
    plan = {"most_sigma": 0.2, "fitness": "duels"}
    whole = begin(tmp_path / "whole")
    advance(whole, Hill(), 3, **plan)
    parts = begin(tmp_path / "parts")
    advance(parts, Hill(), 2, **plan)
    parts = resume(tmp_path / "parts")
    advance(parts, Hill(), 1, **plan)
    assert [row["population"] for row in whole.history] == [8, 16, 16]
    assert [row["most_difference"] for row in whole.history] == [40, 1000, 1000]
    assert untimed(parts.history)[-1]["mean"] == untimed(whole.history)[-1]["mean"]
    assert np.array_equal(parts.evolution.mean, whole.evolution.mean)


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_plateau_narrows_a_stopped_search_when_it_narrows_a_whole_one(
    tmp_path, monkeypatch, stop
):
    monkeypatch.setattr("utils.evolution.schedule.is_skilled", lambda row: True)
    plan = {"most_sigma": 0.2, "fitness": "duels", "select_tracks": 2, "select_every": 2}
    flat = itertools.repeat(900.0)
    whole, parts = begin(tmp_path / "whole"), begin(tmp_path / "parts")
    advance(whole, Hill(flat), 8, **plan)
    advance(parts, Hill(flat), stop, **plan)
    measure(parts, Hill(flat), select_tracks=2)
    parts = resume(tmp_path / "parts")
    advance(parts, Hill(flat), 8 - stop, **plan)
    widest = [[row["most_sigma"] for row in s.history if "mean" in row] for s in (whole, parts)]
    assert widest[0][0] == 0.2
    assert widest[0][-1] < 0.1
    assert widest[0] == widest[1]
    assert np.array_equal(parts.evolution.mean, whole.evolution.mean)


def test_only_with_duels_grass_decides(tmp_path):
    class Grassy(Hill):
        """What drives over the grass scores best."""

        def _lap(self, race, chosen):
            way = float(race.parameters.sum())
            return Lap(race.seed, way, 100, 9, 300, complete=True, grass=int(1000 * (way + 50)))

    ways = []
    for fitness in "score", "duels":
        search = begin(tmp_path / fitness)
        before = plain(search.evolution.mean).sum()
        advance(search, Grassy(), fitness=fitness)
        ways.append(plain(search.evolution.mean).sum() - before)
    assert ways[0] > 0 > ways[1]


def test_the_mean_is_measured_on_selection_seeds_to_the_end_before_the_first_generation(tmp_path):
    search, hill = begin(tmp_path), Hill()
    start = plain(search.evolution.mean)
    advance(search, hill, 1, select_tracks=4)
    measured = [race for race in hill.runs[0] if race.seed in seeds.SELECT]
    assert [race.seed for race in measured] == list(seeds.SELECT[:4])
    assert {race.patience for race in measured} == {MAX_FRAMES}
    assert all(np.array_equal(race.parameters, start) for race in measured)
    assert len(hill.runs[0]) == 8 * 3 + 4
    assert search.measured_at == 0


def test_the_scores_of_selection_do_not_move_the_distribution(tmp_path):
    searches = [begin(tmp_path / name) for name in "ab"]
    advance(searches[0], Hill(), 3)
    advance(searches[1], Hill(selection=[1e6, -1e6, 1e6]), 3, select_tracks=4)
    states = [search.evolution.state() for search in searches]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_the_distribution_climbs(tmp_path):
    search = begin(tmp_path)
    advance(search, Hill(), 20)
    first, last = search.history[0]["mean"], search.history[-1]["mean"]
    assert first < last / 3  # both are below 0, the top


# What is kept


def test_the_best_mean_by_selection_is_what_is_saved(tmp_path):
    search = begin(tmp_path)
    hill, means, saved = Hill(selection=[10.0, 30.0, 20.0, 40.0]), [], []
    for _ in range(3):
        means.append(plain(search.evolution.mean))
        advance(search, hill, 1, select_tracks=4)
        saved.append(saved_c(tmp_path))
    assert not np.array_equal(means[1], means[2])
    for (parameters, header), best, score in zip(saved, (0, 1, 1), (10, 30, 30), strict=True):
        assert np.array_equal(parameters, means[best])
        assert header["select_score"] == score
    assert saved[-1][1]["made_from"] == MADE_FROM

    means.append(plain(search.evolution.mean))
    measure(search, hill)
    assert np.array_equal(saved_c(tmp_path)[0], means[3])
    assert search.evolution.generation == 3
    assert search.measured_at == 3


def test_only_a_mean_measured_on_as_many_tracks_competes_and_on_more_it_wins(tmp_path):
    begin(tmp_path)
    means, hill = [], Hill(selection=[50.0, 30.0, 20.0, 90.0, 40.0])
    kept = []
    for tracks in 1, 4, 4, 2, 4:  # the first is lucky on its only track, the fourth on its two
        search = resume(tmp_path)
        means.append(plain(search.evolution.mean))
        advance(search, hill, 1, select_tracks=tracks)
        parameters, header = saved_c(tmp_path)
        kept.append(header["generation"])
        assert np.array_equal(parameters, means[kept[-1]])
        assert header["select_score"] == search.best_score == (50, 30, 30, 30, 40)[len(kept) - 1]
    assert kept == [0, 1, 1, 1, 4]


def test_c_tells_what_it_took_to_find_it(tmp_path):
    search, hill = begin(tmp_path), Hill(selection=[10.0, 30.0, 20.0])
    for _ in range(3):
        advance(search, hill, 2, select_tracks=0)
        measure(search, hill)
    row = search.history[5]  # the second measurement, after four generations
    assert row["frames"] == 4 * 2400 + 2 * 400
    _, header = saved_c(tmp_path)
    assert header["generation"] == row["generation"] == 4
    assert (header["frames"], header["core_hours"]) == (row["frames"], row["core_hours"])
    assert "python" in header["provenance"]


def test_without_selection_the_average_of_the_latest_means_is_saved(tmp_path):
    search = begin(tmp_path)
    assert np.array_equal(saved_c(tmp_path)[0], plain(np.zeros(N)))
    means = []
    for _ in range(2):
        advance(search, Hill(), averaged=2)
        means.append(search.evolution.mean)
    assert np.array_equal(saved_c(tmp_path)[0], plain(np.mean(means, 0)))
    _, header = saved_c(tmp_path)
    assert (header["select_score"], header["frames"]) == (None, 2 * 2400)
    assert "unmeasured" in search.summary(search.files)


def test_a_generation_that_is_not_measured_does_not_replace_a_measured_best(tmp_path):
    search, hill = begin(tmp_path), Hill(selection=[10.0])
    advance(search, hill, 1, select_tracks=4)
    before, _ = saved_c(tmp_path)
    advance(search, hill, 2)
    assert np.array_equal(saved_c(tmp_path)[0], before)


def test_history_says_what_the_laps_came_to(tmp_path):
    search, hill = begin(tmp_path), Hill()
    advance(search, hill, 1, select_tracks=4)
    advance(search, hill, 1)
    first, second = search.history
    driven = [hill._lap(race, None).score for race in hill.runs[1]]
    scores = np.reshape(driven, (8, 3)).mean(1)
    assert second["mean"] == pytest.approx(scores.mean())
    assert second["best"] == pytest.approx(scores.max())
    assert (first["generation"], second["generation"]) == (0, 1)
    assert (first["frames"], second["frames"]) == (2800, 2800 + 2400)
    picked = [hill._lap(race, None).score for race in hill.runs[0][24:]]
    assert first["select_mean"] == pytest.approx(np.mean(picked))
    assert first["select_sd"] == pytest.approx(np.std(picked))
    assert first["laps"] == 0.5
    assert "select_mean" not in second
    assert second["sigma"] == search.evolution.sigma
    log = read_log(tmp_path / "c.csv")
    of_dreams = ("starts", "horizon", "temperature")
    assert list(log[0]) == [name for name in COLUMNS if name not in of_dreams]
    assert log == search.history


def test_frames_and_core_hours_count_on_from_what_the_start_took(tmp_path):
    begin(tmp_path, frames=5000, core_hours=2.0)
    resumed = resume(tmp_path)
    advance(resumed, Hill(), 1)
    (row,) = resumed.history
    assert row["frames"] == 5000 + 2400
    assert 2.0 < row["core_hours"] < 2.1


def test_the_last_measurement_has_a_row_of_its_own(tmp_path, capsys):
    search, hill = begin(tmp_path), Hill(selection=[10.0])
    advance(search, hill, 1)
    measure(search, hill)
    row = search.history[1]
    assert (row["generation"], row["select_mean"], row["select_sd"]) == (1, 10.0, 0.0)
    assert row["frames"] == 2400 + 400
    assert "mean" not in row
    assert (resume(tmp_path).measured_at, resume(tmp_path).best_score) == (1, 10.0)
    assert "generation 1, selection 10.0" in capsys.readouterr().out


# Stopping and going on


def test_the_state_is_saved_after_every_generation(tmp_path):
    search, hill = begin(tmp_path), Hill()
    for generation in range(3):
        assert load_header(search.files.state, "evolution")["made_from"] == MADE_FROM
        saved = resume(tmp_path)
        assert saved.evolution.generation == generation == len(saved.history)
        assert np.array_equal(saved.evolution.ask(), search.evolution.ask())
        advance(search, hill, 1)


@pytest.mark.parametrize("stop_in", [0, 1, 3])
def test_a_stopped_run_ends_where_an_undisturbed_one_ends(tmp_path, stop_in):
    whole = begin(tmp_path / "whole")
    advance(whole, Hill(), 5, select_tracks=4)
    with pytest.raises(KeyboardInterrupt):
        advance(begin(tmp_path / "stopped"), Hill(stop_in=stop_in), 5, select_tracks=4)
    resumed = resume(tmp_path / "stopped")
    assert resumed.evolution.generation == stop_in
    advance(resumed, Hill(), 5 - stop_in, select_tracks=4)
    assert_same_end(tmp_path / "stopped", tmp_path / "whole", "c")


def assert_same_end(folder, other, name):
    header, arrays = load_arrays(folder / f"{name}_evolution.npz", "evolution")
    whole, expected = load_arrays(other / f"{name}_evolution.npz", "evolution")
    assert arrays.keys() == expected.keys()
    for key in arrays:
        assert np.array_equal(arrays[key], expected[key]), key
    assert untimed(header["history"]) == untimed(whole["history"])
    for key in ("made_from", "best_score", "measured_at", "spent"):
        assert header[key] == whole[key]
    assert np.array_equal(saved_c(folder, name)[0], saved_c(other, name)[0])
    logs = [untimed(read_log(place / f"{name}.csv")) for place in (folder, other)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("lost", ["c.pt", "c.csv", "c.png"])
def test_what_is_derived_from_the_state_is_mended_from_it(tmp_path, lost):
    search = begin(tmp_path)
    advance(search, Hill(), 2, select_tracks=4)
    before, log = saved_c(tmp_path)[0], read_log(tmp_path / "c.csv")
    (tmp_path / lost).unlink()
    resume(tmp_path)
    assert np.array_equal(saved_c(tmp_path)[0], before)
    assert read_log(tmp_path / "c.csv") == log
    assert (tmp_path / "c.png").exists()


@pytest.mark.parametrize("changed", [{"SIGMA": 0.2}, {"rnn": "other"}, {"ROUNDS": 3}])
def test_the_state_of_another_run_is_refused_and_kept(tmp_path, changed):
    search = begin(tmp_path)
    advance(search, Hill(), 1)
    state = search.files.state.read_bytes()
    (name,) = changed
    with pytest.raises(UserError, match=rf"c_evolution\.npz .*another {name} .*delete it .*NAME"):
        resume(tmp_path, **changed)
    assert search.files.state.read_bytes() == state


@pytest.mark.parametrize(("changed", "sentence"), [
    ({"world": "dream"}, r"c_evolution\.npz .*measured on the track.* NAME"),
    ({"select_tracks": 3}, r"SELECT_TRACKS .* must be at least 4"),
])  # fmt: skip
def test_a_measured_c_is_not_left_behind_unseen(tmp_path, changed, sentence):
    search = begin(tmp_path)
    measure(search, Hill())
    state = search.files.state.read_bytes()
    loaded = Search.load(search.files, N)
    with pytest.raises(UserError, match=sentence):
        loaded.follow(Plan(**PLAN | changed), MADE_FROM, {}, search.files)
    assert search.files.state.read_bytes() == state
    loaded.follow(Plan(**PLAN), MADE_FROM, {}, search.files)


def test_a_last_mean_is_measured_again_on_more_tracks(tmp_path):
    search = begin(tmp_path)
    measure(search, Hill())
    search.follow(Plan(**PLAN), MADE_FROM, {}, search.files)
    measure(search, again := Hill())
    assert not again.runs
    search.follow(Plan(**PLAN | {"select_tracks": 6}), MADE_FROM, {}, search.files)
    measure(search, again, 6)
    assert [len(races) for races in again.runs] == [6]
    assert search.best_tracks == 6


def test_the_state_of_another_game_is_refused_and_kept(tmp_path, monkeypatch):
    search = begin(tmp_path)
    state = search.files.state.read_bytes()
    other = {"gymnasium": "2.0", "box2d": "3.0"}
    monkeypatch.setattr("utils.storage.provenance.game", lambda: other)
    with pytest.raises(UserError, match=r"c_evolution\.npz .*another game .*delete it .*NAME"):
        resume(tmp_path)
    assert search.files.state.read_bytes() == state


def test_a_damaged_state_is_refused_and_kept(tmp_path):
    search = begin(tmp_path)
    damaged = search.files.state.read_bytes()[:-30]
    search.files.state.write_bytes(damaged)
    with pytest.raises(UserError, match=r"c_evolution\.npz"):
        resume(tmp_path)
    assert search.files.state.read_bytes() == damaged


@pytest.mark.parametrize(
    "worse",
    [
        {"made_from": [1]}, {"best_score": "high"}, {"driven": [[float("inf"), 1.0]]},
        {"history": "long"}, {"history": [{"frames": 1}]}, {"spent": {}}, {"found": None},
        {"plans": [{}]}, {"plans": "none"}, {"plans": [{"generation": 0, "TRACKS": "many"}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_that_holds_no_search_is_refused_and_kept(tmp_path, worse):
    search = begin(tmp_path)
    advance(search, Hill())
    header, arrays = load_arrays(search.files.state, "evolution")
    for name in "kind", "fingerprint":
        del header[name]
    save_arrays(search.files.state, "evolution", arrays, **header | worse)
    before = search.files.state.read_bytes()
    with pytest.raises(UserError, match=r"c_evolution\.npz holds no evolution .*delete it .*NAME"):
        resume(tmp_path)
    assert search.files.state.read_bytes() == before


def test_without_a_state_there_is_nothing_to_resume(tmp_path):
    assert resume(tmp_path) is None


# The stage itself, killed


FLAGS = {
    "start": "zeros", "generations": 3, "population": 6, "tracks": 1, "replayed": 0,
    "sigma": 0.05, "select_tracks": 1, "select_every": 2, "patience": 30, "env_id": FAST_ID,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_run_killed_in_the_middle_of_a_generation_ends_where_an_unkilled_one_ends(
    tmp_path, monkeypatch
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        tiny.save_networks(folder / "checkpoints")
    with monkeypatch.context() as patch:
        patch.chdir(whole)
        tiny.stage(5, **FLAGS, workers=0)

    process = run_05(killed)
    watch = threading.Timer(300, process.kill)  # in case it never gets there
    watch.start()
    shown = ""
    while chunk := process.stderr.read1(1000):
        shown += chunk.decode(errors="replace")
        if re.search(r"generation 1: [^\r]* [1-5]/6 ", shown):
            break
    process.send_signal(signal.SIGKILL)
    watch.cancel()
    assert process.wait() == -signal.SIGKILL, shown
    state = load_header(killed / "checkpoints" / "controller_evolution.npz", "evolution")
    assert len(state["history"]) == 1

    again = run_05(killed)
    said, _ = again.communicate()
    assert again.returncode == 0
    assert b"resuming at generation 1" in said
    assert_same_end(killed / "checkpoints", whole / "checkpoints", "controller")


def run_05(folder):
    """Start stage 05 in `folder`; its progress bars go to `stderr`."""
    return subprocess.Popen(
        [sys.executable, tiny.ROOT / f"{tiny.SCRIPTS[4]}.py",
         *tiny.arguments(FLAGS | {"workers": 1})],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
