"""The world seen from above, painted once, from which every frame is cut by one rotation.

Stock draws hundreds of polygons on a 1000x800 window per frame and shrinks it to 96x96.  Nothing
but the camera moves, so here the world is a picture: painting happens at reset, and a frame is an
affine warp of it.  During the first second the camera zooms in by a factor of 18, which is served
by coarser copies of the picture.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from gymnasium.envs.box2d import car_racing as stock

FRAME_W, FRAME_H = 96, 84  # the frame without the status bar
PIXEL_W, PIXEL_H = stock.WINDOW_W / 96, stock.WINDOW_H / 96  # window pixels per frame pixel
VIEW_W, VIEW_H = FRAME_W * PIXEL_W, FRAME_H * PIXEL_H  # window pixels
# The car's place, in window pixels from the left and from the top.
CAMERA_X, CAMERA_Y = stock.WINDOW_W / 2, stock.WINDOW_H * 3 / 4
FULL_ZOOM = stock.ZOOM * stock.SCALE  # window pixels per unit after the first second

DENSITY = 3.6  # texels per unit of the fine picture; a frame pixel spans 0.64 x 0.51 units
BLOCK = 64  # texels; the fine picture is painted in blocks of this size ...
OVERSIZE = 4  # ... this many times larger, then shrunk, which makes smooth edges
CANVAS_W, CANVAS_H = 26 * BLOCK, 22 * BLOCK  # 462 x 391 units; the widest track has 411 x 323
START_SPAN = 400  # texels per side of the half-size picture around the start
WORLD_SPAN = 624  # texels per side of the quarter-size picture: the field and black around it
MOST_TEXELS = 3.5  # per frame pixel; above that a coarser picture is used

# A frame pixel of stock is the mean over a box of 0.64 x 0.51 units. Bilinear interpolation of
# texels blurs about as much as 0.51 units do; two samples this far apart make it 0.64 across.
SAMPLE_OFFSET = 0.22  # frame pixels to either side

# Stock's polygons contain their outline, so they are half a window pixel wider than drawn. So are
# OpenCV's, and blocks are painted at nearly the window's scale: no correction is needed.
OUTSET = 0.03  # units; the same for the grass, which is not painted by OpenCV
INNER_MARGIN = 0.02  # of a tile's width on each side, left as it is when the tile is repainted
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


class TrackCanvas:
    """Paints one track and cuts views out of it.

    `pictures` get coarser: one around the whole track, one around the start, three of the whole
    field. If the car leaves the first one, that is painted anew around the car.
    """

    def __init__(self) -> None:
        def picture(rows: int, columns: int, shrink: int) -> Picture:
            return Picture(np.empty((rows, columns, 4), np.uint8), DENSITY / shrink)

        self.fine = picture(CANVAS_H, CANVAS_W, 1)
        near = picture(START_SPAN, START_SPAN, 2)
        worlds = [picture(WORLD_SPAN // n, WORLD_SPAN // n, 4 * n) for n in (1, 2, 4)]
        for world in worlds:
            world.whole_world = True
        self.pictures = [self.fine, near, *worlds]
        self.samples = np.empty((2, FRAME_H, FRAME_W, 4), np.uint8)
        self.block = np.empty((BLOCK * OVERSIZE, BLOCK * OVERSIZE, 4), np.uint8)

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
        """Fill out (84, 96, 3) with the view from a car at (x, y), `angle` radians left of up.

        zoom: window pixels per unit.
        """
        cos, sin = math.cos(angle), math.sin(angle)
        picture = self._picture_for(x, y, cos, sin, zoom)
        k = picture.density / zoom  # texels per window pixel
        right = (0.5 - SAMPLE_OFFSET) * PIXEL_W - CAMERA_X  # of the first sample, from the car
        up = CAMERA_Y - 0.5 * PIXEL_H
        column_x, column_y = k * PIXEL_W * cos, k * PIXEL_W * sin
        row_x, row_y = k * PIXEL_H * sin, -k * PIXEL_H * cos
        first_x = picture.density * (x - picture.left) + k * (cos * right - sin * up) - 0.5
        first_y = picture.density * (y - picture.bottom) + k * (sin * right + cos * up) - 0.5
        _fetch(picture.texels, (first_y, column_y, row_y), (first_x, column_x, row_x))
        for sample in self.samples:
            matrix = np.array(((column_x, row_x, first_x), (column_y, row_y, first_y)))
            cv2.warpAffine(
                picture.texels,
                matrix,
                (FRAME_W, FRAME_H),
                sample,
                cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            )
            first_x += 2 * SAMPLE_OFFSET * column_x
            first_y += 2 * SAMPLE_OFFSET * column_y
        first, second = self.samples
        cv2.addWeighted(first, 0.5, second, 0.5, 0, first)
        cv2.cvtColor(first, cv2.COLOR_BGRA2BGR, out)

    def _picture_for(self, x: float, y: float, cos: float, sin: float, zoom: float) -> Picture:
        """The finest picture that suits the zoom and holds the view."""
        ahead = (CAMERA_Y - VIEW_H / 2) / zoom  # from the car to the view's centre
        cos, sin, x, y = abs(cos), abs(sin), x - sin * ahead, y + cos * ahead
        reach = (cos * VIEW_W + sin * VIEW_H) / zoom / 2, (sin * VIEW_W + cos * VIEW_H) / zoom / 2
        if zoom >= FULL_ZOOM:
            if not self.fine.holds(x, y, *reach):
                self.fine.place(x, y)
                self._paint_fine()
                self._find_inner_parts()
            return self.fine
        for picture in self.pictures[:-1]:
            if PIXEL_W * picture.density / zoom < MOST_TEXELS and picture.holds(x, y, *reach):
                return picture
        return self.pictures[-1]

    def _find_inner_parts(self) -> None:
        """Polygons less their smooth edges, which keep their colour when a tile is repainted."""
        inner = self.corners + (self.corners[:, [1, 0, 3, 2]] - self.corners) * INNER_MARGIN
        self.inner_parts = [(p, _fixed_point(inner, p)) for p in self.pictures[:2]]

    def _paint_fine(self) -> None:
        Field(self.fine, self.field_colors).paint(self.fine.texels)
        field = Field(self.fine, self.field_colors, OVERSIZE)
        corners = _fixed_point(self.corners, self.fine, OVERSIZE)
        side = BLOCK * OVERSIZE << SHIFT
        low, high = corners.min(1) // side, corners.max(1) // side
        members: dict[tuple[int, int], list[int]] = {}  # block: its polygons, in drawing order
        for polygon, (left, bottom, right, top) in enumerate(np.hstack([low, high]).tolist()):
            for column in range(max(left, 0), min(right, CANVAS_W // BLOCK - 1) + 1):
                for row in range(max(bottom, 0), min(top, CANVAS_H // BLOCK - 1) + 1):
                    members.setdefault((row, column), []).append(polygon)
        for (row, column), polygons in members.items():
            field.paint(self.block, row * BLOCK * OVERSIZE, column * BLOCK * OVERSIZE)
            corners_here = corners[polygons] - (column * side, row * side)
            for polygon, points in zip(polygons, corners_here, strict=True):
                cv2.fillConvexPoly(self.block, points, self.colors[polygon], cv2.LINE_8, SHIFT)
            self.fine.texels[
                row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK
            ] = halved(halved(self.block))

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


def _fetch(texels: np.ndarray, *axes: tuple[float, float, float]) -> None:
    """Read one texel of every cache line in the box that a view is cut from.

    Where many worlds take turns with networks, the texels are never in the cache. Reading them in
    order lets the processor fetch ahead; the warp, which walks at an angle, waits for each line.

    axes: rows, then columns; each the view's first texel and its step per pixel right and down.
    """
    spans = []
    for first, right, down in axes:
        across, down = FRAME_W * right, FRAME_H * down
        ends = first, first + across, first + down, first + across + down
        spans.append(slice(max(int(min(ends)), 0), max(int(max(ends)), 0)))
    box = texels[spans[0], spans[1]][:, ::TEXELS_PER_CACHE_LINE, 0]
    if box.size:
        box.max()


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

    Every row of texels is one of a few different ones.
    """

    def __init__(self, picture: Picture, colors: tuple, oversize: int = 1):
        """The field where `picture` lies, with `oversize` squared texels for each of its own."""
        density = picture.density * oversize
        rows, columns = picture.texels.shape[:2]
        field_x, grass_x = _stripes(picture.left, density, columns * oversize)
        field_y, grass_y = _stripes(picture.bottom, density, rows * oversize)
        _, examples, self.which = np.unique(
            field_y + 2 * grass_y, return_index=True, return_inverse=True
        )
        ground, grass = np.array(colors, np.float64)
        grassy = ground + grass_x[:, None] * (grass - ground)
        lines = [
            field_y[i] * field_x[:, None] * (grassy * grass_y[i] + ground * (1 - grass_y[i]))
            for i in examples
        ]
        self.lines = np.round(lines).astype(np.uint8)

    def paint(self, texels: np.ndarray, row: int = 0, column: int = 0) -> None:
        """Fill texels with the part of the pattern that begins at (row, column)."""
        rows, columns = texels.shape[:2]
        np.take(
            self.lines[:, column : column + columns],
            self.which[row : row + rows],
            axis=0,
            out=texels,
            mode="clip",  # with the default mode NumPy would go through a buffer
        )


def _stripes(start: float, density: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each texel along an axis lies within the field, and within grass patches."""
    edges = start + np.arange(count + 1) / density
    field = np.clip(edges, -stock.PLAYFIELD - OUTSET, stock.PLAYFIELD + OUTSET)
    period = 2 * stock.GRASS_DIM
    width = stock.GRASS_DIM + 2 * OUTSET
    whole, rest = np.divmod(edges + OUTSET, period)
    grass = whole * width + np.minimum(rest, width)  # length of patches up to each edge
    # rounded, lest noise in the last bit make every row a kind of its own
    return np.round(np.diff(field) * density, 2), np.round(np.diff(grass) * density, 2)


def _fixed_point(corners: np.ndarray, picture: Picture, oversize: int = 1) -> np.ndarray:
    """Corners in units as OpenCV's fixed-point texel coordinates, times `oversize`."""
    scale = picture.density * oversize
    texels = (corners - (picture.left, picture.bottom)) * scale - 0.5
    return np.round(texels * (1 << SHIFT)).astype(np.int32)
