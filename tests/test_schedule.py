"""What changes by itself as a search gets on."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from utils.evolution.plan import Plan
from utils.evolution.schedule import plateaus, regular, scheduled
from utils.simulator import seeds

SETTINGS = {
    "WORLD": "track", "POPULATION": 8, "TRACKS": 3, "REPLAYED": 2, "LASTING": 0.0,
    "PATIENCE": 100, "LEAST_SIGMA": 0.03, "MOST_SIGMA": 0.2, "MEAN_RATE": 0.5, "FITNESS": "duels",
    "MOST_DIFFERENCE": 40.0, "STARTS": 16, "HORIZON": 250, "TEMPERATURE": 1.0, "OWN": 0.3,
    "FAILING": 0.3, "BEGINNING": 0.2, "AVERAGED": 10,
    "GRASS_COST": 0.4, "SELECT_TRACKS": 200, "SELECT_EVERY": 4, "START": "zeros",
}  # fmt: skip


def plan(**others):
    return Plan.of(SimpleNamespace(**SETTINGS | others))


def measured(*scores):
    return [{"plan": 0, "mean": 500.0, "select_mean": score} for score in scores]


def races(plan, *candidate_laps):
    rows = [{"plan": 0, "mean": 500.0, "candidate_laps": share} for share in candidate_laps]
    now = scheduled(plan, rows)
    return now.tracks, now.replayed, now.select_tracks


def test_beginners_race_on_one_new_track_and_are_measured_on_few():
    assert races(plan()) == (1, 0, 25)
    assert races(plan(), 0.1, 0.24) == (1, 0, 25)
    assert races(plan(), 0.25) == (3, 2, 200)
    assert races(plan(SELECT_TRACKS=4)) == (1, 0, 4)


def test_who_was_skilled_once_is_no_beginner_again():
    assert races(plan(), 0.3, 0.1) == (3, 2, 200)


def test_who_drives_well_but_for_sigma_is_no_beginner():
    few = {"plan": 0, "candidate_laps": 0.04, "select_mean": 880.0}
    assert scheduled(plan(), [few | {"laps": 0.88}]).tracks == 1
    assert scheduled(plan(), [few | {"laps": 0.92}]).tracks == 3
    assert scheduled(plan(), [{"candidate_laps": 0.04, "laps": 0.04}]).tracks == 1


def test_candidates_that_all_drive_the_same_tracks_need_all_of_them():
    assert races(plan(FITNESS="score", REPLAYED=0)) == (3, 0, 25)


@pytest.mark.parametrize(("scores", "count"), [
    ((), 0),
    ((-40, 300, 500, 700), 0),
    ((900, 900.9), 0),  # once without a gain
    ((900, 900.9, 900.5), 1),
    ((900, 900.9, 901.1, 901.5), 0),  # small gains that come to one together
    ((900, 900, 900, 900), 1),  # the narrower one has its chance, too
    ((900, 900, 900, 900, 900), 2),
    ((900, 850, 840, 910, 905, 905), 2),
])  # fmt: skip
def test_the_widest_sigma_is_halved_when_the_mean_stands_still(scores, count):
    assert plateaus(measured(*scores)) == count


def test_rows_without_a_measurement_say_nothing_about_the_mean():
    rows = [{"mean": 1.0}, *measured(900), {"mean": 2.0}, {"mean": 3.0}, {"mean": 4.0}]
    assert plateaus(rows) == 0


def skilled(*scores):
    return [{"plan": 0, "candidate_laps": 0.5}, *measured(*scores)]


def test_a_plan_narrows_when_the_mean_drives_and_down_to_its_least_sigma():
    assert scheduled(plan(), []).most_sigma == 0.2
    assert scheduled(plan(), skilled()).most_sigma == 0.1
    assert scheduled(plan(), skilled(900, 900, 900)).most_sigma == 0.05
    by_score = plan(FITNESS="score", REPLAYED=0)
    assert scheduled(by_score, skilled(*[900] * 20)).most_sigma == 0.03


def test_a_narrow_distribution_may_use_the_edges_of_the_road():
    assert scheduled(plan(), []).grass_cost == 0.4
    assert scheduled(plan(), skilled()).grass_cost == 0.2
    assert scheduled(plan(), skilled(*[900] * 5)).grass_cost == 0.05


def test_a_mean_that_stood_still_twice_is_a_masters():
    learner, master = (scheduled(plan(), skilled(*[900] * count)) for count in (4, 5))
    assert (learner.fitness, learner.population, learner.mean_rate) == ("duels", 8, 0.5)
    assert (master.fitness, master.population, master.mean_rate) == ("full_duels", 16, 0.25)
    assert (learner.least_sigma, learner.most_sigma) == (0.03, 0.05)
    assert (master.least_sigma, master.most_sigma) == (0.05, 0.05)
    assert (learner.most_difference, master.most_difference) == (40, 1000)
    assert (learner.lasting, master.lasting) == (0, 0.8)


def test_a_master_stays_one_whose_grass_gets_cheaper():
    now = scheduled(plan(), skilled(*[900] * 9))
    assert (now.population, now.most_sigma, now.grass_cost) == (16, 0.05, 0.4 / 32)


@pytest.mark.parametrize(("population", "tracks", "doubled"), [
    (400, 3, 666), (666, 3, 666), (1000, 2, 1000), (402, 2, 804),
])  # fmt: skip
def test_masters_are_twice_as_many_where_there_are_tracks_for_them(population, tracks, doubled):
    large = plan(POPULATION=population, TRACKS=tracks, REPLAYED=1)
    now = scheduled(large, skilled(*[900] * 5))
    assert now.population == doubled
    assert now.tracks * now.population // 2 <= seeds.EVOLUTION_TRACKS


@pytest.mark.parametrize("fitness", ["score", "full_duels"])
def test_who_chose_another_fitness_keeps_it(fitness):
    chosen = plan(FITNESS=fitness, REPLAYED=0)
    now = scheduled(chosen, skilled(*[900] * 5))
    assert replace(now, most_sigma=0.2, grass_cost=0.4) == chosen


def test_the_few_tracks_of_beginners_narrow_nothing():
    before = measured(900, 900, 900)
    assert scheduled(plan(), before).most_sigma == 0.2
    lucky = {"plan": 0, "candidate_laps": 0.5, "select_mean": 930.0}
    assert scheduled(plan(), [*before, lucky, *measured(900, 902)]).most_sigma == 0.1


def test_what_is_set_by_hand_is_lowered_by_what_comes_then_alone():
    history = skilled(*[900] * 5)
    now = scheduled(plan(), history, since=1)
    assert (now.most_sigma, now.grass_cost, now.tracks) == (0.2, 0.4, 3)
    history += [row | {"plan": 1} for row in measured(900, 900, 900)]
    assert scheduled(plan(), history, since=1).most_sigma == 0.1


def test_who_had_a_teacher_begins_as_no_beginner():
    assert scheduled(plan(), [], taught=True) == plan()
    now = scheduled(plan(), measured(900, 900, 900), taught=True)
    assert (now.most_sigma, now.tracks) == (0.1, 3)


def test_a_last_measurement_of_the_mean_says_nothing_about_its_candidates():
    assert scheduled(plan(), [{"plan": 0, "select_mean": 600.0, "laps": 0.3}]).tracks == 1
    assert scheduled(plan(), [{"plan": 0, "select_mean": 600.0, "laps": 0.9}]).tracks == 3


def rows_of(whole, stop=None):
    """The history of a search that measures every fourth mean, stopped once before generation
    `stop`: its mean is measured there, and not again."""
    rows = []
    for generation, score in enumerate(whole):
        row = {"plan": 0, "generation": generation, "mean": 1.0, "candidate_laps": 0.05}
        of_mean = {"select_mean": score, "laps": 0.95 if score > 899 else 0.1}
        if generation == stop:
            rows.append({"plan": 0, "generation": generation, **of_mean})
        rows.append(row | of_mean if generation % 4 == 0 and generation != stop else row)
    return rows


def plans(rows):
    """By which each generation of that history is run."""
    for i, row in enumerate(rows):
        if "mean" in row:
            yield scheduled(plan(), regular(rows[:i], row["generation"], 4))


@pytest.mark.parametrize("stop", range(30))
def test_where_a_search_was_stopped_changes_nothing_about_how_it_goes_on(stop):
    whole = [700] * 6 + [905 - 0.01 * generation for generation in range(24)]
    wanted = list(plans(rows_of(whole)))
    assert wanted[0].tracks == 1
    assert {wanted[i].fitness for i in (24, -1)} == {"duels", "full_duels"}
    assert list(plans(rows_of(whole, stop))) == wanted


def test_nothing_else_changes_and_nothing_at_all_in_the_dream():
    now = scheduled(plan(), skilled(900))
    assert replace(now, most_sigma=0.2, grass_cost=0.4) == plan()
    dreamt = plan(WORLD="dream")
    assert scheduled(dreamt, skilled(900, 900, 900)) == dreamt
