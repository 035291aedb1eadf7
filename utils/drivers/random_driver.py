"""A driver that knows nothing: smoothed random actions that nevertheless go places."""

from typing import Any

import numpy as np

MEMORY = np.array([0.92, 0.95])  # of steering and pedal per frame: they change within half a second
SPREAD = np.array([0.5, 0.45])  # standard deviation of both
CRUISE = 0.2  # mean of the pedal: more gas than brake, or the car would stand still


class RandomDriver:
    """An Ornstein-Uhlenbeck process on the steering and on one pedal (gas above 0, brake below)."""

    def __init__(self, env: Any, rng: np.random.Generator) -> None:
        self._rng = rng
        self._now = np.zeros(2)

    def act(self, obs: np.ndarray | None = None) -> np.ndarray:
        """The next action (3,) float32."""
        fresh = self._rng.standard_normal(2) * SPREAD * np.sqrt(1 - MEMORY**2)
        self._now = MEMORY * self._now + fresh
        steer, pedal = self._now[0], CRUISE + self._now[1]
        action = np.array([steer, max(pedal, 0.0), max(-pedal, 0.0)], np.float32)
        return action.clip((-1, 0, 0), 1, dtype=np.float32)
