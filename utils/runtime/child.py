"""The code of a worker process: build a handler, keep its places busy, tell main the results.

A thread always reads, so that main never waits for a worker that is busy; when the pipe ends, main
is gone, however it died, and the thread ends the process.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from utils.runtime.errors import for_the_user

WORKER_ENVIRONMENT = {
    # N workers on N cores: more than one thread each would only make them fight.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    # Nothing here is seen or heard.
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}


class Handler(Protocol):
    """Holds a number of places for jobs, and moves all of its jobs on together."""

    def start(self, job_id: int, job: Any) -> None:
        """Put a job in a free place."""

    def advance(self) -> list[tuple[int, Any]]:
        """One step of all jobs; returns (job_id, result) of those that finished in it."""


class OneAtATime:
    """Handler with one place, from a plain function: result = function(job, **constants)."""

    def __init__(self, function: Callable, **constants: Any) -> None:
        self._function = function
        self._constants = constants
        self._started: list[tuple[int, Any]] = []

    def start(self, job_id: int, job: Any) -> None:
        if self._started:
            raise ValueError("OneAtATime has one place: leave slots at 1")
        self._started.append((job_id, job))

    def advance(self) -> list[tuple[int, Any]]:
        if not self._started:
            return []
        job_id, job = self._started.pop()
        return [(job_id, self._function(job, **self._constants))]


def limit_to_one_thread() -> None:
    """One thread for the libraries of this process that would otherwise use every core.

    Those not yet imported follow the environment variables (OpenCV, which has none, is set again
    once the handler is built).
    """
    os.environ.update(WORKER_ENVIRONMENT)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


class Pipe(Protocol):
    """What a worker needs of its end of the pipe."""

    def recv_bytes(self) -> bytes: ...

    def send_bytes(self, message: bytes, /) -> None: ...


def work(pipe: Connection) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is main's business
    live(pipe)


def live(pipe: Pipe) -> None:
    """A worker's life: build the handler, then keep its places busy until main ends it."""
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    try:
        threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
        limit_to_one_thread()
        handler = build(inbox.get())
        limit_to_one_thread()
        _tell(pipe, "ready")
        _serve(handler, inbox, pipe)
    except BaseException as error:
        if sentence := for_the_user(error):
            _tell(pipe, "user error", sentence)
        else:
            _tell(pipe, "failure", traceback.format_exc())


def _receive(pipe: Pipe, inbox: "queue.SimpleQueue[bytes]") -> None:
    """Thread: read all that main sends; exit the process when main is gone."""
    while True:
        try:
            inbox.put(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


def _serve(handler: Handler, inbox: "queue.SimpleQueue[bytes]", pipe: Pipe) -> None:
    running = 0
    while True:
        while running == 0 or not inbox.empty():  # wait for a job only with nothing else to do
            handler.start(*pickle.loads(inbox.get()))
            running += 1
        finished = handler.advance()
        if finished:
            running -= len(finished)
            _tell(pipe, "results", finished)


def _tell(pipe: Pipe, kind: str, content: Any = None) -> None:
    message = pack((kind, content, time.process_time()))
    try:
        pipe.send_bytes(message)
    except OSError:
        os._exit(0)  # main is gone


def pack(message: Any) -> bytes:
    """Plain pickle, and not the pipe's own `send`: for that, PyTorch replaces the pickling of
    tensors by shared memory, which does not survive a worker's death."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def build(recipe: bytes) -> Handler:
    """The handler, from its pickled class and arguments."""
    handler, setup = pickle.loads(recipe)
    return handler(**setup)
