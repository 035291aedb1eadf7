"""How many processors this process may use, which can be far fewer than the machine has."""

import math
import os
from contextlib import suppress
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")  # of the container around this process, if there is one


def cores() -> int:
    """Processors that affinity (Slurm, `taskset`) and a container's quota allow; at least one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows know no affinity
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _quota()))


def _quota() -> int:
    """Processors' worth of time that the container has, in version 2 or 1 of control groups."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # no such file; "max", which is no limit
            texts = [(CONTROL_GROUP / name).read_text() for name in files]
            quota, period = map(int, " ".join(texts).split())
            if quota > 0:
                return math.ceil(quota / period)
    return os.cpu_count() or 1
