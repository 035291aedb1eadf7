"""FastCarRacing against stock CarRacing: equal physics to the bit, and nearly equal frames."""

import gc
import pickle
import weakref

import frames
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.box2d.car_racing import CarRacing

import utils.simulator.fast_car_racing as fast_module
from utils.simulator.dashboard import score_picture
from utils.simulator.envs import FAST_ID, STOCK_ID, make_env, shrink
from utils.simulator.fast_car_racing import FastCarRacing
from utils.simulator.track_canvas import Field, Picture


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_gymnasium_version_is_the_one_proved_equal():
    assert gym.__version__ == fast_module.PROVED_EQUAL_TO


def test_registered_like_stock():
    stock, fast = gym.spec(STOCK_ID), gym.spec(FAST_ID)
    assert fast.max_episode_steps == stock.max_episode_steps
    assert fast.reward_threshold == stock.reward_threshold
    env = gym.make(FAST_ID)
    obs, info = env.reset(seed=3)
    assert env.observation_space == gym.make(STOCK_ID).observation_space
    assert env.action_space == gym.make(STOCK_ID).action_space
    assert env.observation_space.contains(obs)
    assert info == {}


def test_the_agents_view_is_no_larger_than_what_the_agent_sees():
    env = make_env(FAST_ID)
    obs, _ = env.reset(seed=3)
    assert obs.shape == (64, 64, 3)
    assert env.observation_space.contains(obs)
    assert shrink(obs) is obs
    assert make_env(FAST_ID, frame_size=96).reset(seed=3)[0].shape == (96, 96, 3)


@pytest.mark.parametrize("number", range(24))
def test_physics_equal_to_the_bit(number):
    behaviour = frames.BEHAVIOURS[number % len(frames.BEHAVIOURS)]
    found = []
    steps = frames.compare_physics(
        CarRacing(), FastCarRacing(), 500 + number, behaviour, 250, found
    )
    assert found == []
    assert steps > 100


def test_one_instance_reset_often_equals_fresh_stock():
    fast, found = FastCarRacing(), []
    for seed in range(8):
        behaviour = frames.BEHAVIOURS[seed % len(frames.BEHAVIOURS)]
        frames.compare_physics(CarRacing(), fast, seed, behaviour, 120, found)
    assert found == []


def test_leaving_the_field_ends_the_race_alike():
    found = []
    steps = frames.compare_physics(CarRacing(), FastCarRacing(), 21, "straight", 1000, found)
    assert found == []
    assert steps < 1000  # out of bounds: -100 and terminated, compared above


def test_resets_without_seed_continue_the_same_random_numbers():
    stock, fast = CarRacing(), FastCarRacing()
    stock._render = lambda mode: None
    for env in (stock, fast):
        env.reset(seed=9)
        env.reset()
        env.reset()
    assert frames.same_world(stock, fast)


def test_discrete_actions():
    stock, fast = CarRacing(continuous=False), FastCarRacing(continuous=False)
    stock._render = lambda mode: None
    stock.reset(seed=2)
    fast.reset(seed=2)
    rng = np.random.default_rng(2)
    for _ in range(150):
        action = rng.integers(5)
        assert stock.step(action)[1:] == fast.step(action)[1:]
        assert frames.state_of(stock) == frames.state_of(fast)
    with pytest.raises(gym.error.InvalidAction):
        fast.step(7)


def test_lap_complete_percent():
    stock, fast = CarRacing(lap_complete_percent=0.0), FastCarRacing(lap_complete_percent=0.0)
    stock._render = lambda mode: None
    found = []
    frames._drive(stock, fast, 4, "follow", 60, found, lambda *_: None)
    assert found == []


def test_randomize_option():
    stock, fast = CarRacing(domain_randomize=True), FastCarRacing(domain_randomize=True)
    stock._render = lambda mode: None
    for options in (None, {"randomize": False}, {"randomize": True}, {}):
        stock.reset(seed=5, options=options)
        fast.reset(seed=5, options=options)
        for name in ("road_color", "bg_color", "grass_color"):
            assert np.array_equal(getattr(stock, name), getattr(fast, name))
        assert frames.same_world(stock, fast)


def assert_close(part: frames.Comparison, psnr=50.0, mae=0.1, worst=40.0):
    print(part)
    assert part.psnr >= psnr
    assert part.mae <= mae
    assert part.worst >= worst


@pytest.mark.parametrize("frame_size", [96, 64])
def test_frames_close_to_stock(frame_size):
    rest, opening = frames.compare_frames(range(6), steps=110, frame_size=frame_size)
    assert rest.mismatches == []
    # Shortly after the start there is more road than later; for the rest see the campaign.
    assert_close(rest, *((49, 0.1) if frame_size == 96 else (50, 0.12)))
    assert_close(opening, psnr=40, mae=0.5, worst=30)


