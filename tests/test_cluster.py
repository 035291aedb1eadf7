"""Workers on a Ray cluster, whose nodes are killed and joined by others."""

import importlib
import os
import signal
import sys
import threading

import nodes
import numpy as np
import pytest
import tiny
from faults import runs
from test_dreaming import dream_all, dreams
from test_workers import die_once, echo_large, fail, stop_once, triple, wait_until

from utils.evolution.dreaming import DREAMS, Dreamer
from utils.racing import agreement
from utils.runtime.cluster import EVERY, Cluster
from utils.runtime.errors import UserError
from utils.runtime.workers import OneAtATime, Workers

pytest.importorskip("ray", reason="Ray is not installed (.ci/run does it)")

AT_WORK = "of the cluster are at work"


@pytest.fixture(scope="module")
def cluster():
    found = nodes.Nodes()
    yield found
    found.close()


@pytest.fixture
def two(cluster):
    """The cluster with two nodes that drive."""
    cluster.become(2)
    return cluster


def pool(cluster, function, facts=nodes.nothing, job_seconds=600.0, **constants):
    setup = {"function": function, **constants}
    where = Cluster(cluster.address, facts)
    return Workers(EVERY, OneAtATime, setup, job_seconds=job_seconds, cluster=where)


def test_an_address_where_there_is_no_cluster_is_told_in_a_sentence():
    where = Cluster("127.0.0.1:9", nodes.nothing)
    with pytest.raises(UserError, match=r"^no Ray cluster is to be had at '127.0.0.1:9' .*refused"):
        Workers(2, OneAtATime, {"function": triple}, cluster=where)


def test_jobs_of_a_killed_process_are_done_again(two, tmp_path, capfd):
    before = signal.getsignal(signal.SIGTERM), sys.excepthook
    with pool(two, die_once, folder=str(tmp_path)) as workers:
        assert (signal.getsignal(signal.SIGTERM), sys.excepthook) == before
        assert workers.run(range(10)) == [3 * job for job in range(10)]
        assert workers.restarts == 1
        assert workers.cpu_seconds > 0
    assert "on node node-" in capfd.readouterr().err


def test_a_process_that_hangs_is_ended_and_its_job_done_again(two, tmp_path, capfd):
    with pool(two, stop_once, folder=str(tmp_path), job_seconds=2.0) as workers:
        assert workers.run(range(10)) == [3 * job for job in range(10)]
        assert workers.restarts == 1
    assert "had a job unfinished after 2 s and was ended" in capfd.readouterr().err


def test_large_jobs_and_results_and_errors_of_the_user_arrive(two):
    jobs = [np.full((1000, 1000), number, dtype=np.float32) for number in range(4)]  # 4 MB each
    with pool(two, echo_large) as workers:
        for number, result in enumerate(workers.run(jobs)):
            np.testing.assert_array_equal(result, np.full((1000, 1000), 2 * number))
    with pool(two, fail, error=UserError) as workers, pytest.raises(UserError, match=r"^job . is"):
        workers.run(range(4))


def test_a_node_that_differs_is_left_out_by_name(cluster, capfd):
    cluster.become(1)
    cluster.add("odd-one", ODD="1.0")
    with pool(cluster, nodes.how_odd, facts=nodes.version) as workers:
        wait_until(
            lambda: workers.run([0.1] * 4) and "odd-one" in capfd.readouterr().err, "it is left out"
        )
        assert set(workers.run([0.1] * 8)) == {"not at all"}
    cluster.kill(-1)


def test_where_no_node_fits_the_run_ends_in_a_sentence(two, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def facts():\n    return {'code': 1}\n")
    monkeypatch.syspath_prepend(tmp_path)
    only_here = importlib.import_module("only_here")
    monkeypatch.setattr("sys.path", [p for p in sys.path if p != str(tmp_path)])
    with (
        pytest.raises(UserError, match=r"no node of the cluster fits.*No module named 'only_here'"),
        pool(two, triple, facts=only_here.facts) as workers,
    ):
        workers.run(range(4))


def test_without_any_node_it_waits_says_so_and_goes_on(two, monkeypatch, capfd):
    monkeypatch.setattr("utils.runtime.cluster.WAIT_SECONDS", 0.5)
    said, joined = [], []

    def it_waits():
        said.append(capfd.readouterr().err)
        return "waiting for one" in "".join(said).rpartition("is lost")[2]

    def back_again():
        wait_until(it_waits, "it waits")
        joined.append(two.join("back"))

    def pull_all_plugs(index, result):
        if len(two.there) == 2:
            two.become(0)
            threading.Thread(target=back_again).start()

    def it_says_who_is_at_work():
        workers.run(range(10))  # the others may have been done before it looked around again
        said.append(capfd.readouterr().err)
        return f"1 node with 1 process {AT_WORK}" in "".join(said).rpartition("waiting for one")[2]

    with pool(two, triple) as workers:
        assert workers.run(range(2000), pull_all_plugs) == [3 * job for job in range(2000)]
        wait_until(it_says_who_is_at_work, "it says who is at work")
    os.killpg(joined[0].pid, signal.SIGKILL)


def test_05_leaves_the_same_files_when_a_node_is_killed_and_another_joins(two, tmp_path):
    flags = {"rounds": 1, "laps": 1, "generations": 4, "select_tracks": 0}
    local, spread = tmp_path / "local", tmp_path / "spread"
    for folder in (local, spread):
        runs.prepare(folder, 5)
    undisturbed = runs.Run(local, 5, workers=1, **flags)
    stage = runs.Run(
        spread, 5, env={"RAY_ADDRESS": two.address}, cluster="auto", workers=1000, **flags
    )
    assert stage.wait_until(lambda: f"2 nodes with 2 processes {AT_WORK}" in stage.said)
    two.kill()
    assert stage.wait_until(lambda: "is lost" in stage.said)
    two.add("late")
    assert stage.wait() == 0, stage.said
    assert stage.said.count(f"2 nodes with 2 processes {AT_WORK}") == 2
    assert ", on 2 nodes with 2 processes, 00:00 left" in stage.said
    assert undisturbed.wait() == 0
    assert runs.differences(local, spread) == []


def test_dreams_on_the_cluster_are_those_of_this_machine(two):
    _, rnn = tiny.networks()
    job, setup = dreams(count=2 * DREAMS // 3), {"function": Dreamer(rnn, rnn, 1.0)}
    with Workers(0, OneAtATime, setup) as here:
        expected = dream_all(here, job, job.parameters)
    with Workers(EVERY, OneAtATime, setup, cluster=agreement.cluster(two.address)) as workers:
        assert np.array_equal(dream_all(workers, job, job.parameters), expected)


@pytest.mark.parametrize(
    ("number", "nodes_left"),
    [(signal.SIGTERM, 2), pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow)],
)
def test_a_stage_is_stopped_as_always_while_it_drives_or_waits(two, tmp_path, number, nodes_left):
    runs.prepare(tmp_path / "stage", 5)
    stage = runs.Run(tmp_path / "stage", 5, cluster=two.address, workers=1000, laps=2000)
    assert stage.wait_until(lambda: AT_WORK in stage.said), stage.said
    if not nodes_left:
        two.become(0)
        assert stage.wait_until(lambda: "waiting for one" in stage.said), stage.said
    os.kill(stage.process.pid, number)
    assert stage.wait() == 130
    assert "05_train_controller.py: stopped; what is saved stays" in stage.said
    assert "Traceback" not in stage.said
