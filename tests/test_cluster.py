"""Workers on a Ray cluster: a head that drives nothing and nodes of one processor each, all on this
machine, which are killed and joined by others. `.ci/run` installs Ray for these tests alone.
"""

import importlib
import os
import signal
import sys
import time

import numpy as np
import pytest
import tiny
import torch
from test_workers import (
    die_once,
    fail,
    hang_once,
    pid_of_worker,
    stop_once,
    triple,
    wait_until,
)

from models.inference import ROWS
from utils.racing import agreement
from utils.racing.agent import Races
from utils.racing.race import Race
from utils.runtime.cluster import Cluster
from utils.runtime.errors import UserError
from utils.runtime.workers import OneAtATime, Workers
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID

ray = pytest.importorskip("ray", reason="Ray is not installed (.ci/run installs it)")

STORE = 80_000_000  # bytes of each node's object store
NOTICED_SOON = {  # a silent node is given up after seconds, not half a minute
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 300,
    "health_check_failure_threshold": 3,
}


# What the nodes are asked


def nothing():
    return {}


def oddness():
    return {"torch": os.environ.get("ODD", "2.13.0")}


def how_odd(job):
    time.sleep(job)
    return os.environ.get("ODD", "")


# Helpers


class Nodes:
    """A cluster of this machine's own."""

    def __init__(self):
        from ray.cluster_utils import Cluster as LocalCluster

        self._cluster = LocalCluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False,
                "_system_config": NOTICED_SOON,
            },
        )  # fmt: skip
        self.address = self._cluster.address
        self.nodes = []

    def add(self, name, **environment):
        node = self._cluster.add_node(
            num_cpus=1, object_store_memory=STORE, node_name=name, env_vars=environment
        )
        self.nodes.append(node)
        return node

    def kill(self, node):
        """As if somebody pulled the plug: nothing of the node has time to say anything."""
        raylet = node.all_processes["raylet"][0].process.pid
        for pid in [raylet, *children(raylet)]:
            os.kill(pid, signal.SIGKILL)
        self.nodes.remove(node)

    def leave(self, count):
        """Only so many nodes stay, or come."""
        while len(self.nodes) > count:
            self.kill(self.nodes[-1])
        while len(self.nodes) < count:
            self.add(f"node-{time.monotonic_ns()}")

    def close(self):
        ray.shutdown()
        self._cluster.shutdown()


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))


@pytest.fixture(scope="module")
def all_nodes():
    cluster = Nodes()
    yield cluster
    cluster.close()


@pytest.fixture
def nodes(all_nodes):
    """Two nodes."""
    all_nodes.leave(2)
    return all_nodes


def pool(nodes, function, facts=nothing, count=1000, **constants):
    limit = constants.pop("job_seconds", 600.0)
    setup = {"function": function, **constants}
    cluster = Cluster(nodes.address, facts)
    return Workers(count, OneAtATime, setup, job_seconds=limit, cluster=cluster)


def test_results_belong_to_their_jobs_and_every_processor_has_some(nodes):
    with pool(nodes, pid_of_worker) as workers:
        wait_until(lambda: len(set(workers.run(range(4)))) == 2, "both nodes are at work")
        assert workers.restarts == 0
        assert workers.cpu_seconds > 0


def test_jobs_of_a_killed_process_are_done_again(nodes, tmp_path, capfd):
    with pool(nodes, die_once, folder=str(tmp_path)) as workers:
        assert workers.run(range(10)) == [3 * job for job in range(10)]
        assert workers.restarts == 1
    assert "on node node-" in capfd.readouterr().err


@pytest.mark.parametrize("hangs", [hang_once, stop_once])
def test_a_process_that_hangs_is_ended_and_its_job_done_again(nodes, tmp_path, capfd, hangs):
    with pool(nodes, hangs, folder=str(tmp_path), job_seconds=2.0) as workers:
        assert workers.run(range(10)) == [3 * job for job in range(10)]
        assert workers.restarts == 1
    assert "had a job unfinished after 2 s and was ended" in capfd.readouterr().err


