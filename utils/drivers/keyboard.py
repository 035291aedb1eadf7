"""A person drives: the arrow keys, a window that shows the race, and the agent beside the driver.

The window knows the agent only as a `Copilot`, whom the caller brings along.
"""

import os
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pygame

from utils.pictures import cockpit
from utils.pictures.cockpit import Cockpit, OtherWorld, Thoughts
from utils.pictures.drawing import DRIVING
from utils.runtime.errors import UserError
from utils.simulator.envs import FPS, HOTTEST, has_display
from utils.simulator.road import road_of

MOST_BRAKE = 0.8  # at 0.9 the wheels lock and the car no longer steers

FRAME = 1 / FPS  # seconds

# How far each control moves in a frame while its key is held.
STEER_RATE = 0.08
GAS_RATE = 0.06
BRAKE_RATE = 0.06
RELEASE_RATE = 0.2  # every control, once its key is let go

READY = ("Press an arrow key to drive", "or m to let the agent drive")
PAUSED = ("Paused", "space goes on, . goes one frame on")
ARROWS = (pygame.K_LEFT, pygame.K_UP, pygame.K_DOWN, pygame.K_RIGHT)
WARMER = 0.1  # temperature that one press of a key adds or takes
NOTICE = 5.0  # seconds for which an answer to a key stays on the screen
LATELY = 0.05  # weight of the last frame in the mean of the frame times
OFF_THE_FIELD = -99  # points; whoever leaves it loses 100 in that frame

# A dream in which one of these things happens is of no real drive any more.
MOST_IN_A_SECOND = 120.0  # points; of real races the agent's best second has 102
LAP = 1000.0  # points that all the tiles of a road are worth together
LOST = 150  # frames without any gain; on a road the next tile is never that far

WINDOWLESS = ("dummy", "offscreen")  # SDL drivers that draw without a window, so without keys


class Copilot:
    """The agent beside the driver: it watches every frame of a race, whoever drives.

    This one is nobody, and says why.
    """

    def __init__(self, why_not: str = "") -> None:
        self.why_not = why_not  # it cannot drive, in words; "" where it can

    def begin(self) -> None:
        """Forget the race before."""

    def decide(self, frame: np.ndarray) -> np.ndarray:
        """What it would do on seeing a frame (64, 64, 3) uint8: (3,) float32."""
        return np.zeros(3, np.float32)

    def thoughts(self) -> Thoughts | None:
        """What it makes of the frame that it saw last."""
        return None

    def remember(self, action: np.ndarray) -> None:
        """What was done on seeing it, (3,) float32."""


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
            if pygame.display.get_driver() == "x11":  # else by OpenGL: 6 ms where there is no GPU
                os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
            pygame.display.set_caption("Drive a world model")
            self._surface = pygame.display.set_mode(DRIVING)
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
        image = pygame.image.frombuffer(picture.data, DRIVING, "RGB")
        self._surface.blit(image, (0, 0))
        pygame.display.flip()


