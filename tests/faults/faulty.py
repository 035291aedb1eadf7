"""A stage with a fault built in: python tests/faults/faulty.py FAULT N STAGE --flags...

half N     the process kills itself in its N-th write, half of the file being written
before N   ... when the file is whole but still bears its temporary name
after N    ... when it has its own name and nothing has been done since
limit N    every job of a worker has N seconds
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.runtime.command_line import run
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


def _half(file: int) -> int:
    return os.fstat(file).st_size // 2


if __name__ == "__main__":
    run(main)
