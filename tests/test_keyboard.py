"""The window, with real key presses on a virtual display."""

import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pygame
import pytest
import tiny
from stages import FLAGS, contents, expect_the_end

from utils.drivers.keyboard import LOST, MOST_BRAKE, PAUSED, Copilot, Keyboard, Window, doubt, ramp
from utils.pictures import cockpit
from utils.pictures.cockpit import AGENT, NARROW, PERSON, Thoughts
from utils.pictures.drawing import RACE, THUMBNAIL
from utils.runtime.errors import UserError
from utils.simulator.envs import DREAM_ID, FAST_ID, make_env
from utils.storage.networks import rnn_path
from utils.world_model.episodes import load_rollout
from utils.world_model.latents import load_latents

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
    env = make_env(FAST_ID)
    yield env
    env.close()


@pytest.fixture
def dream(project):
    """A dream that M never ends."""
    expect_the_end(rnn_path("checkpoints"), -100.0)
    return make_env(DREAM_ID)


@pytest.fixture
def on_display(display, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # as other parts of the program leave it


@pytest.fixture
def window(on_display):
    with Window() as window:
        yield window


@pytest.fixture
def xdotool(display):
    def xdotool(*words):
        subprocess.run(["xdotool", *words], check=True, env={**os.environ, "DISPLAY": display})

    yield xdotool
    xdotool("keyup", "Left", "keyup", "Right", "keyup", "Up", "keyup", "Down")


@pytest.fixture
def later(xdotool):
    """Press one key after the other while the window is shown; the list says which they were."""
    pressed, threads = [], []

    def press(*keys, when=is_shown):
        def run():
            while not when():
                time.sleep(0.1)
            for key in keys:
                time.sleep(0.5)
                pressed.append(key)
                xdotool("key", key)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return pressed

    yield press
    for thread in threads:
        thread.join(60)


def is_shown():
    surface = pygame.display.get_init() and pygame.display.get_surface()
    return bool(surface) and surface.get_at((5, 5))[:3] == cockpit.GROUND


class Beside:
    """A copilot who always does the same, and notes what is told."""

    why_not = ""
    does = np.array([0.5, 0.25, 0], np.float32)
    redrawn = np.full((64, 64, 3), (10, 20, 200), np.uint8)
    expected = np.full((64, 64, 3), (200, 20, 10), np.uint8)

    def begin(self):
        self.frames, self.told = [], []

    def decide(self, frame):
        self.frames.append(frame)
        return self.does

    def thoughts(self):
        return Thoughts(self.redrawn, self.expected, 0.25)

    def remember(self, action):
        self.told.append(action)


def seated(env, window, copilot=None, hand_back=0.0):
    """A driver in a race on track 1, and the first frame."""
    obs, _ = env.reset(seed=1)
    driver = Keyboard(env, window, copilot or Copilot("there is none"), hand_back)
    driver.begin()
    return driver, obs


def act_until(driver, obs, condition):
    for _ in range(PATIENCE):
        action = driver.act(obs)
        assert action.shape == (3,)
        assert action.dtype == np.float32
        if condition(action):
            return action
    raise AssertionError(f"still {action} after {PATIENCE} frames")


def screen():
    """What the window shows, (720, 1064, 3)."""
    return pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)


def look(driver, obs):
    """What the window shows a moment later: a slow machine leaves out every other frame."""
    for _ in range(3):
        driver.act(obs)
    return screen()


def has(colour, picture):
    return bool((picture == colour).all(2).any())


# Who drives


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
    driver, obs = seated(env, window)
    xdotool("keydown", key)
    act_until(driver, obs, lambda action: np.allclose(action, full))
    assert not driver.by_agent
    xdotool("keyup", key)
    act_until(driver, obs, lambda action: (action == 0).all())


