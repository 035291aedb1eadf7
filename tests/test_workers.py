"""Each test of the workers causes the fault that it speaks of."""

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from utils.runtime.errors import UserError
from utils.runtime.workers import DEATHS_PER_JOB, OneAtATime, Workers

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0  # seconds until a test gives up waiting for something that should happen

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the faults are POSIX signals")


# What the workers run. They import it from this module.


def triple(job):
    return 3 * job


def pid_of_worker(job):
    return os.getpid()


def die_once(job, folder):
    """Job 3 kills its worker on its first attempt."""
    if job == 3 and _first_time(folder, job):
        os.kill(os.getpid(), signal.SIGKILL)
    return 3 * job


def die_first_time(job, folder):
    if _first_time(folder, job):
        os.kill(os.getpid(), signal.SIGKILL)
    return 3 * job


def hang_once(job, folder):
    if job == 3 and _first_time(folder, job):
        time.sleep(1000)
    return 3 * job


def interrupt_itself(job):
    os.kill(os.getpid(), signal.SIGINT)
    return 3 * job


def stop_once(job, folder):
    if job == 3 and _first_time(folder, job):
        os.kill(os.getpid(), signal.SIGSTOP)
    return 3 * job


def stop_once_while_sending(job, folder):
    """Job 3 stops its worker when half of its result is in the pipe."""
    if job == 3 and _first_time(folder, job):
        Connection._send = send_half_and_stop
    return np.full(500_000, job)


