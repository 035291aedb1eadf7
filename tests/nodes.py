"""A Ray cluster for the tests, all on this machine, whose nodes can be killed; loads in no time."""

import os
import signal
import subprocess
import sys
import time

STORE = 80_000_000  # bytes of each node's object store
NOTICED_SOON = {  # a silent node is given up after a second, not half a minute
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 300,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """A head that drives nothing, and nodes of one processor each."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**head, "_system_config": NOTICED_SOON}
        )
        self.address = self._cluster.address
        self.there = []

    def add(self, name, **environment):
        """A node of that name, with such an environment."""
        node = self._cluster.add_node(
            num_cpus=1, object_store_memory=STORE, node_name=name, env_vars=environment
        )
        self.there.append(node)

    def join(self, name):
        """One more, as a user lets it join: a process group of its own, to be killed at the end."""
        command = [
            os.path.join(os.path.dirname(sys.executable), "ray"), "start", "--block",
            f"--address={self.address}", f"--node-name={name}", "--num-cpus=1",
            f"--object-store-memory={STORE}", "--disable-usage-stats",
        ]  # fmt: skip
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

    def kill(self, index=0):
        """As if somebody pulled the plug: nothing of the node has time to say anything."""
        raylet = self.there.pop(index).all_processes["raylet"][0].process.pid
        with open(f"/proc/{raylet}/task/{raylet}/children") as file:
            children = list(map(int, file.read().split()))
        for pid in (raylet, *children):
            os.kill(pid, signal.SIGKILL)

    def become(self, count):
        """As many nodes as that, which are all like this machine."""
        while len(self.there) > count:
            self.kill(-1)
        while len(self.there) < count:
            self.add(f"node-{time.monotonic_ns()}")

    def close(self):
        import ray

        ray.shutdown()
        self._cluster.shutdown()


# What the nodes are asked


def nothing():
    return {}


def version():
    return {"torch": os.environ.get("ODD", "2.13.0")}


def how_odd(job):
    time.sleep(job)
    return os.environ.get("ODD", "not at all")
