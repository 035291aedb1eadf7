"""The black bar below the road: score, speed, four wheel speeds, steering and yaw rate.

Stock draws rectangles whose ends are truncated to whole window pixels and shrinks them by area. The
picture of one is a product: how far each row is covered, times the colour of each column. Both are
looked up by the window pixel at which a gauge ends; gauges in which nothing moved are kept.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing as stock

FRAME = 96  # pixels per side of stock's frame
HEIGHT = 12  # of these pixels: the bar takes an eighth of the frame
CELLS = 40  # of the bar's layout from left to right
CELL = stock.WINDOW_W // CELLS  # window pixels
LINE = stock.WINDOW_H // 40
BAR_TOP = stock.WINDOW_H - 5 * LINE  # window pixels from the top
LEAST_SHOWN = 1e-4  # indicators of smaller values are not drawn
ROUNDING = 0.1  # smoothscale truncates

SCORE_CENTER = (60, stock.WINDOW_H - stock.WINDOW_H * 2.5 / 40 - BAR_TOP)
SCORE_PART = (125, 100)  # window pixels that hold any score: an eighth of the bar's width

SPEED, WHEELS, STEERING, YAW = 5, (7, 8, 9, 10), 20, 30  # positions in cells
WHITE, BLUE, VIOLET, GREEN, RED = (
    *[(255, 255, 255), (0, 0, 255), (51, 0, 255)],
    *[(0, 255, 0), (255, 0, 0)],
)
UPRIGHT = (*zip((SPEED, *WHEELS), (WHITE, BLUE, BLUE, VIOLET, VIOLET), strict=True),)
UPRIGHT_SCALES = (0.02 * LINE, *4 * (0.01 * LINE,))  # window pixels for a unit of the value
LOWEST, ZERO = 5 * LINE, 4 * LINE  # ends of upright gauges, window pixels from the top of the bar
NOT_DRAWN = LOWEST + 1
LYING = ((STEERING, GREEN, -10.0, 6), (YAW, RED, -0.8, 10))  # cells for a unit, and the most cells
KEPT = 1024  # pictures of upright gauges: four of five frames of a lap find theirs


def draw_dashboard(bar, score, speed, omegas, joint_angle, yaw_rate) -> None:
    """Fill bar, a frame's last rows, (12, 96, 3) or (8, 64, 3) uint8.

    speed in units/s, omegas of four wheels in rad/s, joint_angle of the first wheel in rad,
    yaw_rate of the hull in rad/s.
    """
    width = bar.shape[1]
    tops = [
        min(max(int(ZERO - scale * value), 0), LOWEST) if abs(value) > LEAST_SHOWN else NOT_DRAWN
        for value, scale in zip((speed, *omegas), UPRIGHT_SCALES, strict=True)
    ]
    bar[:] = upright_gauges(width, *tops)
    bar[:, : width // 8] = score_picture(f"{score:04.0f}", width)
    for value, gauge in zip((joint_angle, yaw_rate), lying_gauges(width), strict=True):
        if abs(value) > LEAST_SHOWN:
            end = int(gauge.base + gauge.scale * value) - gauge.first
            bar[gauge.place] = gauge.pictures[min(max(end, 0), len(gauge.pictures) - 1)]


@functools.lru_cache(KEPT)
def upright_gauges(frame_size: int, *tops: int) -> np.ndarray:
    """(12, 96, 3) or (8, 64, 3) uint8: the bar with these gauges only, by their ends in pixels."""
    rows, columns = _upright_factors(frame_size)
    bar = rows[list(tops)].T @ columns + ROUNDING
    return bar.astype(np.uint8).reshape(-1, frame_size, 3)


@functools.cache
def _upright_factors(frame_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows by the window pixel at which a gauge ends, (102, height); columns (5, 3 * width)."""
    rows = _rows(frame_size // 8, [(min(t, ZERO), max(t, ZERO)) for t in range(LOWEST + 1)])
    columns = []
    for place, color in UPRIGHT:
        # Neighbours share a window column, which belongs to the right one as it is drawn later.
        shared = any(place + 1 == other for other, _ in UPRIGHT)
        columns += [_columns(frame_size, color, [(place * CELL, (place + 1) * CELL - shared)])]
    return np.vstack([rows, np.zeros_like(rows[:1])]), np.vstack(columns)


class LyingGauge(NamedTuple):
    """A gauge in the only colour channel that it shines in; where two of them cross, both do."""

    place: tuple[slice, slice, int]  # rows, columns and channel of the bar
    pictures: np.ndarray  # (ends, rows, columns) uint8 by the window pixel at which it ends
    first: int  # the first such pixel
    base: int  # that of value 0
    scale: float  # window pixels for a unit of the value


@functools.cache
def lying_gauges(frame_size: int) -> list[LyingGauge]:
    """Steering and yaw rate."""
    gauges = []
    for place, color, scale, reach in LYING:
        (covered,) = _rows(frame_size // 8, [(LINE, 3 * LINE)])
        base = place * CELL
        ends = range(base - reach * CELL, min(base + reach * CELL, stock.WINDOW_W) + 1)
        colors = _columns(frame_size, color, [(min(base, end), max(base, end)) for end in ends])
        channel = color.index(255)
        shining = colors.reshape(len(ends), frame_size, 3)[:, :, channel]
        pictures = (covered[:, None] * shining[:, None] + ROUNDING).astype(np.uint8)
        _, rows, columns = (slice(found.min(), found.max() + 1) for found in np.nonzero(pictures))
        pictures = pictures[:, rows, columns].copy()
        place_in_bar = rows, columns, channel
        gauges.append(LyingGauge(place_in_bar, pictures, ends[0], base, scale * CELL))
    return gauges


# Like pygame's smoothscale these shrink x, then y, losing each time: a truncation that takes a
# whole level even from exact values (255 becomes 253).


def _columns(frame_size: int, color: tuple, spans: list[tuple[int, int]]) -> np.ndarray:
    """(N, 3 * width) float32: the colours of a line that is covered from one pixel to another."""
    covered = np.array([_coverage(stock.WINDOW_W, FRAME, *span) for span in spans])
    lines = np.maximum(np.ceil(covered[:, :, None] * color) - 1, 0)
    shrunk = cv2.resize(lines, (frame_size, len(spans)), interpolation=cv2.INTER_AREA)
    return shrunk.reshape(len(spans), -1).astype(np.float32)


def _rows(height: int, spans: list[tuple[int, int]]) -> np.ndarray:
    """(N, height) float32: what remains of a line in rows covered from one pixel to another."""
    covered = np.array([_coverage(5 * LINE, HEIGHT, *span) for span in spans])
    shares = np.maximum(np.ceil(covered * 254) - 1, 0) / 254
    return cv2.resize(shares, (height, len(spans)), interpolation=cv2.INTER_AREA).astype(np.float32)


def _coverage(pixels: int, cells: int, first: int, last: int) -> np.ndarray:
    """Share of each of `cells` equal cells that window pixels first..last (inclusive) cover."""
    edges = np.linspace(0, pixels, cells + 1)
    inside = np.minimum(edges[1:], last + 1) - np.maximum(edges[:-1], first)
    return np.clip(inside, 0, None) * (cells / pixels)


@functools.cache
def score_picture(text: str, frame_size: int) -> np.ndarray:
    """(12, 12, 3) or (8, 8, 3) uint8"""
    try:
        label = _font().render(text, True, (255, 255, 255), (0, 0, 0))
    except pygame.error:  # an environment was closed since, and all of pygame with it
        _font.cache_clear()
        label = _font().render(text, True, (255, 255, 255), (0, 0, 0))
    part = pygame.Surface(SCORE_PART)
    box = label.get_rect()
    box.center = SCORE_CENTER
    part.blit(label, box)
    small = pygame.transform.smoothscale(part, (FRAME // 8, HEIGHT))
    picture = pygame.surfarray.array3d(small).transpose(1, 0, 2)
    side = frame_size // 8
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


@functools.cache
def _font() -> pygame.font.Font:
    """Kept, as it keeps the digits that it has drawn: a new one takes a millisecond for a score."""
    pygame.font.init()
    return pygame.font.Font(pygame.font.get_default_font(), 42)
