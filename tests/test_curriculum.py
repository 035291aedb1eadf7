"""Which tracks are driven, and which again."""

from itertools import pairwise

import pytest

from utils.evolution.curriculum import FORGOTTEN_AFTER, remembered, worst
from utils.racing.race import Lap
from utils.simulator import seeds


def laps(scores):
    return [Lap(track, score, 100, 9, 300, False) for track, score in scores]


def test_a_track_counts_as_it_went_on_average_the_last_time():
    a, b, c = seeds.evolution(0)[:3]
    driven = remembered([], 0, laps([(a, 0.0), (a, 800.0), (b, 300.0), (b, 300.0), (c, 500.0)]))
    assert worst(driven, 2) == [b, a]
    driven = remembered(driven, 1, laps([(b, 900.0)]))
    assert worst(driven, 5) == [a, c, b]


def test_a_lasting_record_has_a_track_driven_until_it_went_well_again_and_again():
    bad, others = seeds.evolution(0)[0], seeds.evolution(0)[1:3]
    driven = remembered([], 0, laps([(bad, 300.0), *((track, 890.0) for track in others)]))
    for generation in range(1, 17):
        assert worst(driven, 1) == [bad]
        driven = remembered(driven, generation, laps([(bad, 910.0)]), lasting=0.8)
    assert worst(driven, 3) == [*others, bad]


def test_a_track_is_dropped_in_time_however_badly_it_goes():
    hopeless, other = seeds.evolution(0)[0], seeds.evolution(FORGOTTEN_AFTER)[0]
    driven = []
    for generation in range(FORGOTTEN_AFTER + 1):
        driven = remembered(driven, generation, laps([(hopeless, -50.0), (other, 900.0)]))
    assert worst(driven, 1) == [hopeless]
    driven = remembered(driven, FORGOTTEN_AFTER + 1, laps([(other, 900.0)]))
    assert worst(driven, 9) == [other]


def test_no_two_purposes_share_a_track():
    ranges = [
        seeds.REPORT, seeds.SELECT, seeds.FURTHER, *seeds.ROLLOUTS.values(),
        seeds.imitation(0, 1000 * 10_000),  # the most rounds and laps that stage 05 takes
        *(seeds.evolution(generation) for generation in (0, 1, 999_999)),
    ]  # fmt: skip
    ranges.sort(key=lambda tracks: tracks[0])
    for first, second in pairwise(ranges):
        assert first[-1] < second[0]
    assert ranges[-1][-1] < 2**31


@pytest.mark.parametrize(("number", "first"), [(0, 10_000_000), (3, 10_000_096)])
def test_every_round_of_imitation_has_tracks_of_its_own(number, first):
    assert list(seeds.imitation(number, 32)) == list(range(first, first + 32))


def test_every_driver_has_the_tracks_that_it_always_had():
    first = {driver: tracks[0] for driver, tracks in seeds.ROLLOUTS.items()}
    assert first == {
        "autopilot": 100_000, "keyboard": 1_000_000, "random": 1_100_000, "agent": 2_000_000
    }  # fmt: skip
