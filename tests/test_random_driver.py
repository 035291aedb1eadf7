"""The random driver goes places, smoothly, and depends on its generator alone."""

import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from utils.drivers.random_driver import RandomDriver


class Undrawn(CarRacing):
    """The stock physics without its renderer."""

    def _render(self, mode: str) -> np.ndarray:
        return np.zeros((96, 96, 3), np.uint8)


def test_its_actions_are_legal_smooth_and_varied():
    env = Undrawn()
    driver = RandomDriver(env, np.random.default_rng(0))
    actions = np.array([driver.act() for _ in range(3000)])
    assert actions.dtype == np.float32
    assert all(env.action_space.contains(action) for action in actions)
    steer = actions[:, 0]
    assert steer.std() > 0.3
    assert np.abs(np.diff(steer)).mean() < 0.5 * steer.std()
    assert actions[:, 1].mean() > actions[:, 2].mean() > 0.0
    assert not np.any((actions[:, 1] > 0) & (actions[:, 2] > 0))


def test_it_goes_places():
    env = Undrawn()
    for seed in range(3):
        env.reset(seed=seed)
        driver = RandomDriver(env, np.random.default_rng(seed))
        start = np.array(env.car.hull.position)
        farthest = 0.0
        for _ in range(300):
            env.step(driver.act())
            farthest = max(farthest, np.hypot(*(np.array(env.car.hull.position) - start)))
        assert farthest > 15.0


def test_the_same_rng_gives_the_same_actions():
    def drive(seed: int) -> np.ndarray:
        driver = RandomDriver(None, np.random.default_rng(seed))
        return np.array([driver.act() for _ in range(50)])

    assert np.array_equal(drive(1), drive(1))
    assert not np.array_equal(drive(1), drive(2))
