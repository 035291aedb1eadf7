"""Driving in M's dream: the world against M itself, dreams against a plain loop, their starts."""

import math

import numpy as np
import pytest
import tiny
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from models.controller import squash, unpack
from models.dream import DreamWorld, Luck
from models.inference import arithmetic
from models.mdn_rnn import MDNRNN
from utils.evolution.dreaming import (
    DREAMS,
    LOST,
    PACE_KEPT,
    Dreamer,
    Dreams,
    dream,
    dreaming_workers,
)
from utils.runtime.errors import UserError
from utils.storage.artifacts import save_arrays
from utils.storage.provenance import game
from utils.world_model.latents import Latents
from utils.world_model.mirror import mirror_image
from utils.world_model.starts import (
    BEFORE,
    FRAMES,
    NEWEST,
    Moments,
    Starts,
    load_starts,
    save_starts,
    start_at,
    together,
    warm_up,
)

Z, K, HORIZON = tiny.LATENT_DIM, 2, 12
V_HEADER = {"fingerprint": "v", "sizes": {"latent_dim": Z}, "folder": "checkpoints"}


def lucky(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, Z, K, generator=generator)
    return Luck(-torch.log(-torch.log(uniform)), torch.randn(count, Z, generator=generator))


def drive(frames, seed=0, reward=None):
    """Made-up latents of so many actions."""
    rng = np.random.default_rng(seed)
    mu, logvar = rng.normal(size=(2, frames + 1, Z)).astype(np.float32)
    rewards = np.ones(frames, np.float32) if reward is None else np.asarray(reward, np.float32)
    return Latents(mu, logvar, rng.random((frames, 3), np.float32), rewards, np.zeros(frames, bool))


def save_drive(path, latents, vae="v"):
    origin = {"rollout": "r", "vae": vae, "arithmetic": "float32"}
    images = {path: origin, mirror_image(path): origin | {"mirrored": True}}
    for target, made_from in images.items():
        save_arrays(target, "latents", latents._asdict(), made_from=made_from, versions=game())
    return path


def some_starts(count=3):
    return together([start_at(drive(120, seed), 10 + 30 * seed % 110) for seed in range(count)])


def dreams(count=5, starts=3, horizon=HORIZON):
    parameters = np.stack([tiny.lively(seed) for seed in range(count)])
    seeds, which = [(7, s) for s in range(starts)], np.tile(np.arange(starts), (count, 1))
    return Dreams(parameters, some_starts(starts), seeds, which, horizon)


def dream_all(workers, job, parameters, groups=None):
    """By all of them from all of the job's starts, or by each group from its own."""
    groups = [range(len(parameters))] if groups is None else groups
    return dream(workers, parameters, groups, job.starts, job.seeds, job.horizon)


# The world


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.5])
def test_the_world_moves_as_m_predicts(temperature):
    _, rnn = tiny.networks()
    world, luck = DreamWorld(rnn, temperature), lucky(6)
    z, action, state = torch.randn(6, Z), torch.rand(6, 3), None
    h, c = world.fresh(6)
    for _ in range(3):
        prediction, state = rnn(z.unsqueeze(1), action.unsqueeze(1), state)
        h, c = world.remember(z, action, h, c)
        imagined = world.imagine(h, luck)
        torch.testing.assert_close(h, state[0][0])
        log_pi, mean, log_sigma = (x[:, 0] for x in prediction[:3])
        chance = log_pi / temperature + luck.gumbel if temperature else log_pi
        chosen = chance.argmax(-1, keepdim=True)
        mean, sigma = (x.gather(-1, chosen)[..., 0] for x in (mean, log_sigma.exp()))
        expected = mean + luck.normal * sigma * math.sqrt(temperature)
        torch.testing.assert_close(imagined.z, expected)
        torch.testing.assert_close(imagined.reward, prediction.reward[:, 0])
        torch.testing.assert_close(imagined.ended, prediction.terminated[:, 0].sigmoid())
        z = imagined.z


