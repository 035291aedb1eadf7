"""The frames of films: a race, M's replay of a real drive, a dream that the agent drives in."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from utils.pictures.drawing import (
    BLUE,
    DRIVING,
    GROOVE,
    GROUND,
    MARGIN,
    MUTED,
    RACE,
    TEXT,
    THUMBNAIL,
    VIOLET,
    as_image,
    controls,
    paste,
    write,
)
from utils.simulator.envs import FPS, horizon

SIDE = 448  # 64 pixels seven times
HALF = (604, 352)  # a picture's width and height where two stand side by side
CURVE = (532, 700)  # upper and lower edge of the curves
RECENT, WHOLE = 250, 1000  # frames of the two curves
REWARDS, SCORES = (-20.0, 120.0), (-100.0, 1800.0)  # what they span


def race_frame(
    race: np.ndarray,
    seen: np.ndarray,
    reconstruction: np.ndarray,
    expected: np.ndarray,
    action: np.ndarray,
    score: float,
    frame_number: int,
    tiles: int,
    total_tiles: int,
) -> np.ndarray:
    """The race over its score, time and controls, beside what the agent sees, keeps and expects.

    Stock's black bar is cut off, because what it shows is shown here.

    Args:
        race: (H, W, 3) uint8, what `env.render()` gives.
        seen: (64, 64, 3) uint8, what V is given.
        reconstruction: (64, 64, 3) uint8, what V's decoder makes of its z.
        expected: (64, 64, 3) uint8, what V's decoder makes of the next z that M expects.
        action: (3,) steering -1..1, gas 0..1, brake 0..1.
        score: so far.
        frame_number: of the race, at 50 a second.
        tiles, total_tiles: visited, and of the whole lap; none in a dream.

    Returns:
        (720, 1280, 3) uint8.
    """
    canvas = _race_template().copy()
    above_bar = as_image(race, "the race")[: horizon(len(race))]
    paste(canvas, above_bar, MARGIN, MARGIN, *RACE, cv2.INTER_LINEAR)
    visited = f"{tiles}" if total_tiles else "-"  # in a dream there are none
    values = (f"{score:.1f}", f"{frame_number / FPS:.2f} s", f"{frame_number}", visited)
    for (_, left), value in zip(_READINGS, values, strict=True):
        end = write(canvas, value, left, 690, 30, TEXT, 500)
    if total_tiles:
        write(canvas, f" / {total_tiles}", end, 690, 18, MUTED)
    controls(canvas, action, right=MARGIN + RACE[0], y=684, widths=(190, 120, 120))
    for row, image in enumerate((seen, reconstruction, expected)):
        paste(canvas, image, DRIVING[0], _thumbnail_top(row), THUMBNAIL, THUMBNAIL)
    return canvas


def replay_frame(
    real: np.ndarray,
    dream: np.ndarray,
    frame_number: int,
    action: np.ndarray,
    warm_up: int,
    holds: str,
    errors: tuple[float, float],
) -> np.ndarray:
    """A real drive beside M's dream of it.

    Args:
        real: (64, 64, 3) uint8, the drive's frame as V's decoder gives it.
        dream: (64, 64, 3) uint8, the same moment decoded from M's z.
        frame_number: since the start, at 50 a second.
        action: (3,) steering -1..1, gas 0..1, brake 0..1, the same for both sides.
        warm_up: frames during which M watches the drive; from then on it dreams.
        holds: how long the dream holds, in words.
        errors: of the dream's frame, and if the last watched one had stayed, in grey levels.

    Returns:
        (640, 960, 3) uint8.
    """
    canvas = _replay_template().copy()
    left, right, top = 20, 20 + SIDE + 24, 64
    paste(canvas, real, left, top, SIDE, SIDE)
    paste(canvas, dream, right, top, SIDE, SIDE)
    dreaming = frame_number >= warm_up
    state, colour = ("M is dreaming", VIOLET) if dreaming else ("M is watching", MUTED)
    cv2.circle(canvas, (right + 8, 39), 6, colour, -1, cv2.LINE_AA)
    write(canvas, state, right + 24, 46, 22, colour, 500)
    if dreaming:
        since = f"{(frame_number - warm_up) / FPS:.2f} s, holds {holds}"
        of_dream, of_still = errors
        error = f"error {of_dream:.1f}, and {of_still:.1f} if nothing changed (grey levels)"
        write(canvas, error, left, 630, 15, MUTED)
        write(canvas, since, right + SIDE, 46, 18, MUTED, align=cv2.PUT_TEXT_ALIGN_RIGHT)
    write(canvas, f"{frame_number / FPS:.2f} s", left, 602, 30, TEXT, 500)
    controls(canvas, action, right=right + SIDE, y=596, widths=(292, 180, 180))
    return canvas


def dream_frame(
    dream: np.ndarray,
    real: np.ndarray,
    dreamt: Sequence[float],
    driven: Sequence[float],
    end_probability: float,
    temperature: float,
) -> np.ndarray:
    """The agent in its dream, beside the same agent on a real track.

    Args:
        dream, real: (H, W, 3) uint8, what `env.render()` gives.
        dreamt, driven: the rewards of every frame so far, in the dream and on the track.
        end_probability: that the race is over with this frame, as M has it.
        temperature: of the dream.

    Returns:
        (720, 1280, 3) uint8.
    """
    canvas = _dream_template().copy()
    sides = ((MARGIN, dream, dreamt, VIOLET), (2 * MARGIN + HALF[0], real, driven, BLUE))
    for left, picture, rewards, colour in sides:
        above_bar = as_image(picture, "a picture")[: horizon(len(picture))]
        paste(canvas, above_bar, left, 64, *HALF, cv2.INTER_LINEAR)
        write(canvas, f"{sum(rewards):.1f}", left, 474, 30, colour, 500)
        write(canvas, f"{len(rewards) / FPS:.2f} s", left + 150, 474, 30, TEXT, 500)
    write(canvas, f"{dreamt[-1]:+.2f}", MARGIN + 280, 474, 30, VIOLET, 500)
    write(canvas, f"{end_probability:.1%}", MARGIN + 390, 474, 30, TEXT, 500)
    write(canvas, f"{temperature:g}", MARGIN + 500, 474, 30, TEXT, 500)
    for rewards, colour in ((driven, BLUE), (dreamt, VIOLET)):
        seconds = np.convolve(rewards, np.ones(FPS))[: len(rewards)]
        _curve(canvas, seconds[-RECENT:], MARGIN, RECENT, REWARDS, colour)
        total = np.cumsum(rewards)
        _curve(canvas, total, 2 * MARGIN + HALF[0], WHOLE, SCORES, colour)
    return canvas


# The parts of a frame. Everything that does not change is painted once and copied.

_READINGS = (("SCORE", MARGIN), ("TIME", 160), ("FRAME", 300), ("TILES", 410))


@lru_cache(maxsize=1)
def _race_template() -> np.ndarray:
    canvas = np.full((DRIVING[1], DRIVING[0] + THUMBNAIL + MARGIN, 3), GROUND, np.uint8)
    for name, left in _READINGS:
        write(canvas, name, left, 652, 13, MUTED, 500)
    captions = (("V sees", TEXT), ("V redraws", BLUE), ("M expects next", VIOLET))
    for row, (caption, colour) in enumerate(captions):
        write(canvas, caption, DRIVING[0], _thumbnail_top(row) - 10, 17, colour, 500)
    return canvas


@lru_cache(maxsize=1)
def _replay_template() -> np.ndarray:
    canvas = np.full((640, 960, 3), GROUND, np.uint8)
    write(canvas, "The real drive", 20, 46, 22, TEXT, 500)
    write(canvas, "TIME", 20, 564, 13, MUTED, 500)
    return canvas


@lru_cache(maxsize=1)
def _dream_template() -> np.ndarray:
    canvas = np.full((DRIVING[1], 3 * MARGIN + 2 * HALF[0], 3), GROUND, np.uint8)
    right = 2 * MARGIN + HALF[0]
    write(canvas, "The agent in its dream", MARGIN, 46, 22, VIOLET, 500)
    write(canvas, "The same agent on a real track", right, 46, 22, BLUE, 500)
    readings = (
        ("SUM OF REWARDS", MARGIN), ("TIME", MARGIN + 150), ("M EXPECTS", MARGIN + 280),
        ("END", MARGIN + 390), ("TEMPERATURE", MARGIN + 500),
        ("SUM OF REWARDS", right), ("TIME", right + 150),
    )  # fmt: skip
    for name, left in readings:
        write(canvas, name, left, 440, 13, MUTED, 500)
    curves = (
        (MARGIN, "REWARDS OF A SECOND, THE LAST 5 SECONDS", REWARDS),
        (right, "SUM OF REWARDS, THE WHOLE 20 SECONDS", SCORES),
    )
    for left, name, (least, most) in curves:
        write(canvas, name, left, 516, 13, MUTED, 500)
        span = f"{least:g} to {most:g}"
        write(canvas, span, left + HALF[0], 516, 13, MUTED, 400, cv2.PUT_TEXT_ALIGN_RIGHT)
        zero = round(CURVE[1] - (CURVE[1] - CURVE[0]) * -least / (most - least))
        cv2.line(canvas, (left, zero), (left + HALF[0], zero), GROOVE, 1)
    return canvas


def _curve(
    canvas: np.ndarray,
    values: Sequence[float] | np.ndarray,
    left: int,
    frames: int,
    span: tuple[float, float],
    colour: tuple[int, int, int],
) -> None:
    """A line through the values, of `frames` from the left side to the right one."""
    (top, bottom), (least, most) = CURVE, span
    x = left + np.arange(len(values)) * HALF[0] / (frames - 1)
    y = bottom - (np.clip(values, least, most) - least) * (bottom - top) / (most - least)
    points = np.round(np.stack([x, y], 1) * 16).astype(np.int32)
    cv2.polylines(canvas, [points], False, colour, 2, cv2.LINE_AA, shift=4)


def _thumbnail_top(row: int) -> int:
    return 56 + row * (THUMBNAIL + 32)
