"""What somebody at the wheel sees: the race, who drives it, and beside it the other world."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from textwrap import wrap
from typing import NamedTuple

import cv2
import numpy as np

from utils.pictures.drawing import (
    AMBER,
    BLUE,
    DRIVING,
    GREEN,
    GROUND,
    MARGIN,
    MUTED,
    RACE,
    RED,
    TEXT,
    THUMBNAIL,
    VIOLET,
    Colour,
    controls,
    paste,
    round_corners,
    width_of,
    write,
)

GAP = 8  # between two thumbnails: three of them are then as high as the race
NARROW = RACE[0] - THUMBNAIL - MARGIN  # width of the race beside them
SHADE = 0.3  # what is left of the picture's light behind words
PERSON = (BLUE, GREEN, RED)  # colours of steering, gas and brake
AGENT = (VIOLET, VIOLET, VIOLET)
PANEL = (22, 27, 34)  # where there is no picture
READINGS = (MARGIN, 168, 288, 424)  # left edges
ARROWS = ((-1, 0), (0, -1), (0, 1), (1, 0))  # left, up, down and right, lit while they are held
HELP = (
    ("", "drive"), ("m", "agent"), ("Enter", "new road"), ("space", "pause"),
    (".", "one frame"), ("+ -", "temperature"), ("Tab", "other world"), ("Esc", "end"),
)  # fmt: skip
NOTHING_REAL = "Nothing real exists in a dream: M imagines this road, and V draws it."


class Thoughts(NamedTuple):
    """What the agent makes of a frame."""

    redrawn: np.ndarray  # (64, 64, 3) uint8, what V's decoder makes of its z
    expected: np.ndarray  # (64, 64, 3) uint8, what M had expected to see, a frame before
    reward: float  # that M had expected


class OtherWorld(NamedTuple):
    """What stands beside the race."""

    seen: np.ndarray | None  # (64, 64, 3) uint8, what V is given; in a dream there is nothing real
    thoughts: Thoughts | None
    reward: float  # that came
    why_not: str  # there are no thoughts, in words


class Cockpit(NamedTuple):
    """One frame of a race that somebody drives."""

    draw: Callable[[np.ndarray], None]  # draws the race, on (H, W, 3) uint8
    action: np.ndarray  # (3,) steering -1..1, gas 0..1, brake 0..1
    by_agent: bool  # who has the wheel
    dreamt: bool
    readings: dict[str, str]  # name -> value, four of them
    held: tuple[bool, bool, bool, bool]  # which of ARROWS
    title: str = ""  # why the race stands still, if it does,
    subtitle: str = ""  # and what can be done about it
    line: str = ""  # what else there is to say
    beside: OtherWorld | None = None


def paint(canvas: np.ndarray, shown: Cockpit) -> None:
    """The picture in the window, on a canvas (720, 1064, 3) uint8: new memory would be slow."""
    canvas[:] = _template(shown.dreamt)
    width = _race(canvas, shown)
    who, colour = ("THE AGENT DRIVES", VIOLET) if shown.by_agent else ("YOU DRIVE", BLUE)
    _badge(canvas, who, MARGIN + 16, MARGIN + 16, colour)
    if shown.dreamt:
        _badge(canvas, "M DREAMS", MARGIN + width - 16, MARGIN + 16, VIOLET, right=True)
    if shown.title:
        rows = [(shown.title, 40, 500, TEXT), (shown.subtitle, 18, 400, TEXT)]
        _words(canvas, rows, MARGIN + width // 2, 180)
    if shown.line:
        rows = [(words, 17, 500, AMBER) for words in wrap(shown.line, width // 9)]
        _words(canvas, rows, MARGIN + width // 2, 76)
    for left, (name, value) in zip(READINGS, shown.readings.items(), strict=True):
        write(canvas, name, left, 644, 13, MUTED, 500)
        write(canvas, value, left, 679, 26, TEXT, 500)
    for number, ((x, y), lit) in enumerate(zip(ARROWS, shown.held, strict=True)):
        middle = np.array([MARGIN + 6 + 17 * number, 704])
        ahead, aside = np.array([x, y]), np.array([y, x])
        corners = np.array([5 * ahead, 5 * aside - 4 * ahead, -5 * aside - 4 * ahead])
        cv2.fillConvexPoly(canvas, middle + corners, BLUE if lit else TEXT, cv2.LINE_AA)
    bars = AGENT if shown.by_agent else PERSON
    controls(canvas, shown.action, MARGIN + RACE[0], 676, (170, 116, 116), bars)


@lru_cache(maxsize=2)
def _template(dreamt: bool) -> np.ndarray:
    """What never changes."""
    canvas = np.full((DRIVING[1], DRIVING[0], 3), GROUND, np.uint8)
    left = MARGIN + 17 * len(ARROWS)
    for key, does in HELP:
        if dreamt or does != "temperature":
            left = write(canvas, key, left, 709, 14, TEXT, 500) + 6
            left = write(canvas, does, left, 709, 14, MUTED) + 22
    return canvas


def _race(canvas: np.ndarray, shown: Cockpit) -> int:
    """The race, narrower where another world stands beside it; returns its width."""
    width = NARROW if shown.beside else RACE[0]
    place = canvas[MARGIN : MARGIN + RACE[1], MARGIN : MARGIN + width]
    shown.draw(place)
    round_corners(place)
    if not shown.beside:
        return width
    seen, thoughts, reward, why_not = shown.beside
    if seen is None:
        _slot(canvas, 0, "THE REAL WORLD", TEXT, NOTHING_REAL)
    else:
        _slot(canvas, 0, "V SEES", TEXT, seen, reward if thoughts else None)
    redrawn, expected, promised = thoughts or (why_not, "", None)
    _slot(canvas, 1, "V REDRAWS", BLUE, redrawn)
    _slot(canvas, 2, "M EXPECTED", VIOLET, expected, promised)
    return width


def _slot(
    canvas: np.ndarray, row: int, caption: str, colour: Colour, content: np.ndarray | str,
    points: float | None = None,
) -> None:  # fmt: skip
    """A small picture beside the race, or words in its place; over its black bar the points."""
    left, top = DRIVING[0] - MARGIN - THUMBNAIL, MARGIN + row * (THUMBNAIL + GAP)
    picture = np.full((64, 64, 3), PANEL, np.uint8) if isinstance(content, str) else content
    paste(canvas, picture, left, top, THUMBNAIL, THUMBNAIL)
    _badge(canvas, caption, left + 8, top + 8, colour, size=13)
    if isinstance(content, str):
        for number, words in enumerate(wrap(content, 20)[:6]):
            write(canvas, words, left + 14, top + 60 + 21 * number, 14, MUTED)
    if points is not None:
        right, y = left + THUMBNAIL, top + THUMBNAIL - 24
        _badge(canvas, f"{points:+.2f} points", right, y, colour, right=True, size=12)


def _badge(
    canvas: np.ndarray, text: str, x: int, y: int, colour: Colour,
    right: bool = False, size: int = 15,
) -> None:  # fmt: skip
    """Words on a dark ground, from x on or up to x."""
    width = 20 + width_of(text, size, 500)
    left = x - width if right else x
    _shade(canvas, left, y, width, 2 * size)
    write(canvas, text, left + 10, y + size + size // 3, size, colour, 500)


def _words(
    canvas: np.ndarray, rows: Sequence[tuple[str, int, int, Colour]], middle: int, top: int
) -> None:
    """Rows of words, each with size, weight and colour, from `top` down."""
    width = 56 + max(width_of(text, size, weight) for text, size, weight, _ in rows)
    height = 20 + sum(round(1.5 * size) for _, size, _, _ in rows)
    _shade(canvas, middle - width // 2, top, width, height)
    y = top + 10
    for text, size, weight, colour in rows:
        left = middle - width_of(text, size, weight) // 2
        write(canvas, text, left, y + round(1.12 * size), size, colour, weight)
        y += round(1.5 * size)


def _shade(canvas: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    """Darken a part of a picture, so that words can be read on it."""
    place = canvas[y : y + height, x : x + width]
    place[:] = cv2.addWeighted(place, SHADE, np.full_like(place, GROUND), 1 - SHADE, 0)
