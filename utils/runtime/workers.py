"""Worker processes that share out jobs, survive each other's deaths and outlive nobody.

    with Workers(8, OneAtATime, {"function": drive, "laps": 1}) as workers:
        results = workers.run(jobs)              # results[i] belongs to jobs[i]

A handler holds `slots` places and moves all of its jobs on together, for instance several
environments that share each batch through a network. `handler(**setup)` is built once in every
worker and has two methods:

    start(job_id, job) -> None              put a job in a free place
    advance() -> list[(job_id, result)]     one step of all jobs; the jobs that finished in it

How it holds together:
 - One pipe a worker and nothing else shared, so a worker killed at any moment harms no other.
 - A worker gets a job only for a free place: the main process hands out, workers never hoard.
 - Main's end of the pipe is also the lifeline: when main dies, however it dies, the pipe ends and
   a thread in the worker exits the process.
 - That thread always reads, so main never waits for a worker that is busy sending a large result.
 - Jobs are small plain data. One that was lost with its worker is simply run again.
"""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

from utils.runtime.errors import UserError, system_trouble

START_SECONDS = 600.0  # for importing and building the handler, while many workers start at once
SUSPECT_DEATHS = 2  # a job that was there when this many workers died gets a worker of its own
DEATHS_PER_JOB = 5  # after this many it is given up
DEATHS_IN_A_ROW = 10  # so are all jobs after this many deaths without one result, or 3 a worker

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


class Workers:
    """A pool of worker processes for many calls of `run`.

    count            processes; 0 runs the jobs in this process, one handler, same results
    handler, setup   see the module's docstring; both are pickled, so the handler is importable.
                     Every worker gets its own copy of setup: keep it to a few megabytes
    slots            places of each handler
    job_seconds      a job that takes longer is taken to hang: its worker is killed; with more
                     workers than cores the limit grows in proportion
    jobs_per_worker  a worker is replaced after this many jobs, because environments leak memory
    preload          modules to import once and share among the workers (where there is forkserver;
                     the first pool of the process decides)

    Any exception that leaves `run` closes the pool. `restarts` counts the workers that died or
    hung; `cpu_seconds` is the processor time of the worker processes up to their latest results.
    """

    def __init__(
        self,
        count: int,
        handler: Callable,
        setup: dict[str, Any],
        *,
        slots: int = 1,
        job_seconds: float = 600.0,
        jobs_per_worker: int = 500,
        preload: Sequence[str] = (),
    ) -> None:
        if count < 0 or slots < 1 or jobs_per_worker < 1:
            raise ValueError("Workers needs count >= 0, slots >= 1 and jobs_per_worker >= 1")
        self.restarts = 0
        self._recipe = _pack((handler, setup))
        self._slots = slots
        self._job_seconds = job_seconds * max(1.0, count / (os.cpu_count() or 1))
        self._jobs_per_worker = jobs_per_worker
        self._count = count
        self._deaths_in_a_row = 0
        self._ended_cpu_seconds = 0.0
        self._workers: list[_Worker] = []
        self._local = _LocalHandler(self._recipe, slots) if count == 0 else None
        self._closed = False
        self._context = _context((__name__, *preload))
        try:
            for _ in range(count):
                self._start_worker()
        except BaseException:
            self.close()
            raise

    @property
    def cpu_seconds(self) -> float:
        return self._ended_cpu_seconds + sum(w.cpu_seconds for w in self._workers)

    def run(
        self, jobs: Sequence[Any], on_result: Callable[[int, Any], None] | None = None
    ) -> list[Any]:
        """Run all jobs; the result of jobs[i] is at i. `on_result(i, result)` as each comes in.

        Raises UserError when a handler raised it, or when workers keep dying; RuntimeError with
        the worker's traceback for any other exception in a handler.
        """
        if self._closed:
            raise RuntimeError("these workers have been closed")
        batch = _Batch(jobs, on_result)
        try:
            if self._local:
                self._local.run(batch)
            else:
                while batch.unfinished:
                    self._hand_out(batch)
                    self._listen(batch)
                    self._end_hung_workers(batch)
        except BaseException:
            self.close()
            raise
        return batch.results

    def close(self) -> None:
        """End all workers at once, whatever they are doing. May be called again."""
        self._closed = True
        for worker in self._workers:
            worker.kill()
        while self._workers:
            self._end(self._workers[-1])

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Jobs out, results in

    def _hand_out(self, batch: "_Batch") -> None:
        while batch.waiting:
            index = batch.waiting[0]
            suspect = batch.is_suspect(index)
            worker = self._worker_for_next_job(alone=suspect)
            if worker is None:
                return
            batch.waiting.popleft()
            worker.places = 1 if suspect else self._slots
            worker.give(index, batch.jobs[index])

    def _worker_for_next_job(self, alone: bool) -> "_Worker | None":
        """The least busy one, so that few jobs spread over many workers; ready ones first."""
        free = [w for w in self._workers if len(w.jobs) < (1 if alone else w.places)]
        free = [w for w in free if w.given < self._jobs_per_worker]
        return min(free, key=lambda w: (len(w.jobs), not w.ready), default=None)

    def _listen(self, batch: "_Batch") -> None:
        """Sleep until a worker says something, dies or is due, and act on all that has come."""
        owners: dict[Any, _Worker] = {}
        for worker in self._workers:
            owners[worker.pipe] = owners[worker.process.sentinel] = worker
        patience = min(self._due(w) for w in self._workers) - time.monotonic()
        heard = connection.wait(list(owners), max(0.0, patience))
        for worker in dict.fromkeys(owners[h] for h in heard):
            for message in worker.messages():
                self._take(worker, message, batch)
            if worker.pipe_ended or worker.process.sentinel in heard:
                self._replace_dead(worker, worker.epitaph(), batch)
            elif worker.given >= self._jobs_per_worker and not worker.jobs:
                self._end(worker)
                self._start_worker()

    def _take(self, worker: "_Worker", message: tuple, batch: "_Batch") -> None:
        kind, content, worker.cpu_seconds = message
        if kind == "ready":
            worker.become_ready()
        elif kind == "results":
            self._deaths_in_a_row = 0
            for index, result in content:
                del worker.jobs[index]
                batch.finish(index, result)
        elif kind == "user error":
            raise UserError(content)
        else:
            raise RuntimeError(f"a worker failed:\n{content}")

    # The life of workers

    def _start_worker(self) -> None:
        self._workers.append(_Worker(self._context, self._recipe, self._slots))

    def _end(self, worker: "_Worker") -> None:
        worker.end()
        self._workers.remove(worker)
        self._ended_cpu_seconds += worker.cpu_seconds

    def _due(self, worker: "_Worker") -> float:
        """When (time.monotonic) the worker's oldest job, or its start, has taken too long."""
        if not worker.ready:
            return worker.born + START_SECONDS
        return min(worker.jobs.values(), default=float("inf")) + self._job_seconds

    def _end_hung_workers(self, batch: "_Batch") -> None:
        now = time.monotonic()
        for worker in [w for w in self._workers if self._due(w) <= now]:
            limit = self._job_seconds if worker.ready else START_SECONDS
            what = "had a job unfinished" if worker.ready else "was not ready"
            self._replace_dead(worker, f"{what} after {limit:g} s and was ended", batch)

    def _replace_dead(self, worker: "_Worker", how: str, batch: "_Batch") -> None:
        self._end(worker)
        self.restarts += 1
        self._deaths_in_a_row += 1
        redo = list(worker.jobs)
        print(
            f"worker process {worker.process.pid} {how}: starting another, "
            f"{len(redo)} job{'' if len(redo) == 1 else 's'} to redo",
            file=sys.stderr,
        )
        if worker.ready:  # else the job had not begun, and is not to blame
            batch.blame(redo, how)
        if self._deaths_in_a_row > max(DEATHS_IN_A_ROW, 3 * self._count):
            raise UserError(
                f"{self._deaths_in_a_row} worker processes died without finishing a job (the last "
                f"one {how}): use fewer workers if memory is short, or none to see the fault."
            )
        batch.redo(redo)
        self._start_worker()


