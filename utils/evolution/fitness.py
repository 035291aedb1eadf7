"""What decides between candidates that have raced. Only its order matters: stage 05 hands it to
`Evolution.tell`, which steps towards the fittest.

A fitness takes the candidates' laps and which of them drove the same tracks; a new one is a
function here and a line in `FITNESSES`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from utils.racing.race import FRAME_COST, Lap

GRASS_COST = 0.3  # points a wheel and frame off the road, the price of the tiles missed that way
MOST_DIFFERENCE = 40.0  # points that a duel on one track can be won by

Laps = Sequence[Sequence[Lap]]  # (candidates, tracks)
Groups = Sequence[Sequence[int]] | np.ndarray  # of candidates that drove the same tracks


def mean_score(laps: Laps, groups: Groups = ()) -> np.ndarray:
    """laps (candidates, tracks) -> (candidates,), comparable where all drove the same tracks."""
    return np.array([np.mean([lap.score for lap in row]) for row in laps])


def duels(laps: Laps, groups: Groups) -> np.ndarray:
    """By how many points a candidate beats its mirror image, on the tracks that both drove.

    Scores say little about drivers that complete nine laps of ten: a missed tile costs 40 points, a
    wreck hundreds, and which candidate that happens to is chance. So a race counts up to its last
    new tile, not the idle frames after it; wheels on the grass cost points, since that is how tiles
    are missed and cars lost; and no track counts for more than `MOST_DIFFERENCE`. The tracks of one
    pair cannot mislead the others: each may have its own, and all together many.

    Args:
        laps: (candidates, tracks)
        groups: (candidates / 2, 2) which of them are mirror images.

    Returns:
        (candidates,) in points; the two of a pair differ in sign alone.
    """
    points = np.array([[_until_the_last_tile(lap) for lap in row] for row in laps])
    return _won_by(points, groups)


def of_dreams(name: str, returns: np.ndarray, groups: Groups) -> np.ndarray:
    """The fitness of this name of candidates that dreamt: returns (N, starts) -> (N,)."""
    return _won_by(returns, groups) if name in PAIRED else returns.mean(1)


def _won_by(points: np.ndarray, groups: Groups) -> np.ndarray:
    first, second = np.transpose(groups)
    gains = np.clip(points[first] - points[second], -MOST_DIFFERENCE, MOST_DIFFERENCE).mean(1)
    fitness = np.empty(len(points))
    fitness[first], fitness[second] = gains, -gains
    return fitness


def _until_the_last_tile(lap: Lap) -> float:
    visited = 1000 * lap.tiles / lap.total_tiles
    return visited - FRAME_COST * lap.progress_frames - GRASS_COST * lap.grass


PAIRED = ("duels",)  # these compare mirror images, and every pair drives tracks of its own
FITNESSES: dict[str, Callable[[Laps, Groups], np.ndarray]] = {
    "score": mean_score,
    "duels": duels,
}
