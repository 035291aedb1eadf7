"""The two environments by name, and the view of them that the agent gets."""

import os
import sys

import cv2
import gymnasium as gym
import numpy as np

STOCK_ID = "CarRacing-v3"
FAST_ID = "FastCarRacing-v0"
ENV_IDS = (STOCK_ID, FAST_ID)
FRAME_SIZE = 64  # the agent sees 64x64x3, as in the World Models paper
MAX_FRAMES = 1000  # of one race

gym.register(
    id=FAST_ID,
    entry_point="utils.simulator.fast_car_racing:FastCarRacing",
    max_episode_steps=MAX_FRAMES,
    reward_threshold=gym.spec(STOCK_ID).reward_threshold,
)


def make_env(env_id: str, render_mode: str | None = None) -> gym.Env:
    """A CarRacing environment: the stock one, or our fast one with the same physics.

    Without a display SDL is told to draw in memory, which is all that the stock renderer needs.
    """
    if render_mode != "human" and sys.platform == "linux" and not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    return gym.make(env_id, render_mode=render_mode, disable_env_checker=env_id == FAST_ID)


def has_display() -> bool:
    """Whether a window can be expected to open."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def shrink(obs: np.ndarray) -> np.ndarray:
    """obs (96, 96, 3) uint8 -> (64, 64, 3) uint8 by area, the status bar included."""
    return cv2.resize(obs, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_AREA)
