"""Which tracks serve which purpose; a track is its seed, and no two purposes share one."""

REPORT = range(0, 100)  # the tracks of the results table
SELECT = range(10_000, 10_200)  # the tracks on which the best controller is chosen
FURTHER = range(20_000, 20_300)  # looked at once, at the end, to confirm the report
TRAIN = range(100_000, 2_000_000_000)  # everything that is learned from

ROLLOUTS = 100_000  # first track of stage 01
IMITATION = 10_000_000  # first track of stage 05's imitation
EVOLUTION = 100_000_000  # first track of stage 05's evolution
EVOLUTION_TRACKS = 1_000  # of them belong to each generation, however many it drives


def evolution(generation: int) -> range:
    """The tracks that belong to one generation of stage 05's evolution."""
    first = EVOLUTION + generation * EVOLUTION_TRACKS
    return range(first, first + EVOLUTION_TRACKS)
