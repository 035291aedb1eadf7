"""Stage 05's work: one evolution from its start to its end, saved whole after every generation."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.controller import unstandardise
from utils.evolution.cma_es import Evolution
from utils.evolution.curriculum import Curriculum
from utils.evolution.fitness import duels, mean_scores
from utils.pictures.plots import learning_curve
from utils.racing.race import Lap, Race
from utils.runtime.errors import UserError
from utils.runtime.timing import Meter
from utils.runtime.workers import Workers
from utils.simulator import seeds
from utils.storage.artifacts import load_arrays, save_arrays
from utils.storage.logs import write_log
from utils.storage.networks import controller_path, save_controller
from utils.storage.provenance import game, is_of_this_game, provenance

COLUMNS = (
    "generation",
    "population",
    "tracks",  # races of each candidate
    "replayed",  # of them on tracks that were driven before; left out of mean, best and laps
    "frames",  # since the search began
    "mean",  # of the candidates
    "best",  # of the candidates, each on its own few tracks
    "select_mean",  # of the distribution's mean on the selection seeds, where it was measured
    "select_sd",
    "laps",  # share that is complete: of the selection where it was measured, or the candidates'
    "sigma",  # as the generation leaves it; the plan's limits cut it before the next is drawn
    "core_hours",  # since the search began
    "seconds",  # of this row
)
ALWAYS = ("generation", "frames", "laps", "sigma", "core_hours", "seconds")  # in every row


class Plan(NamedTuple):
    """What a generation drives; may differ from one to the next."""

    tracks: int  # races of each candidate; with duels every pair has its own
    patience: int  # frames without a new tile after which a race is given up
    replayed: int = 0  # of the tracks, how many are the worst of late; below `tracks`
    scouted: int = 0  # further new tracks that the mean drives alone, to find bad ones
    least_sigma: float = 0.0  # the candidates are drawn with no smaller one
    most_sigma: float = math.inf  # and with no larger one
    mean_rate: float = 0.5  # share of the proposed step that the distribution takes
    duels: bool = False  # candidates race their mirror images; otherwise the mean score decides


class Search:
    """The evolution of C: its distribution, the best mean so far, and its history.

    All of it is in one file, written whole after every generation: whenever the run dies, the next
    one goes on from the last finished generation and ends where an undisturbed one ends.
    """

    def __init__(
        self, checkpoints: str, name: str, made_from: dict[str, Any], parameters: int
    ) -> None:
        self.path = Path(checkpoints) / f"{name}_evolution.npz"
        self._target = controller_path(checkpoints, name)
        self._checkpoints = Path(checkpoints)
        self._name = name
        self._made_from = made_from
        self._parameters = parameters  # how many C has
        self.evolution: Evolution | None = None
        self.best: np.ndarray | None = None  # parameters of the best mean, for plain features
        self._found: dict[str, Any] = {}  # the generation, and the command, that found it
        self.best_score: float | None = None  # its mean on the selection seeds
        self._best_tracks: int | None = None  # so many of them
        self._spent: dict[str, float] = {"frames": 0, "core_hours": 0.0}  # before the first row
        self.measured_at: int | None = None  # generation of the last measurement
        self._curriculum = Curriculum()
        self.history: list[dict[str, float]] = []  # a row a generation, or last measurement

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it writes."""
        log = self._checkpoints / f"{self._name}.csv"
        return self.path, self._target, log, log.with_suffix(".png")

    def resume(self) -> bool:
        """Load the state of a run that was stopped; False where there is none.

        Raises:
            UserError: the state belongs to another run; hours of work are not overwritten.
        """
        if not self.path.exists():
            return False
        remedy = "delete it to start over, or give the new run another NAME"
        header, arrays = load_arrays(self.path, "evolution")
        try:
            self._demand_same(dict(header["made_from"]), remedy)
            if not is_of_this_game(header):
                raise UserError(
                    f"{self.path} was evolved in another game ({header['versions']}, here "
                    f"{game()}); {remedy}."
                )
            self._restore(header, arrays)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(f"{self.path} holds no evolution ({error}); {remedy}.") from error
        return True

    def _demand_same(self, made_from: dict[str, Any], remedy: str) -> None:
        for key, value in self._made_from.items():
            if made_from.get(key) != value:
                raise UserError(
                    f"{self.path} belongs to a run with another {key} "
                    f"({made_from.get(key)!r}, now {value!r}); {remedy}."
                )

    def _restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take over what was saved; a ValueError or the like where it cannot be that."""
        self.best = arrays.pop("best")
        self.evolution = Evolution.from_state(arrays)
        self._found = {"generation": _number(header["found"]["generation"])}
        self._found["provenance"] = dict(header["found"]["provenance"])
        if {self.best.shape, self.evolution.mean.shape} != {(self._parameters,)}:
            raise ValueError(f"its C does not have {self._parameters} numbers")
        if self.best.dtype != np.float32 or not np.isfinite(self.best).all():
            raise ValueError("its C does not have finite numbers of single precision")
        self.best_score = _number_or_none(header["best_score"])
        self._best_tracks = _number_or_none(header.get("best_tracks"))
        self.measured_at = _number_or_none(header["measured_at"])
        self._spent = {name: _number(header["spent"][name]) for name in self._spent}
        self._curriculum = Curriculum(
            (_number(track), _number(score)) for track, score in header["driven"]
        )
        self.history = [
            {name: _number(row[name]) for name in COLUMNS if name in row or name in ALWAYS}
            for row in header["history"]
        ]

    def begin(
        self,
        evolution: Evolution,
        scale: tuple[np.ndarray, np.ndarray],
        frames: int = 0,
        core_hours: float = 0.0,
    ) -> None:
        """Start from this distribution, and save it; its mean is the best so far.

        Args:
            frames, core_hours: what it took to get here; the history counts on from them.
        """
        self.evolution = evolution
        self._spent = {"frames": frames, "core_hours": core_hours}
        self._keep(self._plain(evolution.mean, scale))
        self.save()

    def advance(
        self,
        workers: Workers,
        scale: tuple[np.ndarray, np.ndarray],
        plan: Plan,
        select: Sequence[int],
        on_lap: Any = None,
    ) -> dict[str, float]:
        """One generation: all candidates drive the same tracks, or each pair tracks of its own.

        Args:
            scale: mean and sd of the features, in whose units the distribution lives.
            select: seeds on which the mean is measured as well, driven to the end; may be empty.
            on_lap: called after every race, as by `Workers.run`.
        """
        meter = Meter(workers)
        self.evolution.limit_sigma(plan.least_sigma, plan.most_sigma)
        self.evolution.mean_rate = plan.mean_rate
        generation = self.evolution.generation
        candidates = self.evolution.ask()
        mean = self._plain(self.evolution.mean, scale)
        tracks, scouts = self._choose_tracks(plan)
        races = [
            Race(seed, parameters, plan.patience)
            for parameters, row in zip(self._plain(candidates, scale), tracks, strict=True)
            for seed in row
        ]
        races += [Race(seed, mean, plan.patience) for seed in scouts]
        laps = workers.run([*races, *(Race(seed, mean) for seed in select)], on_result=on_lap)
        self._curriculum.note(generation, laps[: len(races)])
        selected = laps[len(races) :]
        self._consider(mean, selected)
        starts = range(0, len(candidates) * plan.tracks, plan.tracks)
        table = [laps[i : i + plan.tracks] for i in starts]
        self.evolution.tell(
            candidates, duels(table, self.evolution.pairs) if plan.duels else mean_scores(table)
        )
        if self.best_score is None:  # nothing was ever measured: the latest has to do
            self._keep(self._plain(self.evolution.mean, scale))
        own = seeds.evolution(generation)  # the bad tracks say nothing about the others
        new = [[lap for lap in row if lap.seed in own] for row in table]
        scores = mean_scores(new)
        population = {
            "population": len(candidates),
            "tracks": plan.tracks,
            "replayed": plan.tracks - min(map(len, new)),
            "mean": float(scores.mean()),
            "best": float(scores.max()),
            "laps": float(np.mean([lap.complete for row in new for lap in row])),
        }
        return self._note(generation, meter, laps, population, selected)

    def _choose_tracks(self, plan: Plan) -> tuple[list[list[int]], list[int]]:
        """For every candidate the tracks that it drives, and those that the mean scouts."""
        groups = self.evolution.pairs if plan.duels else [range(self.evolution.population)]
        new = iter(seeds.evolution(self.evolution.generation))
        worst = self._curriculum.worst(plan.replayed * len(groups))
        tracks: list[list[int]] = [[]] * self.evolution.population
        for i, group in enumerate(groups):
            again = worst[i :: len(groups)]
            driven = [*again, *islice(new, plan.tracks - len(again))]
            for candidate in group:
                tracks[candidate] = driven
        return tracks, list(islice(new, plan.scouted))

    def measure(
        self, workers: Workers, scale: tuple[np.ndarray, np.ndarray], select: Sequence[int]
    ) -> dict[str, float]:
        """Measure the mean on `select` without going on; it is kept if it is the best."""
        meter = Meter(workers)
        mean = self._plain(self.evolution.mean, scale)
        laps = workers.run([Race(seed, mean) for seed in select])
        self._consider(mean, laps)
        return self._note(self.evolution.generation, meter, laps, {}, laps)

    def status(self, row: dict[str, float]) -> str:
        """One line on a generation: what it reached, how fast, at what cost."""
        parts = [f"generation {row['generation']}"]
        if "mean" in row:
            parts += [f"mean {row['mean']:.1f}", f"best {row['best']:.1f}"]
        if "select_mean" in row:
            parts.append(
                f"selection {row['select_mean']:.1f} ± {row['select_sd']:.1f} "
                f"(best so far {self.best_score:.1f})"
            )
        before = (self.history[-2] if len(self.history) > 1 else self._spent)["frames"]
        return ", ".join(
            [
                *parts,
                f"laps {row['laps']:.1%}",
                f"sigma {row['sigma']:.4f}",
                f"{(row['frames'] - before) / row['seconds']:,.0f} frames/s",
                f"{row['core_hours']:.2f} core-hours",
            ]
        )

    def summary(self) -> str:
        """One sentence on what is saved."""
        score = "unmeasured" if self.best_score is None else f"{self.best_score:.1f} on selection"
        return f"{self._target} saved ({score}) after {self.evolution.generation} generations"

    def save(self) -> None:
        """Everything in one file, then what is derived from it: C, the log and the picture."""
        save_arrays(
            self.path, "evolution",
            {**self.evolution.state(), "best": self.best},
            made_from=self._made_from, versions=game(), found=self._found,
            best_score=self.best_score,
            best_tracks=self._best_tracks, measured_at=self.measured_at, spent=self._spent,
            driven=self._curriculum.driven, history=self.history,
        )  # fmt: skip
        self.publish()

    def publish(self) -> None:
        """Bring C, the log and the picture up to date with the state."""
        spent = self._spent_on_best()
        save_controller(
            self._target, self.best, self._made_from, **self._found,
            select_score=self.best_score, frames=spent["frames"], core_hours=spent["core_hours"],
        )  # fmt: skip
        *_, log, picture = self.files
        write_log(log, COLUMNS, self.history)
        if self.history:
            learning_curve(picture, self.history)

    def _spent_on_best(self) -> dict[str, float]:
        """The row that measured what is the best so far; where none did, the last one."""
        for row in self.history:
            if row["generation"] == self._found["generation"] and "select_mean" in row:
                return row
        return self.history[-1] if self.history else self._spent

    def _plain(self, parameters: np.ndarray, scale: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return unstandardise(parameters, *scale).astype(np.float32)

    def _consider(self, mean: np.ndarray, laps: list[Lap]) -> None:
        if not laps:
            return
        self.measured_at = self.evolution.generation
        score = float(np.mean([lap.score for lap in laps]))
        # more tracks count for more than a higher score: few are luckier
        if (len(laps), score) > (self._best_tracks or 0, self.best_score):
            self._keep(mean)
            self.best_score, self._best_tracks = score, len(laps)

    def _keep(self, mean: np.ndarray) -> None:
        self.best = mean
        self._found = {"generation": self.evolution.generation, "provenance": provenance()}

    def _note(
        self,
        generation: int,
        meter: Meter,
        laps: list[Lap],
        population: dict[str, float],
        selected: list[Lap],
    ) -> dict[str, float]:
        """Add a row to the history and save everything."""
        before = self.history[-1] if self.history else self._spent
        row = {
            "generation": generation,
            "frames": before["frames"] + sum(lap.frames for lap in laps),
            **population,
            "sigma": self.evolution.sigma,
            "core_hours": before["core_hours"] + meter.core_hours,
            "seconds": meter.seconds,
        }
        if selected:  # the mean's own laps say more than those of its scattered candidates
            picked = [lap.score for lap in selected]
            row["select_mean"], row["select_sd"] = float(np.mean(picked)), float(np.std(picked))
            row["laps"] = float(np.mean([lap.complete for lap in selected]))
        self.history.append(row)
        self.save()
        return row


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return value


def _number_or_none(value: Any) -> float | None:
    return None if value is None else _number(value)
