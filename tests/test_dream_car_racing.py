"""The dream as an environment: what it shows is M's, by its own random numbers alone."""

import shutil
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tiny
import torch
from gymnasium.error import InvalidAction
from gymnasium.utils.env_checker import check_env
from stages import FLAGS, expect_the_end, replace_m, replace_v

from models.mdn_rnn import LOG_SIGMA_RANGE
from models.vae import decoded
from utils.runtime.errors import UserError
from utils.simulator.envs import DREAM_ID, MAX_FRAMES, enlarge, make_env, shrink
from utils.simulator.road import road_of
from utils.storage.artifacts import load_arrays, save_arrays
from utils.storage.networks import dreaming_path, load_rnn, load_vae, rnn_path
from utils.world_model.latents import load_latents
from utils.world_model.starts import FRAMES, SHIPPED_MOMENTS, load_starts, some_moment, start_at

ACTIONS = np.random.default_rng(5).uniform((-1, 0, 0), 1, (30, 3)).astype(np.float32)


def dream(env, seed, actions=ACTIONS):
    """Everything that a dream says, up to its end."""
    obs, info = env.reset(seed=seed)
    said = [(obs, 0.0, False, info)]
    for action in actions:
        obs, reward, terminated, _, info = env.step(action)
        said.append((obs, reward, terminated, info))
        if terminated:
            break
    return said


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def endless(project):
    """The project with an M that never expects the end."""
    expect_the_end(rnn_path("checkpoints"), -100.0)


# What is dreamt


def plain_loop(env, seed, actions):
    """The dream by M's own forward, from the random numbers that the environment must draw."""
    _, header = load_vae("checkpoints")
    rnn, _ = load_rnn("checkpoints", header["fingerprint"])
    rng = gym.utils.seeding.np_random(seed)[0]
    paths = sorted(Path("data/latents").glob("*.npz"))
    _, latents = load_latents(paths[rng.integers(len(paths))])
    count = len(latents.action)
    t = int(rng.integers(min(FRAMES, count - 1), count))
    known = slice(max(0, t - FRAMES), t + 1)
    z = torch.from_numpy(latents.mu[known])
    taken = torch.from_numpy(latents.action[known][:-1])
    _, state = rnn(z[None, :-1], taken[None])
    z, dreamt = z[-1], []
    for action in actions:
        prediction, state = rnn(z[None, None], torch.from_numpy(action)[None, None], state)
        gumbel = rng.gumbel(size=(1, tiny.LATENT_DIM, 2)).astype(np.float32)[0]
        normal = rng.standard_normal((1, tiny.LATENT_DIM), np.float32)[0]
        log_pi, mean, log_sigma = (x[0, 0].numpy() for x in prediction[:3])
        which = np.arange(tiny.LATENT_DIM), (log_pi + gumbel).argmax(-1)
        sigma = np.exp(log_sigma[which].clip(*LOG_SIGMA_RANGE))
        z = torch.from_numpy(mean[which] + sigma * normal)
        end = float(torch.sigmoid(prediction.terminated))
        dreamt.append((z.numpy(), float(prediction.reward), end, bool(rng.random() < end)))
    return dreamt


@torch.no_grad()
def test_the_dream_is_ms_own_prediction_fed_back(endless):
    env = make_env(DREAM_ID)
    vae, _ = load_vae("checkpoints")
    for seed in range(4):
        said = dream(env, seed)
        expected = plain_loop(env, seed, ACTIONS)
        assert len(said) == len(ACTIONS) + 1
        for (obs, reward, *_), (z, wanted, *_) in zip(said[1:], expected, strict=True):
            assert np.abs(shrink(obs).astype(int) - decoded(vae, z[None])[0]).max() <= 2
            assert reward == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
def test_the_dream_ends_as_often_as_m_says(project):
    env = make_env(DREAM_ID)
    frames, expected, ends = 0, 0.0, 0
    for seed in range(60):
        said = dream(env, seed)
        wanted = plain_loop(env, seed, ACTIONS[: len(said) - 1])
        for (*_, terminated, info), (*_, end, ended) in zip(said[1:], wanted, strict=True):
            assert info["end_probability"] == pytest.approx(end, abs=1e-5)
            assert terminated == ended
            frames, expected, ends = frames + 1, expected + end, ends + terminated
    assert 0 < expected < frames
    assert abs(ends - expected) < 4 * expected**0.5


