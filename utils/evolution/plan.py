"""The plan of a search: the settings that decide its result and may change while it runs."""

from dataclasses import asdict, dataclass, fields
from types import SimpleNamespace
from typing import Any

from models.inference import arithmetic
from utils.evolution.cma_es import Evolution
from utils.evolution.fitness import FITNESSES, Groups
from utils.runtime.errors import UserError
from utils.simulator import seeds


@dataclass(frozen=True)
class Plan:
    """One generation's settings; stage 05's constants of the same names say what each is for."""

    world: str
    population: int
    tracks: int
    replayed: int
    lasting: float
    patience: int
    least_sigma: float
    most_sigma: float
    mean_rate: float
    fitness: str
    most_difference: float
    grass_cost: float
    starts: int
    horizon: int
    temperature: float
    own: float
    failing: float
    beginning: float
    averaged: int
    select_tracks: int
    select_every: int
    arithmetic: str  # in which V encodes frames on this machine

    @classmethod
    def of(cls, s: SimpleNamespace) -> "Plan":
        """The plan that stage 05's settings make; a UserError where it cannot be driven."""
        named = vars(s) | {"ARITHMETIC": arithmetic()}
        plan = cls(**{field.name: named[field.name.upper()] for field in fields(cls)})
        plan._demand_possible()
        return plan

    def settings(self) -> dict[str, Any]:
        """The same by the names of stage 05's constants."""
        return {name.upper(): value for name, value in asdict(self).items()}

    def groups(self, evolution: Evolution) -> Groups:
        """Which candidates are judged side by side, in the same races or dreams."""
        return evolution.pairs if FITNESSES[self.fitness].paired else [range(self.population)]

    def _demand_possible(self) -> None:
        paired = FITNESSES[self.fitness].paired
        driven = self.tracks * (self.population // 2 if paired else 1)
        for possible, sentence in (
            (self.replayed < self.tracks,
             f"REPLAYED (--replayed) must be below TRACKS, {self.tracks}: some are new."),
            (self.least_sigma <= self.most_sigma,
             f"LEAST_SIGMA (--least-sigma) must be at most MOST_SIGMA, {self.most_sigma}."),
            (not paired or self.population % 2 == 0,
             f"POPULATION (--population) must be even for {self.fitness}, not {self.population}."),
            (self.own + self.failing + self.beginning <= 1,
             "OWN (--own), FAILING (--failing), BEGINNING (--beginning) are shares of one whole."),
            (self.world == "dream" or driven <= seeds.EVOLUTION_TRACKS,
             f"a generation has {seeds.EVOLUTION_TRACKS} tracks, not {driven}: lower TRACKS "
             "(--tracks) or POPULATION (--population)."),
        ):  # fmt: skip
            if not possible:
                raise UserError(sentence)
