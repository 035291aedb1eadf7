"""Which versions, processors and commit a result is said to come from."""

import importlib.metadata
import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import SCRIPTS, networks

from models.inference import Encoder, arithmetic
from utils.runtime import cores as cores_file
from utils.runtime.cores import cores
from utils.storage import provenance
from utils.storage.provenance import commit, game, is_of_this_game, machine, version

# Versions


@pytest.fixture
def installed(monkeypatch):
    """A function that decides which distributions there are."""

    def decide(**versions):
        def look_up(name):
            if name.replace("-", "_") not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name.replace("-", "_")]

        monkeypatch.setattr(importlib.metadata, "version", look_up)

    return decide


def test_a_package_may_be_installed_under_its_other_names(installed):
    installed(box2d_py="2.3.8", opencv_python_headless="5.0", pygame="2.6", gymnasium="1.4.0")
    assert game() == {"gymnasium": "1.4.0", "box2d": "2.3.8"}
    found = provenance.provenance()
    assert (found["opencv-python"], found["pygame-ce"], found["cma"]) == ("5.0", "2.6", "unknown")


def test_nothing_installed_is_unknown_and_no_error(installed):
    installed()
    assert version("opencv-python") == "unknown"
    assert set(game().values()) == {"unknown"}


def test_an_artefact_that_names_no_versions_is_of_no_known_game():
    assert is_of_this_game({"versions": game()})
    assert not is_of_this_game({"versions": {"gymnasium": "9.9.9"}})
    assert not is_of_this_game({})


# The commit


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _a_new_run():
    commit.cache_clear()
    yield
    commit.cache_clear()


@pytest.fixture
def inside_another_repository(tmp_path, monkeypatch):
    """This project's root, unpacked in a folder of another one's."""
    root = tmp_path / "unpacked"
    root.mkdir()
    (root / "x.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "another project")
    monkeypatch.setattr(provenance, "ROOT", root)
    return root


def test_the_commit_of_another_repository_is_not_ours(inside_another_repository):
    assert commit() == "unknown"
    git(inside_another_repository, "init", "-q")
    commit.cache_clear()
    assert commit() == "unknown"


def test_our_own_commit_is_told_and_whether_the_code_differs(inside_another_repository):
    root = inside_another_repository
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "ours")
    head = git(root, "rev-parse", "--short=12", "HEAD")
    assert commit() == head
    (root / "x.py").write_text("changed")
    assert commit() == head, "what is changed later is not what runs"
    commit.cache_clear()
    assert commit() == f"{head} with changes"


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit() == "unknown"


# Processors


@pytest.fixture
def allowed(monkeypatch, tmp_path):
    """A function that sets the affinity, and the control group as files: {path: text}."""

    def decide(processors, files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), False)
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        monkeypatch.setattr(cores_file, "CONTROL_GROUP", tmp_path)
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)

    return decide


def test_cores_follow_the_affinity(allowed):
    allowed(3, {})
    assert cores() == 3
    assert ", 3 cores, " in machine()


@pytest.mark.parametrize(
    ("quota", "processors"),
    [("150000 100000", 2), ("400000 100000", 4), ("1000 100000", 1), ("max 100000", 8)],
)
def test_cores_follow_a_containers_quota(allowed, quota, processors):
    allowed(8, {"cpu.max": quota})
    assert cores() == processors


@pytest.mark.parametrize(("quota", "processors"), [("300000\n", 3), ("-1\n", 8)])
def test_a_quota_of_the_older_kind_counts_and_minus_one_is_none(allowed, quota, processors):
    allowed(8, {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000\n"})
    assert cores() == processors


def test_a_system_without_affinity_counts_its_processors(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores_file, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_begins_with_the_cores_that_it_may_use(name):
    done = subprocess.run(["grep", "-E", "^(WORKERS|THREADS) = ", f"{name}.py"],
                          cwd=provenance.ROOT, capture_output=True, text=True)  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines
    assert all("= cores()  #" in line for line in lines)


# Arithmetic


def test_a_pytorch_without_onednn_encodes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert arithmetic() == "float32"
    vae, _ = networks()
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8))
    mu, _ = Encoder(vae).encode(frames)
    torch.testing.assert_close(mu, vae.encode(frames)[0])
