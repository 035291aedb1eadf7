"""Random numbers: no two purposes share any."""

from itertools import pairwise

import numpy as np
from gymnasium.utils.seeding import np_random

from utils.simulator import seeds
from utils.world_model.collection import plan

RANGES = {"noise": (0, 0.12), "disturbance": (0, 0.006), "line_offset": (0, 4), "grip": (0.4, 0.9)}


def test_every_purpose_has_numbers_of_its_own_and_none_are_the_track_s():
    for seed in (0, 7, 100_000):
        streams = [seeds.stream(seed, draw) for draw in seeds.Draw] + [np_random(seed)[0]]
        drawn = np.concatenate([rng.uniform(size=50) for rng in streams])
        assert len(set(drawn)) == len(drawn)
        again = [seeds.stream(seed, draw) for draw in seeds.Draw] + [np_random(seed)[0]]
        assert np.array_equal(drawn, np.concatenate([rng.uniform(size=50) for rng in again]))


def test_how_the_autopilot_drives_says_nothing_about_the_road():
    """By the environment's own draws, of which a track's bends and radii are made."""
    planned = plan("rollouts", "FastCarRacing-v0", {"autopilot": 1000}, RANGES)
    settings = np.array([list(assignment.settings.values()) for assignment in planned])
    roads = np.array([np_random(assignment.seed)[0].uniform(size=24) for assignment in planned])
    together = np.corrcoef(settings, roads, rowvar=False)[: len(RANGES), len(RANGES) :]
    assert np.abs(together).max() < 0.15  # a standard error is 0.03; one stream for both gives 1


def test_no_two_purposes_share_a_track():
    evolution = seeds.evolution(0)
    ranges = [seeds.REPORT, seeds.SELECT, seeds.FURTHER, *seeds.ROLLOUTS.values()]
    ranges += [seeds.imitation(number, 10_000) for number in (0, 999)]
    ranges += [range(30_000, 100_000), range(20_000_000, 100_000_000), evolution]  # said to be free
    ends = sorted((r[0], r[-1]) for r in ranges)
    assert all(last < first for (_, last), (first, _) in pairwise(ends))
