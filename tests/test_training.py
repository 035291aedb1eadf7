"""Training that is stopped and goes on, and what it does with a loss that is none."""

import importlib
import platform
import resource

import numpy as np
import pytest
import tiny
import torch
from stages import read_log

from models.mdn_rnn import MDNRNN
from utils.runtime.errors import UserError
from utils.storage.artifacts import load_tensors, save_tensors
from utils.storage.networks import load_vae, save_network
from utils.world_model import latents, replay, training
from utils.world_model.latents import load_latents
from utils.world_model.training import LAST_SHARE, Training, learning_rate, split

EPOCHS, STEPS = 3, 4


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Stopped(BaseException):
    """What a kill is to a test."""


def train(folder, stop_after=None, made_from="data", epochs=EPOCHS, spoil=None):
    """Train a small M on noise; returns it and the learning rates of all steps."""
    torch.manual_seed(0)
    rnn = MDNRNN(3, hidden=5, mixtures=2)
    optimizer = torch.optim.Adam(rnn.parameters(), fused=True)
    progress = Training(rnn, optimizer, folder / "m.pt", {"data": made_from}, epochs)
    rates = []
    for epoch in progress.epochs(7):
        for i in range(STEPS):
            z, action = torch.randn(2, 9, 3), torch.rand(2, 8, 3)
            loss, parts, _ = rnn.loss(z, action, *torch.rand(2, 2, 8), torch.full((2, 8), 1 / 16))
            progress.note(loss * (spoil or 1), parts)
            rates.append(learning_rate(0.01, (epoch + i / STEPS) / epochs))
            optimizer.param_groups[0]["lr"] = rates[-1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        progress.end_epoch({"loss": loss.item()})
        if epoch + 1 == stop_after:
            raise Stopped
    return rnn, rates


def untimed_log(path):
    """The rows of a training's log, less the time that each took."""
    rows = read_log(path)
    assert all(row.pop("seconds") > 0 for row in rows)
    return rows


def same(network, other):
    ours, theirs = network.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_ends(tmp_path, stop_after, capsys):
    whole, rates = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", stop_after)
    resumed, later_rates = train(tmp_path / "stopped")
    assert same(resumed, whole)
    assert later_rates == rates[stop_after * STEPS :]
    assert untimed_log(tmp_path / "stopped" / "m.csv") == untimed_log(tmp_path / "whole" / "m.csv")
    assert f"resuming after epoch {stop_after}" in capsys.readouterr().out


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
def test_a_step_does_not_ask_the_system_for_the_memory_of_the_last_one(tmp_path):
    network = torch.nn.Linear(1, 1)
    Training(network, torch.optim.Adam(network.parameters()), tmp_path / "v.pt", {}, 1)
    tensor = torch.ones(2**20)  # 4 MB

    def pages_taken():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        needed_at_once = [tensor + i for i in range(8)]
        del needed_at_once
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    taken = [pages_taken() for _ in range(9)]
    all_anew = 3 * 8 * tensor.nbytes / resource.getpagesize()
    assert sum(taken[6:]) < all_anew / 4  # a heap in pieces may still ask for one or two tensors


def test_weights_alone_would_not_be_enough(tmp_path):
    """The test above sees it when Adam's memory is lost."""
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", 1)
    path = tmp_path / "stopped" / "m_training.pt"
    saved = torch.load(path, weights_only=True)
    for name, tensor in saved["weights"].items():
        if name.endswith("exp_avg"):
            tensor.zero_()
    save_tensors(
        path, "training state", saved["weights"], epoch=1,
        history=saved["history"], made_from=saved["made_from"],
    )  # fmt: skip
    assert not same(train(tmp_path / "stopped")[0], whole)


@pytest.mark.parametrize("lost", ["write_log", "training_curves"])
def test_an_epoch_whose_log_or_picture_fails_is_not_lost(tmp_path, monkeypatch, lost):
    """The state is saved first, and a resumed training brings what is made from it up to date."""
    calls = []
    plain = getattr(training, lost)

    def die_in_the_last_epoch(*arguments):
        calls.append(arguments)
        if len(calls) == EPOCHS:
            raise Stopped
        plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, lost, die_in_the_last_epoch)
        with pytest.raises(Stopped):
            train(tmp_path)
    _, rates = train(tmp_path)
    assert rates == []
    assert [row["epoch"] for row in read_log(tmp_path / "m.csv")] == [1, 2, 3]
    assert (tmp_path / "m.png").exists()


def test_the_state_of_other_data_is_not_gone_on_with(tmp_path, capsys):
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "other", 2, made_from="other data")
    fresh, _ = train(tmp_path / "other")
    assert same(fresh, whole)
    assert "other data or settings: starting over" in capsys.readouterr().out
    assert len(read_log(tmp_path / "other" / "m.csv")) == EPOCHS