def test_the_same_seed_gives_the_same_dream_whatever_happens_beside_it(endless):
    alone = dream(make_env(DREAM_ID), 3)
    env, other = make_env(DREAM_ID), make_env(DREAM_ID)
    torch.rand(7)
    np.random.default_rng().random(7)
    dream(env, 9)
    other.reset(seed=11)
    obs, info = env.reset(seed=3)
    said = [(obs, 0.0, False, info)]
    for action in ACTIONS[: len(alone) - 1]:
        obs, reward, terminated, _, info = env.step(action)
        said.append((obs, reward, terminated, info))
        if other.step(-action.clip(0, 1))[2]:
            other.reset()
    assert same(said, alone)
    assert not same(dream(env, 4), alone)
    changed = ACTIONS.copy()
    changed[2] = 0.5
    assert not np.array_equal(dream(env, 3, changed)[3][0], alone[3][0])


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_at_temperature_0_nothing_is_drawn(endless, temperature):
    env = make_env(DREAM_ID, temperature=temperature)
    seen = []
    for luck in (1, 2):
        env.reset(seed=3)
        env.unwrapped.np_random = np.random.default_rng(luck)
        seen.append(np.stack([env.step(action)[0] for action in ACTIONS]))
    assert np.array_equal(*seen) == (temperature == 0)


def test_at_temperature_0_the_end_is_no_lottery_either(project):
    for logit, over in ((-1.0, False), (1.0, True)):
        expect_the_end(rnn_path("checkpoints"), logit)
        env = make_env(DREAM_ID, temperature=0)
        for seed in range(20):
            env.reset(seed=seed)
            assert env.step(ACTIONS[0])[2] == over


def test_the_dream_is_in_the_m_that_goes_on_learning(endless):
    before = dream(make_env(DREAM_ID), 3)
    expect_the_end(dreaming_path("checkpoints"), -100.0, reward=1.0)
    after = dream(make_env(DREAM_ID), 3)
    for (_, reward, *_), (_, other, *_) in zip(before[1:], after[1:], strict=True):
        assert other == pytest.approx(reward + 1, abs=1e-5)


# As an environment


def test_gymnasium_has_nothing_to_say_against_it(project):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(DREAM_ID, disable_env_checker=True).unwrapped)


def test_it_lasts_a_thousand_frames_and_looks_like_the_stock_one(endless):
    env = make_env(DREAM_ID, render_mode="rgb_array")
    stock = make_env("CarRacing-v3")
    assert env.action_space == stock.action_space
    assert env.observation_space == stock.observation_space
    _, info = env.reset(seed=1)
    assert info == {"end_probability": 0.0, "temperature": 1.0}
    total, frames, over = 0.0, 0, False
    while not over:
        _, reward, terminated, over, _ = env.step(ACTIONS[0])
        total, frames = total + reward, frames + 1
        assert not terminated
    assert frames == MAX_FRAMES
    assert env.render().shape == (400, 600, 3)
    assert env.unwrapped.reward == pytest.approx(total)
    road = road_of(env)
    assert (road.score, road.tiles, road.total_tiles) == (env.unwrapped.reward, 0, 0)


def test_the_picture_is_the_frame_that_v_decoded(project):
    env = make_env(DREAM_ID, render_mode="rgb_array")
    obs, _ = env.reset(seed=1)
    smaller = np.asarray(env.render())[::6, ::9]
    assert np.abs(smaller.mean((0, 1)) - shrink(obs).mean((0, 1))).max() < 8
    assert make_env(DREAM_ID).unwrapped.render() is None