def test_what_the_world_draws_is_distributed_as_the_mixture():
    """The temperature divides the mixtures' logits and multiplies their variance."""
    torch.manual_seed(0)
    rnn = MDNRNN(Z, hidden=8, mixtures=K).requires_grad_(False)
    rnn.mixture.weight *= 8  # so that the mixtures differ
    h = torch.randn(1, 8).expand(100_000, 8)
    found = DreamWorld(rnn, 1.3).imagine(h, lucky(100_000)).z
    log_pi, mean, log_sigma, *_ = rnn.predict(h.unsqueeze(1))
    wanted = MixtureSameFamily(
        Categorical(logits=log_pi / 1.3), Normal(mean, log_sigma.exp() * 1.3**0.5)
    ).sample()[:, 0]
    for dimension in range(Z):  # Kolmogorov and Smirnov's distance of the two samples
        both = torch.cat([found[:, dimension], wanted[:, dimension]]).argsort() < len(found)
        share = torch.where(both, 1.0, -1.0).cumsum(0) / len(found)
        assert share.abs().max() < 0.01


# Dreams


def plain_dream(rnn, dreaming, parameters, start, seed, horizon, temperature):
    """The same by the networks themselves, one dream alone."""
    rng = np.random.default_rng(seed)
    gumbel = torch.from_numpy(rng.gumbel(size=(horizon, Z, K)).astype(np.float32))
    normal = torch.from_numpy(rng.standard_normal((horizon, Z), np.float32))
    seen, first = torch.from_numpy(start.mu), FRAMES - int(start.seen[0])
    states = [None, None]
    if first < FRAMES:
        action = torch.from_numpy(start.action[:, first:])
        states = [m(seen[:, first:-1], action)[1] for m in (rnn, dreaming)]
    z, (weights, bias), total, running, pace = seen[:, -1], unpack(parameters), 0.0, 1.0, 1.0
    for t in range(horizon):
        h = states[0][0][0] if states[0] else torch.zeros(1, tiny.HIDDEN)
        raw = torch.cat([z, h], 1).numpy() @ weights.T + bias
        action = torch.from_numpy(squash(raw.astype(np.float32)))
        _, states[0] = rnn(z.unsqueeze(1), action.unsqueeze(1), states[0])
        prediction, states[1] = dreaming(z.unsqueeze(1), action.unsqueeze(1), states[1])
        chosen = (prediction.log_pi[0, 0] / temperature + gumbel[t]).argmax(-1, keepdim=True)
        mean, log_sigma = (x[0, 0].gather(-1, chosen)[:, 0] for x in prediction[1:3])
        z = (mean + normal[t] * log_sigma.exp() * math.sqrt(temperature)).unsqueeze(0)
        total += running * prediction.reward.item()
        pace = PACE_KEPT * pace + (1 - PACE_KEPT) * prediction.reward.item()
        running *= (1 - prediction.terminated.sigmoid().item()) * (pace > LOST)
    return total


@pytest.mark.parametrize("two", [False, True])
def test_dreams_are_those_of_a_plain_loop(two, monkeypatch):
    monkeypatch.setenv("ARITHMETIC", "float32")
    rnn = tiny.networks(0)[1]
    dreaming = tiny.networks(1)[1] if two else rnn
    job = dreams()
    returns = Dreamer(rnn, dreaming, 0.9)(job)
    assert returns.shape == (5, 3)
    for i, parameters in enumerate(job.parameters):
        for s, seed in enumerate(job.seeds):
            expected = plain_dream(
                rnn, dreaming, parameters, job.starts.take([s]), seed, HORIZON, 0.9
            )
            assert returns[i, s] == pytest.approx(expected, abs=1e-4)
    assert len(np.unique(returns.round(4))) == 15  # or the comparison would say little


@pytest.mark.skipif(arithmetic() == "float32", reason="this processor has no other arithmetic")
def test_bfloat16_changes_no_dream_by_much(monkeypatch):
    rnn, job = tiny.networks()[1], dreams()
    fast = Dreamer(rnn, rnn, 0)(job)
    monkeypatch.setenv("ARITHMETIC", "float32")
    exact = Dreamer(rnn, rnn, 0)(job)
    assert (fast != exact).any()
    assert fast == pytest.approx(exact, rel=0.02, abs=0.02)


