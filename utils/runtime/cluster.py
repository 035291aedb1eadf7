"""Workers on the nodes of a Ray cluster. Nodes may come and go; Ray itself is imported here alone,
and only where a cluster is asked for.

Ray starts the processes and carries the messages, and nothing else: which job goes where, and what
becomes of the jobs of the dead, is the pool's business as it is on one machine. So each worker is
an actor that Ray neither restarts nor retries, bound to the node that it was started for. The head
alone has to stay: a minute after it is gone, Ray ends the main process.
"""

import logging
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

from utils.runtime.errors import UserError
from utils.runtime.worker import Carrier, Said, Worker

INSTALL = "pip install ray==2.60.0"  # all that is needed; ray[default] adds a dashboard
LOOK_SECONDS = 1.0  # between two looks at which nodes are there
CONNECT_SECONDS = 10.0
WAIT_SECONDS = 10.0  # without any worker; then it is said what is waited for
EVERY = 1_000_000  # workers: as many as the cluster has processors

Facts = dict[str, Any]


class Cluster(NamedTuple):
    """Which cluster, and what its nodes have to have in common with this machine."""

    address: str  # "auto" for $RAY_ADDRESS or the one on this machine, or HOST:PORT
    facts: Callable[[], Facts]  # compared by name; importable
    pass_on: Sequence[str] = ()  # environment variables that hold there as they do here

    def carrier(self, count: int, recipe: bytes, heard: "queue.SimpleQueue[Said]") -> "Nodes":
        """What starts workers there."""
        return Nodes(_connect(self.address), self, count, recipe, heard)


class Node(NamedTuple):
    """One machine of the cluster, for as long as it stays."""

    id: str
    name: str
    processors: int


class Nodes(Carrier):
    """The carrier of workers on the nodes: one for each of their processors, up to `count`."""

    patience = LOOK_SECONDS

    def __init__(
        self, ray: Any, cluster: Cluster, count: int, recipe: bytes,
        heard: "queue.SimpleQueue[Said]",
    ) -> None:  # fmt: skip
        self._ray = ray
        self._count = count
        self._heard = heard
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self._actor = ray.remote(
            num_cpus=1, max_restarts=0, max_task_retries=0, concurrency_groups={"hear": 1}
        )(Actor)
        self._recipe = ray.put(recipe)  # a node fetches it once, for all of its workers
        here = {name: os.environ[name] for name in cluster.pass_on if name in os.environ}
        self._home = pickle.dumps((os.getcwd(), sys.path, here))
        self._facts = pickle.dumps((cluster.facts, cluster.facts()))
        self._nodes: dict[str, Node] = {}
        self._refused: dict[str, str] = {}  # by the node's id, why
        self._has_worked = False
        self._next_look = self._last_at_work = -float("inf")
        self.wanted = 0
        self._at_work = self._said_at_work = (0, 0)  # nodes, processes
        self._waits = False

    def another(self, workers: Sequence["OnNode"]) -> "OnNode | None":
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look(workers)
        if len(workers) >= self.wanted:
            return None
        there = Counter(worker.node.id for worker in workers)
        node = max(self._usable(), key=lambda node: node.processors - there[node.id])
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        actor = self._actor.options(scheduling_strategy=strategy(node.id, soft=False)).remote(
            self._recipe, self._home, self._facts
        )
        return OnNode(self._ray, actor, node, self._heard)

    def is_lost(self, worker: "OnNode") -> bool:
        self._look_at_nodes()
        return worker.node.id not in self._nodes

    def refuse(self, worker: "OnNode", why: str) -> None:
        node = worker.node
        if node.id not in self._refused:
            self._refused[node.id] = f"node {node.name} is left out: {why}."
            print(self._refused[node.id], file=sys.stderr)
        self._look_at_nodes()

    def described(self) -> str:
        return f", on {_counted(*self._at_work)}"

    def _usable(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.id not in self._refused]

    def _look(self, workers: Sequence["OnNode"]) -> None:
        """See which nodes and workers there are, and tell the user what has changed."""
        self._look_at_nodes()
        if self._nodes and not self._usable() and not self._has_worked:
            raise UserError("no node of the cluster fits: " + " ".join(self._refused.values()))
        ready = [worker.node.id for worker in workers if worker.ready]
        self._at_work, now = (len(set(ready)), len(ready)), time.monotonic()
        self._has_worked |= bool(ready)
        if self._last_at_work < 0 or any(worker.reached for worker in workers):
            self._last_at_work = now
        if ready and (self._waits or len(ready) == self.wanted):
            if self._at_work != self._said_at_work:
                print(f"{_counted(*self._at_work)} of the cluster are at work", file=sys.stderr)
            self._said_at_work, self._waits = self._at_work, False
        elif now - self._last_at_work > WAIT_SECONDS and not self._waits:
            self._waits, self._said_at_work = True, (0, 0)
            print(
                "no node of the cluster has a free processor: waiting for one (Ctrl-C ends it, "
                "and what is saved stays)", file=sys.stderr,
            )  # fmt: skip

    def _look_at_nodes(self) -> None:
        alive = {
            node["NodeID"]: Node(
                node["NodeID"], f"{node['NodeName']} ({node['NodeManagerHostname']})",
                int(node["Resources"].get("CPU", 0)),
            )
            for node in self._ray.nodes() if node["Alive"]
        }  # fmt: skip
        for node in self._nodes.values():
            if node.id not in alive:
                print(f"node {node.name} is lost; others do its jobs again", file=sys.stderr)
                self._said_at_work = (0, 0)  # even as many as before are news then
        self._nodes = {id: node for id, node in alive.items() if node.processors}
        self.wanted = min(self._count, sum(node.processors for node in self._usable()))


