"""A stage with a fault built in: python tests/faults/faulty.py FAULT N STAGE --flags...

half N     the process kills itself in its N-th write, half of the file being written
before N   ... when the file is whole but still bears its temporary name
after N    ... when it has its own name and nothing has been done since
limit N    every job of a worker has N seconds
memory N   the process may take N MB more from when it reads the frames of a race of the keyboard
"""

import importlib
import os
import resource
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.runtime.start import run

from utils.runtime.workers import Workers


def main() -> None:
    """Arm the fault, then be the stage."""
    _, fault, number, stage, *flags = sys.argv
    arm(fault, int(number))
    importlib.import_module(stage).main(flags)


def arm(fault: str, number: int) -> None:
    """Prepare the fault."""
    if fault == "limit":
        Workers.__init__.__kwdefaults__["job_seconds"] = float(number)
    elif fault == "memory":
        zipfile.ZipFile.open = short_of_memory(number, zipfile.ZipFile.open)
    elif fault == "half":
        os.fsync = die_at(number, os.fsync, lambda file: os.ftruncate(file, _half(file)))
    elif fault == "before":
        os.replace = die_at(number, os.replace, lambda *paths: None)
    else:
        os.replace = die_at(number, os.replace, os.replace)


def die_at(number: int, call: Callable, last_deed: Callable) -> Callable:
    """`call`, but the `number`-th time it is `last_deed` and then death."""
    calls = 0

    def deadly(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            last_deed(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    return deadly


def short_of_memory(megabytes: int, opened: Callable) -> Callable:
    """`ZipFile.open`, but the frames of a race of the keyboard find only so much memory."""

    def short(archive: zipfile.ZipFile, name: Any, *arguments: Any, **named: Any) -> Any:
        if "keyboard" in str(archive.filename) and "obs" in str(name):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 1_000_000
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        return opened(archive, name, *arguments, **named)

    return short


def _half(file: int) -> int:
    return os.fstat(file).st_size // 2


if __name__ == "__main__":
    run(main)
