"""The history of a search: a row a generation, or last measurement, and a line to print on each."""

from collections.abc import Sequence

import numpy as np

from utils.evolution.fitness import FITNESSES
from utils.evolution.plan import Plan
from utils.racing.race import Lap
from utils.simulator import seeds

COLUMNS = (
    "generation",
    "plan",  # the number of the plan in the state by which it was run: 0 is the first
    "population",
    "tracks",  # races of each candidate
    "replayed",  # of them on tracks that were driven before; left out of mean, best and laps
    "duels",  # 1 where they decided between the candidates, 0 where the mean score did
    "least_sigma",
    "most_sigma",  # as the schedule has it
    "mean_rate",
    "most_difference",  # points that a duel on one track is won by at most, of masters all
    "grass_cost",  # points a wheel and frame off the road in duels, as the schedule has it
    "frames",  # really driven since the search began
    "dreamt",  # frames likewise
    "starts",  # dreams of each candidate
    "horizon",  # frames of each
    "temperature",
    "mean",  # of the candidates; in the dream, of the returns that M predicts
    "best",  # of the candidates, each on its own few tracks
    "select_mean",  # of the distribution's mean on the selection seeds, where it was measured
    "select_sd",
    "select_tracks",  # so many of them
    "laps",  # share of complete ones: on the selection tracks, if measured, or else of candidates
    "candidate_laps",  # the same of the candidates in any case
    "sigma",  # as the generation leaves it; the plan's limits cut it before the next is drawn
    "core_hours",  # since the search began
    "seconds",  # of this row
)
OF_BOTH = ("population", "least_sigma", "most_sigma", "mean_rate")  # settings of a plan, logged
OF_TRACKS = (*OF_BOTH, "tracks", "most_difference", "grass_cost")
OF_DREAMS = (*OF_BOTH, "starts", "horizon", "temperature")
ALWAYS = ("generation", "frames", "sigma", "core_hours", "seconds")  # in every row

Row = dict[str, float]


def of_candidates(plan: Plan, generation: int, laps: Sequence[Sequence[Lap]]) -> Row:
    """What the candidates' races came to; replayed, bad tracks say nothing about the others."""
    own = seeds.evolution(generation)
    new = [[lap for lap in row if lap.seed in own] for row in laps]
    scores = np.array([np.mean([lap.score for lap in row]) for row in new])
    complete = float(np.mean([lap.complete for row in new for lap in row]))
    return {
        **{name: getattr(plan, name) for name in OF_TRACKS},
        "replayed": plan.tracks - min(map(len, new)),
        "duels": int(FITNESSES[plan.fitness].paired),
        "mean": float(scores.mean()),
        "best": float(scores.max()),
        "laps": complete,
        "candidate_laps": complete,
    }


def of_dreams(plan: Plan, returns: np.ndarray, dreamt: float) -> Row:
    """What the candidates' dreams came to: returns (candidates, starts), in points."""
    of_candidate = returns.mean(1)
    return {
        **{name: getattr(plan, name) for name in OF_DREAMS},
        "dreamt": dreamt + returns.size * plan.horizon,
        "mean": float(of_candidate.mean()),
        "best": float(of_candidate.max()),
    }


def of_selection(laps: Sequence[Lap]) -> Row:
    """What the mean's own races came to: they say more than those of its scattered candidates."""
    if not laps:
        return {}
    scores = [lap.score for lap in laps]
    return {
        "select_mean": float(np.mean(scores)),
        "select_sd": float(np.std(scores)),
        "select_tracks": len(scores),
        "laps": float(np.mean([lap.complete for lap in laps])),
    }


def status(row: Row, new_frames: float, best_score: float | None) -> str:
    """One line on a generation: what it reached, how fast, at what cost."""
    parts = [f"generation {row['generation']}"]
    if "mean" in row:
        parts += [f"mean {row['mean']:.1f}", f"best {row['best']:.1f}"]
    if "select_mean" in row:
        parts.append(
            f"selection {row['select_mean']:.1f} ± {row['select_sd']:.1f} "
            f"(best so far {best_score:.1f})"
        )
    if "laps" in row:
        parts.append(f"laps {row['laps']:.1%}")
    parts += [
        f"sigma {row['sigma']:.4f}",
        f"{new_frames / row['seconds']:,.0f} frames/s",
        f"{row['core_hours']:.2f} core-hours",
    ]
    return ", ".join(parts)
