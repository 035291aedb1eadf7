"""The state of a search for C, and the one file that it is saved in after every generation."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.evolution.cma_es import Evolution
from utils.evolution.curriculum import Remembered
from utils.evolution.history import ALWAYS, COLUMNS, Row, status
from utils.evolution.plan import Plan
from utils.evolution.schedule import regular, scheduled
from utils.pictures.plots import dream_curve, learning_curve
from utils.racing.race import Lap
from utils.runtime.command_line import stage_command
from utils.runtime.errors import UserError
from utils.runtime.timing import Meter
from utils.storage.artifacts import fingerprint, load_arrays, save_arrays
from utils.storage.logs import write_log
from utils.storage.networks import Networks, controller_path, save_controller
from utils.storage.provenance import game, is_of_this_game, provenance
from utils.storage.remedies import remedy


class Files(NamedTuple):
    """All that a search writes: its state, and what is derived from it."""

    state: Path
    controller: Path
    log: Path
    picture: Path

    @classmethod
    def of(cls, checkpoints: str, name: str) -> "Files":
        c = controller_path(checkpoints, name)
        return cls(c.with_name(f"{name}_evolution.npz"), c, *map(c.with_suffix, (".csv", ".png")))


@dataclass
class Search:
    """All that one generation hands to the next: what is a field here is saved.

    Whenever the run dies, the next one goes on from the last finished generation and ends where an
    undisturbed one ends.
    """

    evolution: Evolution
    best: np.ndarray  # (n,) float32, C for plain features: of the best mean, or of their average
    made_from: dict[str, Any]  # V, M and the settings that no generation may change
    spent: dict[str, float]  # frames and core_hours before the first row of the history
    found: dict[str, Any]  # the generation whose mean `best` is, and the command that found it
    plans: list[dict[str, Any]]  # each from its generation on
    best_score: float | None = None  # its mean on the selection seeds
    best_tracks: int | None = None  # so many of them
    measured_at: int | None = None  # generation of the last measurement
    average: np.ndarray | None = None  # (n,) of the means of late, where no race measures them
    driven: Remembered = field(default_factory=list)
    history: list[Row] = field(default_factory=list)  # a row a generation, or last measurement

    @classmethod
    def load(cls, files: Files, parameters: int) -> "Search | None":
        """The search that was saved, of a C of so many parameters; None where there is none.

        Raises:
            UserError: the file is no such search, or only its C is left; neither is overwritten.
        """
        if not files.state.exists():
            if files.controller.exists():
                raise UserError(
                    f"{files.controller} is there without {files.state.name}, from which its "
                    "search would go on; give the new run another NAME (--name), or delete it."
                )
            return None
        header, arrays = load_arrays(files.state, "evolution")
        try:
            best = arrays.pop("best")
            header |= {"best": best, "average": arrays.pop("average", None)}
            header |= {"evolution": Evolution.from_state(arrays)}
            search = cls(**{f.name: header[f.name] for f in fields(cls) if f.name in header})
            search._demand_sound(parameters)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _unfit(files, f"holds no evolution ({error})") from error
        if not is_of_this_game(header):
            games = f"{header.get('versions', 'unknown')}, here {game()}"
            raise _unfit(files, f"was evolved in another game ({games})")
        return search

    def _demand_sound(self, parameters: int) -> None:
        average = self.evolution.mean if self.average is None else self.average
        shapes = {self.best.shape, self.evolution.mean.shape, average.shape}
        if shapes != {(parameters,)} or self.best.dtype != np.float32:
            raise ValueError(f"its C does not have {parameters} numbers of single precision")
        self.made_from.keys()
        if not self.plans:
            raise ValueError("it does not say by which plan it was run")
        for value in self._numbers():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise TypeError(f"{value!r} is no number")

    def _numbers(self) -> Iterator[Any]:
        """Everything in it that has to be a finite number."""
        yield from (self.found["generation"], self.spent["frames"], self.spent["core_hours"])
        measured = (self.best_score, self.best_tracks, self.measured_at)
        yield from (value for value in measured if value is not None)
        for plan in self.plans:
            words = ("FITNESS", "ARITHMETIC", "WORLD")
            yield from (plan["generation"], *(plan[name] for name in plan if name not in words))
        for track, score in self.driven:
            yield from (track, score)
        for row in self.history:
            yield from (*row.values(), *(row[name] for name in ALWAYS))

    @property
    def mark(self) -> str:
        """16 hex digits by which its drives are known: what it is made of, and its first plan."""
        return fingerprint({**self.made_from, "plan": self.plans[:1]})

    @property
    def settings(self) -> dict[str, Any]:
        """What it was last run with, by the names of stage 05's constants."""
        latest = {**self.made_from, **self.plans[-1]}
        return {name: value for name, value in latest.items() if name.isupper()}

    def follow(
        self, plan: Plan, made_from: dict[str, Any], constants: dict[str, Any], files: Files
    ) -> str:
        """Go on by this plan, and record what changes with it; returns what the user should know.

        Args:
            constants: of the script, of which only a new search takes notice.

        Raises:
            UserError: it was made from another V or M, or settings that no generation may change,
                or C could never change again under this plan.
        """
        for name, value in made_from.items():
            if self.made_from.get(name) != value:
                values = f"{self.made_from.get(name)!r}, now {value!r}"
                raise _unfit(files, f"belongs to a run with another {name} ({values})")
        if plan.world == "dream" and self.best_tracks:
            raise UserError(
                f"{files.state} holds a C that was measured on the track, and no dream can tell "
                "whether another is better; give a search in the dream another NAME (--name)."
            )
        if 0 < plan.select_tracks < (self.best_tracks or 0):
            raise UserError(
                f"SELECT_TRACKS (--select-tracks) must be at least {self.best_tracks}, on which "
                f"the C of {files.state} was measured: a higher score on fewer may be luck."
            )
        if plan.select_tracks != self.settings.get("SELECT_TRACKS"):
            self.measured_at = None
        before, generation, self.made_from = self.settings, self.evolution.generation, made_from
        now = {k: v for k, v in {**self.made_from, **plan.settings()}.items() if k.isupper()}
        kept = [
            f"{k} {now[k]} (not {constants[k]})" for k in now
            if before.get(k) == now[k] != constants.get(k, now[k])
        ]  # fmt: skip
        changed = [f"{k} from {before.get(k)} to {now[k]}" for k in now if before.get(k) != now[k]]
        if changed:
            ended = [plan for plan in self.plans if plan["generation"] < generation]
            self.plans = [*ended, {"generation": generation, **plan.settings()}]
        said = f"resuming at generation {generation} (delete {files.state} and its C to start over)"
        for what, names in (("its own settings stay", kept), ("changed", changed)):
            said += f"\n{what}: {', '.join(names)}" if names else ""
        return said

    def take_selection(self, mean: np.ndarray, laps: Sequence[Lap]) -> None:
        """Take in how the distribution's mean drove the selection seeds; the best is kept."""
        if not laps:
            return
        self.measured_at = self.evolution.generation
        score = float(np.mean([lap.score for lap in laps]))
        # more tracks count for more than a higher score: few are luckier
        if (len(laps), score) > (self.best_tracks or 0, self.best_score or 0.0):
            self.keep(mean)
            self.best_score, self.best_tracks = score, len(laps)

    def since(self, *names: str) -> int:
        """The number of the first plan since which all of these settings are what they are now."""
        values = [[plan.get(name) for name in names] for plan in self.plans]
        return next(i for i in range(len(values)) if all(v == values[-1] for v in values[i:]))

    def scheduled(self, plan: Plan) -> Plan:
        """This plan as the history has it now."""
        taught = self.made_from.get("START") == "imitation"
        history = regular(self.history, self.evolution.generation, plan.select_every)
        return scheduled(plan, history, taught, self.since("MOST_SIGMA", "GRASS_COST"))

    def update_average(self, span: int) -> np.ndarray:
        """Take the latest mean into the average of about the last `span`; returns that average.

        Unless a mean is measured there is no telling good ones from bad, and one mean goes astray
        where the average of many does not (Polyak & Juditsky, 1992).
        """
        mean, before = self.evolution.mean, self.average
        share = 1 / min(span, self.evolution.generation)
        self.average = mean if before is None else (1 - share) * before + share * mean
        return self.average

    def keep(self, mean: np.ndarray) -> None:
        """From now on `mean`, for plain features, is the best."""
        self.best, self.found = mean, found_at(self.evolution.generation)

    def note(self, generation: int, laps: Sequence[Lap], meter: Meter, came_to: Row) -> str:
        """Add a row on these laps to the history; returns the line to print on it."""
        before = self.history[-1] if self.history else self.spent
        driven, dreamt = sum(lap.frames for lap in laps), self.dreamt
        row: Row = {
            "generation": generation,
            "plan": len(self.plans) - 1,
            "frames": before["frames"] + driven,
            "dreamt": dreamt,
            "sigma": self.evolution.sigma,
            "core_hours": before["core_hours"] + meter.core_hours,
            "seconds": meter.seconds,
            **came_to,
        }
        self.history.append(row)
        return status(row, driven + row["dreamt"] - dreamt, self.best_score)

    @property
    def dreamt(self) -> float:
        """Frames dreamt so far."""
        return self.history[-1].get("dreamt", 0) if self.history else 0

    def summary(self, files: Files) -> str:
        """One sentence on what is saved."""
        score = "unmeasured" if self.best_score is None else f"{self.best_score:.1f} on selection"
        generations = self.evolution.generation
        return f"{files.controller} saved ({score}) after {generations} generations"

    def save(self, files: Files) -> None:
        """Everything in one file, then what is derived from it: C, the log and the picture."""
        header = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {**header.pop("evolution").state(), "best": header.pop("best")}
        if (average := header.pop("average")) is not None:
            arrays["average"] = average
        save_arrays(files.state, "evolution", arrays, versions=game(), **header)
        spent = self._spent_on_best()
        save_controller(
            files.controller, self.best, self.made_from, **self.found, plans=self.plans,
            select_score=self.best_score, frames=spent["frames"], core_hours=spent["core_hours"],
        )  # fmt: skip
        write_log(files.log, COLUMNS, self.history)
        if self.history:
            driven = [row for row in self.history if "laps" in row]
            if driven:
                learning_curve(files.picture, driven)
            else:
                dream_curve(files.picture, self.history)

    def _spent_on_best(self) -> dict[str, float]:
        """The row that measured what is the best so far; where none did, the last one."""
        for row in self.history:
            if row["generation"] == self.found["generation"] and "select_mean" in row:
                return row
        return self.history[-1] if self.history else self.spent


def load_search(checkpoints: str, name: str, networks: Networks) -> Search:
    """The search of that name, which must be there and be for these networks."""
    files = Files.of(checkpoints, name)
    search = Search.load(files, networks.parameter_count) if files.state.exists() else None
    if search is None:
        raise UserError(f"{files.state} is missing; {remedy(files.controller, 'C', missing=True)}.")
    for what, mark in networks.fingerprints.items():
        if search.made_from.get(what) != mark:
            raise _unfit(files, f"belongs to a run with another {what}")
    if missing := {f.name.upper() for f in fields(Plan)} - search.settings.keys():
        flags = {"checkpoints": checkpoints, "generations": str(search.evolution.generation)}
        again = stage_command("05_train_controller", name=name, **flags)
        raise UserError(
            f"{files.state} is of an earlier version, which knew no {', '.join(sorted(missing))}; "
            f"run {again}, which adds what is missing."
        )
    return search


def found_at(generation: int) -> dict[str, Any]:
    return {"generation": generation, "provenance": provenance()}


def _unfit(files: Files, sentence: str) -> UserError:
    return UserError(f"{files.state} {sentence}; {remedy(files.state, 'evolution')}.")