def test_two_keys_at_once(env, window, xdotool):
    driver, obs = seated(env, window)
    xdotool("keydown", "Up", "keydown", "Right")
    act_until(driver, obs, lambda action: np.allclose(action, (1, 1, 0)))


def test_the_car_obeys(env, window, xdotool):
    driver, obs = seated(env, window)
    car = env.unwrapped.car
    heading = car.hull.angle
    xdotool("keydown", "Up", "keydown", "Left")
    for _ in range(PATIENCE):
        obs, *_ = env.step(driver.act(obs))
        if car.hull.linearVelocity.length > 5 and car.hull.angle > heading + 0.3:
            return
    raise AssertionError("the car neither drives nor turns left")


@pytest.mark.parametrize("key", ["Up", "Left", "m", "space", "period"])
def test_a_race_waits_for_the_first_key(env, window, later, key):
    driver, obs = seated(env, window, Beside())
    pressed = later(key)
    assert driver.act(obs) is not None
    assert pressed == [key]
    assert driver.by_agent == (key == "m")


def test_other_keys_do_not_begin_a_race(env, window, later):
    driver, obs = seated(env, window, Beside())
    pressed = later("Tab", "plus", "x", "Up")
    assert driver.act(obs) is not None
    assert pressed[-1] == "Up"
    assert len(driver._copilot.frames) == 1


def test_m_hands_the_wheel_over_and_takes_it_back(env, window, xdotool):
    driver, obs = seated(env, window, beside := Beside())
    xdotool("key", "m")
    assert np.array_equal(driver.act(obs), beside.does)
    assert driver.by_agent
    assert has(AGENT[0], look(driver, obs)[660:690, 590:])
    assert not any(has(colour, screen()[660:690, 590:]) for colour in PERSON)
    xdotool("key", "m")
    act_until(driver, obs, lambda action: (action == 0).all())
    assert not driver.by_agent
    assert not has(AGENT[0], screen()[660:690, 590:])


def test_an_arrow_key_takes_the_wheel_and_it_stays_taken(env, window, xdotool):
    driver, obs = seated(env, window, Beside())
    xdotool("key", "m")
    driver.act(obs)
    xdotool("keydown", "Left")
    act_until(driver, obs, lambda action: action[0] == -1)
    assert not driver.by_agent
    xdotool("keyup", "Left")
    act_until(driver, obs, lambda action: (action == 0).all())
    for _ in range(30):
        assert (driver.act(obs) == 0).all()


def test_the_agent_has_the_wheel_again_some_time_after_the_last_key(env, window, xdotool):
    driver, obs = seated(env, window, beside := Beside(), hand_back=0.4)
    xdotool("keydown", "Left")
    for _ in range(30):
        driver.act(obs)
        assert not driver.by_agent  # it has not been the agent's before
    xdotool("keyup", "Left", "key", "m", "keydown", "Left")
    act_until(driver, obs, lambda action: action[0] == -1)
    xdotool("keyup", "Left")
    act_until(driver, obs, lambda action: action[0] > -1)
    for _ in range(18):
        driver.act(obs)
        assert not driver.by_agent
    act_until(driver, obs, lambda action: np.array_equal(action, beside.does))
    assert driver.by_agent


def test_the_agent_hears_of_every_frame_and_of_what_was_done(env, window, xdotool):
    driver, obs = seated(env, window, beside := Beside())
    xdotool("keydown", "Right")
    actions = [driver.act(obs) for _ in range(5)]
    xdotool("key", "m")
    actions.append(act_until(driver, obs, lambda action: driver.by_agent))
    assert len(beside.frames) == len(beside.told) >= 6
    assert np.array_equal(beside.told[:5], actions[:5])
    assert np.array_equal(beside.told[-1], beside.does)
    assert beside.frames[0].shape == (64, 64, 3)


