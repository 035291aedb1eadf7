"""The same races by a worker process and by a worker on a Ray cluster, and what that sends."""

import time
from contextlib import ExitStack
from statistics import median

from benchmark.loop import Networks
from benchmark.measuring import Effort, Figures, heading, line
from models.inference import ROWS
from utils.racing.agent import racing_workers
from utils.racing.agreement import cluster
from utils.racing.race import Race
from utils.runtime.cluster import OnNode
from utils.runtime.timing import Meter
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID

TURNS = 3
LOCAL, NODE = "a worker process of this machine", "a worker on the cluster"


class Counted:
    """Adds up the bytes of the messages to and from nodes."""

    def __init__(self) -> None:
        self.sent = self.heard = 0
        send, read = OnNode.send, OnNode.read

        def counted_send(worker: OnNode, message: bytes) -> None:
            self.sent += len(message)
            send(worker, message)

        def counted_read(worker: OnNode, message: bytes) -> object:
            self.heard += len(message)
            return read(worker, message)

        OnNode.send, OnNode.read = counted_send, counted_read


def measure_cluster(networks: Networks, effort: Effort, address: str) -> Figures:
    """One worker here and one there, in turns: wall time, main's and the worker's own time."""
    tracks = range(seeds.EVOLUTION, seeds.EVOLUTION + max(effort.races // 4, ROWS))
    races = [Race(track, networks.parameters, effort.patience) for track in tracks]
    counted, wall, main, worker = Counted(), {}, {}, {}
    with ExitStack() as stack:
        pools = {
            name: stack.enter_context(racing_workers(1, FAST_ID, networks.vae, networks.rnn, where))
            for name, where in ((LOCAL, None), (NODE, cluster(address)))
        }
        scores = {}
        for turn in range(TURNS + 1):
            counted.sent = counted.heard = 0
            for name, workers in pools.items():
                meter, own, theirs = Meter(workers), time.process_time(), workers.cpu_seconds
                laps = workers.run(races)
                scores[name] = [lap.score for lap in laps]
                if turn:  # in the first one environments are made
                    wall.setdefault(name, []).append(meter.seconds)
                    main.setdefault(name, []).append(time.process_time() - own)
                    worker.setdefault(name, []).append(workers.cpu_seconds - theirs)
    heading(f"Cluster, {len(races)} races, one worker", "ms a race", "main, ms", "worker, ms")
    milliseconds = {
        name: [1e3 * median(taken[name]) / len(races) for taken in (wall, main, worker)]
        for name in pools
    }
    for name, row in milliseconds.items():
        line(name, *row)
    ratio = median(b / a for a, b in zip(wall[LOCAL], wall[NODE], strict=True))
    line("time on the clock, to that of the first", f"{ratio:.3f} x")
    line("bytes sent and heard for a race", counted.sent / len(races), counted.heard / len(races))
    line("their scores, to the last digit", "same" if scores[LOCAL] == scores[NODE] else "DIFFER")
    return {
        "cluster_ms_a_race": milliseconds,
        "cluster_over_local": ratio,
        "bytes_a_race": [counted.sent / len(races), counted.heard / len(races)],
    }