class OnNode(Worker):
    """One actor. It is asked for its next message as soon as one has come."""

    def __init__(self, ray: Any, actor: Any, node: Node, heard: "queue.SimpleQueue[Said]") -> None:
        super().__init__()
        self._ray, self._actor, self.node = ray, actor, node
        self._give = actor.give
        self._hear = actor.hear.options(concurrency_group="hear")  # `give` does not wait for it
        self._heard = heard
        self._end_of_it: BaseException | None = None
        self.name = f"a worker process on node {node.name}"
        self.reached, self.born = False, float("inf")  # it may have to wait for a processor
        self._ask()

    def begin(self, process: int) -> None:
        super().begin(process)
        self.name = f"worker process {process} on node {self.node.name}"

    def read(self, message: bytes) -> Any:
        self._ask()
        return super().read(message)

    def send(self, message: bytes) -> None:
        self._give.remote(message)

    def epitaph(self) -> str:
        lines = str(self._end_of_it).strip().splitlines()
        return f"has died ({lines[-1].strip() if lines else type(self._end_of_it).__name__})"

    def kill(self) -> None:
        with suppress(Exception):  # it may be dead, or Ray itself
            self._ray.kill(self._actor)

    def end(self) -> None:
        self.kill()

    def _ask(self) -> None:
        self._hear.remote().future().add_done_callback(self._note)

    def _note(self, answer: "Future[bytes]") -> None:
        """In a thread of Ray's: a message has come, or none will."""
        self._end_of_it = answer.exception()
        self._heard.put((self, None if self._end_of_it else answer.result()))


class Actor:
    """What runs in the actor's process: a worker's life, with two queues for a pipe.

    It is sent there as code, so that a node that lacks ours can say so.
    """

    def __init__(self, recipe: bytes, home: bytes, facts: bytes) -> None:
        self._inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._inbox.put(recipe)
        self._say("begun", os.getpid())
        threading.Thread(target=self._live, args=(home, facts), daemon=True).start()

    def _live(self, home: bytes, facts: bytes) -> None:
        folder, path, environment = pickle.loads(home)
        with suppress(OSError):  # it does without the folder unless something in it is needed
            os.chdir(folder)
        sys.path += [entry for entry in path if entry not in sys.path]
        os.environ.update(environment)
        try:
            from utils.runtime import child

            child.limit_to_one_thread()  # before the libraries load
            unlike = _unlike(facts)
        except Exception as error:  # whatever other code there, or none, comes to
            unlike = f"{error} (is the project of {folder} there, too, and the same?)"
        if unlike:
            self._say("unfit", unlike)
        else:
            child.live(self)

    def _say(self, kind: str, content: Any) -> None:
        self.send_bytes(pickle.dumps((kind, content, time.process_time())))

    def recv_bytes(self) -> bytes:
        return self._inbox.get()

    def send_bytes(self, message: bytes, /) -> None:
        self._outbox.put(message)

    def give(self, message: bytes) -> None:
        self._inbox.put(message)

    def hear(self) -> bytes:
        """The next message, once there is one."""
        return self._outbox.get()


def _unlike(facts: bytes) -> str:
    """The facts of this machine that are others than at the main process; "" if there is none."""
    find, wanted = pickle.loads(facts)
    found = find()
    return ", ".join(
        f"{name} is {found.get(name)} there and {fact} here"
        for name, fact in wanted.items() if found.get(name) != fact
    )  # fmt: skip


def _counted(nodes: int, processes: int) -> str:
    return f"{nodes} node{'s' * (nodes != 1)} with {processes} process{'es' * (processes != 1)}"


def _connect(address: str) -> Any:
    """Ray, joined to its cluster at the address. What Ray changes in this process is put back."""
    hook, on_sigterm = sys.excepthook, signal.getsignal(signal.SIGTERM)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UserError(f"a cluster (--cluster) needs Ray: {error}; {INSTALL}.") from error
    finally:
        sys.excepthook = hook
    if ray.is_initialized():
        return ray
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    try:
        if address != "auto":  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except SystemExit:  # Ray's way to take SIGTERM
        raise KeyboardInterrupt from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster is to be had at {address!r} (--cluster): "
            f"{str(error).strip().splitlines()[0]}; start one with: ray start --head"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)
    return ray
