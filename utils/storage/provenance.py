"""Where a result comes from: versions, machine, commit and command."""

import contextlib
import functools
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from models.inference import arithmetic
from utils.runtime.cores import cores

ROOT = Path(__file__).resolve().parents[2]
ALSO_PACKAGED_AS = {
    "box2d": ("box2d-py",),  # Gymnasium's choice from Python 3.14 on
    "opencv-python": (
        "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
    ),
    "pygame-ce": ("pygame",),
}  # fmt: skip


def game() -> dict[str, str]:
    """The versions that decide what the game is; artefacts of other versions are stale."""
    return {name: version(name) for name in ("gymnasium", "box2d")}


def is_of_this_game(header: dict[str, Any]) -> bool:
    """Whether an artefact says that the game it was made in is the one played here."""
    return header.get("versions") == game()


def provenance() -> dict[str, str]:
    """Everything that a reported figure needs beside it."""
    packages = ("torch", "numpy", "opencv-python", "cma", "pygame-ce")
    return {
        **game(),
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": machine(),
        "arithmetic": arithmetic(),
        "commit": commit(),
        "command": command(),
    }


def version(package: str) -> str:
    """A package's version, under whichever name it is installed; "unknown" under none."""
    for name in (package, *ALSO_PACKAGED_AS.get(package, ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"


def machine() -> str:
    """Processor, cores and system in one line."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {cores()} cores, {platform.system()}"


def command() -> str:
    """The command line, as one would type it at the project's root."""
    script = Path(sys.argv[0]).resolve()
    name = str(script.relative_to(ROOT)) if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", name, *sys.argv[1:]])


@functools.cache
def commit() -> str:
    """The commit of the code that runs, marked where the code differs from it.

    It is what this returned first: what is committed or changed later is not what runs.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "*.py")
    return (head or "unknown") + (" with changes" if head and changed else "")


def _git(*words: str) -> str:
    """What git says of this project's own repository, never of one around it; "" without one."""
    command = ["git", "--no-optional-locks", "--git-dir=.git", *words]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