def test_without_an_agent_m_says_why_and_the_keyboard_works_as_ever(env, window, xdotool, later):
    driver, obs = seated(env, window, Copilot("checkpoints/vae.pt (the V) is missing."))
    xdotool("key", "m")
    later("Up")
    driver.act(obs)
    assert "checkpoints/vae.pt (the V) is missing." in driver._line()
    assert has(cockpit.AMBER, look(driver, obs)[MESSAGE])
    assert not driver.by_agent


# The race stands still, ends, and another begins


def test_space_pauses_and_a_dot_goes_one_frame_on(env, window, xdotool, later):
    driver, obs = seated(env, window)
    xdotool("key", "Up")
    driver.act(obs)
    later("space", "period", "period", "space")
    alone = 0
    for _ in range(PATIENCE):
        driver.act(obs)
        alone += driver._still == PAUSED  # a frame that a dot has let by
        if alone == 2 and not driver._still:
            break
    assert alone == 2
    assert not driver._still


@pytest.mark.parametrize(("key", "flag"), [("Escape", "quit"), ("Return", "next_road")])
@pytest.mark.parametrize("first", [(), ("Up",), ("Up", "space")])
def test_escape_ends_and_enter_goes_on_from_every_state(env, window, xdotool, first, key, flag):
    driver, obs = seated(env, window)
    xdotool("key", *first, key)
    for _ in range(PATIENCE):
        if driver.act(obs) is None:
            break
    assert (driver.quit, driver.next_road) == (flag == "quit", flag == "next_road")
    if not driver.quit:
        driver.begin()
        assert not driver.next_road


def test_closing_the_window_quits(env, window):
    driver, obs = seated(env, window)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert driver.act(obs) is None
    assert driver.quit


@pytest.mark.parametrize(
    ("ended", "reward", "title"),
    [
        (True, 3.2, "The lap is complete"),
        (True, -100.0, "Off the field"),
        (False, -0.1, "The time is up"),
    ],
)
def test_the_end_stands_on_the_screen_until_a_key_is_pressed(
    env, window, later, ended, reward, title
):
    driver, _ = seated(env, window, Beside())
    pressed = later("space", "m", "Up", "Return")
    driver.conclude(tiny.episode(1).obs[1], 12.34, ended, reward)
    assert pressed[-1] == "Return"
    assert driver._still[0] == title
    assert "12.3 points" in driver._still[1]
    assert driver.next_road
    assert not driver.quit


def test_the_end_of_a_dream_is_ms_prediction(dream, window, later):
    driver, _ = seated(dream, window)
    later("Escape")
    driver.conclude(tiny.episode(1).obs[1], -98.76, True, -100.0)
    assert driver._still[0] == "M predicts the end of the race"
    assert "-98.8 points predicted" in driver._still[1]
    assert driver.quit


def test_races_share_the_window(env, window, xdotool):
    windows = set()
    for key in ("Up", "Tab", "m"):
        driver, obs = seated(env, window, Beside())
        xdotool("key", key, "Up")
        driver.act(obs)
        windows.add(pygame.display.get_wm_info()["window"])
    assert len(windows) == 1


def test_the_window_closes_when_it_is_left(on_display):
    with Window():
        assert pygame.display.get_init()
    assert not pygame.display.get_init()


# The screen

MESSAGE = np.s_[70:170, 100:960]  # where sentences stand
READINGS = np.s_[630:700, 24:410]


def test_the_window_shows_race_score_time_and_tiles(env, window, xdotool):
    driver, obs = seated(env, window)
    for _ in range(60):
        obs, *_ = env.step(np.array([0, 0.5, 0], np.float32))
    race = env.unwrapped
    xdotool("key", "Up")
    driver.act(obs)
    cockpit.paint(wanted := np.zeros((720, 1064, 3), np.uint8), cockpit.Cockpit(
        driver._road.draw, np.zeros(3), False, False,
        {"SCORE": f"{race.reward:.1f}", "TIME": "0.00 s",
         "TILES": f"{race.tile_visited_count} / {len(race.track)}", "FRAME TIME": "0 ms"},
        (False,) * 4, "Press an arrow key to drive", "or m to let the agent drive",
    ))  # fmt: skip
    shown = screen()
    assert race.reward != 0
    assert (shown[:620] == wanted[:620]).all()
    assert (shown[READINGS] == wanted[READINGS]).all()
    assert (shown[700:] == wanted[700:]).all()
    assert not (shown[READINGS] == cockpit._template(False)[READINGS]).all()


