"""Where candidates drive: on the track, or in what M dreams.

Candidates (N, 867) are for features that a world's `scale` has standardised, a mean for plain ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.controller import FeatureScale
from utils.evolution.curriculum import Remembered, choose_tracks, remembered
from utils.evolution.dreaming import dream
from utils.evolution.fitness import FITNESSES, Groups
from utils.evolution.history import Row, of_candidates, of_dreams, of_selection
from utils.evolution.plan import Plan
from utils.evolution.search import Search
from utils.racing.agent import drive
from utils.racing.race import Lap, Race
from utils.runtime.workers import Workers
from utils.simulator import seeds
from utils.world_model.starts import Moments


class Driven(NamedTuple):
    """What a generation came to."""

    points: np.ndarray  # (candidates, races or dreams)
    row: Row  # for the history
    tracks: Remembered  # and how they went, of which the worst are driven again
    laps: Sequence[Lap] = ()  # all that were really driven
    selection: Sequence[Lap] = ()  # the mean's own laps among them, if it was measured


class Track:
    """Real races: every group of candidates on tracks of its own, new ones and known bad ones."""

    def __init__(self, workers: Workers, scale: FeatureScale) -> None:
        self.workers, self.scale = workers, scale

    def drive(self, candidates: np.ndarray, groups: Groups, plan: Plan, search: Search) -> Driven:
        """The candidates' races, and now and then the mean's on selection tracks."""
        generation, mean = search.evolution.generation, self.scale.plain(search.evolution.mean)
        tracks = choose_tracks(plan, groups, generation, search.driven)
        due = generation % plan.select_every == 0 and search.measured_at != generation
        *laps, selection = drive(
            self.workers, f"generation {generation}",
            *(
                [Race(track, parameters, plan.patience) for track in row]
                for parameters, row in zip(self.scale.plain(candidates), tracks, strict=True)
            ),
            self._selection(mean, plan.select_tracks if due else 0),
        )  # fmt: skip
        driven = [lap for row in laps for lap in row]
        worth = FITNESSES[plan.fitness].worth
        points = np.array([[worth(lap, plan.grass_cost) for lap in row] for row in laps])
        row = of_candidates(plan, generation, laps) | of_selection(selection)
        known = remembered(search.driven, generation, driven, plan.lasting)
        return Driven(points, row, known, [*driven, *selection], selection)

    def measure(self, mean: np.ndarray, plan: Plan) -> list[Lap]:
        """The races of a mean on the selection tracks."""
        (laps,) = drive(self.workers, "selection", self._selection(mean, plan.select_tracks))
        return laps

    @staticmethod
    def _selection(mean: np.ndarray, count: int) -> list[Race]:
        return [Race(track, mean) for track in seeds.SELECT[:count]]


class Dream:
    """M's dreams: every group of candidates from real moments of its own, with luck of its own."""

    def __init__(self, workers: Workers, scale: FeatureScale, moments: Moments) -> None:
        self.workers, self.scale, self._moments = workers, scale, moments

    def drive(self, candidates: np.ndarray, groups: Groups, plan: Plan, search: Search) -> Driven:
        """The candidates' dreams; nothing is really driven."""
        evolution, count = search.evolution, plan.starts * len(groups)
        choice, *luck = [(evolution.seed, evolution.generation, i) for i in range(1, count + 2)]
        starts = self._moments.choose(
            np.random.default_rng(choice), count, plan.own, plan.failing, plan.beginning
        )
        parameters = self.scale.plain(candidates)
        points = dream(self.workers, parameters, groups, starts, luck, plan.horizon)
        return Driven(points, of_dreams(plan, points, search.dreamt), search.driven)

    def measure(self, mean: np.ndarray, plan: Plan) -> list[Lap]:
        """None: no real race has a say in what is best here."""
        return []


World = Track | Dream
