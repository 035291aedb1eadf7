"""The race as a person at the wheel sees it, beside stock's own picture."""

import cv2
import numpy as np
import pytest

from utils.simulator.envs import FAST_ID, STOCK_ID, make_env
from utils.simulator.road import road_of
from utils.simulator.view import AHEAD, CAR, ZOOMED_IN

WIDTH, HEIGHT = 1016, 592


@pytest.fixture(scope="module")
def env():
    env = make_env(FAST_ID, render_mode="rgb_array")
    yield env
    env.close()


def view(env):
    picture = np.full((HEIGHT, WIDTH, 3), 99, np.uint8)
    road_of(env).draw(picture)
    return picture


def driven(env, seed, frames):
    """The environment some frames later, with tyre marks."""
    env.reset(seed=seed)
    for t in range(frames):
        env.step(np.array([0.3 * np.sin(t / 9), 0.6, 0.0], np.float32))
    return env.unwrapped


def stocks(env):
    """Stock's picture, 600x400 of a window of 1000x800, at the scale and the place of ours."""
    scale = CAR * HEIGHT / (AHEAD * ZOOMED_IN)  # pixels of ours for one of stock's window
    picture = cv2.resize(env.render(), (round(1000 * scale), round(800 * scale)))
    left = WIDTH // 2 - picture.shape[1] // 2
    return picture[:HEIGHT], np.s_[:, left : left + picture.shape[1]]


@pytest.mark.parametrize("frames", [60, 120, 180])
def test_it_is_stocks_picture(env, frames):
    ours = view(driven(env, 2, frames))
    wanted, place = stocks(env)
    assert ours.shape == (HEIGHT, WIDTH, 3)
    difference = np.abs(ours[place].astype(int) - wanted)
    assert difference.mean() < 2
    assert (difference.max(2) > 60).mean() < 0.01


def test_the_car_has_its_place_and_the_camera_comes_down(env):
    red = (204, 0, 0)
    for frames, most in ((0, 60), (60, 3000)):
        picture = view(driven(env, 2, frames))
        rows, columns = np.nonzero((np.abs(picture.astype(int) - red) < 30).all(2))
        near = np.abs(columns - WIDTH / 2) < 40
        assert 0 < near.sum() < most
        assert abs(np.median(rows[near]) - CAR * HEIGHT) < 12


def test_stocks_own_race_is_drawn_too_and_is_left_as_it_was():
    ours, stock = make_env(FAST_ID), make_env(STOCK_ID)
    pictures = [view(driven(env, 2, 70)) for env in (ours, stock)]
    assert np.array_equal(*pictures)
    assert np.array_equal(view(stock), pictures[1])
