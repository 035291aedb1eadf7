"""The race from above, as large as a window: for a person at the wheel, 50 times a second.

Stock's `render()` transforms every polygon of the world in Python, 12 ms each time on a slow core,
and shrinks what it drew. Here all of them are transformed at once, and what is in sight is drawn in
its own size. Nothing depends on these pixels: observations are the environment's.
"""

import math
from typing import Any

import cv2
import numpy as np
from gymnasium.envs.box2d.car_dynamics import SIZE, WHEEL_R, WHEEL_W, WHEEL_WHITE
from gymnasium.envs.box2d.car_racing import GRASS_DIM, PLAYFIELD, SCALE, ZOOM

ZOOMED_IN = SCALE * ZOOM  # pixels a unit in stock's window, after the first second
AHEAD = 600 / ZOOMED_IN  # units of road in sight ahead of the car, as in stock's window
CAR = 0.86  # the car's place, as a share of the height
LARGEST = 1.5 * GRASS_DIM  # units across the largest polygon
SHIFT = 4  # fractional bits of the coordinates that OpenCV gets
FIELD = PLAYFIELD * np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
GRASS = GRASS_DIM * np.array(  # (400, 4, 2) the corners of the lighter patches
    [
        [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
        for x in range(-20, 20, 2)
        for y in range(-20, 20, 2)
    ]
)


class View:
    """Draws a CarRacing, stock's or ours, as it stands; it stays right through every reset."""

    def __init__(self, race: Any) -> None:
        self._race = race
        self._road_poly: list | None = None  # of the track that the corners are of
        self._corners = GRASS

    def draw(self, picture: np.ndarray) -> None:
        """Draw it on (H, W, 3) uint8; the car's way is up."""
        race = self._race
        if self._road_poly is not race.road_poly:
            self._road_poly = race.road_poly
            self._corners = np.concatenate([GRASS, [corners for corners, _ in race.road_poly]])
        height, width, _ = picture.shape
        zoom = 0.1 / ZOOM * max(1 - race.t, 0) + min(race.t, 1)  # as stock's
        scale = CAR * height / AHEAD * zoom  # pixels a unit
        angle, position = race.car.hull.angle, np.array(race.car.hull.position)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        turn = np.array([(cos, sin), (sin, -cos)])
        place = np.array([width / 2, CAR * height])

        def projected(corners: np.ndarray) -> np.ndarray:
            """Units of the world -> pixels, the same shape."""
            return (corners - position) @ turn + place

        picture[:] = 0
        _fill(picture, projected(FIELD), race.bg_color)
        reach = math.hypot(width / 2, CAR * height) / scale + LARGEST
        near = np.flatnonzero((np.abs(self._corners[:, 0] - position) < reach).all(1))
        polygons = projected(self._corners[near])
        in_sight = ((polygons.max(1) > 0) & (polygons.min(1) < (width, height))).all(1)
        for i, corners in zip(near[in_sight].tolist(), polygons[in_sight], strict=True):
            road = i - len(GRASS)
            _fill(picture, corners, race.grass_color if road < 0 else race.road_poly[road][1])
        for mark in race.car.particles:
            line = _fixed(projected(np.array(mark.poly)))
            cv2.polylines(picture, [line], False, mark.color, 2, cv2.LINE_AA, SHIFT)
        for part in race.car.drawlist:
            color = [255 * share for share in part.color]
            for fixture in part.fixtures:
                _fill(picture, projected(_outline(part, fixture.shape.vertices)), color)
            stripe = _stripe(part) if hasattr(part, "phase") else None
            if stripe:
                _fill(picture, projected(_outline(part, stripe)), WHEEL_WHITE)


def _outline(body: Any, vertices: list[tuple[float, float]]) -> np.ndarray:
    """Corners on a body -> corners in the world."""
    return np.array([tuple(body.transform * corner) for corner in vertices])


def _stripe(wheel: Any) -> list[tuple[float, float]] | None:
    """The white mark on a wheel, by which one sees it turn, while it is above; as stock has it."""
    first, last = wheel.phase, wheel.phase + 1.2
    if math.sin(first) > 0 and math.sin(last) > 0:
        return None
    ends = (
        math.copysign(1, math.cos(a)) if math.sin(a) > 0 else math.cos(a) for a in (first, last)
    )
    back, front = (SIZE * WHEEL_R * end for end in ends)
    side = SIZE * WHEEL_W
    return [(-side, back), (side, back), (side, front), (-side, front)]


def _fill(picture: np.ndarray, corners: np.ndarray, color: Any) -> None:
    r, g, b = color
    cv2.fillConvexPoly(picture, _fixed(corners), (int(r), int(g), int(b)), cv2.LINE_AA, SHIFT)


def _fixed(pixels: np.ndarray) -> np.ndarray:
    return (pixels * (1 << SHIFT)).astype(np.int32)
