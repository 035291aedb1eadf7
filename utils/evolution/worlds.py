"""Where candidates drive: on the track, or in what M dreams."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np

from models.controller import FeatureScale
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.evolution.curriculum import Remembered, choose_tracks, remembered
from utils.evolution.dreaming import dream, dreaming_workers
from utils.evolution.fitness import FITNESSES, Groups
from utils.evolution.history import Row, of_candidates, of_dreams, of_selection
from utils.evolution.plan import Plan
from utils.evolution.search import Search
from utils.racing.agent import drive, racing_workers
from utils.racing.race import Lap, Race
from utils.runtime.cluster import Cluster
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


class World(Protocol):
    """A place where candidates drive."""

    workers: Workers

    def drive(self, candidates: np.ndarray, groups: Groups, plan: Plan, search: Search) -> Driven:
        """Let the candidates (N, 867), for standardised features, drive as the plan has it."""


class Track:
    """Real races: every group of candidates on tracks of its own, new ones and known bad ones."""

    def __init__(self, workers: Workers, scale: FeatureScale) -> None:
        self.workers, self._scale = workers, scale

    def drive(self, candidates: np.ndarray, groups: Groups, plan: Plan, search: Search) -> Driven:
        """The candidates' races, and now and then the mean's on selection tracks."""
        generation, mean = search.evolution.generation, self._scale.plain(search.evolution.mean)
        tracks = choose_tracks(plan, groups, generation, search.driven)
        due = generation % plan.select_every == 0 and search.measured_at != generation
        *laps, selection = drive(
            self.workers, f"generation {generation}",
            *(
                [Race(track, parameters, plan.patience) for track in row]
                for parameters, row in zip(self._scale.plain(candidates), tracks, strict=True)
            ),
            self._selection(mean, plan if due else None),
        )  # fmt: skip
        driven = [lap for row in laps for lap in row]
        worth = FITNESSES[plan.fitness].worth
        points = np.array([[worth(lap, plan.grass_cost) for lap in row] for row in laps])
        row = of_candidates(plan, generation, laps) | of_selection(selection)
        known = remembered(search.driven, generation, driven, plan.lasting)
        return Driven(points, row, known, [*driven, *selection], selection)

    def measure(self, mean: np.ndarray, plan: Plan) -> list[Lap]:
        """The races of a mean, for plain features, on the selection tracks."""
        (laps,) = drive(self.workers, "selection", self._selection(mean, plan))
        return laps

    @staticmethod
    def _selection(mean: np.ndarray, plan: Plan | None) -> list[Race]:
        return [Race(track, mean) for track in seeds.SELECT[: plan.select_tracks if plan else 0]]


class Dream:
    """M's dreams: every group of candidates from real moments of its own, with luck of its own."""

    def __init__(self, workers: Workers, scale: FeatureScale, moments: Moments) -> None:
        self.workers, self._scale, self._moments = workers, scale, moments

    def drive(self, candidates: np.ndarray, groups: Groups, plan: Plan, search: Search) -> Driven:
        """The candidates' dreams; nothing is really driven."""
        evolution, count = search.evolution, plan.starts * len(groups)
        choice, *luck = [(evolution.seed, evolution.generation, i) for i in range(1, count + 2)]
        starts = self._moments.choose(
            np.random.default_rng(choice), count, plan.own, plan.failing, plan.beginning
        )
        parameters = self._scale.plain(candidates)
        points = dream(self.workers, parameters, groups, starts, luck, plan.horizon)
        return Driven(points, of_dreams(plan, points, search.dreamt), search.driven)


@contextmanager
def on_the_track(
    env_id: str, vae: VAE, rnn: MDNRNN, scale: FeatureScale, workers: int, cluster: Cluster | None
) -> Iterator[Track]:
    """A track with so many workers."""
    with racing_workers(workers, env_id, vae, rnn, cluster) as pool:
        yield Track(pool, scale)


@contextmanager
def in_the_dream(
    rnn: MDNRNN, dreaming: MDNRNN | None, moments: Moments, temperature: float,
    scale: FeatureScale, workers: int, cluster: Cluster | None,
) -> Iterator[Dream]:  # fmt: skip
    """The dream of `dreaming`, or where there is none of `rnn`, whose h C reads in any case."""
    with dreaming_workers(workers, rnn, dreaming, temperature, cluster) as pool:
        yield Dream(pool, scale, moments)