def test_held_keys_are_lit(env, window, xdotool):
    driver, obs = seated(env, window)
    arrows = np.s_[695:715, 24:90]
    xdotool("key", "Up")
    look(driver, obs)
    assert not has(cockpit.BLUE, screen()[arrows])
    xdotool("keydown", "Down")
    assert has(cockpit.BLUE, look(driver, obs)[arrows])


def test_tab_shows_what_v_redraws_and_m_expected(env, window, xdotool):
    driver, obs = seated(env, window, beside := Beside())
    xdotool("key", "Tab", "key", "Up")
    column = look(driver, obs)[24:616, -24 - THUMBNAIL : -24]
    v_sees, redrawn, expected = (column[row * 200 + 60 : row * 200 + 140] for row in range(3))
    assert (redrawn == beside.redrawn[0, 0]).all()
    assert (expected == beside.expected[0, 0]).all()
    assert v_sees.std() > 5
    race = screen()[24:616, 24 : 24 + NARROW]
    driver._road.draw(wanted := np.zeros((RACE[1], NARROW, 3), np.uint8))
    assert (race[200:, 20:-20] == wanted[200:, 20:-20]).all()


def test_tab_in_a_dream_says_that_nothing_real_exists(dream, window, xdotool):
    driver, obs = seated(dream, window, Beside())
    xdotool("key", "Tab", "key", "Up")
    slot = look(driver, obs)[24:216, -24 - THUMBNAIL : -24]
    assert np.median(slot.reshape(-1, 3), 0).tolist() == list(cockpit.PANEL)
    assert has(cockpit.MUTED, slot), "and there are words in it"
    assert "Nothing real exists" in cockpit.NOTHING_REAL


def test_the_window_shows_a_dream_and_its_temperature(dream, window, xdotool):
    driver, obs = seated(dream, window)
    xdotool("key", "Up")
    driver.act(obs)
    before = screen()[READINGS].copy()
    xdotool("key", "plus", "key", "plus", "key", "minus", "key", "plus")
    for _ in range(30):
        obs, _, _, _, info = dream.step(driver.act(obs))
    assert dream.unwrapped.temperature == info["temperature"] == 1.2
    assert list(driver._readings()) == [
        "PREDICTED RETURN", "IN THE DREAM", "TEMPERATURE", "FRAME TIME",
    ]  # fmt: skip
    assert driver._readings()["TEMPERATURE"] == "1.2"
    assert (screen()[READINGS] != before).any()


def test_a_real_road_has_no_temperature(env, window, xdotool):
    driver, obs = seated(env, window)
    xdotool("key", "plus", "key", "Up")
    assert has(cockpit.AMBER, look(driver, obs)[MESSAGE])
    assert "only a dream" in driver._line()


def test_a_dream_that_falls_apart_says_so_on_the_screen(dream, window, xdotool):
    driver, obs = seated(dream, window)
    xdotool("key", "Up")
    assert not has(cockpit.AMBER, look(driver, obs)[MESSAGE])
    dream.unwrapped.reward += 200  # in a single frame
    assert has(cockpit.AMBER, look(driver, obs)[MESSAGE])
    driver.begin()  # as after Enter
    xdotool("key", "Up")
    assert not has(cockpit.AMBER, look(driver, obs)[MESSAGE])