@pytest.mark.parametrize("frame_size", [96, 64])
def test_randomized_colours_close_to_stock(frame_size):
    rest, _ = frames.compare_frames([31, 32], 90, frame_size=frame_size, domain_randomize=True)
    assert_close(
        rest, psnr=47 if frame_size == 96 else 48, mae=0.2
    )  # these colours differ more than stock's


@pytest.mark.slow
@pytest.mark.parametrize("frame_size", [96, 64])
def test_frames_close_to_stock_over_a_campaign(frame_size):
    rest, opening = frames.compare_frames(range(200, 215), steps=300, frame_size=frame_size)
    print("first second:", opening)
    assert rest.mismatches == []
    assert rest.frames >= 3000
    assert_close(rest)


@pytest.mark.parametrize("frame_size", [96, 64])
@pytest.mark.parametrize("place", [(310, 40), (-330, -320), (0, 325)])
def test_view_of_the_outskirts(place, frame_size):
    stock, fast = CarRacing(), FastCarRacing(frame_size=frame_size)
    for env in (stock, fast):
        env.reset(seed=1)
        env.t = 1.0
        x, y = env.car.hull.position
        shift = place[0] - x, place[1] - y
        for body in (env.car.hull, *env.car.wheels):
            body.position += shift
    part = frames.Comparison()
    expected = stock._render("state_pixels")
    part.add(expected if frame_size == 96 else shrink(expected), fast._observe())
    assert_close(part, psnr=40, mae=0.25)


def test_the_fields_edge_is_as_wide_as_it_covers_texels():
    texels = np.empty((400, 1, 4), np.uint8)
    for bottom in np.linspace(-400, -398, 41):
        picture = Picture(texels, density=0.5, left=30.0, bottom=bottom)  # no grass grows there
        Field(picture, ((100, 200, 50, 0), (200, 100, 0, 0))).paint(texels)
        assert texels[:, 0, 1].sum() / 200 == pytest.approx(2000 / 6, abs=0.1)


def test_observations_are_not_shared():
    env = FastCarRacing()
    first, _ = env.reset(seed=1)
    kept = first.copy()
    for _ in range(60):
        env.step(np.array([0.3, 1, 0], np.float32))
    assert np.array_equal(first, kept)


def test_an_environment_that_is_closed_takes_nothing_from_another():
    env, other = FastCarRacing(), FastCarRacing(render_mode="rgb_array")
    env.reset(seed=1)
    other.reset(seed=1)
    other.render()
    other.close()  # and with it all of pygame
    env.reward = 876.0  # a score that nobody has had yet
    seen = env._observe()
    assert np.array_equal(seen[84:, :12], score_picture("0876", 96))
    assert seen[84:, :12].max() > 100


def test_two_environments_do_not_disturb_each_other():
    alone, one, other = FastCarRacing(), FastCarRacing(), FastCarRacing()
    action = np.array([0.1, 0.5, 0], np.float32)
    assert np.array_equal(alone.reset(seed=1)[0], one.reset(seed=1)[0])
    other.reset(seed=2)
    for _ in range(70):
        other.step(-action * [1, -1, 0])
        assert np.array_equal(alone.step(action)[0], one.step(action)[0])


def test_tracks_and_cars_of_earlier_races_leave_memory():
    env = FastCarRacing()
    env.reset(seed=0)
    for _ in range(30):
        env.step(np.array([0, 1, 0], np.float32))
    earlier = [weakref.ref(part) for part in (env.road[0], env.road[-1], env.car)]
    env.reset(seed=1)
    gc.collect()
    assert [part() for part in earlier] == [None] * 3


def test_rgb_array_is_stocks_own():
    stock, fast = CarRacing(render_mode="rgb_array"), FastCarRacing(render_mode="rgb_array")
    stock.reset(seed=8)
    fast.reset(seed=8)
    for _ in range(30):
        action = np.array([0.5, 1, 0], np.float32)
        stock.step(action)
        fast.step(action)
    assert np.array_equal(stock.render(), fast.render())


def test_human_mode_opens_the_stock_window():
    env = gym.make(FAST_ID, render_mode="human")
    env.reset(seed=1)
    env.step(np.array([0, 0.1, 0], np.float32))
    assert env.unwrapped.screen.get_size() == (1000, 800)
    env.close()


def test_can_be_pickled_by_its_arguments():
    env = FastCarRacing(domain_randomize=True, frame_size=64)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.domain_randomize
    assert copy.reset(seed=1)[0].shape == (64, 64, 3)
