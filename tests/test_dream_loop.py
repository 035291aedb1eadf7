"""The loop of dreaming, driving and learning: killed anywhere, it ends where it would have."""

import shutil

import numpy as np
import pytest
import tiny

from utils.evolution import own_drives
from utils.evolution.search import Search
from utils.storage.artifacts import load_arrays, load_tensors
from utils.world_model import latents
from utils.world_model.training import Training

HOME = {"checkpoints": "checkpoints/dream"}
OWN = {"rollouts": "data/dream/rollouts", "latents": "data/dream/latents"}
ROUNDS, DRIVES, GENERATIONS = 2, 3, 2


class KilledError(BaseException):
    """As good as a SIGKILL: whatever was not on disk by then is lost."""


def one_round(number):
    tiny.stage(
        5, world="dream", start="zeros", sigma=0.1, population=6, starts=4, horizon=10, workers=0,
        generations=GENERATIONS * number, **HOME,
    )  # fmt: skip
    tiny.stage(1, agent_episodes=DRIVES * number, workers=0, **HOME)
    tiny.stage(3, workers=0, **OWN, **HOME)
    tiny.stage(4, drives=DRIVES * number, old=1, earlier=2, length=50, workers=0, threads=1, **HOME)


def loop():
    for number in range(1, ROUNDS + 1):
        one_round(number)


@pytest.fixture
def home(project):
    """A folder with the V and M of the finished one, in which an agent is to learn by dreaming."""
    (project / "checkpoints" / "dream").mkdir()
    for name in ("vae.pt", "mdn_rnn.pt"):
        shutil.copy(project / "checkpoints" / name, project / "checkpoints" / "dream" / name)
    return project


def arrays(home):
    """Every array that the loop has left, by file and name."""
    found = {}
    for path in sorted(home.glob("data/dream/*/*.npz")):
        found |= {(path.name, path.parent.name, k): v for k, v in _arrays(path).items()}
    state = load_arrays("checkpoints/dream/controller_evolution.npz", "evolution")[1]
    found |= {("evolution", name): array for name, array in state.items()}
    weights = load_tensors("checkpoints/dream/mdn_rnn_dream.pt", "M")["weights"]
    return found | {("M", name): tensor.numpy() for name, tensor in weights.items()}


def _arrays(path):
    return load_arrays(path, "rollout" if path.parent.name == "rollouts" else "latents")[1]


def killed_at(patch, owner, name, call):
    """The `call`-th use of `owner.name` is the last thing that happens."""
    kept, calls = getattr(owner, name), []

    def dies(*args, **kwargs):
        calls.append(None)
        result = kept(*args, **kwargs)
        if len(calls) == call:
            raise KilledError
        return result

    patch.setattr(owner, name, dies)


def test_killed_in_any_stage_of_any_round_the_loop_ends_where_it_would_have(home, monkeypatch):
    loop()
    expected = arrays(home)
    shutil.rmtree("data/dream")
    for path in home.glob("checkpoints/dream/*"):
        if path.name not in ("vae.pt", "mdn_rnn.pt"):
            path.unlink()

    deaths = [  # the calls are counted from the loop's first round each time
        (Search, "save", 2), (own_drives, "save", 2), (latents, "save_arrays", 1),
        (Training, "end_epoch", 1), (Search, "save", 4), (Training, "end_epoch", 1),
    ]  # fmt: skip
    for owner, name, call in deaths:
        with monkeypatch.context() as patch:
            killed_at(patch, owner, name, call)
            with pytest.raises(KilledError):
                loop()
    loop()
    found = arrays(home)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


@pytest.mark.slow
def test_the_loop_run_again_changes_nothing(home):
    loop()
    before = arrays(home)
    times = {p: p.stat().st_mtime_ns for p in home.glob("data/dream/*/*.npz")}
    loop()
    assert {p: p.stat().st_mtime_ns for p in home.glob("data/dream/*/*.npz")} == times
    for name, array in arrays(home).items():
        assert np.array_equal(before[name], array), name
