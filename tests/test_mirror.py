"""A drive with left and right exchanged."""

import numpy as np
import tiny

from utils.simulator.envs import FAST_ID, make_env
from utils.world_model.mirror import BAR, mirrored, mirrored_frames


def turning(steering: float) -> np.ndarray:
    """(20, 64, 64, 3) the first frames of a race in which the car speeds up and turns."""
    env = make_env(FAST_ID)
    env.reset(seed=1)
    action = np.array([steering, 0.3, 0], np.float32)
    frames = np.stack([env.step(action)[0] for _ in range(20)])
    env.close()
    return frames


def test_turning_right_looks_like_turning_left_in_a_mirror():
    """The dashboard does from the first frame on, and shows the same steering and yaw; the road
    does not, since it is another one."""
    left, right = turning(-1.0), turning(1.0)[:, BAR:]
    apart = np.abs(mirrored_frames(left)[:, BAR:].astype(int) - right)
    assert np.abs(left[:, BAR:].astype(int) - right).max() > 100
    assert apart.mean() < 1.5
    assert np.median(apart[:, :, 20:60].max(axis=(1, 2, 3))) < 40


def test_the_world_is_seen_from_the_other_side():
    frames = turning(0.5)
    assert np.array_equal(mirrored_frames(frames)[:, :BAR], frames[:, :BAR, ::-1])
    assert np.array_equal(mirrored_frames(mirrored_frames(frames)), frames)


def test_the_driver_steers_the_other_way_and_gains_the_same():
    drive = tiny.episode(30)
    other = mirrored(drive)
    assert np.array_equal(other.action, drive.action * [-1, 1, 1])
    assert other.action.dtype == np.float32
    assert np.array_equal(other.reward, drive.reward)
    assert np.array_equal(other.terminated, drive.terminated)
    assert np.array_equal(mirrored(other).obs, drive.obs)
