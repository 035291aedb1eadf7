"""Drivers that are not the agent, by name; a new one is one line here.

Stage 06 lets it race (`--driver NAME`). To record it, too, give it a range of tracks in
`utils.simulator.seeds.ROLLOUTS`, and in stage 01 a constant with its number of episodes, which
`record_others` hands on.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from utils.drivers.autopilot import Autopilot
from utils.drivers.random_driver import RandomDriver


class Driver(Protocol):
    """Whoever drives: made for an environment that has been reset, it acts frame by frame."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The action (3,) float32 for the frame obs (64, 64, 3) uint8."""
        ...


# name -> called with the environment, a generator of random numbers, and settings by name
DRIVERS: dict[str, Callable[..., Driver]] = {"autopilot": Autopilot, "random": RandomDriver}
