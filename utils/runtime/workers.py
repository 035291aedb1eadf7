"""Worker processes that share out jobs; each may die at any moment and harms no other.

    with Workers(8, OneAtATime, {"function": drive, "laps": 1}) as workers:
        results = workers.run(jobs)              # results[i] belongs to jobs[i]

This file is the pool; `worker` is a worker as main sees it, `process` one on this machine and
`cluster` one on another, `child` the code that runs in both, with the handlers that do the work.
No executor does this: those of the standard library (and loky) break
as a whole when one process dies, `multiprocessing.Pool` waits for ever for a killed worker's job,
and pebble's workers have no places in which several jobs share each batch of a network.

How it holds together:
 - One pipe a worker and nothing else shared, so a worker killed at any moment harms no other.
 - A worker gets a job only for a free place: the main process hands out, workers never hoard.
 - Main's end of the pipe is also the lifeline: a worker whose pipe ends exits.
 - Threads read and send, so neither side ever waits for the other in the middle of a message.
 - Jobs are small plain data. One that was lost with its worker is simply run again.
"""

import contextlib
import heapq
import pickle
import queue
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from utils.runtime.child import Handler, OneAtATime, build, pack
from utils.runtime.cluster import Cluster
from utils.runtime.errors import UserError, for_the_user
from utils.runtime.process import Processes
from utils.runtime.worker import Carrier, Said, Worker

__all__ = ["OneAtATime", "Workers"]

START_SECONDS = 600.0  # for importing and building the handler, while many workers start at once
SUSPECT_DEATHS = 2  # a job that was there when this many workers died gets a worker of its own
DEATHS_PER_JOB = 5  # after this many it is given up
DEATHS_IN_A_ROW = 10  # so are all jobs after this many deaths without one result, or 3 a worker
ALWAYS_PRELOADED = ("utils.runtime.start", "utils.runtime.child")  # the first one for its errors
GRACE_SECONDS = 0.1  # for reading what a worker has long said, when main itself was stopped


class _Batch:
    """The jobs of one call of `run` and what has become of them."""

    def __init__(self, jobs: Sequence[Any], on_result: Callable[[int, Any], None] | None) -> None:
        self.jobs = jobs
        self.on_result = on_result
        self.waiting = deque(range(len(jobs)))  # indices, next first; suspects last
        self.results: list[Any] = [None] * len(jobs)
        self.unfinished = len(jobs)
        self.deaths: Counter[int] = Counter()  # by index

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