@dataclass
class _Batch:
    """The jobs of one call of `run` and what has become of them."""

    jobs: Sequence[Any]
    on_result: Callable[[int, Any], None] | None
    waiting: deque[int] = field(init=False)  # indices, next first; suspects last
    results: list[Any] = field(init=False)
    unfinished: int = field(init=False)
    deaths: Counter[int] = field(default_factory=Counter)  # by index

    def __post_init__(self) -> None:
        self.unfinished = len(self.jobs)
        self.waiting = deque(range(self.unfinished))
        self.results = [None] * self.unfinished

    def finish(self, index: int, result: Any) -> None:
        self.results[index] = result
        self.unfinished -= 1
        if self.on_result:
            self.on_result(index, result)

    def is_suspect(self, index: int) -> bool:
        """The job gets a worker of its own: where several jobs share a worker, only this tells
        the culprit from its neighbours, and bad luck from a job that kills."""
        return self.deaths[index] >= SUSPECT_DEATHS

    def blame(self, indices: list[int], how: str) -> None:
        self.deaths.update(indices)
        for index in indices:
            if self.deaths[index] >= DEATHS_PER_JOB:
                raise UserError(
                    f"Job {index} was given up because {DEATHS_PER_JOB} worker processes died "
                    f"with it (the last one {how}): use fewer workers if memory is short, or none "
                    "to see the fault."
                )

    def redo(self, indices: list[int]) -> None:
        for index in reversed(indices):
            if self.is_suspect(index):
                self.waiting.append(index)
            else:
                self.waiting.appendleft(index)


