"""The world seen from above, painted once, from which every frame is cut by one rotation.

Stock draws hundreds of polygons on a 1000x800 window per frame and shrinks it to 96x96.  Nothing
but the camera moves, so here the world is a picture: painting happens at reset, and a frame is an
affine warp of it.  During the first second the camera zooms in by a factor of 18, which is served
by coarser copies of the picture.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from gymnasium.envs.box2d import car_racing as stock

from utils.simulator.envs import horizon

VIEW_W, VIEW_H = stock.WINDOW_W, stock.WINDOW_H * 7 / 8  # window pixels, without the status bar
# The car's place, in window pixels from the left and from the top.
CAMERA_X, CAMERA_Y = stock.WINDOW_W / 2, stock.WINDOW_H * 3 / 4
FULL_ZOOM = stock.ZOOM * stock.SCALE  # window pixels per unit after the first second


class Sampling(NamedTuple):
    """How a pixel of a frame comes of the fine picture: as one sample, or the mean of two."""

    density: float  # texels per unit
    oversize: int  # as many times larger it is painted, then shrunk, which makes smooth edges
    distance: float = 0.0  # of two samples from each other, pixels of a frame of 96
    weight: float = 1.0  # of the first sample; with all of it there is no second


# A frame pixel of stock is the mean over a box of 0.64 x 0.51 units, and bilinear interpolation of
# texels of 0.33 units blurs about as much. In a frame of 64 pixels each is one pixel of stock's and
# half of the next, which it shares: so a sample on that side counts half, of texels of 0.5 units.
SAMPLING = {96: Sampling(3.0, 4), 64: Sampling(2.0, 8, 0.95, 2 / 3)}

BLOCK = 256  # pixels per side of what is painted at a time, before it is shrunk
FINE_W, FINE_H = 460, 390  # units that the fine picture holds; the widest track has 411 x 323
START_SPAN = 220  # units per side of the half-size picture around the start
WORLD_SPAN = 690  # units per side of the quarter-size picture: the field and black around it
MOST_TEXELS = 3.5  # per frame pixel; above that a coarser picture is used

# Stock's polygons contain their outline, so they are half a window pixel wider than drawn. So are
# OpenCV's, and blocks are painted at nearly the window's scale: no correction is needed.
OUTSET = 0.04  # units; the same for the grass, which is not painted by OpenCV
INNER_MARGIN = 1  # texel on each side of a tile, left as it is when the tile is repainted
TEXELS_PER_CACHE_LINE = 16
SHIFT = 4  # fractional bits of the coordinates that OpenCV gets


@dataclass
class Picture:
    """A part of the world: texels (rows, columns, 4) uint8, rows upwards, from (left, bottom)."""

    texels: np.ndarray
    density: float  # texels per unit
    left: float = 0.0
    bottom: float = 0.0
    whole_world: bool = False  # nothing but black lies beyond its edges

    def place(self, x: float, y: float) -> None:
        """Let the picture show the surroundings of (x, y)."""
        rows, columns = self.texels.shape[:2]
        self.left = x - columns / self.density / 2
        self.bottom = y - rows / self.density / 2

    def holds(self, x: float, y: float, reach_x: float, reach_y: float) -> bool:
        """Whether it shows all there is in the box of these half sizes around (x, y)."""
        rows, columns = self.texels.shape[:2]
        return self.whole_world or (
            self.left + reach_x < x < self.left + columns / self.density - reach_x
            and self.bottom + reach_y < y < self.bottom + rows / self.density - reach_y
        )

    def fetch(self, x: float, y: float, reach_x: float, reach_y: float) -> None:
        """Read one texel of every cache line in this box.

        Where many worlds take turns with networks, the texels are never in the cache. Reading them
        in order lets the processor fetch ahead; a view, cut out at an angle, waits for each line.
        """
        left = int((x - reach_x - self.left) * self.density)
        right = int((x + reach_x - self.left) * self.density)
        bottom = int((y - reach_y - self.bottom) * self.density)
        top = int((y + reach_y - self.bottom) * self.density)
        box = self.texels[
            max(bottom, 0) : max(top, 0), max(left, 0) : max(right, 0) : TEXELS_PER_CACHE_LINE, 0
        ]
        box.copy()


class TrackCanvas:
    """Paints one track and cuts views out of it.

    `pictures` get coarser: one around the whole track, one around the start, three of the whole
    field. If the car leaves the first one, that is painted anew around the car.
    """

    def __init__(self, frame_size: int = 96) -> None:
        """frame_size: pixels per side of the whole frame that the view is a part of, 96 or 64."""
        self.sampling = SAMPLING[frame_size]
        density, self.oversize, *_ = self.sampling

        def picture(width: float, height: float, shrink: int) -> Picture:
            rows, columns = (
                math.ceil(units * density * self.oversize / BLOCK)
                * (BLOCK // (self.oversize * shrink))
                for units in (height, width)
            )
            return Picture(np.empty((rows, columns, 4), np.uint8), density / shrink)

        self.fine = picture(FINE_W, FINE_H, 1)
        near = picture(START_SPAN, START_SPAN, 2)
        worlds = [picture(WORLD_SPAN, WORLD_SPAN, n) for n in (4, 8, 16)]
        for world in worlds:
            world.whole_world = True
        self.pictures = [self.fine, near, *worlds]
        self.block = np.empty((BLOCK, BLOCK, 4), np.uint8)
        self.pixel_width = stock.WINDOW_W / frame_size  # window pixels per frame pixel
        self.places = _places(frame_size, *self.sampling[2:])
        self.samples = np.empty((*self.places.shape[:2], 4), np.uint8)
        rows = horizon(frame_size)
        self.first_samples, self.second_samples = self.samples[:rows], self.samples[rows:]

    def paint(
        self, road_poly: list, bg_color: Iterable[float], grass_color: Iterable[float]
    ) -> None:
        """Paint a new world. road_poly: the env's list of (four corners, colour), tile 0 first."""
        self.corners = np.array([corners for corners, _ in road_poly])  # (N, 4, 2) units
        self.colors = [shown(color) for _, color in road_poly]
        # Tiles have arrays as colours; kerbs, drawn after their tile, have tuples.
        self.tiles = [i for i, (_, c) in enumerate(road_poly) if isinstance(c, np.ndarray)]
        self.field_colors = shown(bg_color), shown(grass_color)
        self.fine.place(*(self.corners.min((0, 1)) + self.corners.max((0, 1))) / 2)
        self._paint_fine()
        self._paint_coarse(self.corners[0].mean(0))
        self._find_inner_parts()

    def recolor_tile(self, number: int, color: Iterable[float]) -> None:
        """Repaint a tile that the car has touched."""
        polygon = self.tiles[number]
        self.colors[polygon] = color = shown(color)
        for picture, inner_parts in self.inner_parts:
            cv2.fillConvexPoly(picture.texels, inner_parts[polygon], color, cv2.LINE_8, SHIFT)

    def view(self, out: np.ndarray, x: float, y: float, angle: float, zoom: float) -> None:
        """Fill out (84, 96, 3) or (56, 64, 3) with the view from a car.

        It is at (x, y) and looks `angle` radians left of up; zoom: window pixels per unit.
        """
        cos, sin = math.cos(angle), math.sin(angle)
        ahead = (CAMERA_Y - VIEW_H / 2) / zoom  # from the car to the view's centre
        across, down = VIEW_W / zoom / 2, VIEW_H / zoom / 2
        box = (
            *(x - sin * ahead, y + cos * ahead),
            *(abs(cos) * across + abs(sin) * down, abs(sin) * across + abs(cos) * down),
        )
        picture = self._picture_for(zoom, *box)
        k = picture.density / zoom  # texels per window pixel
        column = picture.density * (x - picture.left) - 0.5  # of the car
        row = picture.density * (y - picture.bottom) - 0.5
        to_texels = np.array(((k * cos, -k * sin, column), (k * sin, k * cos, row)))
        texels = cv2.transform(self.places, to_texels)
        picture.fetch(*box)
        cv2.remap(picture.texels, texels, None, cv2.INTER_LINEAR, self.samples)  # type: ignore
        seen, weight = self.first_samples, self.sampling.weight
        if weight < 1:
            cv2.addWeighted(seen, weight, self.second_samples, 1 - weight, 0, seen)
        cv2.cvtColor(seen, cv2.COLOR_BGRA2BGR, out)

    def _picture_for(
        self, zoom: float, x: float, y: float, reach_x: float, reach_y: float
    ) -> Picture:
        """The finest picture that suits the zoom and holds the box of these half sizes."""
        if zoom >= FULL_ZOOM:
            if not self.fine.holds(x, y, reach_x, reach_y):
                self.fine.place(x, y)
                self._paint_fine()
                self._find_inner_parts()
            return self.fine
        for picture in self.pictures[:-1]:
            texels = self.pixel_width * picture.density / zoom
            if texels < MOST_TEXELS and picture.holds(x, y, reach_x, reach_y):
                return picture
        return self.pictures[-1]

    def _find_inner_parts(self) -> None:
        """Polygons less their smooth edges, which keep their colour when a tile is repainted."""
        margin = INNER_MARGIN / self.fine.density / (2 * stock.TRACK_WIDTH)
        inner = self.corners + (self.corners[:, [1, 0, 3, 2]] - self.corners) * margin
        self.inner_parts = [(p, _fixed_point(inner, p)) for p in self.pictures[:2]]

    def _paint_fine(self) -> None:
        Field(self.fine, self.field_colors).paint(self.fine.texels)
        field = Field(self.fine, self.field_colors, self.oversize)
        corners = _fixed_point(self.corners, self.fine, self.oversize)
        side = BLOCK << SHIFT
        size = BLOCK // self.oversize  # texels
        rows, columns = (count // size for count in self.fine.texels.shape[:2])
        low, high = corners.min(1) // side, corners.max(1) // side
        members: dict[tuple[int, int], list[int]] = {}  # block: its polygons, in drawing order
        for polygon, (left, bottom, right, top) in enumerate(np.hstack([low, high]).tolist()):
            for column in range(max(left, 0), min(right, columns - 1) + 1):
                for row in range(max(bottom, 0), min(top, rows - 1) + 1):
                    members.setdefault((row, column), []).append(polygon)
        for (row, column), polygons in members.items():
            field.paint(self.block, row * BLOCK, column * BLOCK)
            corners_here = corners[polygons] - (column * side, row * side)
            for polygon, points in zip(polygons, corners_here, strict=True):
                cv2.fillConvexPoly(self.block, points, self.colors[polygon], cv2.LINE_8, SHIFT)
            shrunk = self.block
            while len(shrunk) > size:
                shrunk = halved(shrunk)
            top, left = row * size, column * size
            self.fine.texels[top : top + size, left : left + size] = shrunk

    def _paint_coarse(self, start: np.ndarray) -> None:
        _, near, world, *rest = self.pictures
        near.place(*start)
        world.place(0, 0)
        half = halved(self.fine.texels)
        self._place_shrunk(half, near)
        self._place_shrunk(halved(half), world)
        previous = world
        for picture in rest:
            picture.left, picture.bottom = world.left, world.bottom
            picture.texels = halved(previous.texels)
            previous = picture

    def _place_shrunk(self, shrunk: np.ndarray, picture: Picture) -> None:
        """Paint a coarse picture: the shrunk fine one where it reaches, else the bare field."""
        # Move it by less than a texel, so that its texels coincide with the shrunk ones.
        column = round((picture.left - self.fine.left) * picture.density)
        row = round((picture.bottom - self.fine.bottom) * picture.density)
        picture.left = self.fine.left + column / picture.density
        picture.bottom = self.fine.bottom + row / picture.density
        Field(picture, self.field_colors).paint(picture.texels)
        rows, columns = picture.texels.shape[:2]
        left, bottom = max(column, 0), max(row, 0)
        right, top = min(column + columns, shrunk.shape[1]), min(row + rows, shrunk.shape[0])
        picture.texels[bottom - row : top - row, left - column : right - column] = shrunk[
            bottom:top, left:right
        ]


def _places(frame_size: int, distance: float, weight: float) -> np.ndarray:
    """Where to look for each pixel of a view: (rows, columns, 2) float32, and as many rows again of
    the second samples, if there are any; window pixels to the right of the car and ahead of it.
    """
    pixels = np.arange(96)[None] + 0.5
    centres = cv2.resize(pixels, (frame_size, 1), interpolation=cv2.INTER_AREA)[0]
    to_shared = np.tile((distance, -distance), frame_size // 2)
    ahead = CAMERA_Y - centres[: horizon(frame_size)] * stock.WINDOW_H / 96
    places = [
        np.meshgrid((centres + shift * to_shared) * stock.WINDOW_W / 96 - CAMERA_X, ahead)
        for shift in ((weight - 1, weight) if weight < 1 else (0.0,))
    ]
    return np.concatenate([np.stack(xy, -1) for xy in places]).astype(np.float32)


def halved(texels: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 texels. OpenCV is fast at halving only: to shrink by 4, halve twice."""
    rows, columns = texels.shape[:2]
    return cv2.resize(texels, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)


def shown(color: Iterable[float]) -> tuple[int, int, int, int]:
    """The colour as pygame's smoothscale leaves it: 2 levels darker. The 4th channel is unused,
    but OpenCV warps four channels twice as fast as three."""
    red, green, blue = (max(int(c) - 2, 0) for c in color)
    return red, green, blue, 0


class Field:
    """The bare field as a pattern: black, a square of ground on it and chequered grass on that.

    Rows of texels are of a few kinds, and so are their columns.
    """

    def __init__(self, picture: Picture, colors: tuple, oversize: int = 1):
        """The field where `picture` lies, with `oversize` squared texels for each of its own."""
        density = picture.density * oversize
        rows, columns = picture.texels.shape[:2]
        field_x, grass_x, of_column = _stripes(picture.left, density, columns * oversize)
        field_y, grass_y, self.of_row = _stripes(picture.bottom, density, rows * oversize)
        field_y, grass_y = field_y[:, None, None], grass_y[:, None, None]
        ground, grass = np.array(colors, np.float64)
        grassy = ground + grass_x[:, None] * (grass - ground)
        kinds = field_y * field_x[:, None] * (grassy * grass_y + ground * (1 - grass_y))
        self.lines = np.round(kinds).astype(np.uint8).take(of_column, axis=1)

    def paint(self, texels: np.ndarray, row: int = 0, column: int = 0) -> None:
        """Fill texels with the part of the pattern that begins at (row, column)."""
        rows, columns = texels.shape[:2]
        np.take(
            self.lines[:, column : column + columns],
            self.of_row[row : row + rows],
            axis=0,
            out=texels,
            mode="clip",  # with the default mode NumPy would go through a buffer
        )


def _stripes(start: float, density: float, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds of texels along an axis: how much of each lies within the field, and within grass
    patches; and of which kind the texels are, one after the other.
    """
    edges = start + np.arange(count + 1) / density
    field = np.clip(edges, -stock.PLAYFIELD - OUTSET, stock.PLAYFIELD + OUTSET)
    period = 2 * stock.GRASS_DIM
    width = stock.GRASS_DIM + 2 * OUTSET
    whole, rest = np.divmod(edges + OUTSET, period)
    grass = whole * width + np.minimum(rest, width)  # length of patches up to each edge
    # in whole hundredths, lest noise in the last bit make every texel a kind of its own
    hundredths = [np.rint(np.diff(length) * density * 100) for length in (field, grass)]
    key = hundredths[0] * 101 + hundredths[1]
    kinds, of_texel = np.unique(key.astype(np.int16), return_inverse=True)
    return kinds // 101 / 100, kinds % 101 / 100, of_texel


def _fixed_point(corners: np.ndarray, picture: Picture, oversize: int = 1) -> np.ndarray:
    """Corners in units as OpenCV's fixed-point texel coordinates, times `oversize`."""
    scale = picture.density * oversize
    texels = (corners - (picture.left, picture.bottom)) * scale - 0.5
    return np.round(texels * (1 << SHIFT)).astype(np.int32)