def test_shrink_undoes_enlarge():
    rng = np.random.default_rng(0)
    smooth = rng.integers(60, 196, (8, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    assert np.abs(shrink(enlarge(smooth)).astype(int) - smooth).max() <= 1


@pytest.mark.parametrize("action", [np.zeros(2), np.array([0, np.nan, 0])])
def test_an_action_that_is_none_is_refused(project, action):
    env = make_env(DREAM_ID)
    env.reset(seed=1)
    with pytest.raises(InvalidAction, match="steering, gas and brake"):
        env.step(action)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "hot"}, {"temperature": -0.1}, {"temperature": 11}, {"temperature": True},
        {"temperature": float("nan")}, {"checkpoints": None}, {"latents": 3},
        {"render_mode": "ansi"},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_bad_options_are_named(project, options):
    with pytest.raises(UserError, match=rf"^{next(iter(options))} of Dream.* must be [^.]*\.$"):
        gym.make(DREAM_ID, **options)


def test_an_unknown_option_is_named(project):
    with pytest.raises(TypeError, match="'colour'"):
        make_env(DREAM_ID, colour="red")


# Where dreams begin


def refused(sentence, **options):
    with pytest.raises(UserError, match=sentence) as error:
        make_env(DREAM_ID, **options).reset(seed=0)
    assert "\n" not in str(error.value)


def test_a_start_is_a_moment_with_the_second_before_it(project):
    _, latents = load_latents(Path("data/latents/autopilot_100000.npz"))
    rng = np.random.default_rng(0)
    moments = set()
    for _ in range(50):
        start = some_moment(latents, rng)
        (t,) = np.flatnonzero((latents.mu == start.mu[0, -1]).all(1))
        assert FRAMES <= t < len(latents.action)
        for found, wanted in zip(start, start_at(latents, t), strict=True):
            assert np.array_equal(found, wanted)
        moments.add(t)
    assert len(moments) > 30


def test_without_data_dreams_begin_with_the_moments_that_ship(project):
    vae, header = load_vae("checkpoints")
    shutil.rmtree("data")
    env = make_env(DREAM_ID, temperature=0)
    starts = load_starts(Path("checkpoints/starts.npz"), header)
    seen = {dream(env, seed, [])[0][0].tobytes() for seed in range(20)}
    assert len(seen) > 10
    obs, _ = env.reset(seed=1)
    rng = gym.utils.seeding.np_random(1)[0]
    which = int(rng.integers(len(starts.seen)))
    wanted = decoded(vae, starts.mu[[which], -1])[0]
    assert np.abs(shrink(obs).astype(int) - wanted).max() <= 2


def test_the_moments_that_ship_are_the_same_whenever_they_are_made(project):
    path = Path("checkpoints/starts.npz")
    before = path.read_bytes()
    path.unlink()
    assert "trained from these latents already" in tiny.stage(4, **FLAGS[4])
    assert path.read_bytes() == before
    starts = load_starts(path, load_vae("checkpoints")[1])
    assert len(starts.seen) == SHIPPED_MOMENTS
    _, held_out = load_latents(Path("data/latents/autopilot_100000.npz"))
    known = {row.tobytes() for row in held_out.mu}
    assert all(row.tobytes() in known for row in starts.mu[:, -1])
    assert len(np.unique(starts.mu[:, -1], axis=0)) > SHIPPED_MOMENTS / 2


def test_another_folder_of_data_may_be_empty_missing_or_of_another_v(project):
    shipped = make_env(DREAM_ID, latents="nowhere").reset(seed=1)[0]
    Path("empty").mkdir()
    assert np.array_equal(make_env(DREAM_ID, latents="empty").reset(seed=1)[0], shipped)
    shutil.copytree("data/latents", "others")
    for path in Path("others").glob("*.npz"):
        header, arrays = load_arrays(path, "latents")
        rest = {k: v for k, v in header.items() if k not in ("kind", "fingerprint", "made_from")}
        made_from = {**header["made_from"], "vae": "another"}
        save_arrays(path, "latents", arrays, made_from=made_from, **rest)
    assert np.array_equal(make_env(DREAM_ID, latents="others").reset(seed=1)[0], shipped)
    first = sorted(Path("others").glob("*.npz"))[0]
    shutil.copy(Path("data/latents") / first.name, first)
    env = make_env(DREAM_ID, latents="others")
    with pytest.raises(UserError, match=r"others.*another V; run python 03_encode"):
        [env.reset(seed=seed) for seed in range(20)]


def test_neither_data_nor_moments(project):
    Path("checkpoints/starts.npz").unlink()
    shutil.rmtree("data")
    refused(r"starts\.npz \(the starts\) is missing.*; run python 04_train_mdn_rnn\.py\.$")


def test_damaged_moments(project):
    path = Path("checkpoints/starts.npz")
    path.write_bytes(path.read_bytes()[:-999])
    refused(r"starts\.npz is not a sound .*; delete it and run python 04_train", latents="none")


def test_foreign_moments(project):
    shutil.copy("data/latents/autopilot_100000.npz", "checkpoints/starts.npz")
    refused(r"starts\.npz is no starts file; move it away and run python 04", latents="none")


def test_moments_of_another_v(project):
    _, arrays = load_arrays("checkpoints/starts.npz", "starts")
    save_arrays("checkpoints/starts.npz", "starts", arrays, vae="another")
    refused(r"starts\.npz was made with another V; delete it and run .*04_train", latents="none")


def test_moments_of_other_sizes(project):
    header, arrays = load_arrays("checkpoints/starts.npz", "starts")
    arrays["mu"] = arrays["mu"][:, 1:]
    save_arrays("checkpoints/starts.npz", "starts", arrays, vae=header["vae"])
    refused(r"does not hold where dreams begin; delete it and run .*04_train", latents="none")


def test_damaged_data(project):
    for path in Path("data/latents").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:-99])
    refused(r"data/latents/.*\.npz is not a sound latents .*; delete it and run python 03_encode")


def test_networks_that_do_not_belong_together(project):
    replace_v()
    refused(r"mdn_rnn\.pt was made for another V; run .*03_encode.*04_train")


def test_another_m_for_the_same_v_dreams_from_the_same_moments(project):
    before = [make_env(DREAM_ID).reset(seed=seed)[0] for seed in range(3)]
    replace_m()
    after = [make_env(DREAM_ID).reset(seed=seed)[0] for seed in range(3)]
    assert np.array_equal(before, after)
