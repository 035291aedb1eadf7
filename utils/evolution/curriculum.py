"""Which training tracks are driven: new ones, and again those that went worst of late.

A driver that completes nineteen laps of twenty learns little from new tracks: most of what it lacks
is on the few that throw it off the road: hairpins, and two roads side by side. Those are remembered
and driven until others are worse, as in Jiang, Grefenstette & Rocktäschel, Prioritized Level Replay
(2021).
"""

from collections.abc import Iterable
from itertools import islice

from utils.evolution.fitness import Groups
from utils.evolution.plan import Plan
from utils.racing.race import Lap
from utils.simulator import seeds

FORGOTTEN_AFTER = 50  # generations after its first use: a track that nobody can master must go

Remembered = list[tuple[int, float]]  # tracks of the last generations, and how they went of late


def choose_tracks(
    plan: Plan, groups: Groups, generation: int, driven: Remembered
) -> list[list[int]]:
    """For every candidate the tracks that it drives.

    Args:
        groups: the candidates of each share their tracks; no two groups share one.
    """
    new = iter(seeds.evolution(generation))
    again = worst(driven, plan.replayed * len(groups))
    tracks: list[list[int]] = [[]] * plan.population
    for i, group in enumerate(groups):
        chosen = again[i :: len(groups)]
        chosen += islice(new, plan.tracks - len(chosen))
        for candidate in group:
            tracks[candidate] = chosen
    return tracks


def worst(driven: Remembered, count: int) -> list[int]:
    """Seeds of at most `count` tracks, the worst first."""
    return [track for track, _ in sorted(driven, key=lambda pair: pair[1])[:count]]


def remembered(
    driven: Remembered, generation: int, laps: Iterable[Lap], lasting: float = 0.0
) -> Remembered:
    """With how tracks went in this generation, and without the oldest ones.

    Args:
        lasting: the share of what was known of a track that stays when it is driven again. Once,
            anybody can be lucky on a bad one; with 0 it is then forgotten.
    """
    scores: dict[int, list[float]] = {}
    for lap in laps:
        scores.setdefault(lap.seed, []).append(lap.score)
    known = dict(driven)
    for track, found in scores.items():
        now = sum(found) / len(found)
        known[track] = lasting * known.get(track, now) + (1 - lasting) * now
    oldest = seeds.evolution(generation - FORGOTTEN_AFTER)[0]
    return [(track, score) for track, score in known.items() if track >= oldest]
