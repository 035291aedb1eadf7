"""How many processors this process may use, which can be far fewer than the machine has."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def cores() -> int:
    """Processors that affinity (Slurm, `taskset`) and a container's quota allow; at least one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows know no affinity
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """Processors' worth of time a second, for every limited control group around this process."""
    groups = OWN_GROUPS.read_text(errors="replace") if OWN_GROUPS.exists() else ""
    for _, controllers, group in (line.split(":", 2) for line in groups.splitlines()):
        inmost = CONTROL_GROUPS / controllers / group.lstrip("/")  # version 2 names no controllers
        for folder in (inmost, *inmost.parents):
            with contextlib.suppress(OSError, ValueError):  # another controller; "max": no limit
                if controllers:
                    parts = [(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period")]
                    quota, period = (float(part.read_text()) for part in parts)
                else:
                    quota, period = map(float, (folder / "cpu.max").read_text().split())
                if quota > 0:
                    yield quota / period
