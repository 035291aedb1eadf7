"""What is known of a race from outside: its score, how far the car has come, and where it is.

A dream has no road, and this is the one place that says what there is instead.
"""

from typing import Any

import cv2
import numpy as np
from gymnasium.envs.box2d import CarRacing

from utils.simulator.envs import FRAME_SIZE, horizon
from utils.simulator.view import View


class Road:
    """The road of a CarRacing, stock's or ours, with the car on it."""

    dreamt = False

    def __init__(self, race: Any) -> None:
        self._race = race  # its car and its track have no types
        self._view = View(race)

    def draw(self, picture: np.ndarray) -> None:
        """What a person at the wheel sees, on (H, W, 3) uint8."""
        self._view.draw(picture)

    @property
    def score(self) -> float:
        """Points so far, in a dream as on a track."""
        return self._race.reward

    @property
    def tiles(self) -> int:
        """How many tiles the car has visited."""
        return self._race.tile_visited_count

    @property
    def total_tiles(self) -> int:
        """How many tiles the whole lap has."""
        return len(self._race.track)

    @property
    def wheels_on_grass(self) -> int:
        """How many of the four wheels are off the road."""
        return sum(not wheel.tiles for wheel in self._race.car.wheels)

    @property
    def position(self) -> tuple[float, float]:
        """Where the car is, in the track's units."""
        return tuple(self._race.car.hull.position)

    def centre_line(self) -> np.ndarray:
        """The middle of every tile, (total_tiles, 2)."""
        return np.array([point[2:4] for point in self._race.track])

    def missed(self) -> list[int]:
        """The tiles that the car has not touched."""
        return [tile.idx for tile in self._race.road if not tile.road_visited]


class NoRoad(Road):
    """Of a dream nobody knows where the car is: no tiles, no grass, and always the same place."""

    dreamt = True
    tiles = total_tiles = wheels_on_grass = 0  # type: ignore[assignment]
    position = (0.0, 0.0)  # type: ignore[assignment]

    def draw(self, picture: np.ndarray) -> None:
        """What V decodes, without the black bar."""
        height, width, _ = picture.shape
        above_bar = self._race.frame[: horizon(FRAME_SIZE)]
        picture[:] = cv2.resize(above_bar, (width, height), interpolation=cv2.INTER_CUBIC)

    def centre_line(self) -> np.ndarray:
        """No tile, (0, 2)."""
        return np.zeros((0, 2))

    def missed(self) -> list[int]:
        """No tile, since there are none."""
        return []


def road_of(env: Any) -> Road:
    """The road of an environment, wrapped or not; it stays right through every reset."""
    race = env.unwrapped
    return Road(race) if isinstance(race, CarRacing) else NoRoad(race)
