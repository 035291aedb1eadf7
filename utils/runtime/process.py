"""A worker process as the main process sees it.

Two threads stand between: one sends what main puts down, one reads what the worker says. So main
itself never waits for a worker, not even for one that is stopped in the middle of a message.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerContext, SpawnContext

from utils.runtime.child import WORKER_ENVIRONMENT, work
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.runtime.worker import Carrier, Said, Worker


class Processes(Carrier):
    """The carrier of a fixed number of workers on this machine."""

    def __init__(
        self, count: int, recipe: bytes, heard: "queue.SimpleQueue[Said]", preload: Sequence[str]
    ) -> None:
        self.crowding = max(1.0, count / cores())
        self.wanted = count
        self._for_each = start_method(preload), recipe, heard

    def another(self, workers: Sequence[Worker]) -> "WorkerProcess | None":
        return WorkerProcess(*self._for_each) if len(workers) < self.wanted else None


class WorkerProcess(Worker):
    """One process, at the other end of a pipe."""

    def __init__(
        self,
        context: SpawnContext | ForkServerContext,
        recipe: bytes,
        heard: "queue.SimpleQueue[Said]",
    ) -> None:
        super().__init__()
        self._heard = heard
        self._to_send: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._to_send.put(recipe)
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._write, self._read)]
        try:
            with _as_seen_by_workers():
                _ensure_forkserver(context)
                self.process.start()
            self.name = f"worker process {self.process.pid}"
            theirs.close()  # only the worker holds that end now: when it dies, the pipe ends
            for thread in self._threads:
                thread.start()
        except (EOFError, ConnectionError) as error:  # instead of the fork server's answer
            self._pipe.close()
            raise UserError(
                "the system starts no further process, because of a limit (ulimit -u) or because "
                "memory is short; use fewer workers (--workers), and run the same command again."
            ) from error
        except BaseException:
            self._pipe.close()  # a half-started worker exits by itself
            raise

    def send(self, message: bytes) -> None:
        self._to_send.put(message)

    def epitaph(self) -> str:
        self.process.join(1.0)  # the pipe may end a moment before the process does
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"was killed by signal {-code} ({signal.strsignal(-code)})"
        return f"ended with status {code}"

    def kill(self) -> None:
        if self.process.exitcode is None:  # else the number may already be another process's
            self.process.kill()

    def end(self) -> None:
        self.kill()
        self.process.join()
        self._to_send.put(None)
        for thread in self._threads:  # the pipe has ended
            thread.join()
        self._pipe.close()

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # it has just died, which `_read` will find
            while (message := self._to_send.get()) is not None:
                self._pipe.send_bytes(message)

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # OSError: in the middle of a message
            while True:
                self._heard.put((self, self._pipe.recv_bytes()))
        self._heard.put((self, None))


def start_method(preload: Sequence[str]) -> SpawnContext | ForkServerContext:
    """How workers are started: forked from a process that has imported `preload`, or spawned."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def _ensure_forkserver(context: SpawnContext | ForkServerContext) -> None:
    """Start the process that workers are forked from, unless it runs.

    It inherits that Ctrl-C is ignored, and so do the workers from their first moment.
    """
    if context.get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver  # exists on POSIX only

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _as_seen_by_workers() -> Iterator[None]:
    """What new processes find: an environment that libraries read as they are loaded, and no main
    module; else every worker imports the script once more, which takes most of its start."""
    script, before = sys.modules["__main__"], dict(os.environ)
    changes = {**WORKER_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(changes)
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        for name in changes:
            del os.environ[name]
        os.environ.update(before)
