"""What composed frames are painted with: sizes, colours, text, pictures and bars."""

from functools import lru_cache

import cv2
import numpy as np

Colour = tuple[int, int, int]

GROUND = (13, 17, 23)
GROOVE = (38, 45, 56)
TEXT = (235, 240, 246)
MUTED = (135, 146, 160)
BLUE = (88, 166, 255)
GREEN = (74, 199, 92)
RED = (248, 94, 84)
VIOLET = (178, 136, 255)
AMBER = (240, 180, 70)

MARGIN = 24
RACE = (1016, 592)  # the race's width and height: stock's own shape, less its bar
DRIVING = (MARGIN + RACE[0] + MARGIN, 720)  # the race, and below it the readings
THUMBNAIL = 192  # 64 pixels three times
BAR = 12  # thickness of the bars


def controls(
    canvas: np.ndarray,
    action: np.ndarray,
    right: int,
    y: int,
    widths: tuple[int, int, int],
    colours: tuple[Colour, Colour, Colour] = (BLUE, GREEN, RED),
) -> None:
    """Bars for steering (from the middle), gas and brake (from the left), in one row."""
    gap = 24
    steer, gas, brake = np.clip(np.asarray(action, float), (-1, 0, 0), 1)
    left = right - sum(widths) - 2 * gap
    for name, value, colour, width in zip(
        ("STEERING", "GAS", "BRAKE"), (steer, gas, brake), colours, widths, strict=True
    ):
        middle = left + width / 2
        start, end = left + BAR / 2, left + width - BAR / 2
        zero = middle if name == "STEERING" else start
        write(canvas, name, left, y - 32, 13, MUTED, 500)
        shown = f"{round(value, 2) + 0.0:.2f}"  # adding 0 removes the sign of a zero
        write(canvas, shown, left + width, y - 32, 13, TEXT, 500, cv2.PUT_TEXT_ALIGN_RIGHT)
        _bar(canvas, start, end, y, GROOVE)
        if abs(value) >= 0.005:  # what would be written as 0.00 is not drawn either
            _bar(canvas, zero, zero + value * (end - zero), y, colour)
        if name == "STEERING":
            cv2.line(canvas, (round(zero), y - 9), (round(zero), y + 9), TEXT, 2)
        left += width + gap


def _bar(canvas: np.ndarray, start: float, end: float, y: int, colour: Colour) -> None:
    """A horizontal bar with round ends, placed to a sixteenth of a pixel."""
    left, right = ((round(x * 16), y * 16) for x in (start, end))
    cv2.line(canvas, left, right, colour, BAR, cv2.LINE_AA, shift=4)


def paste(
    canvas: np.ndarray,
    image: np.ndarray,
    x: int,
    y: int,
    width: int,
    height: int,
    interpolation: int = cv2.INTER_NEAREST,
) -> None:
    """Scale an image into its place, with round corners."""
    place = canvas[y : y + height, x : x + width]
    place[:] = cv2.resize(as_image(image, "an image"), (width, height), interpolation=interpolation)
    round_corners(place)


def round_corners(picture: np.ndarray) -> None:
    """Let the ground cover the corners of a picture (H, W, 3) uint8."""
    cover = _corner()
    size = len(cover)
    for rows, mask in ((slice(0, size), cover), (slice(-size, None), cover[::-1])):
        for columns, part in ((slice(0, size), mask), (slice(-size, None), mask[:, ::-1])):
            corner = picture[rows, columns]
            corner[:] = corner + (np.array(GROUND) - corner) * part


@lru_cache(maxsize=1)
def _corner(radius: int = 10) -> np.ndarray:
    """How much of the ground covers each pixel of an upper left corner, (radius, radius, 1)."""
    fine = np.full((radius * 8, radius * 8), 1.0, np.float32)
    cv2.circle(fine, (radius * 8, radius * 8), radius * 8, 0.0, -1)
    return cv2.resize(fine, (radius, radius), interpolation=cv2.INTER_AREA)[..., None]


def write(
    canvas: np.ndarray,
    text: str,
    x: int,
    y: int,
    size: int,
    colour: Colour,
    weight: int = 400,
    align: int = cv2.PUT_TEXT_ALIGN_LEFT,
) -> int:
    """Write anti-aliased text on the base line y; returns the x where it ends."""
    end, _ = cv2.putText(canvas, text, (x, y), colour, _font(), size, weight, align)
    return end[0]


def width_of(text: str, size: int, weight: int = 400) -> int:
    """How many pixels `write` takes for it."""
    _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _font(), size, weight)
    return width


@lru_cache(maxsize=1)
def _font() -> "cv2.FontFace":
    return cv2.FontFace("sans")


def as_image(image: np.ndarray, name: str) -> np.ndarray:
    """The image, which must be (H, W, 3) uint8."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{name} must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return image
