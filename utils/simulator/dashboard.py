"""The black bar below the road: score, speed, four wheel speeds, steering and yaw rate.

Stock draws rectangles whose ends are truncated to whole window pixels and shrinks them by area.
So an indicator has only a few hundred different pictures, and all are computed beforehand.
"""

import functools

import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing as stock

FRAME = 96  # frame pixels per side
HEIGHT = 12  # frame pixels: the bar takes an eighth of the frame
CELL = stock.WINDOW_W // 40  # window pixels, the unit of the bar's layout
LINE = stock.WINDOW_H // 40
BAR_TOP = stock.WINDOW_H - 5 * LINE  # window pixels from the top
LEAST_SHOWN = 1e-4  # indicators of smaller values are not drawn

SCORE_CENTER = (60, stock.WINDOW_H - stock.WINDOW_H * 2.5 / 40 - BAR_TOP)
SCORE_PART = (250, 100)  # window pixels that hold any score, a multiple of whole frame pixels
SCORE_COLUMNS = slice(0, 24)

LYING_ROWS = slice(2, 8)
SPEED, WHEELS, STEERING, YAW = 5, (7, 8, 9, 10), 20, 30  # positions in cells
WHITE, BLUE, VIOLET, GREEN, RED = (
    *[(255, 255, 255), (0, 0, 255), (51, 0, 255)],
    *[(0, 255, 0), (255, 0, 0)],
)


def draw_dashboard(bar, score, speed, omegas, joint_angle, yaw_rate) -> None:
    """Fill bar (12, 96, 3) uint8, the frame's last rows.

    speed in units/s, omegas of four wheels in rad/s, joint_angle of the first wheel in rad,
    yaw_rate of the hull in rad/s.
    """
    bar[:] = 0
    bar[:, SCORE_COLUMNS] = score_picture(f"{score:04.0f}")
    upright, lying = gauges()
    for (columns, pictures, scale), value in zip(upright, (speed, *omegas), strict=True):
        if abs(value) > LEAST_SHOWN:
            top = int(4 * LINE - LINE * scale * value)
            part = bar[:, columns]
            part += pictures[min(max(top, 0), 5 * LINE)]
    for (columns, pictures, first, base, scale), value in zip(
        lying, (joint_angle, yaw_rate), strict=True
    ):
        if abs(value) > LEAST_SHOWN:
            end = int(base + scale * value) - first
            part = bar[LYING_ROWS, columns]
            part += pictures[min(max(end, 0), len(pictures) - 1)]


@functools.cache
def gauges() -> tuple[list, list]:
    """Upright gauges (columns, pictures by top, scale) and lying ones (..., first end, base, ...).

    Pictures are indexed by the window pixel at which the moving end lies.
    """
    # Neighbours share a window column, which belongs to the right one as it is drawn later.
    upright = [
        _upright(SPEED, 0.02, WHITE, shared=0),
        *[_upright(place, 0.01, BLUE, shared=1) for place in WHEELS[:2]],
        _upright(WHEELS[2], 0.01, VIOLET, shared=1),
        _upright(WHEELS[3], 0.01, VIOLET, shared=0),
    ]
    return upright, [_lying(STEERING, -10.0, GREEN, reach=6), _lying(YAW, -0.8, RED, reach=10)]


def _upright(place: int, scale: float, color: tuple, shared: int) -> tuple:
    across = _coverage(stock.WINDOW_W, FRAME, place * CELL, (place + 1) * CELL - shared)
    columns = _span(across)
    tops = range(5 * LINE + 1)
    down = [_coverage(5 * LINE, HEIGHT, min(top, 4 * LINE), max(top, 4 * LINE)) for top in tops]
    return columns, [_shrunk(color, d, across[columns]) for d in down], scale


def _lying(place: int, scale: float, color: tuple, reach: int) -> tuple:
    base = place * CELL
    ends = range(base - reach * CELL, min(base + reach * CELL, stock.WINDOW_W) + 1)
    across = [_coverage(stock.WINDOW_W, FRAME, min(base, end), max(base, end)) for end in ends]
    columns = _span(across[0] + across[-1])
    down = _coverage(5 * LINE, HEIGHT, LINE, 3 * LINE)[LYING_ROWS]
    pictures = [_shrunk(color, down, a[columns]) for a in across]
    return columns, pictures, ends[0], base, scale * CELL


def _coverage(pixels: int, cells: int, first: int, last: int) -> np.ndarray:
    """Share of each of `cells` equal cells that window pixels first..last (inclusive) cover."""
    edges = np.linspace(0, pixels, cells + 1)
    inside = np.minimum(edges[1:], last + 1) - np.maximum(edges[:-1], first)
    return np.clip(inside, 0, None) * (cells / pixels)


def _span(coverage: np.ndarray) -> slice:
    covered = np.flatnonzero(coverage)
    return slice(covered[0], covered[-1] + 1)


def _shrunk(color: tuple, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """(rows, columns, 3) uint8; like pygame's smoothscale it shrinks x, then y, losing each time.

    The loss is a truncation that takes a whole level even from exact values (255 becomes 253).
    """
    lines = np.maximum(np.ceil(across[:, None] * color) - 1, 0)
    return np.maximum(np.ceil(down[:, None, None] * lines) - 1, 0).astype(np.uint8)


@functools.cache
def score_picture(text: str) -> np.ndarray:
    """(12, 24, 3) uint8"""
    pygame.font.init()
    font = pygame.font.Font(pygame.font.get_default_font(), 42)
    label = font.render(text, True, (255, 255, 255), (0, 0, 0))
    part = pygame.Surface(SCORE_PART)
    box = label.get_rect()
    box.center = SCORE_CENTER
    part.blit(label, box)
    small = pygame.transform.smoothscale(part, (24, HEIGHT))
    return pygame.surfarray.array3d(small).transpose(1, 0, 2).copy()