class Workers:
    """A pool of worker processes for many calls of `run`.

    count            processes; 0 runs the jobs in this process, one handler, same results
    handler, setup   `handler(**setup)` is built once in every worker, see `child.Handler`; both are
                     pickled, so the handler is importable. Its module, and those of what can be
                     called in setup, are imported once and shared among the workers (where there is
                     forkserver; the first pool of the process decides).
                     Every worker gets its own copy of setup: keep it to a few megabytes
    slots            places of each handler
    job_seconds      a job that takes longer is taken to hang: its worker is killed; with more
                     workers than cores the limit grows in proportion
    jobs_per_worker  a worker is replaced after this many jobs, lest small leaks of libraries add up
    cluster          where the workers are instead of on this machine: `count` of them at most, and
                     no more than its nodes have processors; nodes may come and go

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
        jobs_per_worker: int = 10_000,
        cluster: Cluster | None = None,
    ) -> None:
        if count < 0 or slots < 1 or jobs_per_worker < 1:
            raise ValueError("Workers needs count >= 0, slots >= 1 and jobs_per_worker >= 1")
        self.restarts = 0
        self._recipe = pack((handler, setup))
        self._slots = slots
        self._jobs_per_worker = jobs_per_worker
        self._count = count
        self._deaths_in_a_row = 0
        self._nothing_due_before = 0.0  # time.monotonic()
        self._ended_cpu_seconds = 0.0
        self._workers: list[Worker] = []
        self._here: Handler | None = None  # what does the jobs where there are no workers
        self._closed = False
        self._heard: queue.SimpleQueue[Said] = queue.SimpleQueue()
        started_with = count, self._recipe, self._heard
        self._carrier: Carrier = (
            cluster.carrier(*started_with)
            if cluster and count
            else Processes(*started_with, (*ALWAYS_PRELOADED, *_modules(handler, setup)))
        )
        self._job_seconds = job_seconds * self._carrier.crowding
        try:
            self._start_missing()
        except BaseException:
            self.close()
            raise

    @property
    def cpu_seconds(self) -> float:
        return self._ended_cpu_seconds + sum(w.cpu_seconds for w in self._workers)

    @property
    def where(self) -> str:
        """For the end of a status line: how many nodes and processes of a cluster are at work."""
        return self._carrier.described()

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
            if self._count == 0:
                self._run_here(batch)
            while batch.unfinished:
                self._hand_out(batch)
                self._listen(batch)
                self._end_hung_workers(batch)
                self._start_missing()
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

    def _hand_out(self, batch: _Batch) -> None:
        """To the least busy first, so that few jobs spread over many workers; ready ones first."""
        if not batch.waiting:
            return
        free = [self._load(i) for i, worker in enumerate(self._workers) if self._is_free(worker)]
        heapq.heapify(free)
        while batch.waiting and free:
            busy, _, i = free[0]
            index = batch.waiting[0]
            suspect = batch.is_suspect(index)
            if suspect and busy:
                return
            batch.waiting.popleft()
            worker = self._workers[i]
            worker.places = 1 if suspect else self._slots
            worker.give(index, batch.jobs[index])
            if self._is_free(worker):
                heapq.heapreplace(free, self._load(i))
            else:
                heapq.heappop(free)

    def _is_free(self, worker: Worker) -> bool:
        has_place = worker.reached and len(worker.jobs) < worker.places
        return has_place and worker.given < self._jobs_per_worker

    def _load(self, i: int) -> tuple[int, bool, int]:
        worker = self._workers[i]
        return len(worker.jobs), not worker.ready, i

    def _listen(self, batch: _Batch) -> None:
        """Sleep until a worker says something, dies or is due, and act on all that has come."""
        patience = min(self._nothing_due_before - time.monotonic(), self._carrier.patience)
        with contextlib.suppress(queue.Empty):
            worker, message = self._heard.get(timeout=max(GRACE_SECONDS, patience))
            self._take(worker, message, batch)
            while True:
                self._take(*self._heard.get_nowait(), batch)

    def _take(self, worker: Worker, message: bytes | None, batch: _Batch) -> None:
        if worker not in self._workers:  # it was ended, and its jobs are with others
            return
        if message is None:
            self._replace_dead(worker, worker.epitaph(), batch)
            return
        kind, content, worker.cpu_seconds = worker.read(message)
        if kind == "begun":
            worker.begin(content)
        elif kind == "ready":
            worker.become_ready()
        elif kind == "unfit":
            self._end(worker)
            batch.redo(list(worker.jobs))
            self._carrier.refuse(worker, content)
        elif kind == "user error":
            raise UserError(content)
        elif kind == "failure":
            raise RuntimeError(f"a worker failed:\n{content}")
        else:
            self._deaths_in_a_row = 0
            for index, result in content:
                del worker.jobs[index]
                batch.finish(index, result)
            if worker.given >= self._jobs_per_worker and not worker.jobs:
                self._end(worker)  # another comes in its place

    def _run_here(self, batch: _Batch) -> None:
        """What count = 0 does: a worker's loop without the worker."""
        running = 0
        while batch.unfinished:
            try:
                self._here = self._here or build(self._recipe)
                while batch.waiting and running < self._slots:
                    index = batch.waiting.popleft()
                    self._here.start(index, _copy(batch.jobs[index]))
                    running += 1
                finished = _copy(self._here.advance())
            except Exception as error:
                if sentence := for_the_user(error):
                    raise UserError(sentence) from error
                raise RuntimeError(f"a job failed:\n{traceback.format_exc()}") from error
            running -= len(finished)
            for index, result in finished:
                batch.finish(index, result)

    # The life of workers

    def _start_missing(self) -> None:
        while worker := self._carrier.another(self._workers):
            self._workers.append(worker)

    def _end(self, worker: Worker) -> None:
        worker.end()
        self._workers.remove(worker)
        self._ended_cpu_seconds += worker.cpu_seconds

    def _due(self, worker: Worker) -> float:
        """When (time.monotonic) the worker's oldest job, or its start, has taken too long."""
        if not worker.ready:
            return worker.born + START_SECONDS
        return min(worker.jobs.values(), default=float("inf")) + self._job_seconds

    def _end_hung_workers(self, batch: _Batch) -> None:
        now = time.monotonic()
        if now < self._nothing_due_before:
            return
        for worker in [w for w in self._workers if self._due(w) <= now]:
            limit = self._job_seconds if worker.ready else START_SECONDS
            what = "had a job unfinished" if worker.ready else "was not ready"
            self._replace_dead(worker, f"{what} after {limit:g} s and was ended", batch)
        soonest = now + min(self._job_seconds, START_SECONDS)  # for whatever begins from now on
        self._nothing_due_before = min([soonest, *map(self._due, self._workers)])

    def _replace_dead(self, worker: Worker, how: str, batch: _Batch) -> None:
        self._end(worker)
        self.restarts += 1
        redo = list(worker.jobs)
        if self._carrier.is_lost(worker):
            batch.redo(redo)
            return
        self._deaths_in_a_row += 1
        print(
            f"{worker.name} {how}: starting another, "
            f"{len(redo)} job{'' if len(redo) == 1 else 's'} to redo",
            file=sys.stderr,
        )
        if worker.ready:  # else the job had not begun, and is not to blame
            batch.blame(redo, how)
        if self._deaths_in_a_row > max(DEATHS_IN_A_ROW, 3 * self._carrier.wanted):
            raise UserError(
                f"{self._deaths_in_a_row} worker processes died without finishing a job (the last "
                f"one {how}): use fewer workers if memory is short, or none to see the fault."
            )
        batch.redo(redo)


def _copy(message: Any) -> Any:
    """The message as it would arrive in another process."""
    return pickle.loads(pack(message))


def _modules(handler: Callable, setup: dict[str, Any]) -> list[str]:
    """Where the handler comes from, and what in its setup can be called."""
    return [thing.__module__ for thing in (handler, *setup.values()) if callable(thing)]