class _Worker:
    """A worker process as the main process sees it."""

    def __init__(self, context: Any, recipe: bytes, slots: int) -> None:
        self.places = slots
        self.jobs: dict[int, float] = {}  # index -> time.monotonic() when it began
        self.given = 0
        self.ready = False
        self.pipe_ended = False
        self.cpu_seconds = 0.0
        self.born = time.monotonic()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        try:
            with _environment_for_workers(), _main_module_hidden():
                _ensure_forkserver(context)
                self.process.start()
            theirs.close()  # only the worker holds that end now: when it dies, the pipe ends
            self._send(recipe)
        except BaseException:
            self.pipe.close()  # a half-started worker exits by itself
            raise

    def give(self, index: int, job: Any) -> None:
        self.given += 1
        self.jobs[index] = time.monotonic()
        self._send(_pack((index, job)))

    def become_ready(self) -> None:
        self.ready = True
        self.jobs = dict.fromkeys(self.jobs, time.monotonic())

    def messages(self) -> Iterator[tuple]:
        """All that have come, and of a dead worker all that ever will."""
        while not self.pipe_ended:
            try:
                if not self.pipe.poll():
                    return
                message = self.pipe.recv_bytes()
            except (EOFError, OSError):  # OSError: in the middle of a message
                self.pipe_ended = True
            else:
                yield pickle.loads(message)

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
        self.pipe.close()
        self.process.join()

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # it has just died, which `messages` will find
            self.pipe.send_bytes(message)


class _LocalHandler:
    """What count = 0 uses: the worker's loop without the worker."""

    def __init__(self, recipe: bytes, slots: int) -> None:
        self._recipe = recipe
        self._slots = slots
        self._handler: Any = None

    def run(self, batch: _Batch) -> None:
        running = 0
        while batch.unfinished:
            with _errors_as_of_a_worker():
                if self._handler is None:
                    self._handler = _build(self._recipe)
                while batch.waiting and running < self._slots:
                    index = batch.waiting.popleft()
                    self._handler.start(index, _copy(batch.jobs[index]))
                    running += 1
                finished = _copy(self._handler.advance())
            running -= len(finished)
            for index, result in finished:
                batch.finish(index, result)


@contextlib.contextmanager
def _errors_as_of_a_worker() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if sentence := _for_the_user(error):
            raise UserError(sentence) from error
        raise RuntimeError(f"a job failed:\n{traceback.format_exc()}") from error


# In the worker process


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


def _work(pipe: connection.Connection) -> None:
    """A worker's life: build the handler, then keep its places busy until main ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is main's business
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    try:
        limit_to_one_thread()
        handler = _build(inbox.get())
        limit_to_one_thread()
        _tell(pipe, "ready")
        _serve(handler, inbox, pipe)
    except BaseException as error:
        if sentence := _for_the_user(error):
            _tell(pipe, "user error", sentence)
        else:
            _tell(pipe, "failure", traceback.format_exc())


def _for_the_user(error: BaseException) -> str:
    """What an error that the user can mend has to say; "" for a fault of the program."""
    if isinstance(error, OSError):
        return system_trouble(error)
    return str(error) if isinstance(error, UserError) else ""


def _receive(pipe: connection.Connection, inbox: "queue.SimpleQueue[bytes]") -> None:
    """Thread: read all that main sends; exit the process when main is gone."""
    while True:
        try:
            inbox.put(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


def _serve(handler: Any, inbox: "queue.SimpleQueue[bytes]", pipe: connection.Connection) -> None:
    running = 0
    while True:
        while running == 0 or not inbox.empty():  # wait for a job only with nothing else to do
            handler.start(*pickle.loads(inbox.get()))
            running += 1
        finished = handler.advance()
        if finished:
            running -= len(finished)
            _tell(pipe, "results", finished)


def _tell(pipe: connection.Connection, kind: str, content: Any = None) -> None:
    message = _pack((kind, content, time.process_time()))
    try:
        pipe.send_bytes(message)
    except OSError:
        os._exit(0)  # main is gone


# Messages and processes


def _pack(message: Any) -> bytes:
    """Plain pickle, and not the pipe's own `send`: for that, PyTorch replaces the pickling of
    tensors by shared memory, which does not survive a worker's death."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def _copy(message: Any) -> Any:
    """The message as it would arrive in another process."""
    return pickle.loads(_pack(message))


def _build(recipe: bytes) -> Any:
    handler, setup = pickle.loads(recipe)
    return handler(**setup)


def _context(preload: Sequence[str]) -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def _ensure_forkserver(context: Any) -> None:
    """Start the process that workers are forked from, unless it runs.

    It inherits that Ctrl-C is ignored, and so do the workers from their first moment.
    """
    if context.get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver  # exists on POSIX only

    with _ignoring_interrupts():
        forkserver.ensure_running()


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows no other thread to do it
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Else every worker imports the script that started it once more, which takes most of its
    start; handlers come from modules."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextlib.contextmanager
def _environment_for_workers() -> Iterator[None]:
    """The environment that new processes inherit: libraries read it as they are loaded."""
    changes = {**WORKER_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
