"""What changes by itself as a search on the track gets on: how many races tell candidates apart,
how far from the mean they may be, what grass costs, and what decides between masters. Each rule is
a function of the history.
"""

from collections.abc import Sequence
from dataclasses import replace

from utils.evolution.fitness import FITNESSES
from utils.evolution.history import Row
from utils.evolution.plan import Plan
from utils.simulator import seeds

SKILLED = 0.25  # share of the candidates' laps that are complete; before, they are beginners
FLUENT = 0.9  # the same of the mean's own laps: its candidates may be wrecks from sigma alone
FEW = 25  # selection tracks on which the mean of beginners is measured, which costs most of all
GAIN = 1.0  # points, two standard errors of 200 selection tracks
STILL = 2  # measurements of the mean without such a gain, after which it stands still
PLATEAUS = 2  # of a mean that duels brought there, and only many races can bring further: a master
WRECK = 1000.0  # points: what a lost race costs in the end, and no longer is chance
LASTING = 0.8  # of a bad track's record: anybody is lucky there once


def scheduled(plan: Plan, history: Sequence[Row], taught: bool = False, since: int = 0) -> Plan:
    """The plan of the next generation after this history; one in the dream stays as it is.

    Args:
        taught: C was no beginner when the search began.
        since: the number of the plan by which widest sigma and price of grass were last set by
            hand; rows under earlier plans do not lower them.
    """
    if plan.world == "dream":
        return plan
    learnt = 0 if taught else next((i for i, row in enumerate(history, 1) if is_skilled(row)), None)
    if learnt is None:
        return for_beginners(plan)
    later = [row for row in history[learnt:] if row.get("plan", 0) >= since]
    once = learnt > 0 and history[learnt - 1].get("plan", 0) >= since
    passed = plateaus(later)
    is_master = plan.fitness == "duels" and passed >= PLATEAUS
    narrowed = plan.most_sigma * 0.5 ** (once + (PLATEAUS - 1 if is_master else passed))
    now = replace(
        plan,
        most_sigma=max(plan.least_sigma, narrowed),
        grass_cost=plan.grass_cost * 0.5 ** (once + passed),
    )
    return for_masters(now) if is_master else now


def regular(history: Sequence[Row], generation: int, select_every: int) -> list[Row]:
    """The rows that a search has when this generation begins, had it never been stopped.

    Where one is stopped its mean is measured once more, in a row without candidates. That counts
    where a measurement was due, as soon as the generation is over of which it would be a part.
    """
    return [
        row for row in history
        if "mean" in row
        or (row["generation"] < generation and row["generation"] % select_every == 0)
    ]  # fmt: skip


def is_skilled(row: Row) -> bool:
    """Whether the generation of this row shows that beginners have learnt to drive a lap."""
    measured = "select_mean" in row  # then "laps" are the mean's own
    laps = row.get("laps", 0.0)
    candidates = row.get("candidate_laps", 0.0 if measured else laps)
    return candidates >= SKILLED or (measured and laps >= FLUENT)


def for_beginners(plan: Plan) -> Plan:
    """The plan with fewer tracks.

    Beginners differ by hundreds of points: one new track tells a pair apart, and twice as many
    generations are worth more than a second track. Later a missed tile decides, which is rare on
    any one track and less so on those where it happened before.
    """
    tracks, replayed = (1, 0) if FITNESSES[plan.fitness].paired else (plan.tracks, plan.replayed)
    few = min(FEW, plan.select_tracks)
    return replace(plan, tracks=tracks, replayed=replayed, select_tracks=few)


def for_masters(plan: Plan) -> Plan:
    """The plan with twice the candidates, half the step, and every race for what it is in the end.

    Masters lose one race of a hundred, and a missed tile in a few. That is too rare for a few pairs
    to agree on and too dear to be cut off; nearer candidates would differ by less than luck does.
    """
    most = 2 * (seeds.EVOLUTION_TRACKS // plan.tracks)  # each pair has its own
    return replace(
        plan,
        population=max(plan.population, min(2 * plan.population, most)),
        mean_rate=plan.mean_rate / 2,
        least_sigma=plan.most_sigma,
        fitness="full_duels",
        lasting=max(plan.lasting, LASTING),
        most_difference=max(plan.most_difference, WRECK),
    )


def plateaus(history: Sequence[Row]) -> int:
    """How often the mean stood still, so that widest sigma and price of grass are halved.

    A wide distribution finds its way through luck, but its mean can only be as good as what most
    of it can do; so the limit falls like a learning rate on a plateau. The price of grass falls
    with it: a wide distribution strays far from any line and has to keep off the edges of the road,
    a narrow one may use them.
    """
    count, since, best = 0, 0, -float("inf")
    for score in (row["select_mean"] for row in history if "select_mean" in row):
        since += 1
        if score > best + GAIN:
            best, since = score, 0
        elif since == STILL:
            count, since = count + 1, 0
    return count
