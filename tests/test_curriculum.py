"""Which tracks are driven again."""

from utils.evolution.curriculum import FORGOTTEN_AFTER, Curriculum
from utils.racing.race import Lap
from utils.simulator import seeds


def laps(scores):
    return [Lap(track, score, 100, 9, 300, False) for track, score in scores]


def test_a_track_counts_as_it_went_on_average_the_last_time():
    a, b, c = seeds.evolution(0)[:3]
    curriculum = Curriculum()
    curriculum.note(0, laps([(a, 0.0), (a, 800.0), (b, 300.0), (b, 300.0), (c, 500.0)]))
    assert curriculum.worst(2) == [b, a]
    curriculum.note(1, laps([(b, 900.0)]))
    assert curriculum.worst(5) == [a, c, b]
    assert Curriculum(curriculum.driven).worst(5) == [a, c, b]


def test_a_track_is_dropped_in_time_however_badly_it_goes():
    hopeless, other = seeds.evolution(0)[0], seeds.evolution(FORGOTTEN_AFTER)[0]
    curriculum = Curriculum()
    for generation in range(FORGOTTEN_AFTER + 1):
        curriculum.note(generation, laps([(hopeless, -50.0), (other, 900.0)]))
    assert curriculum.worst(1) == [hopeless]
    curriculum.note(FORGOTTEN_AFTER + 1, laps([(other, 900.0)]))
    assert curriculum.worst(9) == [other]
