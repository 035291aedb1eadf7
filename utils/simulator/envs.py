"""The three environments by name, and the view of them that the agent gets."""

import os
import sys
from typing import Any

import cv2
import gymnasium as gym
import numpy as np

STOCK_ID = "CarRacing-v3"
FAST_ID = "FastCarRacing-v0"
DREAM_ID = "DreamCarRacing-v0"
ENV_IDS = (STOCK_ID, FAST_ID, DREAM_ID)
FRAME_SIZE = 64  # the agent sees 64x64x3, as in the World Models paper
FPS = 50  # frames a second, by the game's own clock
MAX_FRAMES = 1000  # of one race
HOTTEST = 10.0  # temperature of a dream

gym.register(
    id=FAST_ID,
    entry_point="utils.simulator.fast_car_racing:FastCarRacing",
    max_episode_steps=MAX_FRAMES,
    reward_threshold=gym.spec(STOCK_ID).reward_threshold,
)
gym.register(
    id=DREAM_ID,
    entry_point="utils.world_model.dream_car_racing:DreamCarRacing",  # loaded when it is made
    max_episode_steps=MAX_FRAMES,
)


def make_env(env_id: str, render_mode: str | None = None, **options: Any) -> gym.Env:
    """A CarRacing environment: stock's, our fast one with the same physics, or M's dream of it.

    Ours draws at once what `shrink` would make of stock's frame: nobody here looks at a larger one.

    Args:
        options: see `DreamCarRacing` and `FastCarRacing`.

    Without a display SDL is told to draw in memory, which is all that the stock renderer needs.
    """
    if render_mode != "human" and sys.platform == "linux" and not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if env_id == FAST_ID:
        options.setdefault("frame_size", FRAME_SIZE)
    checked = env_id == STOCK_ID
    return gym.make(env_id, render_mode=render_mode, disable_env_checker=not checked, **options)


def has_display() -> bool:
    """Whether a window can be expected to open."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def shrink(obs: np.ndarray) -> np.ndarray:
    """obs (96, 96, 3) uint8 -> (64, 64, 3) uint8 by area, the status bar included.

    What has that size already stays as it is.
    """
    if len(obs) == FRAME_SIZE:
        return obs
    return cv2.resize(obs, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_AREA)


def horizon(size: int) -> int:
    """Rows of a square frame that show the world; below them is the dashboard."""
    return size * 7 // 8


def enlarge(frame: np.ndarray) -> np.ndarray:
    """frame (64, 64, 3) uint8 -> obs (96, 96, 3) uint8 of which `shrink` makes that frame again.

    Two pixels become three: their mean, and beside it what makes up for that. The error is 0.06
    grey levels on average (rounding, and no colour is darker than black); with OpenCV's own ways to
    enlarge it is 0.5 at best, and seven times as large in V's z.
    """
    wide = np.einsum("it, trc, jr -> ijc", _ENLARGE, frame, _ENLARGE, optimize=True)
    return np.round(wide).clip(0, 255).astype(np.uint8)


_TWO_TO_THREE = np.array([[5, -1], [2, 2], [-1, 5]], np.float32) / 4
_ENLARGE = np.kron(np.eye(FRAME_SIZE // 2, dtype=np.float32), _TWO_TO_THREE)  # (96, 64)
