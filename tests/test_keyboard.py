"""The keyboard driver, with real key presses on a virtual display."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pygame
import pytest

from utils.drivers.keyboard import MOST_BRAKE, Keyboard, Window, ramp
from utils.pictures import film
from utils.runtime.errors import UserError
from utils.simulator.envs import DREAM_ID, STOCK_ID, make_env

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have a display")
PATIENCE = 300  # frames in which a key press must arrive


@pytest.fixture(scope="module")
def display():
    """A virtual display of our own, at a free number."""
    missing = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"pressing real keys needs {' and '.join(missing)}")
    number, tell = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-noreset", "-displayfd", str(tell), "-screen", "0", "1280x800x24"],
        pass_fds=[tell],
        stderr=subprocess.DEVNULL,
    )
    os.close(tell)
    try:
        with os.fdopen(number) as line:
            yield f":{line.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def env():
    env = make_env(STOCK_ID, render_mode="rgb_array")
    yield env
    env.close()


@pytest.fixture
def window(display, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # as other parts of the program leave it
    with Window() as window:
        yield window


@pytest.fixture
def xdotool(display):
    def xdotool(*words):
        subprocess.run(["xdotool", *words], check=True, env={**os.environ, "DISPLAY": display})

    yield xdotool
    xdotool("keyup", "Left", "keyup", "Right", "keyup", "Up", "keyup", "Down")


def act_until(driver, condition):
    for _ in range(PATIENCE):
        action = driver.act(None)
        assert action.shape == (3,)
        assert action.dtype == np.float32
        if condition(action):
            return action
    raise AssertionError(f"still {action} after {PATIENCE} frames")


@pytest.mark.parametrize(
    ("key", "full"),
    [
        ("Left", (-1, 0, 0)),
        ("Right", (1, 0, 0)),
        ("Up", (0, 1, 0)),
        ("Down", (0, 0, MOST_BRAKE)),
    ],
)
def test_a_held_key_moves_its_control_and_a_released_one_returns(env, window, xdotool, key, full):
    env.reset(seed=1)
    driver = Keyboard(env, window)
    assert (driver.act(None) == 0).all()
    xdotool("keydown", key)
    act_until(driver, lambda action: np.allclose(action, full))
    xdotool("keyup", key)
    act_until(driver, lambda action: (action == 0).all())


def test_two_keys_at_once(env, window, xdotool):
    env.reset(seed=1)
    driver = Keyboard(env, window)
    xdotool("keydown", "Up", "keydown", "Right")
    act_until(driver, lambda action: np.allclose(action, (1, 1, 0)))


def test_the_car_obeys(env, window, xdotool):
    obs, _ = env.reset(seed=1)
    car = env.unwrapped.car
    driver = Keyboard(env, window)
    heading = car.hull.angle
    xdotool("keydown", "Up", "keydown", "Left")
    for _ in range(PATIENCE):
        obs, *_ = env.step(driver.act(obs))
        if car.hull.linearVelocity.length > 5 and car.hull.angle > heading + 0.3:
            return
    raise AssertionError("the car neither drives nor turns left")


def test_the_window_shows_race_score_frame_and_time(env, window):
    obs, _ = env.reset(seed=1)
    driver = Keyboard(env, window)
    for _ in range(5):
        obs, *_ = env.step(np.array([0, 0.5, 0], np.float32))
    race = env.unwrapped
    assert race.reward != 0
    driver.act(obs)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    wanted = film.driving_frame(
        env.render(), np.zeros(3), race.reward, 0, race.tile_visited_count, len(race.track)
    )
    assert shown.shape[0] >= 400
    assert shown.shape[1] >= 600
    assert (shown == wanted).all()


def test_the_window_shows_a_dream_as_it_shows_a_race(project, window):
    env = make_env(DREAM_ID, render_mode="rgb_array")
    env.reset(seed=1)
    env.step(np.array([0, 0.5, 0], np.float32))
    Keyboard(env, window).act(None)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    wanted = film.driving_frame(env.render(), np.zeros(3), env.unwrapped.reward, 0, 0, 0)
    assert env.unwrapped.reward != 0
    assert (shown == wanted).all()


def test_escape_quits(env, window, xdotool):
    env.reset(seed=1)
    driver = Keyboard(env, window)
    driver.act(None)
    assert not driver.quit
    xdotool("key", "Escape")
    act_until(driver, lambda action: driver.quit)


def test_closing_the_window_quits(env, window):
    env.reset(seed=1)
    driver = Keyboard(env, window)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    driver.act(None)
    assert driver.quit


def test_races_share_the_window(env, window):
    windows = set()
    for seed in (1, 2):
        env.reset(seed=seed)
        Keyboard(env, window).act(None)
        windows.add(pygame.display.get_wm_info()["window"])
    assert len(windows) == 1


def test_the_window_closes_when_it_is_left(display, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    with Window():
        assert pygame.display.get_init()
    assert not pygame.display.get_init()


@linux_only
@pytest.mark.parametrize("display_number", [None, ":54321"])
def test_without_a_display_one_sentence_names_the_other_drivers(monkeypatch, display_number):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    if display_number:  # that nobody serves
        monkeypatch.setenv("DISPLAY", display_number)
    with pytest.raises(UserError) as error, Window():
        pass
    sentence = str(error.value)
    assert "display" in sentence
    assert "autopilot" in sentence
    assert "random" in sentence
    assert sentence.count(".") == 1
    assert "\n" not in sentence


def test_an_env_that_renders_no_pictures_is_refused():
    env = make_env(STOCK_ID)
    with pytest.raises(ValueError, match="rgb_array"):
        Keyboard(env, Window())
    env.close()


def test_controls_ramp_gently_and_let_go_quickly():
    action, wanted = np.zeros(3), np.array([-1, 1, MOST_BRAKE])
    history = [action]
    for _ in range(30):
        history.append(ramp(history[-1], wanted))
    history = np.array(history)
    assert (np.diff(np.abs(history), axis=0) >= 0).all()
    assert np.abs(np.diff(history, axis=0)).max() <= 0.1
    np.testing.assert_allclose(history[-1], wanted)
    assert (np.abs(ramp(wanted, np.zeros(3))) <= np.abs(wanted) - 0.15).all()
    across = ramp(np.array([0.5, 0, 0]), np.array([-1, 0, 0]))
    assert across[0] < 0.4, "the other key takes the wheel back at once"


def test_the_brake_never_locks_the_wheels():
    assert MOST_BRAKE < 0.9
