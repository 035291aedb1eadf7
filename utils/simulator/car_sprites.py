"""The car as the camera sees it: a fixed hull and four wheels, looked up instead of drawn.

The camera is bolted to the hull, so the hull always covers the same pixels, and a wheel's picture
depends on how far it has rolled and, if it is in front, on the steering: both front wheels turn by
the same angle, and the rear ones do not.  All pictures are drawn once, by the rasteriser that the
stock renderer uses, so they share its rounding.
"""

import functools
import math

import cv2
import numpy as np
import pygame
from gymnasium.envs.box2d import car_dynamics as car
from gymnasium.envs.box2d import car_racing as stock

FULL_ZOOM = stock.ZOOM * stock.SCALE  # window pixels per unit, once the first second is over
ANGLES = 21  # joint angles in a front wheel's table
ANGLE_LIMIT = 0.42  # the largest of them, to either side, radians (the joint stops softly at 0.4)
PHASES = 48  # rolling positions in a wheel's table
ANGLES_PER_RADIAN = (ANGLES - 1) / (2 * ANGLE_LIMIT)
PHASES_PER_RADIAN = PHASES / math.tau
STRIPE_ARC = 1.2  # radians of a tyre's circumference that are grey
HULL_COLOR = (204, 0, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

# Only this part of the window is drawn. It is aligned with whole pixels of the frame (125 window
# pixels are 12 of 96 frame pixels across, 25 are 3 down), so scaling the part equals scaling the
# whole.
CROP_X, CROP_Y, CROP_SIZE = 375, 150, (250, 100)  # window pixels, y upwards
FRAME_X, FRAME_Y, FRAME_SIZE = 36, 66, (24, 12)  # where it lies in a frame of 96, y downwards

# Box2D reorders vertices, and the order decides how a polygon is rounded to pixels.
HULL_SHAPES = (
    [(1.2, 2.2), (1.2, 2.6), (-1.2, 2.6), (-1.2, 2.2)],
    [(0.4, 0.4), (0.3, 2.4), (-0.3, 2.4), (-0.4, 0.4)],
    [
        *[(1.0, -0.8), (1.0, -0.2), (0.5, 0.4), (-0.5, 0.4)],
        *[(-1.0, -0.2), (-1.0, -0.8), (-0.4, -1.8), (0.4, -1.8)],
    ],
    [(1.0, -2.4), (1.0, -1.8), (-1.0, -1.8), (-1.0, -2.4)],
)
WHEEL_X, WHEEL_Y = car.WHEEL_W * car.SIZE, car.WHEEL_R * car.SIZE  # half sizes in units
WHEEL_PLACES = [(x * car.SIZE, y * car.SIZE) for x, y in car.WHEELPOS]

# A patch to lay over a frame: its rows and columns there, and layers (2, rows, columns, 3) uint16:
# paint times 256, and how much of the frame shines through. out = (frame * shine + paint) / 256.
Patch = tuple[slice, slice, np.ndarray]


def draw_car(frame: np.ndarray, steering: float, phases: list[float]) -> None:
    """Lay the car over frame (96, 96, 3) or (64, 64, 3) uint8.

    steering: the angle of the front wheels' joints; phases: how far each wheel has rolled.
    """
    rows, columns, layers = hull_patch(len(frame))
    angle = min(max(int((steering + ANGLE_LIMIT) * ANGLES_PER_RADIAN + 0.5), 0), ANGLES - 1)
    layers = layers.copy()
    for pictures, phase in zip(wheel_tables(len(frame)), phases, strict=True):
        layers += pictures[angle][int(phase * PHASES_PER_RADIAN + 0.5) % PHASES]
    lay(frame, (rows, columns, layers))


def draw_zooming_car(frame: np.ndarray, zoom: float) -> None:
    """Lay the car with straight wheels over a frame of the first second."""
    lay(frame, zooming_patch(len(frame), round(zoom, 3)))


def lay(frame: np.ndarray, patch: Patch) -> None:
    rows, columns, (paint, shine) = patch
    corner = FRAME_Y * len(frame) // 96, FRAME_X * len(frame) // 96
    view = frame[corner[0] :, corner[1] :][rows, columns]
    mixture = view.astype(np.uint16)  # faster than a product of two types
    mixture *= shine
    mixture += paint
    mixture >>= 8
    view[:] = mixture


@functools.cache
def hull_patch(frame_size: int) -> Patch:
    """The hull at full zoom, in a patch with room for the wheels."""
    rows, columns = _extent(_picture(frame_size, FULL_ZOOM, [(i, 0.4, 0.0) for i in range(4)]))
    hull = _picture(frame_size, FULL_ZOOM, [])[:, rows, columns].copy()
    return rows, columns, hull


@functools.cache
def wheel_tables(frame_size: int) -> list[list[list[np.ndarray]]]:
    """What each wheel adds to the hull's patch: [angle][phase] layers."""
    angles = np.linspace(-ANGLE_LIMIT, ANGLE_LIMIT, ANGLES)
    front = [_wheel_table(frame_size, wheel, angles) for wheel in (0, 1)]
    rear = [_wheel_table(frame_size, wheel, [0.0]) * ANGLES for wheel in (2, 3)]
    return front + rear


@functools.cache
def zooming_patch(frame_size: int, zoom: float) -> Patch:
    layers = _picture(frame_size, zoom, [(i, 0.0, 0.0) for i in range(4)])
    rows, columns = _extent(layers)
    return rows, columns, layers[:, rows, columns].copy()


def _wheel_table(frame_size: int, number: int, angles) -> list[list[np.ndarray]]:
    # Wheels are drawn below the hull. Their table holds picture(hull and wheel) - picture(hull),
    # wrapping around in uint16, so that adding it to the hull brings the covered wheel.
    rows, columns, hull = hull_patch(frame_size)
    phases = np.arange(PHASES) / PHASES_PER_RADIAN
    table = []
    for angle in angles:
        shine = _shine(FULL_ZOOM, [(number, angle, 0.0)])  # rolling changes the paint only
        paints = [_draw(BLACK, FULL_ZOOM, [(number, angle, phase)]) for phase in phases]
        layers = [_layers(frame_size, paint, shine)[:, rows, columns] for paint in paints]
        table.append([picture - hull for picture in layers])
    return table


def _picture(frame_size: int, zoom: float, wheels: list[tuple[int, float, float]]) -> np.ndarray:
    """Layers of the hull and some wheels: (number, angle, phase) each."""
    return _layers(frame_size, _draw(BLACK, zoom, wheels), _shine(zoom, wheels))


def _layers(frame_size: int, on_black: np.ndarray, shine: np.ndarray) -> np.ndarray:
    """(2, 12, 24, 3) or (2, 8, 16, 3) uint16"""
    size = tuple(pixels * frame_size // 96 for pixels in FRAME_SIZE)
    rounding = 0 if frame_size == 96 else 128  # stock's frame is truncated, what is shrunk rounded
    layers = on_black * 256 + rounding, shine
    return np.array(
        [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in layers]
    ).astype(np.uint16)


def _shine(zoom: float, wheels) -> np.ndarray:
    """How much of the ground is seen, times 256: what a white ground adds to a black one."""
    on_white = _draw(WHITE, zoom, wheels)
    added = on_white - _draw(BLACK, zoom, wheels)
    return np.clip(added * (256 / on_white[0, 0, 0]) + 0.5, 0, 256)


def _draw(ground: tuple, zoom: float, wheels) -> np.ndarray:
    """(12, 24, 3) the crop at the resolution of a frame of 96."""
    surface = pygame.Surface(CROP_SIZE)
    surface.fill(ground)
    for number, angle, phase in wheels:
        _draw_wheel(surface, zoom, number, angle, phase)
    for shape in HULL_SHAPES:
        _draw_polygon(surface, HULL_COLOR, zoom, shape)
    small = pygame.transform.smoothscale(pygame.transform.flip(surface, False, True), FRAME_SIZE)
    return pygame.surfarray.array3d(small).transpose(1, 0, 2).astype(np.float64)


def _draw_wheel(surface, zoom: float, number: int, angle: float, phase: float) -> None:
    def rectangle(y1, y2):
        corners = [(WHEEL_X, y1), (WHEEL_X, y2), (-WHEEL_X, y2), (-WHEEL_X, y1)]
        cos, sin = math.cos(angle), math.sin(angle)
        x0, y0 = WHEEL_PLACES[number]
        return [(x0 + cos * x - sin * y, y0 + sin * x + cos * y) for x, y in corners]

    _draw_polygon(surface, car.WHEEL_COLOR, zoom, rectangle(-WHEEL_Y, WHEEL_Y))
    ends = [(math.cos(a), math.sin(a)) for a in (phase, phase + STRIPE_ARC)]
    if any(sin <= 0 for _, sin in ends):  # the stripe is not wholly below the tyre
        y1, y2 = (WHEEL_Y * (math.copysign(1, cos) if sin > 0 else cos) for cos, sin in ends)
        _draw_polygon(surface, car.WHEEL_WHITE, zoom, rectangle(y1, y2))


def _draw_polygon(surface, color, zoom: float, points) -> None:
    left = stock.WINDOW_W / 2 - CROP_X
    bottom = stock.WINDOW_H / 4 - CROP_Y
    points = [(left + x * zoom, bottom + y * zoom) for x, y in points]
    pygame.draw.polygon(surface, color, points)


def _extent(layers: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the crop that the car covers."""
    rows, columns = np.nonzero((layers[1] != 256).any(axis=2))
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
