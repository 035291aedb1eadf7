"""The same races shared out to no, one and two worker processes."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmark.loop import Networks
from benchmark.measuring import Effort, Figures, heading, line, speed_lines, take_turns
from models.inference import ROWS
from utils.racing.agent import racing_workers
from utils.racing.race import Race
from utils.runtime.workers import OneAtATime, Workers
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID


def measure_workers(networks: Networks, effort: Effort) -> Figures:
    """The same races shared out to no, one and two worker processes."""
    first, patience = seeds.EVOLUTION, effort.patience
    races = [
        Race(seed, networks.parameters, patience) for seed in range(first, first + effort.races)
    ]
    scores = {}
    with ExitStack() as stack:

        def contender(count: int) -> Callable[[int], int]:
            workers = stack.enter_context(
                racing_workers(count, FAST_ID, networks.vae, networks.rnn)
            )
            # Every row of every worker gets its environment before time is taken.
            workers.run([Race(0, networks.parameters, patience=1)] * ROWS * max(count, 1))

            def drive(turn: int) -> int:
                laps = workers.run(races if count else races[::8])
                scores[count] = [lap.score for lap in laps]
                return sum(lap.frames for lap in laps)

            return drive

        names = {"in the main process": 0, "one worker": 1, "two workers": 2}
        contenders = {name: contender(count) for name, count in names.items()}
        rates = take_turns(contenders, effort.worker_turns, time.perf_counter)
    same = scores[1] == scores[2] and scores[1][::8] == scores[0]
    heading(f"Workers, {effort.races} races", "frames/s", "us a frame", "of one")
    speed_lines(rates, "one worker")
    machine = measure_processors(effort)
    line("two processors that only count", "", "", f"{machine:.2f} x")
    line("their scores, to the last digit", "the same" if same else "DIFFERENT")
    return {
        "worker_frames_per_s": [rates.of(name) for name in names],
        "two_workers_over_one": rates.ratio("two workers", "one worker"),
        "two_processors_over_one": machine,
        "same_scores_for_any_workers": same,
    }


def measure_processors(effort: Effort) -> float:
    """What two processors of this machine are worth where nothing is shared: no memory, no tail."""
    with Workers(2, OneAtATime, {"function": count_up}) as workers:
        workers.run([1, 1])

        def contender(count: int) -> Callable[[int], int]:
            return lambda turn: sum(workers.run([effort.counted] * count))

        contenders = {name: contender(count) for name, count in (("one", 1), ("two", 2))}
        rates = take_turns(contenders, effort.worker_turns, time.perf_counter)
    return rates.ratio("two", "one")


def count_up(thousands: int) -> int:
    """Work within the processor itself; returns how much."""
    for _ in range(thousands):
        sum(range(1000))
    return thousands
