"""Drivers that are not the agent, by name; a new one is one line here.

Stage 06 lets it race: `--driver NAME --first-seed 40000`, on tracks that are nobody's yet, since 0
to 99 are kept for reports. Settings are passed to the autopilot only.

To record it, too, give it a range of tracks in `utils.simulator.seeds.ROLLOUTS` (there it says
which are free), and in stage 01 a constant NAME_EPISODES, its check in `settings(...)`, and its
place among the `counts` of `record_others`.
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
