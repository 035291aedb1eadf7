"""Which training tracks are driven again: those that went worst of late.

A driver that completes nineteen laps of twenty learns little from new tracks: most of what it lacks
is on the few that throw it off the road. Those are remembered and driven until others are worse, as
in Jiang, Grefenstette & Rocktäschel, Prioritized Level Replay (2021).
"""

from collections.abc import Iterable, Sequence

from utils.racing.race import Lap
from utils.simulator import seeds

FORGOTTEN_AFTER = 50  # generations from when it was new: one that no driver masters must go


class Curriculum:
    """Remembers how the tracks of the last generations went.

    Args:
        driven: pairs of track and score, as the property of that name gave them to be saved.
    """

    def __init__(self, driven: Iterable[Sequence[float]] = ()) -> None:
        self._scores = {int(track): float(score) for track, score in driven}

    @property
    def driven(self) -> list[tuple[int, float]]:
        """All that it remembers."""
        return list(self._scores.items())

    def worst(self, count: int) -> list[int]:
        """Seeds of at most `count` tracks, the worst first."""
        return sorted(self._scores, key=self._scores.__getitem__)[:count]

    def note(self, generation: int, laps: Sequence[Lap]) -> None:
        """Remember how tracks went in this generation, on average, and forget the oldest ones."""
        scores: dict[int, list[float]] = {}
        for lap in laps:
            scores.setdefault(lap.seed, []).append(lap.score)
        self._scores |= {track: sum(found) / len(found) for track, found in scores.items()}
        oldest = seeds.evolution(generation - FORGOTTEN_AFTER)[0]
        self._scores = {track: score for track, score in self._scores.items() if track >= oldest}
