"""What decides between candidates: skill, not the luck of one track."""

import numpy as np
import pytest

from utils.evolution.fitness import FITNESSES
from utils.racing.race import FRAME_COST, Lap
from utils.simulator.envs import MAX_FRAMES

TILES = 300
GRASS_COST = 0.3
MOST_DIFFERENCE = 40.0
PAIR = np.array([[0, 1]])


def lap(frames=700, missed=0, grass=0, seed=1):
    """A lap that ended with its last new tile, and its true score."""
    driven = MAX_FRAMES if missed else frames
    points = 1000 * (TILES - missed) / TILES - FRAME_COST * driven
    return Lap(seed, points, driven, TILES - missed, TILES, not missed, frames, grass)


def judged(name, laps, groups=PAIR):
    """The fitness of this name of candidates with these laps."""
    fitness = FITNESSES[name]
    points = np.array([[fitness.worth(lap, GRASS_COST) for lap in row] for row in laps])
    return fitness.compare(points, groups, MOST_DIFFERENCE)


def duels(laps, pairs):
    return judged("duels", laps, pairs)


def mean_score(laps):
    return judged("score", laps)


def won_by(first, second, name="duels"):
    """What the first gains in a duel of two candidates, each with laps of its own."""
    gain, loss = judged(name, [first, second])
    assert gain == -loss
    return gain


def test_the_mean_score():
    laps = [[lap(700), lap(800)], [lap(600), lap(650, missed=3)]]
    assert mean_score(laps) == pytest.approx([925, (940 + 890) / 2])


def test_the_faster_wins_by_the_points_it_gains():
    assert won_by([lap(700), lap(780)], [lap(710), lap(800)]) == pytest.approx(1.5)


def test_a_missed_tile_costs_its_own_points_but_no_idle_frames():
    assert won_by([lap()], [lap(missed=1)]) == pytest.approx(1000 / TILES)
    assert np.ptp(mean_score([[lap()], [lap(missed=1)]])) > 30


def test_wheels_on_the_grass_cost_points():
    assert won_by([lap()], [lap(grass=10)]) == pytest.approx(10 * GRASS_COST)


def test_in_a_full_duel_a_missed_tile_costs_the_idle_frames_too():
    assert won_by([lap()], [lap(missed=1)], "full_duels") == pytest.approx(1000 / TILES + 30)
    assert won_by([lap(700)], [lap(710, grass=10)], "full_duels") == pytest.approx(4)


def test_no_track_counts_for_more_than_the_most_difference():
    assert won_by([lap(), lap()], [lap(100, missed=280), lap()]) == MOST_DIFFERENCE / 2


def test_each_duels_with_its_own_mirror_image_alone():
    """Two pairs on tracks of very different length: only the difference in a pair counts."""
    laps = [[lap(600)], [lap(910)], [lap(620)], [lap(900)]]
    assert duels(laps, np.array([[0, 2], [3, 1]])) == pytest.approx([2, -1, -2, 1])


def test_skill_shows_through_the_luck_of_one_track():
    rng = np.random.default_rng(0)
    speed = rng.normal(0, 20, 40)  # frames that each candidate gains on every lap
    laps = [
        [*(lap(700 - int(gain)) for _ in range(5)), lap(300, missed=200 if unlucky else 0)]
        for gain, unlucky in zip(speed, rng.random(40) < 0.5, strict=True)
    ]
    pairs = np.arange(40).reshape(-1, 2)

    def shows(fitness):
        return np.corrcoef(np.diff(speed[pairs])[:, 0], np.diff(fitness[pairs])[:, 0])[0, 1]

    assert shows(duels(laps, pairs)) > shows(mean_score(laps)) + 0.2
