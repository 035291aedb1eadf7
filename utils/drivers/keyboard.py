"""A person drives: the arrow keys, and a window that shows the race, its score and its time."""

import os
import sys
import time

import gymnasium as gym
import numpy as np
import pygame

from utils.pictures import film
from utils.runtime.errors import UserError
from utils.simulator.envs import has_display
from utils.simulator.road import road_of

MOST_BRAKE = 0.8  # at 0.9 the wheels lock and the car no longer steers

FRAME = 1 / film.FPS  # seconds

# How far each control moves in a frame while its key is held.
STEER_RATE = 0.08
GAS_RATE = 0.06
BRAKE_RATE = 0.06
RELEASE_RATE = 0.2  # every control, once its key is let go

WINDOWLESS = ("dummy", "offscreen")  # SDL drivers that draw without a window, so without keys


class Window:
    """The one window in which race after race is shown; a context manager.

    Raises:
        UserError: on entering, where no window can be opened.
    """

    def __enter__(self) -> "Window":
        if os.environ.get("SDL_VIDEODRIVER") in WINDOWLESS:  # set where races are drawn in memory
            del os.environ["SDL_VIDEODRIVER"]
        pygame.display.quit()  # it may already run without a window
        try:
            # Without a desktop SDL may still take hold of a server's bare console.
            if sys.platform == "linux" and not has_display():
                raise pygame.error("no display")
            pygame.display.init()
            if pygame.display.get_driver() in WINDOWLESS:
                raise pygame.error("no display")
            pygame.display.set_caption("Arrow keys drive · Esc stops")
            self._surface = pygame.display.set_mode(film.DRIVING)
        except pygame.error as error:
            pygame.display.quit()
            raise UserError(
                "the keyboard driver needs a display for its window and there is none here; use"
                " the autopilot or the random driver instead."
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        pygame.display.quit()

    def show(self, picture: np.ndarray) -> None:
        """Show a picture (720, 1064, 3) uint8."""
        image = pygame.image.frombuffer(picture.data, film.DRIVING, "RGB")
        self._surface.blit(image, (0, 0))
        pygame.display.flip()


class Keyboard:
    """Drive `env` with the arrow keys: left and right steer, up is gas, down brakes.

    `act` shows the race as it stands, waits for the next fiftieth of a second and reads the keys. A
    machine too slow for that shows every other frame, so that the race keeps its speed.

    Esc or closing the window sets `quit`: the driver wants no further frame of this race and no
    other race, and what it has driven so far is as good as any.

    Args:
        env: a CarRacing or a dream of it (wrapped or not) made with render_mode="rgb_array" and
            already reset.
        window: an open one.

    Raises:
        ValueError: `env` has another render mode.
    """

    def __init__(self, env: gym.Env, window: Window) -> None:
        if env.render_mode != "rgb_array":
            raise ValueError('the keyboard driver needs an env with render_mode="rgb_array"')
        self.quit = False
        self._env, self._road = env, road_of(env)
        self._window = window
        self._due = time.perf_counter() + FRAME
        self._shown = False
        self._action = np.zeros(3)
        self._frame_number = 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The action that the held keys give, (3,) float32.

        Args:
            obs: not used; the window shows a larger picture of the same moment.
        """
        in_time = time.perf_counter() < self._due
        self._shown = in_time or not self._shown
        if self._shown:
            self._show()
        time.sleep(max(0.0, self._due - time.perf_counter()))
        self._due = max(self._due, time.perf_counter() - FRAME) + FRAME
        for event in pygame.event.get():
            escape = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
            self.quit |= escape or event.type == pygame.QUIT
        keys = pygame.key.get_pressed()
        steer = int(keys[pygame.K_RIGHT]) - int(keys[pygame.K_LEFT])
        gas, brake = int(keys[pygame.K_UP]), MOST_BRAKE * int(keys[pygame.K_DOWN])
        self._action = ramp(self._action, np.array([steer, gas, brake]))
        self._frame_number += 1
        return self._action.astype(np.float32)

    def _show(self) -> None:
        picture = film.driving_frame(
            np.asarray(self._env.render()),
            self._action,
            self._road.score,
            self._frame_number,
            self._road.tiles,
            self._road.total_tiles,
        )
        self._window.show(picture)


def ramp(action: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The action (3,) one frame nearer to the wanted one: gently on, quickly off or back."""
    pressing = (wanted != 0) & (action * wanted >= 0)
    rate = np.where(pressing, (STEER_RATE, GAS_RATE, BRAKE_RATE), RELEASE_RATE)
    return action + np.clip(wanted - action, -rate, rate)
