"""Which tracks serve which purpose; a track is its seed, and no two purposes share one.

Free are 20,000,000 to 99,999,999, and for trying things out 30,000 to 99,999, of which the first
thousand have judged steps on the way to what ships.
"""

from enum import IntEnum

import numpy as np

REPORT = range(0, 100)  # the tracks of the results table
SELECT = range(10_000, 10_200)  # the tracks on which the best controller is chosen
FURTHER = range(20_000, 20_300)  # looked at once, at the end, to confirm the report
ROLLOUTS = {  # of stage 01, by driver
    "autopilot": range(100_000, 1_000_000),
    "keyboard": range(1_000_000, 1_100_000),
    "random": range(1_100_000, 2_000_000),
    "agent": range(2_000_000, 10_000_000),
}
IMITATION = 10_000_000  # first track of stage 05's imitation: 1,000 rounds of 10,000 at most
EVOLUTION = 100_000_000  # first track of stage 05's evolution
EVOLUTION_TRACKS = 1_000  # of them belong to each generation, however many it drives


class Draw(IntEnum):
    """What else is drawn at random in a race, beside its track."""

    SETTINGS = 1  # of the autopilot, for an episode of stage 01
    DRIVER = 2  # noise and disturbances of whoever drives
    TEACHER = 3  # which stretches of an imitation the teacher drives


def stream(seed: int, draw: Draw) -> np.random.Generator:
    """Random numbers for one purpose in the race on track `seed`.

    The environment draws its track from the plain seed. Whoever draws from that again draws the
    same numbers, and a driver's grip would go with the shape of the road.
    """
    return np.random.default_rng((seed, draw))


def imitation(number: int, laps: int) -> range:
    """The tracks of one round of stage 05's imitation."""
    first = IMITATION + number * laps
    return range(first, first + laps)


def evolution(generation: int) -> range:
    """The tracks that belong to one generation of stage 05's evolution."""
    first = EVOLUTION + generation * EVOLUTION_TRACKS
    return range(first, first + EVOLUTION_TRACKS)