def send_half_and_stop(connection, message):
    os.write(connection.fileno(), bytes(message[: len(message) // 2][:50_000]))
    os.kill(os.getpid(), signal.SIGSTOP)


def always_die_on_three(job):
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 3 * job


def fail(job, error):
    raise error(f"job {job} is unhappy")


def run_out_of_space(job):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "big.npz")


def echo_large(job):
    return np.full((1000, 1000), job, dtype=np.float32) + job.mean()


def large_with_pid(job):
    time.sleep(0.002)
    return os.getpid(), np.full(500_000, job)


def sleep_after_noting_pid(job, folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(job)


def spin_after_noting_pid(job, folder):
    (Path(folder) / str(os.getpid())).touch()
    while True:
        pass


def environment_and_threads(job):
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["SDL_VIDEODRIVER"]


def _first_time(folder, job):
    mark = Path(folder) / f"job {job} was here"
    if mark.exists():
        return False
    mark.touch()
    return True


class LockStep:
    """Handler that finishes a job of n after n steps, and records how full it was."""

    def __init__(self, slots):
        self.slots = slots
        self.left = {}
        self.steps = 0
        self.most = 0

    def start(self, job_id, job):
        assert len(self.left) < self.slots, "more jobs than places"
        self.left[job_id] = job
        self.most = max(self.most, len(self.left))

    def advance(self):
        assert self.left, "a step without a job"
        time.sleep(0.002)
        self.steps += 1
        self.left = {job_id: left - 1 for job_id, left in self.left.items()}
        done = [job_id for job_id, left in self.left.items() if left <= 0]
        for job_id in done:
            del self.left[job_id]
        return [(job_id, (os.getpid(), self.steps, self.most)) for job_id in done]


class DieTogether(LockStep):
    """Job -1 kills the worker that it shares with innocent jobs."""

    def advance(self):
        if -1 in self.left.values():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().advance()


class StopsWhileItIsGivenMore(LockStep):
    """A job of one step makes room for the next one; the worker stops, once, as that is sent."""

    def __init__(self, folder):
        super().__init__(slots=2)
        self.folder = folder

    def start(self, job_id, job):
        super().start(job_id, job[0])

    def advance(self):
        if self.steps == 1 and _first_time(self.folder, "stop"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().advance()


class SlowToBuild(OneAtATime):
    def __init__(self, function):
        time.sleep(1.5)
        super().__init__(function)


class BrokenHandler:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)


class ReusesItsBuffer:
    """Returns the same array each time and changes its job: both must stay in the worker."""

    def __init__(self):
        self.buffer = np.zeros(1)
        self.job = None

    def start(self, job_id, job):
        self.job = (job_id, job)

    def advance(self):
        job_id, job = self.job
        self.buffer[0] = job[0]
        job[0] = -1
        return [(job_id, self.buffer)]


# Helpers


def pool(count, function, *, job_seconds=600.0, jobs_per_worker=500, **constants):
    return Workers(
        count,
        OneAtATime,
        {"function": function, **constants},
        job_seconds=job_seconds,
        jobs_per_worker=jobs_per_worker,
    )


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def is_running(pid):
    """Neither gone nor a zombie whose new parent is slow to collect it."""
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return status.stdout.strip()[:1] not in ("", "Z")


def pids_of_group(group):
    table = subprocess.run(["ps", "-A", "-o", "pid=,pgid="], capture_output=True, text=True).stdout
    processes = [map(int, line.split()) for line in table.splitlines()]
    return {pid for pid, its_group in processes if its_group == group}


def pids_noted(folder):
    return [int(path.name) for path in Path(folder).iterdir() if path.name.isdigit()]


# Results


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_results_belong_to_their_jobs_for_any_number_of_workers(count):
    heard = {}
    with pool(count, triple) as workers:
        assert workers.run(range(40), heard.__setitem__) == [3 * job for job in range(40)]
        assert heard == {job: 3 * job for job in range(40)}
        assert workers.run([]) == []
        assert workers.run(["ab"]) == ["ababab"]
        assert workers.restarts == 0
        assert (workers.cpu_seconds > 0) == (count > 0)  # this process counts its own


@pytest.mark.parametrize("count", [0, 2])
def test_jobs_and_results_are_copies(count):
    jobs = [np.array([number]) for number in range(5)]
    with Workers(count, ReusesItsBuffer, {}) as workers:
        results = workers.run(jobs)
    assert [int(result[0]) for result in results] == [0, 1, 2, 3, 4]
    assert [int(job[0]) for job in jobs] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [0, 1])
def test_a_handler_is_kept_full_and_never_overfull(count):
    with Workers(count, LockStep, {"slots": 2}, slots=2) as workers:
        (_, last_step, most), *others = workers.run([500] + [2] * 9)
    assert most == 2
    # The short ones pass one after the other through the place beside the long one.
    steps = [step for _, step, _ in others]
    assert steps == sorted(set(steps))
    assert steps[-1] < last_step


def test_few_jobs_spread_over_many_workers():
    with Workers(4, LockStep, {"slots": 8}, slots=8) as workers:
        for _ in range(3):
            results = workers.run([20] * 4)
            assert len({pid for pid, _, _ in results}) == 4


def test_processes_stay_for_many_runs():
    with pool(2, pid_of_worker, jobs_per_worker=10_000) as workers:
        pids = set()
        for _ in range(200):
            pids.update(workers.run(range(4)))
        assert len(pids) == 2


def test_large_jobs_and_results_in_both_directions_do_not_block():
    jobs = [np.full((1000, 1000), number, dtype=np.float32) for number in range(12)]  # 4 MB each
    with pool(2, echo_large) as workers:
        results = workers.run(jobs)
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result, np.full((1000, 1000), 2 * number))


def test_72_workers():
    with pool(72, pid_of_worker) as workers:
        assert len(workers.run(range(144))) == 144
        assert len(set(workers.run(range(1440)))) > 36


def test_workers_run_one_thread_without_a_display_and_leave_this_process_alone():
    before = dict(os.environ)
    with pool(1, environment_and_threads) as workers:
        assert workers.run([0]) == [(1, "1", "dummy")]
    assert dict(os.environ) == before


def test_the_script_that_starts_workers_is_not_run_again_in_them(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "print('imported', flush=True)\nfrom test_workers import pool, triple\n"
        "if __name__ == '__main__':\n"
        "    with pool(2, triple) as workers:\n        print(workers.run(range(4)))\n"
        "    print(sys.modules['__main__'].__file__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["imported", "[0, 3, 6, 9]", str(script)], done.stderr


# Workers that die


def test_a_killed_worker_is_replaced_and_its_job_redone(tmp_path, capfd):
    with pool(2, die_once, folder=str(tmp_path)) as workers:
        assert workers.run(range(10)) == [3 * job for job in range(10)]
        assert workers.restarts == 1
    assert "was killed by signal 9" in capfd.readouterr().err


def test_workers_killed_again_and_again_while_sending_lose_nothing():
    def kill_the_sender_at_times(index, result):
        if index % 10 == 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(result[0], signal.SIGKILL)  # it is sending its next result, or about to

    with pool(3, large_with_pid) as workers:
        results = workers.run(range(100), kill_the_sender_at_times)
        assert workers.restarts >= 5
    for number, (_, result) in enumerate(results):
        np.testing.assert_array_equal(result, np.full(500_000, number))


def test_a_worker_killed_between_two_runs_is_replaced():
    with pool(2, pid_of_worker) as workers:
        victim = workers.run(range(10))[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not is_running(victim), "the worker is dead")
        assert victim not in workers.run(range(10))
        assert workers.restarts == 1


def test_a_stopped_worker_counts_as_hung(tmp_path):
    """SIGSTOP: not even a thread of the worker could tell."""
    with pool(2, stop_once, folder=str(tmp_path), job_seconds=1.0) as workers:
        assert workers.run(range(10)) == [3 * job for job in range(10)]
        assert workers.restarts == 1


def test_a_worker_that_stops_in_the_middle_of_sending_counts_as_hung(tmp_path):
    with pool(2, stop_once_while_sending, folder=str(tmp_path), job_seconds=2.0) as workers:
        results = workers.run(range(10))
        assert workers.restarts == 1
    assert [result.tolist()[-1] for result in results] == list(range(10))


def test_main_does_not_wait_for_a_worker_that_does_not_read(tmp_path):
    jobs = [(3,), (1,), (1, bytes(50_000_000))]  # the last is more than a pipe holds
    with Workers(
        1, StopsWhileItIsGivenMore, {"folder": str(tmp_path)}, slots=2, job_seconds=3.0
    ) as workers:
        assert len(workers.run(jobs)) == 3
        assert workers.restarts == 1


def test_a_hanging_job_is_ended_and_redone(tmp_path, capfd):
    with pool(2, hang_once, folder=str(tmp_path), job_seconds=1.0) as workers:
        assert workers.run(range(10)) == [3 * job for job in range(10)]
        assert workers.restarts == 1
    assert "had a job unfinished after 1 s" in capfd.readouterr().err


def test_the_time_of_a_job_begins_when_the_handler_is_built():
    with Workers(1, SlowToBuild, {"function": triple}, job_seconds=1.0) as workers:
        assert workers.run([1, 2]) == [3, 6]
        assert workers.restarts == 0


def test_a_job_that_always_kills_is_given_up():
    with pool(2, always_die_on_three) as workers, pytest.raises(UserError, match="Job 3 "):
        workers.run(range(10))
    assert workers.restarts == DEATHS_PER_JOB


def test_deaths_with_results_between_them_go_on(tmp_path):
    with pool(1, die_first_time, folder=str(tmp_path)) as workers:
        assert workers.run(range(14)) == [3 * job for job in range(14)]
        assert workers.restarts == 14


def test_the_culprit_is_told_from_the_jobs_that_shared_its_worker():
    jobs = [30] * 7 + [-1] + [30] * 8
    with (
        Workers(1, DieTogether, {"slots": 8}, slots=8) as workers,
        pytest.raises(UserError, match="Job 7 "),
    ):
        workers.run(jobs)


def test_workers_that_die_while_starting_end_the_run():
    with Workers(2, BrokenHandler, {}) as workers, pytest.raises(UserError, match="died without"):
        workers.run(range(3))
    assert workers.restarts == 11


def test_a_worker_is_replaced_after_its_share_of_jobs():
    with pool(2, pid_of_worker, jobs_per_worker=5) as workers:
        pids = workers.run(range(40))
        assert max(pids.count(pid) for pid in pids) == 5
        assert len(set(pids)) >= 8
        assert workers.restarts == 0
        spent = workers.cpu_seconds
        workers.run(range(40))
        assert workers.cpu_seconds > spent


def test_a_worker_with_many_places_gets_no_more_than_its_share_either():
    with Workers(1, LockStep, {"slots": 3}, slots=3, jobs_per_worker=5) as workers:
        pids = [pid for pid, _, _ in workers.run([1, 2, 3] * 7)]
    assert max(pids.count(pid) for pid in pids) == 5
    assert workers.restarts == 0


# The system has no more processes or threads to give


def test_a_fork_server_that_dies_is_told_in_a_sentence(monkeypatch):
    def as_from_a_dead_server(process):
        raise EOFError

    dead = staticmethod(as_from_a_dead_server)
    monkeypatch.setattr("multiprocessing.context.ForkServerProcess._Popen", dead)
    with pytest.raises(UserError, match=r"starts no further process.*fewer workers"):
        pool(2, triple)


def test_a_worker_without_its_threads_does_not_stay(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        pool(2, triple)
    wait_until(lambda: not multiprocessing.active_children(), "the worker is gone")


# Exceptions


@pytest.mark.parametrize("count", [0, 2])
def test_errors_arrive_with_the_traceback_and_user_errors_as_they_are(count):
    with (
        pool(count, fail, error=ValueError) as workers,
        pytest.raises(RuntimeError, match=r"in fail\b(.|\n)*ValueError: job . is unhappy"),
    ):
        workers.run(range(4))
    with (
        pool(count, fail, error=UserError) as workers,
        pytest.raises(UserError, match=r"^job . is unhappy$"),
    ):
        workers.run(range(4))


@pytest.mark.parametrize("count", [0, 2])
def test_a_full_disk_is_told_in_a_sentence_like_in_the_main_process(count):
    with (
        pool(count, run_out_of_space) as workers,
        pytest.raises(UserError, match=r"^No space left on device at big\.npz; mend that"),
    ):
        workers.run(range(4))


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_in_the_caller_passes_unchanged_and_closes_the_pool(count):
    def refuse(index, result):
        raise EOFError("as if a pipe had ended")

    workers = pool(count, triple)
    with pytest.raises(EOFError, match="as if"):
        workers.run(range(4), refuse)
    assert workers.restarts == 0
    with pytest.raises(RuntimeError, match="closed"):
        workers.run(range(4))


def test_close_ends_the_processes_and_may_be_repeated(tmp_path):
    workers = pool(2, pid_of_worker)
    pids = set(workers.run(range(20)))
    workers.close()
    workers.close()
    assert not any(is_running(pid) for pid in pids)


# The main process goes. It is a script of its own here.

MAIN = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from test_workers import pool, {function}

if __name__ == "__main__":
    with pool(2, {function}, folder=sys.argv[1]) as workers:
        workers.run([1000, 1000])
"""


@pytest.fixture
def start_main(tmp_path):
    """A function that starts a main process and returns it in the middle of two long jobs, with
    the pids of all its descendants."""
    started = []

    def start(function):
        script = tmp_path / "main.py"
        script.write_text(
            MAIN.format(root=str(ROOT), tests=str(ROOT / "tests"), function=function),
            encoding="utf-8",
        )
        folder = tmp_path / "pids"
        folder.mkdir()
        main = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(main)
        wait_until(lambda: len(pids_noted(folder)) == 2, "both jobs run")
        pids = pids_of_group(main.pid)
        assert pids >= {main.pid, *pids_noted(folder)}
        return main, pids

    yield start
    for main in started:  # where a test has failed, something is left
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGKILL)
        main.communicate()


@pytest.mark.parametrize("function", ["sleep_after_noting_pid", "spin_after_noting_pid"])
def test_no_process_survives_the_killing_of_main(start_main, function):
    main, pids = start_main(function)
    main.kill()
    main.wait()
    wait_until(lambda: not any(map(is_running, pids)), "workers and forkserver are gone")


def test_ctrl_c_does_not_reach_a_job():
    with pool(2, interrupt_itself) as workers:
        assert workers.run(range(4)) == [0, 3, 6, 9]
        assert workers.restarts == 0


def test_ctrl_c_passes_through_main_and_only_main(start_main):
    main, pids = start_main("sleep_after_noting_pid")
    os.killpg(main.pid, signal.SIGINT)  # as a terminal does it: to every process
    _, errors = main.communicate(timeout=PATIENCE)
    assert main.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: not any(map(is_running, pids)), "workers and forkserver are gone")
