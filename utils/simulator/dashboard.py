"""The black bar below the road: score, speed, four wheel speeds, steering and yaw rate.

Stock draws rectangles whose ends are truncated to whole window pixels and shrinks them by area.
Such a picture is a product: how far each row is covered, times the colour of each column. All of
them together are one product of two small matrices, in which a gauge has a place of its own and its
moving end chooses one of a few hundred vectors, computed beforehand.
"""

import functools

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

SCORE_CENTER = (60, stock.WINDOW_H - stock.WINDOW_H * 2.5 / 40 - BAR_TOP)
SCORE_PART = (125, 100)  # window pixels that hold any score: an eighth of the bar's width

SPEED, WHEELS, STEERING, YAW = 5, (7, 8, 9, 10), 20, 30  # positions in cells
WHITE, BLUE, VIOLET, GREEN, RED = (
    *[(255, 255, 255), (0, 0, 255), (51, 0, 255)],
    *[(0, 255, 0), (255, 0, 0)],
)
UPRIGHT = (*zip((SPEED, *WHEELS), (WHITE, BLUE, BLUE, VIOLET, VIOLET), strict=True),)
UPRIGHT_SCALES = (0.02, 0.01, 0.01, 0.01, 0.01)  # lines for a unit of the value
LYING = ((STEERING, GREEN, -10.0, 6), (YAW, RED, -0.8, 10))  # cells for a unit, and the most cells


def draw_dashboard(bar, score, speed, omegas, joint_angle, yaw_rate) -> None:
    """Fill bar, a frame's last rows, (12, 96, 3) or (8, 64, 3) uint8.

    speed in units/s, omegas of four wheels in rad/s, joint_angle of the first wheel in rad,
    yaw_rate of the hull in rad/s.
    """
    rows, columns, tops, lying = gauges(bar.shape[1])
    rows, columns = rows.copy(), columns.copy()
    for i, (value, scale) in enumerate(zip((speed, *omegas), UPRIGHT_SCALES, strict=True)):
        if abs(value) > LEAST_SHOWN:
            top = int(4 * LINE - LINE * scale * value)
            rows[i] = tops[min(max(top, 0), 5 * LINE)]
    for i, (value, (ends, first, base, scale)) in enumerate(
        zip((joint_angle, yaw_rate), lying, strict=True), len(UPRIGHT)
    ):
        if abs(value) > LEAST_SHOWN:
            end = int(base + scale * value) - first
            columns[i] = ends[min(max(end, 0), len(ends) - 1)]
    bar[:] = (rows.T @ columns).reshape(bar.shape)
    bar[:, : bar.shape[1] // 8] = score_picture(f"{score:04.0f}", bar.shape[1])


@functools.cache
def gauges(frame_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """The bar's factors without what moves, and what moves.

    Returns:
        rows (G, height) and columns (G, 3 * width) float32, in which upright gauges still lack
        their rows and lying ones their columns, and the last of the G rounds; the rows by the
        window pixel at which an upright gauge ends; and of each lying gauge the columns by that
        pixel, the first such pixel, that of value 0, and pixels for a unit of the value.
    """
    height = frame_size // 8
    rows = np.zeros((len(UPRIGHT) + len(LYING) + 1, height), np.float32)
    columns = np.zeros((len(rows), 3 * frame_size), np.float32)
    rows[-1], columns[-1] = 1, 0.1  # smoothscale truncates
    for i, (place, color) in enumerate(UPRIGHT):
        # Neighbours share a window column, which belongs to the right one as it is drawn later.
        shared = any(place + 1 == other for other, _ in UPRIGHT)
        columns[i] = _columns(frame_size, color, [(place * CELL, (place + 1) * CELL - shared)])
    lying = []
    for i, (place, color, scale, reach) in enumerate(LYING, len(UPRIGHT)):
        rows[i] = _rows(height, [(LINE, 3 * LINE)])
        base = place * CELL
        ends = range(base - reach * CELL, min(base + reach * CELL, stock.WINDOW_W) + 1)
        pictures = _columns(frame_size, color, [(min(base, end), max(base, end)) for end in ends])
        lying.append((pictures, ends[0], base, scale * CELL))
    tops = range(5 * LINE + 1)
    return rows, columns, _rows(height, [(min(t, 4 * LINE), max(t, 4 * LINE)) for t in tops]), lying


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