class Keyboard:
    """Drive `env` with the arrow keys: left and right steer, up is gas, down brakes.

    A race waits for the first key. `act` then shows it as it stands, waits for the next fiftieth of
    a second and reads the keys. A machine too slow for that shows every other frame, so that the
    race keeps its speed.

    After each `act`, `by_agent` says who drove. Where `act` gives no action, no further frame of
    this race is wanted: after Enter it is another road (`next_road`), after Esc or with the window
    closed there is none (`quit`). What has been driven so far is as good as any.

    Args:
        env: a CarRacing or a dream of it, wrapped or not.
        window: an open one.
        copilot: takes the wheel at the key m.
        hand_back: seconds after the last arrow key after which the copilot has the wheel again, if
            it was taken by such a key; 0 is never.
    """

    def __init__(
        self, env: gym.Env, window: Window, copilot: Copilot, hand_back: float = 0.0
    ) -> None:
        self.quit = False
        self._road = road_of(env)
        self._race: Any = env.unwrapped  # a dream has a temperature
        self._window, self._copilot = window, copilot
        self._hand_back = hand_back * FPS  # in frames
        self._canvas = np.empty((*DRIVING[::-1], 3), np.uint8)
        self._beside = False
        self._shown = False
        self._took = 0.0  # seconds of work for a frame, the mean of late

    def begin(self) -> None:
        """A new race, just reset: it stands still, and the person at the keys has the wheel."""
        self.next_road = self.by_agent = False
        self._still: tuple[str, str] | None = READY  # why the race does not go on
        self._one_frame = False
        self._agent_drives = self._borrowed = False
        self._hands_off = 0  # frames since an arrow key was held
        self._notice, self._notice_ends = "", 0.0
        self._action = np.zeros(3)
        self._scores: list[float] = []  # at every frame
        self._due = self._begun = time.perf_counter()
        self._copilot.begin()

    def act(self, obs: np.ndarray) -> np.ndarray | None:
        """The action (3,) float32 of whoever has the wheel, or None: see the class.

        Args:
            obs: the frame (64, 64, 3) uint8; the window shows a larger picture of that moment.
        """
        advice = self._look(obs)
        self._one_frame = False
        self._show_and_wait()
        while self._still and not (self._one_frame or self.quit or self.next_road):
            self._show_and_wait()
        if self.quit or self.next_road:
            return None
        action = self._by_keys()
        self.by_agent = self._agent_drives
        self._action = (advice if self._agent_drives else action).astype(np.float32)
        self._copilot.remember(self._action)
        return self._action

    def conclude(self, frame: np.ndarray, score: float, ended: bool, reward: float) -> None:
        """Let the end of the race stand until Enter or Esc is pressed.

        Args:
            frame: (64, 64, 3) uint8, the last one.
            ended: whether the race came to its end, and not only its time.
            reward: of the last frame.
        """
        self._look(frame)
        if not ended:
            title = "The time is up"
        elif self._road.dreamt:
            title = "M predicts the end of the race"
        else:
            title = "Off the field" if reward < OFF_THE_FIELD else "The lap is complete"
        points = "points predicted" if self._road.dreamt else "points"
        self._still = title, f"{score:.1f} {points}  ·  Enter goes on  ·  Esc ends"
        while not (self.quit or self.next_road):
            self._show_and_wait()

    def _look(self, frame: np.ndarray) -> np.ndarray:
        """Take in a new frame; what the agent would do."""
        self._frame = frame
        self._scores.append(self._road.score)
        return self._copilot.decide(frame)

    def _by_keys(self) -> np.ndarray:
        """The person's action, by the held keys; a long rest gives the wheel back."""
        left, up, down, right = held = self._held()
        self._hands_off = 0 if any(held) else self._hands_off + 1
        if self._borrowed and 0 < self._hand_back <= self._hands_off:
            self._agent_drives, self._borrowed = True, False
        return ramp(self._action, np.array([right - left, up, MOST_BRAKE * down]))

    def _held(self) -> tuple[bool, bool, bool, bool]:
        """Which of ARROWS are."""
        keys = pygame.key.get_pressed()
        left, up, down, right = (bool(keys[key]) for key in ARROWS)
        return left, up, down, right

    # The clock and the keys

    def _show_and_wait(self) -> None:
        """Show the race, wait for the next frame's moment, and read the keys."""
        in_time = time.perf_counter() < self._due
        self._shown = in_time or not self._shown
        if self._shown:
            self._show()
        took = time.perf_counter() - self._begun
        self._took += (took - self._took) * (LATELY if self._took else 1)
        time.sleep(max(0.0, self._due - time.perf_counter()))
        self._begun = time.perf_counter()
        self._due = max(self._due, self._begun - FRAME) + FRAME
        for event in pygame.event.get():
            self.quit |= event.type == pygame.QUIT
            if event.type == pygame.KEYDOWN:
                self._press(event.key, event.unicode)

    def _press(self, key: int, character: str) -> None:
        if key == pygame.K_ESCAPE:
            self.quit = True
        elif key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            self.next_road = True
        elif key == pygame.K_TAB:
            self._beside = not self._beside
        elif character and character in "+=-":
            self._warm(-WARMER if character == "-" else WARMER)
        elif self._still in (None, READY, PAUSED):  # not after the end
            self._drive_on(key, character.lower())

    def _drive_on(self, key: int, character: str) -> None:
        """The keys that move the race, or decide who drives it."""
        if character == " ":
            self._still = None if self._still else PAUSED
        elif character == ".":
            self._still, self._one_frame = PAUSED, True
        elif key in ARROWS:
            self._borrowed |= self._agent_drives
            self._agent_drives = False
            self._begin_driving()
        elif character == "m" and self._copilot.why_not:
            self._say(f"The agent cannot drive here: {self._copilot.why_not}")
        elif character == "m":
            self._agent_drives, self._borrowed = not self._agent_drives, False
            self._begin_driving()

    def _begin_driving(self) -> None:
        self._still = None if self._still == READY else self._still

    def _warm(self, by: float) -> None:
        if self._road.dreamt:
            warmer = min(max(self._race.temperature + by, 0.0), HOTTEST)
            self._race.temperature = round(warmer, 2)
        else:
            self._say("This road is real: only a dream has a temperature.")

    def _say(self, notice: str) -> None:
        self._notice, self._notice_ends = notice, time.perf_counter() + NOTICE

    # The screen

    def _show(self) -> None:
        title, subtitle = self._still or ("", "")
        cockpit.paint(self._canvas, Cockpit(
            self._road.draw, self._action, self._agent_drives, self._road.dreamt,
            self._readings(), self._held(), title, subtitle, self._line(),
            self._other_world() if self._beside else None,
        ))  # fmt: skip
        self._window.show(self._canvas)

    def _readings(self) -> dict[str, str]:
        score = f"{self._road.score:.1f}"
        seconds = f"{(len(self._scores) - 1) / FPS:.2f} s"
        took = {"FRAME TIME": f"{1000 * self._took:.0f} ms"}
        if self._road.dreamt:
            temperature = f"{self._race.temperature:g}"
            told = {"PREDICTED RETURN": score, "IN THE DREAM": seconds, "TEMPERATURE": temperature}
            return told | took
        tiles = f"{self._road.tiles} / {self._road.total_tiles}"
        return {"SCORE": score, "TIME": seconds, "TILES": tiles} | took

    def _line(self) -> str:
        """The answer to a key, or else what is wrong with the dream."""
        if time.perf_counter() < self._notice_ends:
            return self._notice
        return doubt(np.diff(self._scores)) if self._road.dreamt else ""

    def _other_world(self) -> OtherWorld:
        seen = None if self._road.dreamt else self._frame
        gain = float(np.diff(self._scores[-2:]).sum())
        return OtherWorld(seen, self._copilot.thoughts(), gain, self._copilot.why_not)


def doubt(rewards: np.ndarray) -> str:
    """Why a dream with these rewards (T,) can be of no road that exists; "" while it may be."""
    if rewards[-FPS:].sum() > MOST_IN_A_SECOND:
        what = f"no car earns {MOST_IN_A_SECOND:.0f} points in a second"
    elif rewards.sum() > LAP:
        what = f"no lap is worth {LAP:.0f} points"
    elif len(rewards) >= LOST and rewards[-LOST:].sum() <= 0:
        what = f"nothing gained for {LOST / FPS:.0f} seconds"
    else:
        return ""
    return f"The dream has gone astray: {what}. Enter begins another."


def ramp(action: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The action (3,) one frame nearer to the wanted one: gently on, quickly off or back."""
    pressing = (wanted != 0) & (action * wanted >= 0)
    rate = np.where(pressing, (STEER_RATE, GAS_RATE, BRAKE_RATE), RELEASE_RATE)
    return action + np.clip(wanted - action, -rate, rate)
