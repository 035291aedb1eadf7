"""Where a result comes from: versions, machine, commit and command."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from models.inference import arithmetic

ROOT = Path(__file__).resolve().parents[2]


def game() -> dict[str, str]:
    """The versions that decide what the game is; artefacts of other versions are stale."""
    return {
        "gymnasium": importlib.metadata.version("gymnasium"),
        "box2d": importlib.metadata.version("box2d"),
    }


def is_of_this_game(header: dict[str, Any]) -> bool:
    """Whether the game that an artefact was made in is the one played here."""
    return header.get("versions") == game()


def provenance() -> dict[str, str]:
    """Everything that a reported figure needs beside it."""
    packages = ("torch", "numpy", "opencv-python", "cma", "pygame-ce")
    return {
        **game(),
        **{name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "machine": machine(),
        "arithmetic": arithmetic(),
        "commit": commit(),
        "command": command(),
    }


def machine() -> str:
    """Processor, cores and system in one line."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def command() -> str:
    """The command line, as one would type it at the project's root."""
    script = Path(sys.argv[0]).resolve()
    name = str(script.relative_to(ROOT)) if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", name, *sys.argv[1:]])


def commit() -> str:
    """The commit of the code that runs, marked where the code differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "*.py")
    except OSError:  # no git on this machine
        return "unknown"
    return (head or "unknown") + (" with changes" if changed else "")