def test_errors_of_the_user_arrive_as_they_are_and_others_with_their_traceback(nodes):
    for kind, expected, words in (
        (UserError, UserError, "^job . is unhappy$"),
        (ValueError, RuntimeError, "in fail"),
    ):
        with pool(nodes, fail, error=kind) as workers, pytest.raises(expected, match=words):
            workers.run(range(4))


# The same scores


def races():
    """Long and short ones; with a teacher, whose laps hold every frame's features."""
    plain = [Race(seeds.EVOLUTION + i, tiny.lively(i % 5), 10 + 3 * i) for i in range(24)]
    teacher = {"line_offset": 2.0, "grip": 0.9}
    return [*plain, *(Race(seeds.EVOLUTION + i, tiny.lively(i), 50, teacher) for i in range(4))]


def drive(count, cluster=None, on_result=None):
    vae, rnn = tiny.networks()
    setup = {"env_id": FAST_ID, "vae": vae, "rnn": rnn}
    with Workers(count, Races, setup, slots=ROWS, cluster=cluster) as workers:
        return workers.run(races(), on_result), workers.restarts


@pytest.fixture(scope="module")
def laps():
    """As this process drives them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield drive(0)[0]
    torch.set_num_threads(threads)


def assert_same(found, laps):
    for lap, other in zip(found, laps, strict=True):
        for name, value in vars(lap).items():
            np.testing.assert_array_equal(value, getattr(other, name))


def test_the_scores_are_the_same_when_a_node_is_killed_and_another_joins(nodes, laps, capfd):
    count = 0

    def pull_the_plug(index, lap):
        nonlocal count
        count += 1
        if count == 3:
            nodes.kill(nodes.nodes[0])
        if count == 6:
            nodes.add("late")

    found, restarts = drive(1000, Cluster(nodes.address, agreement.facts), pull_the_plug)
    assert_same(found, laps)
    assert restarts == 1
    assert "is lost" in capfd.readouterr().err


def test_without_any_node_it_waits_says_so_and_goes_on(nodes, laps, monkeypatch, capfd):
    monkeypatch.setattr("utils.runtime.cluster.WAIT_SECONDS", 1.0)
    said = []

    def it_waits():
        said.append(capfd.readouterr().err)
        return "waiting for one" in "".join(said)

    def back_again(*_):
        wait = 0.0 if it_waits() else 0.2
        signal.setitimer(signal.ITIMER_REAL, wait)
        if not wait:
            nodes.add("back")

    def pull_all_plugs(index, lap):
        if len(nodes.nodes) == 2:
            nodes.leave(0)
            signal.signal(signal.SIGALRM, back_again)  # a node is added by the main thread alone
            signal.setitimer(signal.ITIMER_REAL, 0.2)

    found, _ = drive(1000, Cluster(nodes.address, agreement.facts), pull_all_plugs)
    assert_same(found, laps)
    said.append(capfd.readouterr().err)
    assert "".join(said).endswith("1 node with 1 process of the cluster are at work\n")


# Nodes that differ


def test_a_node_that_differs_is_left_out_by_name(all_nodes, capfd):
    all_nodes.leave(1)
    odd = all_nodes.add("odd-one", ODD="1.0")
    with pool(all_nodes, how_odd, facts=oddness) as workers:
        names = {name for _ in range(3) for name in workers.run([0.1] * 8)}
    all_nodes.kill(odd)
    assert names == {""}
    assert "node odd-one (" in (said := capfd.readouterr().err)
    assert "is left out: torch is 1.0 there and 2.13.0 here." in said


def test_where_no_node_fits_the_run_ends_in_a_sentence(nodes, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def facts():\n    return {'code': 1}\n")
    monkeypatch.syspath_prepend(tmp_path)
    only_here = importlib.import_module("only_here")
    monkeypatch.setattr("sys.path", [p for p in sys.path if p != str(tmp_path)])
    with (
        pytest.raises(UserError, match=r"no node of the cluster fits.*No module named 'only_here'"),
        pool(nodes, triple, facts=only_here.facts) as workers,
    ):
        workers.run(range(4))