def test_a_damaged_state_is_named_and_training_starts_over(tmp_path, capsys):
    with pytest.raises(Stopped):
        train(tmp_path, 2)
    path = tmp_path / "m_training.pt"
    path.write_bytes(path.read_bytes()[:-50])
    train(tmp_path)
    said = capsys.readouterr().out
    assert "m_training.pt" in said
    assert "Starting over" in said
    assert [row["epoch"] for row in read_log(tmp_path / "m.csv")] == [1, 2, 3]


@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training_and_spares_what_is_saved(tmp_path, spoil):
    with pytest.raises(Stopped):
        train(tmp_path, 1)
    state = (tmp_path / "m_training.pt").read_bytes()
    with pytest.raises(UserError, match=r"epoch 2.*lower LEARNING_RATE"):
        train(tmp_path, spoil=spoil)
    assert (tmp_path / "m_training.pt").read_bytes() == state


def test_the_learning_rate_falls_along_a_cosine_to_its_last_share(tmp_path):
    _, rates = train(tmp_path)
    share = np.arange(EPOCHS * STEPS) / (EPOCHS * STEPS)
    cosine = (1 + np.cos(np.pi * share)) / 2
    assert np.allclose(rates, 0.01 * (LAST_SHARE + (1 - LAST_SHARE) * cosine))
    assert rates[0] == 0.01


def test_finish_removes_the_state_and_the_log_stays(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, 1)
    rnn = MDNRNN(3, hidden=5, mixtures=2)
    optimizer = torch.optim.Adam(rnn.parameters())
    Training(rnn, optimizer, tmp_path / "m.pt", {"data": "data"}, EPOCHS).finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "m.png"]


def test_every_twentieth_episode_is_kept_for_validation_and_a_single_one_serves_for_both():
    assert split(range(41)) == ([i for i in range(41) if i % 20], [0, 20, 40])
    assert split(["only"]) == (["only"], ["only"])


def test_a_network_that_is_not_finite_is_not_saved(tmp_path):
    path = tmp_path / "mdn_rnn.pt"
    _, rnn = tiny.networks()
    mark = save_network(path, "M", rnn, {})
    rnn.outcome.bias[0] = float("nan")
    with pytest.raises(UserError, match=r"M holds NaN .*LEARNING_RATE"):
        save_network(path, "M", rnn, {})
    assert load_tensors(path, "M")["fingerprint"] == mark


# The stages


V = {"latent_dim": 4, "epochs": 2, "batch": 32, "pool": 2, "workers": 0, "threads": 1}


def test_v_stopped_after_its_first_epoch_ends_where_an_undisturbed_v_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_episodes(tmp_path / "data" / "rollouts", [70, 60, 80])
    tiny.stage(2, **V, checkpoints="whole")
    script = importlib.import_module("02_train_vae")
    plain, calls = script.batches_of_frames, []

    def stop_in_the_second_epoch(*arguments, **named):
        calls.append(arguments)
        for i, frames in enumerate(plain(*arguments, **named)):
            if len(calls) == 3 and i == 2:  # calls 1 and 2 are epoch 1 and its validation
                raise Stopped
            yield frames

    with monkeypatch.context() as patch:
        patch.setattr(script, "batches_of_frames", stop_in_the_second_epoch)
        with pytest.raises(Stopped):
            tiny.stage(2, **V, checkpoints="stopped")
    assert not (tmp_path / "stopped" / "vae.pt").exists()
    said = tiny.stage(2, **V, checkpoints="stopped")
    assert "resuming after epoch 1" in said
    (whole, header), (stopped, other) = load_vae("whole"), load_vae("stopped")
    assert same(stopped, whole)
    assert other["fingerprint"] == header["fingerprint"]
    assert untimed_log("whole/vae.csv") == untimed_log("stopped/vae.csv")
    assert not list(tmp_path.glob("*/*_training.pt"))


