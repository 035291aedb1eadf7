"""What machines of a cluster have to agree on, and a cluster where there is no Ray."""

import subprocess
import sys

import nodes
import numpy as np
import pytest
import tiny
from test_workers import triple

from utils.racing import agreement
from utils.runtime.cluster import EVERY, Cluster
from utils.runtime.command_line import address, processes, settings
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.runtime.workers import OneAtATime, Workers

WORKERS = cores()  # processes
CLUSTER = ""  # of Ray


def test_who_asks_for_no_cluster_never_loads_ray(tmp_path):
    (tmp_path / "ray.py").write_text("raise SystemExit('Ray was loaded')")
    script = (
        f"import sys\nsys.path[:0] = {[str(tmp_path), str(tiny.ROOT), str(tiny.ROOT / 'tests')]}\n"
        "import importlib, tiny\n"
        "for name in tiny.SCRIPTS: importlib.import_module(name)\n"
        "from test_workers import pool, triple\n"
        "if __name__ == '__main__':\n"
        "    with pool(2, triple) as workers: print(workers.run(range(3)), 'ray' in sys.modules)\n"
    )
    (tmp_path / "main.py").write_text(script)
    command = [sys.executable, str(tmp_path / "main.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[0, 3, 6] False\n", done.stderr


def test_a_cluster_without_ray_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    hook = sys.excepthook
    with pytest.raises(UserError, match=r"--cluster.* needs Ray: .*pip install ray=="):
        Workers(2, OneAtATime, {"function": triple}, cluster=Cluster("auto", nodes.nothing))
    assert sys.excepthook is hook


@pytest.mark.parametrize(
    ("flags", "workers"),
    [([], cores()), (["--workers", "3"], 3), (["--cluster", "auto"], EVERY),
     (["--cluster", "head-1:6379", "--workers", str(cores())], cores())],
)  # fmt: skip
def test_workers_are_all_processors_unless_it_is_said_otherwise(flags, workers):
    found = settings(globals(), flags, WORKERS=processes(), CLUSTER=address())
    assert vars(found) == {"WORKERS": workers, "CLUSTER": flags[1] if "--cluster" in flags else ""}


@pytest.mark.parametrize("text", ["head", "ray://head:10001", "head:", "a b:1"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(UserError, match=r"CLUSTER .*HOST:PORT, not"):
        settings(globals(), ["--cluster", text], WORKERS=processes(), CLUSTER=address())


def test_machines_agree_to_the_last_digit_of_a_trial_race(monkeypatch):
    found = agreement.facts()
    agreement.trial.cache_clear()
    assert agreement.facts() == found
    agreement.trial.cache_clear()
    monkeypatch.setattr("utils.racing.agent.squash", lambda raw: np.tanh(raw) * (1 + 1e-6))
    assert agreement.trial() != found["what a trial race comes to"]
    agreement.trial.cache_clear()


def test_code_that_differs_has_another_mark(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(agreement, "ROOT", tmp_path)
    marks = {agreement.code("models")}
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "models" / "a.py").write_text(text)
        marks.add(agreement.code("models"))
    assert len(marks) == 3


def test_the_user_may_ask_for_float32_on_all_machines(monkeypatch):
    monkeypatch.setenv("ARITHMETIC", "float32")
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: True, raising=False)
    assert agreement.arithmetic() == "float32"
    assert "ARITHMETIC" in agreement.cluster("auto").pass_on
    monkeypatch.delenv("ARITHMETIC")
    assert agreement.arithmetic() == "bfloat16"


def test_a_folder_that_workers_write_into_has_to_be_common(tmp_path):
    found = agreement.cluster("auto", str(tmp_path)).facts()
    assert found[f"the folder {tmp_path}"] == "the common one"
    for mark in tmp_path.iterdir():
        mark.unlink()  # as on a machine that has another folder there
    assert agreement.cluster("", str(tmp_path)) is None
    assert not list(tmp_path.iterdir())
