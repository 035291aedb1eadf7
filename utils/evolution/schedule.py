"""What changes by itself as a search on the track gets on: how many races tell candidates apart,
and how far from the mean they may be. Each rule is a function of the history alone.
"""

from collections.abc import Sequence
from dataclasses import replace

from utils.evolution.history import Row
from utils.evolution.plan import Plan

SKILLED = 0.25  # share of the candidates' laps that are complete; before, wrecks tell them apart
GAIN = 1.0  # points, two standard errors of 200 selection tracks
STILL = 2  # measurements of the mean without such a gain, after which it stands still


def scheduled(plan: Plan, history: Sequence[Row]) -> Plan:
    """The plan of the next generation after this history; one in the dream stays as it is."""
    if plan.world == "dream":
        return plan
    tracks, replayed = races(plan, history)
    widest = max(plan.least_sigma, plan.most_sigma / 2 ** halvings(history))
    return replace(plan, tracks=tracks, replayed=replayed, most_sigma=widest)


def races(plan: Plan, history: Sequence[Row]) -> tuple[int, int]:
    """How many tracks a candidate of a duel drives, and how many of them are known to be bad.

    Beginners differ by hundreds of points: one new track tells a pair apart, and twice as many
    generations are worth more than a second. Later a missed tile decides, which is rare on any one
    track and less so on those where it happened before.
    """
    laps = [row["candidate_laps"] for row in history if "candidate_laps" in row]
    beginners = plan.fitness == "duels" and max(laps, default=0.0) < SKILLED
    return (1, 0) if beginners else (plan.tracks, plan.replayed)


def halvings(history: Sequence[Row]) -> int:
    """How often the widest sigma has been halved: whenever the mean stood still.

    A wide distribution finds its way through luck, but its mean can only be as good as what most
    of it can do; so the limit falls like a learning rate on a plateau.
    """
    count, since, best = 0, 0, -float("inf")
    for score in (row["select_mean"] for row in history if "select_mean" in row):
        since += 1
        if score > best + GAIN:
            best, since = score, 0
        elif since == STILL:
            count, since = count + 1, 0
    return count
