"""The autopilot drives laps, recovers from everything, and keeps advice apart from mistakes.

Only the physics runs: nothing is drawn.
"""

import numpy as np
import pytest
from gymnasium.envs.box2d.car_racing import CarRacing

from utils.drivers.autopilot import Autopilot

FRAME = np.zeros((96, 96, 3), np.uint8)


class Undrawn(CarRacing):
    """The stock physics without its renderer, which is 98 % of the time."""

    def _render(self, mode: str) -> np.ndarray:
        return FRAME


@pytest.fixture(scope="module")
def env() -> Undrawn:
    return Undrawn()


def start(env: Undrawn, seed: int, **settings) -> Autopilot:
    env.reset(seed=seed)
    return Autopilot(env, np.random.default_rng(seed), **settings)


def race(env: Undrawn, driver: Autopilot, frames: int = 1000) -> tuple[float, bool, np.ndarray]:
    """Return score, whether all tiles were visited, and the actions (frames, 3)."""
    score, actions = 0.0, []
    for _ in range(frames):
        actions.append(driver.act(FRAME))
        _, reward, terminated, *_ = env.step(actions[-1])
        score += reward
        if terminated:
            break
    return score, env.tile_visited_count == len(env.track), np.array(actions)


def on_course(env: Undrawn, driver: Autopilot) -> bool:
    """All four wheels on the road, driving briskly and forwards along the line."""
    speed = np.array(env.car.hull.linearVelocity)
    gaps = np.hypot(*(driver.line - env.car.hull.position).T)
    here = int(np.argmin(gaps))
    along = driver.line[(here + 3) % len(driver.line)] - driver.line[here]
    forward = speed @ along / np.hypot(*along)
    return all(wheel.tiles for wheel in env.car.wheels) and forward > 25.0 and gaps[here] < 6.0


def recovers(env: Undrawn, driver: Autopilot, frames: int) -> bool:
    for _ in range(frames):
        if on_course(env, driver):
            return True
        if env.step(driver.advise())[2]:
            return False
    return False


@pytest.mark.parametrize(
    ("line_offset", "mean", "worst"),
    [(0.0, 922.0, 905.0), (2.5, 930.0, 912.0), (5.5, 934.0, 918.0)],
)
def test_it_completes_laps_at_the_promised_scores(env, line_offset, mean, worst):
    results = [race(env, start(env, seed, line_offset=line_offset)) for seed in (1, 2, 52)]
    scores = [score for score, _, _ in results]
    assert all(complete for _, complete, _ in results)
    assert np.mean(scores) > mean
    assert min(scores) > worst


def test_grip_and_top_speed_slow_it_down(env):
    frames = [
        len(race(env, start(env, 3, **settings))[2])
        for settings in ({}, {"grip": 0.6}, {"top_speed": 45.0})
    ]
    assert frames[1] > 1.05 * frames[0]
    assert frames[2] > 1.05 * frames[0]
    fastest = 0.0
    driver = start(env, 3, top_speed=45.0)
    for _ in range(200):
        env.step(driver.act())
        fastest = max(fastest, np.hypot(*env.car.hull.linearVelocity))
    assert 40.0 < fastest < 47.0


def test_its_actions_are_legal_smooth_and_never_gas_and_brake_at_once(env):
    _, _, actions = race(env, start(env, 4, line_offset=2.5, noise=0.1), 400)
    assert actions.dtype == np.float32
    assert all(env.action_space.contains(action) for action in actions)
    assert not np.any((actions[:, 1] > 0) & (actions[:, 2] > 0))
    _, _, actions = race(env, start(env, 4, line_offset=2.5))
    assert np.abs(np.diff(actions[:, 0])).mean() < 0.02


def test_the_same_rng_gives_the_same_drive_and_another_does_not(env):
    settings = {"noise": 0.1, "disturbance": 0.02}
    _, _, once = race(env, start(env, 5, **settings), 150)
    _, _, again = race(env, start(env, 5, **settings), 150)
    assert np.array_equal(once, again)
    env.reset(seed=5)
    _, _, other = race(env, Autopilot(env, np.random.default_rng(6), **settings), 150)
    assert not np.array_equal(once, other)


def test_advice_is_free_of_noise_and_of_side_effects(env):
    driver = start(env, 7, noise=0.3, disturbance=0.1)
    for _ in range(120):
        env.step(driver.act())
    before = np.array(env.car.hull.position)
    random_state = driver.rng.bit_generator.state
    advice = driver.advise()
    assert np.array_equal(driver.advise(), advice)
    assert np.array_equal(env.car.hull.position, before)
    assert driver.rng.bit_generator.state == random_state
    assert any(not np.array_equal(driver.act(), advice) for _ in range(5))


def test_disturbances_are_as_frequent_and_as_long_as_promised(env):
    driver = start(env, 8, disturbance=0.02)
    advice = driver.advise()
    wrong = np.array([not np.array_equal(driver.act(), advice) for _ in range(20_000)])
    # On average 49 right frames, then 15 wrong ones; the car stands, so the advice is constant.
    assert wrong.mean() == pytest.approx(15 / (49 + 15), rel=0.15)


def test_small_noise_costs_little(env):
    scores = [race(env, start(env, s, line_offset=2.5, grip=0.87, noise=0.03))[0] for s in range(3)]
    assert min(scores) > 890.0


@pytest.mark.parametrize("seed", range(20, 28))
def test_it_recovers_from_random_actions_in_mid_race(env, seed):
    driver = start(env, seed, line_offset=2.5)
    rng = np.random.default_rng(seed)
    for _ in range(int(rng.integers(60, 300))):
        env.step(driver.advise())
    for _ in range(4):
        held = rng.uniform((-1, 0, -1), (1, 1, 0.8)).clip((-1, 0, 0), 1).astype(np.float32)
        for _ in range(20):
            driver.advise()  # as beside a student, the teacher watches every frame
            env.step(held)
    assert recovers(env, driver, 350)


@pytest.mark.parametrize("turned", [np.pi, 2.0, -2.0])
@pytest.mark.parametrize("sideways", [0.0, 25.0, -25.0])
def test_it_returns_to_the_road_from_any_standstill(env, turned, sideways):
    """Facing the wrong way on the road and on the grass on either side."""
    start(env, 30)
    _, beta, x, y = env.track[40]
    env.car.destroy()
    env.car = type(env.car)(
        env.world, beta + turned, x + sideways * np.cos(beta), y + sideways * np.sin(beta)
    )
    driver = Autopilot(env, np.random.default_rng(0))
    assert recovers(env, driver, 350)


def test_it_brakes_when_it_rolls_backwards(env):
    driver = start(env, 9)
    _, beta, *_ = env.track[0]
    backwards = (30.0 * np.sin(beta), -30.0 * np.cos(beta))
    for body in (env.car.hull, *env.car.wheels):
        body.linearVelocity = backwards
    _, gas, brake = driver.advise()
    assert gas == 0.0
    assert brake > 0.3


def test_a_second_lap_collects_a_missed_tile(env):
    driver = start(env, 10, line_offset=5.5)
    missed = env.road[30]
    missed.road_visited = True  # so the first lap does not count it ...
    for frame in range(1500):
        _, _, terminated, *_ = env.step(driver.act())
        if frame == 400:
            missed.road_visited = False  # ... and the second does
        if terminated:
            break
    assert env.tile_visited_count == len(env.track)
    assert frame > 500
