"""What decides between candidates. Only its order matters: stage 05 hands it to `Evolution.tell`,
which steps towards the fittest.

A fitness says what a race is worth, in points, and how the candidates' points are compared; a new
one is a line in `FITNESSES`, and then `--fitness NAME`. A dream is worth what M predicts, whatever
the fitness; and only a search by "duels" goes over to a master's plan by itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from utils.racing.race import FRAME_COST, Lap

Groups = Sequence[Sequence[int]] | np.ndarray  # of candidates that drove the same tracks


class Fitness(NamedTuple):
    """One way to decide between candidates."""

    # of a race, in points, at this price of a wheel off the road for a frame
    worth: Callable[[Lap, float], float]
    # points (N, races) -> fitness (N,); a duel on one track is won by so many points at most
    compare: Callable[[np.ndarray, Groups, float], np.ndarray]
    paired: bool  # each group is a candidate and its mirror image, and has tracks of its own


def score(lap: Lap, grass_cost: float) -> float:
    """The race's own; grass has no price."""
    return lap.score


def mean_points(points: np.ndarray, groups: Groups, most_difference: float) -> np.ndarray:
    """points (N, races) -> (N,), comparable where all candidates drove the same."""
    return points.mean(1)


def until_the_last_tile(lap: Lap, grass_cost: float) -> float:
    """Points up to the last new tile, less a price for wheels on the grass.

    Scores say little about drivers that complete nine laps of ten: a missed tile costs 40 points, a
    wreck hundreds, and which candidate that happens to is chance. So a race counts up to its last
    new tile, not the idle frames after it; wheels on the grass cost points, since that is how tiles
    are missed and cars lost.
    """
    visited = 1000 * lap.tiles / lap.total_tiles
    return visited - FRAME_COST * lap.progress_frames - grass_cost * lap.grass


def to_the_end(lap: Lap, grass_cost: float) -> float:
    """The race's own score, less a price for wheels on the grass.

    A missed tile costs 40 points, as it does in the end, where it costs 3 up to the last new tile:
    for drivers that complete all laps but a few of a hundred, and that would rather cut a bend.
    """
    return lap.score - grass_cost * lap.grass


def duels(points: np.ndarray, groups: Groups, most_difference: float) -> np.ndarray:
    """By how many points a candidate beats its mirror image, in the races that both drove.

    The tracks of one pair cannot mislead the others: each may have its own, and all together many.

    Args:
        points: (N, races)
        groups: (N / 2, 2) which of them are mirror images.
        most_difference: points that one race counts for at most.

    Returns:
        (N,) in points; the two of a pair differ in sign alone.
    """
    first, second = np.transpose(groups)
    differences = points[first] - points[second]
    gains = np.clip(differences, -most_difference, most_difference).mean(1)
    fitness = np.empty(len(points))
    fitness[first], fitness[second] = gains, -gains
    return fitness


FITNESSES = {
    "score": Fitness(score, mean_points, paired=False),
    "duels": Fitness(until_the_last_tile, duels, paired=True),
    "full_duels": Fitness(to_the_end, duels, paired=True),
}