def test_company_order_threads_and_workers_change_no_dream():
    _, rnn = tiny.networks()
    job, before = dreams(count=2 * DREAMS // 3), torch.get_num_threads()
    with dreaming_workers(0, rnn, rnn, 1.0) as alone:
        expected = dream_all(alone, job, job.parameters)
        backwards = dream_all(alone, job, job.parameters[::-1])
        few = dream_all(alone, job, job.parameters[40:43])
        torch.set_num_threads(2)
        threaded = dream_all(alone, job, job.parameters)
        torch.set_num_threads(before)
    with dreaming_workers(2, rnn, rnn, 1.0) as pool:
        assert np.array_equal(dream_all(pool, job, job.parameters), expected)
    assert np.array_equal(backwards[::-1], expected)
    assert np.array_equal(few, expected[40:43])
    assert np.array_equal(threaded, expected)


def test_who_duels_dreams_from_starts_of_their_own():
    rnn, other = tiny.networks(0)[1], tiny.networks(1)[1]
    job = dreams(count=6, starts=6)
    pairs = [(0, 3), (4, 1), (2, 5)]
    with dreaming_workers(0, rnn, other, 1.0) as workers:
        of_all = dream_all(workers, job, job.parameters)
        duelled = dream_all(workers, job, job.parameters, pairs)
    assert duelled.shape == (6, 2)
    for i, pair in enumerate(pairs):
        assert duelled[list(pair)] == pytest.approx(of_all[list(pair), 2 * i : 2 * i + 2], abs=1e-4)


def test_many_duels_are_the_same_whatever_the_workers():
    _, rnn = tiny.networks()
    count = DREAMS // 2 + 6  # of two dreams each, so that it takes two batches
    job = dreams(count=count, starts=count)
    pairs = np.arange(count).reshape(-1, 2)
    with dreaming_workers(0, rnn, rnn, 1.0) as alone:
        expected = dream_all(alone, job, job.parameters, pairs)
    with dreaming_workers(2, rnn, rnn, 1.0) as pool:
        assert np.array_equal(dream_all(pool, job, job.parameters, pairs), expected)
    assert len(np.unique(expected)) > count


def test_luck_is_shared_by_all_candidates_and_differs_between_starts():
    _, rnn = tiny.networks()
    one = start_at(drive(120), 60)
    parameters, which = np.stack([tiny.lively(1)] * 2), np.array([[0, 1], [0, 1]])
    job = Dreams(parameters, together([one, one]), [(7, 0), (7, 1)], which, HORIZON)
    returns = Dreamer(rnn, rnn, 1.0)(job)
    assert np.array_equal(returns[0], returns[1])
    assert returns[0, 0] != returns[0, 1]


def test_rewards_after_the_likely_end_hardly_count(monkeypatch):
    monkeypatch.setenv("ARITHMETIC", "float32")
    _, rnn = tiny.networks()
    rnn.outcome.weight.zero_()
    rnn.outcome.bias[:] = torch.tensor([2.0, math.log(0.25 / 0.75)])  # 2 points, ends with 1/4
    returns = Dreamer(rnn, rnn, 1.0)(dreams())
    assert returns == pytest.approx(2 * (1 - 0.75**HORIZON) / 0.25, rel=1e-4)


@pytest.mark.parametrize(("reward", "counted"), [(-0.1, 29), (0.1, 57), (0.2, 80)])
def test_a_dream_without_progress_is_over(reward, counted):
    """The average of rewards falls from 1 towards what is gained, and below 0.15 all is lost."""
    _, rnn = tiny.networks()
    rnn.outcome.weight.zero_()
    rnn.outcome.bias[:] = torch.tensor([reward, -100.0])
    assert LOST == 0.15
    returns = Dreamer(rnn, rnn, 1.0)(dreams(horizon=80))
    assert returns == pytest.approx(reward * counted, rel=1e-3)


# Where they begin


@pytest.mark.parametrize("t", [0, 1, 30, FRAMES, 90, 120])
def test_m_is_warmed_up_by_the_second_before(t):
    _, rnn = tiny.networks()
    latents = drive(120)
    start = start_at(latents, t)
    moment, h, c = warm_up(DreamWorld(rnn), start)
    first = max(0, t - FRAMES)
    z, action = torch.from_numpy(latents.mu[first:t]), torch.from_numpy(latents.action[first:t])
    wanted = torch.zeros(1, 1, tiny.HIDDEN), torch.zeros(1, 1, tiny.HIDDEN)
    if t:
        _, wanted = rnn(z.unsqueeze(0), action.unsqueeze(0))
    torch.testing.assert_close((h, c), (wanted[0][0], wanted[1][0]))
    assert np.array_equal(moment[0], latents.mu[t])


def test_starts_come_back_and_foreign_ones_are_refused(tmp_path):
    path, starts = tmp_path / "starts.npz", some_starts()
    save_starts(path, starts, "v", game())
    for name, array in load_starts(path, V_HEADER)._asdict().items():
        assert np.array_equal(array, getattr(starts, name))
    with pytest.raises(UserError, match=r"starts\.npz was made with another V; delete it and run"):
        load_starts(path, V_HEADER | {"fingerprint": "w"})
    for change in (
        {"seen": np.array([1, 2, FRAMES + 1])}, {"seen": np.array([1, 2])},
        {"mu": starts.mu[:, 1:]}, {"action": starts.action.astype(np.float64)},
        {"mu": starts.mu.astype(">f4")},
    ):  # fmt: skip
        save_starts(path, Starts(**{**starts._asdict(), **change}), "v", game())
        with pytest.raises(UserError, match=r"starts\.npz does not hold where dreams begin"):
            load_starts(path, V_HEADER)


def test_dreams_begin_in_own_drives_and_before_failures_as_often_as_asked(tmp_path):
    reward = np.r_[np.ones(300), np.zeros(100)]  # a tile in every frame, until it fails
    others = [save_drive(tmp_path / f"random_{i}.npz", drive(200, i)) for i in range(3)]
    own = [save_drive(tmp_path / f"agent_{i}.npz", drive(400, 9, reward)) for i in range(2)]
    where = {latents.tobytes(): t for t, latents in enumerate(drive(400, 9).mu)}

    def found(own_share, failing, beginning=0.0):
        rng = np.random.default_rng(0)
        chosen = Moments(others, own, V_HEADER).choose(rng, 300, own_share, failing, beginning)
        return [where[mu[-1].tobytes()] for mu in chosen.mu if mu[-1].tobytes() in where]

    assert found(0, 0) == []
    assert set(found(0, 0, 1)) == {0}
    assert len(found(0.5, 0)) == pytest.approx(150, abs=35)
    assert len(found(0.5, 0.25)) == pytest.approx(225, abs=30)
    assert found(0.2, 0.1, 0.4).count(0) == pytest.approx(120, abs=30)
    before = 299 - np.array(found(0, 1))
    assert len(before) == 300
    assert BEFORE[0] <= before.min() < 30
    assert 130 < before.max() < BEFORE[1]


def test_without_own_drives_dreams_begin_in_those_of_others(tmp_path):
    others = [save_drive(tmp_path / "random_0.npz", drive(200))]
    chosen = Moments(others, [], V_HEADER).choose(np.random.default_rng(0), 20, 0.5, 0.5)
    assert chosen.mu.shape == (20, FRAMES + 1, Z)


def test_every_other_dream_begins_in_a_mirror_image(tmp_path):
    path = save_drive(tmp_path / "random_0.npz", drive(200))
    save_drive(tmp_path / "other.npz", drive(200, seed=1))
    mirror_image(tmp_path / "other.npz").rename(mirror_image(path))
    chosen = Moments([path], [], V_HEADER).choose(np.random.default_rng(0), 300)
    known = {mu.tobytes() for mu in drive(200).mu}
    assert sum(mu[-1].tobytes() in known for mu in chosen.mu) == pytest.approx(150, abs=30)


def test_old_drives_of_the_agent_are_forgotten(tmp_path):
    own = [tmp_path / f"agent_{i}.npz" for i in range(NEWEST + 5)]
    for path in own[5:]:
        save_drive(path, drive(60))  # the others are not even there
    Moments([], own, V_HEADER).choose(np.random.default_rng(0), 300, 1.0)


def test_drives_that_m_does_not_know_may_be_of_another_agent(tmp_path):
    save_drive(tmp_path / "others" / "x.npz", drive(60, 1))
    for i in range(3):
        save_drive(tmp_path / "own" / f"agent_{i}.npz", drive(60, 2 + i))
    folders = str(tmp_path / "others"), str(tmp_path / "own")
    moments = Moments.of(*folders, 2, "nowhere", V_HEADER)
    chosen = moments.choose(np.random.default_rng(0), 300, beginning=1.0)
    firsts = {mu[-1].tobytes() for mu in chosen.mu}
    known, unknown = {drive(60, seed).mu[0].tobytes() for seed in (2, 3)}, drive(60, 4).mu[0]
    assert known <= firsts
    assert unknown.tobytes() not in firsts

    chosen = Moments.of(*folders, 0, "nowhere", V_HEADER).choose(np.random.default_rng(0), 9, 1.0)
    assert len(chosen.seen) == 9  # begun in the drives of others


def test_latents_of_another_v_are_refused(tmp_path):
    path = save_drive(tmp_path / "x.npz", drive(60), vae="w")
    with pytest.raises(UserError, match=r"x\.npz was encoded by another V"):
        Moments([path], [], V_HEADER).choose(np.random.default_rng(0), 1)