@pytest.mark.parametrize("lost_with", ["_picture", "Training.finish"])
def test_a_v_that_was_stopped_at_its_very_end_is_completed(tmp_path, monkeypatch, lost_with):
    monkeypatch.chdir(tmp_path)
    tiny.save_episodes(tmp_path / "data" / "rollouts", [70, 60])

    def stop(*_):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(f"02_train_vae.{lost_with}", stop)
        with pytest.raises(Stopped):
            tiny.stage(2, **V)
    _, header = load_vae("checkpoints")
    assert "saved" in tiny.stage(2, **V)
    assert load_vae("checkpoints")[1]["fingerprint"] == header["fingerprint"]
    names = ["vae.csv", "vae.png", "vae.pt", "vae_frames.png"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names
    assert "already" in tiny.stage(2, **V)


def test_a_v_that_diverges_stops_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_episodes(tmp_path / "data" / "rollouts", [70, 60])
    script = importlib.import_module("02_train_vae")
    monkeypatch.setattr(script, "_loss", lambda vae, *_: (vae.mu.bias.sum() * float("nan"), {}))
    with pytest.raises(UserError, match="LEARNING_RATE"):
        tiny.stage(2, **V)
    assert not (tmp_path / "checkpoints" / "vae.pt").exists()


def test_a_batch_larger_than_all_frames_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_episodes(tmp_path / "data" / "rollouts", [9, 8])
    with pytest.raises(UserError, match="BATCH"):
        tiny.stage(2, **V | {"batch": 100})
    assert not (tmp_path / "checkpoints" / "vae.pt").exists()


# Dreams


def test_a_drive_shorter_than_what_m_watches_is_filmed_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_episodes(tmp_path / "data" / "rollouts", [12, 9])
    vae, rnn = tiny.networks()
    tiny.save_networks("checkpoints")
    tiny.stage(3, workers=0)
    episodes = [load_latents(path) for path in (tmp_path / "data" / "latents").glob("*.npz")]
    replay.replay_film(tmp_path / "x.mp4", vae, rnn, episodes, temperature=0.5)
    assert (tmp_path / "x.mp4").exists()


def drive(frames, seed):
    """Made-up latents of so many actions."""
    rng = np.random.default_rng(seed)
    mu = rng.normal(size=(frames + 1, tiny.LATENT_DIM)).astype(np.float32)
    action, reward = rng.random((frames, 3), np.float32), np.ones(frames, np.float32)
    return latents.Latents(mu, mu, action, reward, np.zeros(frames, bool))


def test_a_dream_watches_first_and_then_follows_from_its_own_latents():
    _, rnn = tiny.networks()
    real = drive(30, seed=0)
    imagined = replay.replay(rnn, real, watched=10, temperature=0)
    assert imagined.shape == (30, tiny.LATENT_DIM)
    assert np.array_equal(imagined[:10], real.mu[:10])
    assert not np.allclose(imagined[10:], real.mu[10:30])

    unseen = real.mu.copy()
    unseen[10:] = 99.0
    assert np.array_equal(replay.replay(rnn, real._replace(mu=unseen), 10, 0), imagined)

    other = real.action.copy()
    other[20] = 1 - other[20]
    changed = replay.replay(rnn, real._replace(action=other), 10, 0)
    assert np.array_equal(changed[:21], imagined[:21])  # action[20] first shows in frame 21
    assert not np.allclose(changed[21], imagined[21])


def test_a_dream_is_the_prediction_of_m_fed_back():
    _, rnn = tiny.networks()
    real = drive(8, seed=1)
    imagined = torch.from_numpy(replay.replay(rnn, real, watched=4, temperature=0))
    # Teacher forcing on the dream itself must predict the dream.
    prediction, _ = rnn(imagined[None, :-1], torch.from_numpy(real.action)[None, :-1])
    likeliest = prediction.log_pi.argmax(-1, keepdim=True)
    following = prediction.mean.gather(-1, likeliest)[0, :, :, 0]
    torch.testing.assert_close(imagined[4:], following[3:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("errors", "still", "holds"),
    [
        ([1.0] * 300, [2.0] * 300, 300),
        ([3.0] * 300, [2.0] * 300, 49),
        ([1.0] * 100 + [3.0] * 200, [2.0] * 300, 124),  # half of the last second is worse
        ([1.0] * 100 + [9.0] * 2 + [1.0] * 200, [2.0] * 302, 302),  # two bad frames are none
        ([5.0] * 20, [1.0] * 20, 20),
        ([], [], 0),
    ],
)
def test_a_dream_holds_as_long_as_it_is_nearer_than_if_nothing_had_changed(errors, still, holds):
    assert replay.holds_for(np.array(errors), np.array(still)) == holds


def test_the_film_of_a_dream_ends_where_it_no_longer_holds(tmp_path, monkeypatch, capsys):
    vae, rnn = tiny.networks()
    real = drive(300, seed=0)
    other = np.concatenate([real.mu[:200], real.mu[:100]])  # a dream that is true for 150 frames
    monkeypatch.setattr(replay, "replay", lambda *_: other)
    shown, drawn = [], []
    monkeypatch.setattr(replay, "write_video", lambda path, film: shown.extend(film))
    monkeypatch.setattr(replay, "replay_frame", lambda *frame: drawn.append(frame))
    replay.replay_film(tmp_path / "x.mp4", vae, rnn, [({}, real)], temperature=0.5)
    errors = [(frame[6][0], frame[6][1]) for frame in drawn[50:]]
    assert 150 < len(errors) < 250
    assert all(of_dream == 0 < of_still for of_dream, of_still in errors[:150])
    assert errors[151][0] > 0
    assert {frame[5] for frame in drawn} == {f"{len(errors) / 50:.2f} s"}
    assert f"holds for {len(errors) / 50:.2f} s, of 5.00" in capsys.readouterr().out