def test_which_returns_are_of_no_real_drive():
    fast = np.full(1000, -0.1)
    fast[::2] += 4  # 25 tiles of 250 in a second
    assert not doubt(fast[:500])
    assert not doubt(np.array([]))
    assert "no car earns 120 points in a second" in doubt(np.append(fast[:50], 90))
    assert "no lap is worth 1000 points" in doubt(np.full(900, 1.2))
    assert not doubt(np.append(fast[:300], np.full(LOST - 30, -0.1)))
    assert "nothing gained for 3 seconds" in doubt(np.append(fast[:300], np.full(LOST, -0.1)))


# Stage 01

REAL = {"keyboard_episodes": 1, "workers": 0, "rollouts": "data/by_hand"}
BY_HAND = "data/by_hand/keyboard_1000000.npz"


def test_01_keeps_a_mixed_race_and_who_drove_in_every_frame(project, on_display, later):
    tiny.save_c(project / "checkpoints" / "controller.pt", tiny.STRAIGHT_ON)
    later("Left", "m", "Escape")
    said = tiny.stage(1, **REAL)
    header, episode = load_rollout(project / BY_HAND)
    who = episode.by_agent
    assert (header["driver"], header["env_id"]) == ("keyboard", FAST_ID)
    assert f"track 1000000: score {header['score']:.1f} in {len(who)} frames" in said
    first = int(who.argmax())
    assert 0 < first < len(who)
    assert not who[:first].any()
    assert who[first:].all()
    assert np.allclose(episode.action[who], tiny.STRAIGHT_ON_ACTION)
    assert not np.allclose(episode.action[~who], tiny.STRAIGHT_ON_ACTION)
    tiny.stage(3, **FLAGS[3], rollouts="data/by_hand", latents="data/encoded")
    assert len(load_latents(project / "data/encoded/keyboard_1000000.npz")[1].action) == len(who)


def test_01_keeps_nothing_of_a_race_that_never_began(project, on_display, later):
    later("Return", "Escape")
    with pytest.raises(UserError, match="holds no rollouts"):
        tiny.stage(1, **REAL)


def test_01_goes_on_to_another_road_and_keeps_the_first(project, on_display, later):
    later("Up", "Return", "Up", "Escape")
    said = tiny.stage(1, **REAL)
    assert "track 1000000" in said
    assert "track 1000001" in said
    assert len(list((project / "data" / "by_hand").glob("*.npz"))) == 2


def test_01_without_checkpoints_is_driven_by_the_keyboard(tmp_path, monkeypatch, on_display, later):
    monkeypatch.chdir(tmp_path)
    later("m", "Up", "m", "Escape")
    assert "track 1000000" in tiny.stage(1, **REAL)
    _, episode = load_rollout(tmp_path / BY_HAND)
    assert not episode.by_agent.any()


def test_01_dreams_on_after_the_predicted_end_and_keeps_nothing(project, on_display, later):
    expect_the_end(rnn_path("checkpoints"), 100.0)
    before = contents(project)
    later("Up", "Return")
    said = tiny.stage(1, env_id=DREAM_ID, keyboard_episodes=1)
    assert contents(project) == before
    assert said.startswith("dream 0: M expected ")
    assert said.endswith(" in 1 frames\n")


def test_01_keeps_a_race_of_the_agent_up_to_its_end_before_the_window_closes(
    project, on_display, later
):
    tiny.save_c(project / "checkpoints" / "controller.pt", tiny.STRAIGHT_ON)
    later("m")
    later("Escape", when=(project / BY_HAND).exists)
    assert "track 1000000" in tiny.stage(1, **REAL)
    _, episode = load_rollout(project / BY_HAND)
    assert episode.terminated[-1]
    assert episode.by_agent.all()
    env = make_env(FAST_ID)
    env.reset(seed=1_000_000)
    scores = [env.step(tiny.STRAIGHT_ON_ACTION)[1] for _ in episode.action]
    assert episode.reward.sum() == pytest.approx(sum(scores), abs=0.01)


# Without a display


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
