"""What changes by itself as a search on the track gets on: how many races tell candidates apart,
and how far from the mean they may be. Each rule is a function of the history alone.
"""

from collections.abc import Sequence
from dataclasses import replace

from utils.evolution.history import Row
from utils.evolution.plan import Plan

SKILLED = 0.25  # share of the candidates' laps that are complete; before, they are beginners
FLUENT = 0.9  # the same of the mean's own laps: its candidates may be wrecks from sigma alone
FEW = 25  # selection tracks on which the mean of beginners is measured, which costs most of all
GAIN = 1.0  # points, two standard errors of 200 selection tracks
STILL = 2  # measurements of the mean without such a gain, after which it stands still


def scheduled(plan: Plan, history: Sequence[Row], set_at: float = 0) -> Plan:
    """The plan of the next generation after this history; one in the dream stays as it is.

    Args:
        set_at: the generation at which widest sigma and price of grass were last set by hand:
            what happened before does not lower them.
    """
    if plan.world == "dream":
        return plan
    learnt = next((i for i, row in enumerate(history) if is_skilled(row)), None)
    if learnt is None:
        return for_beginners(plan)
    since = [row for row in history[learnt + 1 :] if row["generation"] >= set_at]
    share = 0.5 ** (halvings(since) + (history[learnt]["generation"] >= set_at))
    most_sigma = max(plan.least_sigma, plan.most_sigma * share)
    return replace(plan, most_sigma=most_sigma, grass_cost=plan.grass_cost * share)


def is_skilled(row: Row) -> bool:
    """Whether the generation of this row shows that beginners have learnt to drive a lap."""
    laps = row.get("laps", 0.0)
    return row.get("candidate_laps", laps) >= SKILLED or ("select_mean" in row and laps >= FLUENT)


def for_beginners(plan: Plan) -> Plan:
    """The plan with fewer tracks.

    Beginners differ by hundreds of points: one new track tells a pair apart, and twice as many
    generations are worth more than a second. Later a missed tile decides, which is rare on any one
    track and less so on those where it happened before.
    """
    tracks, replayed = (1, 0) if plan.fitness == "duels" else (plan.tracks, plan.replayed)
    few = min(FEW, plan.select_tracks)
    return replace(plan, tracks=tracks, replayed=replayed, select_tracks=few)


def halvings(history: Sequence[Row]) -> int:
    """How often the mean stood still, so that widest sigma and price of grass were halved again.

    A wide distribution finds its way through luck, but its mean can only be as good as what most
    of it can do; so the limit falls like a learning rate on a plateau, first when the mean has
    learnt to drive. And the price of grass with
    it: a wide distribution strays far from any line and has to keep off the edges, a narrow one may
    use them.
    """
    count, since, best = 0, 0, -float("inf")
    for score in (row["select_mean"] for row in history if "select_mean" in row):
        since += 1
        if score > best + GAIN:
            best, since = score, 0
        elif since == STILL:
            count, since = count + 1, 0
    return count
