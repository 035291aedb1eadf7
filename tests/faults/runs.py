"""Stages as real processes, on small settings: starting them, harming them, comparing results."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tiny
import torch
from stages import read_log

from utils.storage.artifacts import HEADER, load_arrays

FAULTY = tiny.ROOT / "tests" / "faults" / "faulty.py"
NO_CHANGE: Mapping[str, str] = MappingProxyType({})
PATIENCE = 300.0  # seconds until something that should happen is taken to hang
# Seconds that processes have to go once the main one is gone. Workers go at once, but the process
# from which they are forked first ends its imports: 2 to 3 seconds, and more on a busy machine.
ORPHANS_LEFT = 30.0

# The only contents in which a disturbed run may differ from an undisturbed one: times, where a
# file was made, and the fingerprints that cover them (what they cover is compared itself).
MAY_DIFFER = {
    "seconds", "core_hours", "wall_seconds", "processor_seconds", "provenance", "commit",
    "command", "controller_core_hours", "fingerprint",
}  # fmt: skip

FLAGS = {
    1: {"autopilot_episodes": 1, "random_episodes": 5, "workers": 2},
    2: {"latent_dim": tiny.LATENT_DIM, "epochs": 3, "batch": 16, "pool": 4, "workers": 1,
        "threads": 1},
    3: {"workers": 2},
    4: {"hidden": tiny.HIDDEN, "mixtures": 2, "epochs": 3, "length": 20, "workers": 1,
        "threads": 1},
    5: {"start": "imitation", "rounds": 2, "laps": 2, "generations": 3, "population": 6,
        "tracks": 2, "replayed": 0, "fitness": "score", "select_tracks": 1, "select_every": 1,
        "patience": 30, "workers": 2},
    6: {"episodes": 6, "first_seed": 6, "controller": "straight_on",
        "env_id": "FastCarRacing-v0", "workers": 2},
}  # fmt: skip
FRAMES = [60] * 12  # of the made-up episodes


def prepare(folder: Path, number: int) -> None:
    """What stage `number` finds: made-up episodes and untrained networks."""
    folder.mkdir(parents=True, exist_ok=True)
    if number in (2, 3, 4):
        tiny.save_episodes(folder / "data" / "rollouts", FRAMES)
    if number >= 3:
        tiny.save_networks(folder / "checkpoints")
    if number == 4:
        (folder / "checkpoints" / "mdn_rnn.pt").unlink()
        with inside(folder), contextlib.redirect_stderr(io.StringIO()):
            tiny.stage(3, workers=0)
    if number == 6:
        tiny.save_c(folder / "checkpoints" / "straight_on.pt", tiny.STRAIGHT_ON)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Make `folder` the current one for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Run:
    """A stage as a process of its own, in a session of its own, what it says going to a file.

    fault   ("half" | "before" | "after", n): it kills itself at its n-th write, see faulty.py
            ("limit", seconds): the time that its workers have for a job
            ("memory", megabytes): what it may take once it reads a race of the keyboard
    through the command that runs it, if any
    env     added to the environment
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        fault: tuple[str, int] | None = None,
        before: Callable[[], None] | None = None,
        said: Path | None = None,
        through: Sequence[str] = (),
        env: Mapping[str, str] = NO_CHANGE,
        **flags: Any,
    ) -> None:
        script = [tiny.ROOT / f"{tiny.SCRIPTS[number - 1]}.py"]
        if fault:
            script = [FAULTY, *map(str, fault), tiny.SCRIPTS[number - 1]]
        self.folder = folder
        self.started = time.monotonic()
        self._output = said or folder.with_name(f"{folder.name}.said")
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(
                [*through, sys.executable, *script, *tiny.arguments(FLAGS[number] | flags)],
                cwd=folder, env=_environment() | env, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=lambda: _begin(before),
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit status; a run that hangs is ended and says -9."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            return self.process.wait()

    def wait_until(self, happens: Callable[[], Any], seconds: float = PATIENCE) -> bool:
        """Whether it happens while the main process runs."""
        deadline = time.monotonic() + seconds
        while self.runs and time.monotonic() < deadline:
            if happens():
                return True
            time.sleep(0.01)
        return bool(happens())

    def workers(self) -> list[int]:
        """The worker processes: children of the process from which they are forked."""
        found = _processes(self.process.pid)
        servers = [pid for pid, parent in found.items() if parent == self.process.pid]
        return [pid for pid, parent in found.items() if parent in servers]

    def orphans(self) -> tuple[list[str], float]:
        """Commands of its session that outlive the main process, and how long they were waited
        for; they are ended here."""
        start = time.monotonic()
        while (left := _processes(self.process.pid)) and time.monotonic() - start < ORPHANS_LEFT:
            time.sleep(0.02)
        commands = [_command(pid) for pid in left]
        self.end()
        return commands, time.monotonic() - start

    def end(self) -> None:
        for pid in _processes(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def memory(self) -> int:
        """Bytes that the main process and its workers hold, shared ones counted in each."""
        return resident([self.process.pid, *self.workers()])

    @property
    def complaint(self) -> str:
        """The last line, if it is a stage's one sentence."""
        lines = [line for line in re.split("[\r\n]+", self.said) if line.strip()]
        return lines[-1] if lines and re.match(r"\d\d_\w+\.py: |faulty\.py: ", lines[-1]) else ""


def _begin(before: Callable[[], None] | None) -> None:
    """In the new process; a campaign in the background would pass on that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if before:
        before()


def resident(pids: list[int]) -> int:
    """Bytes of memory that these processes hold."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processes(session: int) -> dict[int, int]:
    """pid -> parent of all living processes of a session."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, _, its_session = _stat(place)
                if its_session == session and state != "Z":
                    found[int(place.name)] = parent
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    return "gone by now"


def _stat(place: Path) -> tuple[str, int, int, int]:
    state, *numbers = (place / "stat").read_text().rpartition(")")[2].split()[:4]
    return state, *map(int, numbers)


def _environment() -> dict[str, str]:
    """As from a shell without a display; one thread a process, so that nobody is starved."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "OMP_NUM_THREADS": "1"}


# Two folders


def copy(source: Path, target: Path) -> Path:
    """A fresh copy of a project folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def differences(folder: Path, other: Path) -> list[str]:
    """Files that only one of the folders has, or that do not say the same.

    What a killed writer has left half-written stays until it is old, and is never read.
    """
    ours, theirs = (
        {str(p.relative_to(f)) for p in f.rglob("*") if p.is_file() and ".tmp." not in p.name}
        for f in (folder, other)
    )
    differ = [name for name in ours & theirs if not _same(folder / name, other / name)]
    return sorted((ours ^ theirs) | set(differ))


def _same(path: Path, other: Path) -> bool:
    if path.read_bytes() == other.read_bytes():
        return True
    try:
        return _facts(path) == _facts(other)
    except Exception:  # one of them is not even readable
        return False


def _facts(path: Path) -> Any:
    """All that a file says, less what may differ."""
    if path.suffix == ".csv":
        return _timeless(read_log(path))
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".pt":
        return _timeless(torch.load(path, weights_only=True))
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            kind = json.loads(archive.read(HEADER))["kind"]
        return _timeless(load_arrays(path, kind))
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in MAY_DIFFER}
    if isinstance(value, list | tuple):
        return [_timeless(item) for item in value]
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if hasattr(value, "tobytes"):
        return value.dtype.str, value.shape, value.tobytes()
    return value
