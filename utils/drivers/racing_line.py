"""The path an autopilot follows: the track's centre line or a minimum-time line, and how fast.

All lines are closed: arrays of shape (n, 2) in world units, evenly spaced, in driving direction,
the last point followed by the first. Curvature is positive in left turns.
"""

from collections.abc import Sequence

import numpy as np

SPACING = 1.0  # distance between neighbouring points of a finished line, units
ROUNDING = 4.0  # standard deviation of the Gaussian that rounds kinks and curvature, units

ROAD_GRIP = 219.0  # largest acceleration with four wheels on the road, units/s^2 (measured)
ENGINE = 43.7  # acceleration under full gas, units/s^2 (measured)
TOP_SPEED = 100.0  # the physics engine caps the car here, units/s
GRIP = 0.94  # share of ROAD_GRIP that a driver may use for cornering, tuned on lap times
LEAST_GRIP = 0.05  # that may be asked for; with less a lap would take minutes
WIDEST = 5.5  # units off the centre that may be asked for; the road ends at 6.7
BRAKING = 0.712  # share of it for braking, likewise

STATION = 3.5  # distance between the optimiser's variables, units: as dense as the track's tiles
STATION_ROUNDING = 1.5  # standard deviation of the filter over them, stations
ITERATIONS = 150  # 4 times as many shorten a lap by 0.1 %
LEARNING_RATE = 0.18  # first step of the optimiser, as a share of the largest offset
PLANNED_BRAKING = 0.5  # share of ROAD_GRIP: braking happens in bends, which leave less of it


def resample(points: np.ndarray, spacing: float = SPACING) -> np.ndarray:
    """Return the closed polyline (n, 2) with evenly spaced points about `spacing` units apart."""
    closed = np.vstack([points, points[:1]])
    distance = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    at = np.linspace(0.0, distance[-1], round(distance[-1] / spacing), endpoint=False)
    return np.column_stack([np.interp(at, distance, closed[:, axis]) for axis in (0, 1)])


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Return closed `values` (n, ...) after a Gaussian filter of `sigma` points along axis 0."""
    frequency = np.fft.rfftfreq(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    response = np.exp(-2.0 * (np.pi * sigma * frequency) ** 2)
    return np.fft.irfft(np.fft.rfft(values, axis=0) * response, len(values), axis=0)


def curvature(line: np.ndarray) -> np.ndarray:
    """Return the signed curvature (n,) of a line (n, 2), 1/units."""
    return _differentiate(line)[3]


def normals(line: np.ndarray) -> np.ndarray:
    """Return the unit vectors (n, 2) that point to the left of a line (n, 2)."""
    tangent, _, step, _ = _differentiate(line)
    return _turn_left(tangent) / step[:, None]


def centre_line(track: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Return the centre (n, 2) of CarRacing's `track` of (alpha, beta, x, y), kinks rounded."""
    points = resample(np.asarray(track, dtype=np.float64)[:, 2:])
    return resample(smooth(points, ROUNDING / SPACING))


def minimum_time_line(centre: np.ndarray, max_offset: float) -> np.ndarray:
    """Return the line (n, 2) of shortest lap time at most `max_offset` units from `centre`.

    Projected Adam (Kingma and Ba 2015) on the offsets from the centre at stations 3.5 units
    apart. The offsets are a smoothed copy of the variables, which both rounds the gradient (lap
    time depends on the curvature at few points) and, being an average, keeps within the limit.
    """
    stations = resample(centre, STATION)
    left = normals(stations)
    variables = mean = square = np.zeros(len(stations))
    best_time, best = np.inf, variables
    for iteration in range(1, ITERATIONS + 1):
        offsets = smooth(variables, STATION_ROUNDING)
        time, gradient = lap_time(stations + offsets[:, None] * left)
        if time < best_time:
            best_time, best = time, offsets
        gradient = smooth(np.sum(gradient * left, axis=1), STATION_ROUNDING)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        step = mean / (1 - 0.9**iteration) / (np.sqrt(square / (1 - 0.99**iteration)) + 1e-9)
        step *= LEARNING_RATE * max_offset * (1 - (iteration - 1) / ITERATIONS)
        variables = np.clip(variables - step, -max_offset, max_offset)

    at = np.arange(len(centre)) * len(stations) / len(centre)
    offsets = np.interp(at, np.arange(len(stations) + 1), np.append(best, best[0]))
    return resample(centre + smooth(offsets, 2.0)[:, None] * normals(centre))


def lap_time(line: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the seconds of a flying lap along `line` (n, 2), and their gradient (n, 2).

    The car corners at v^2 = GRIP * ROAD_GRIP / |curvature|, and v^2 grows by at most
    2 * ENGINE per unit of way and falls by at most 2 * PLANNED_BRAKING * ROAD_GRIP. So each
    point's speed is governed by one point, before or behind it, whose cornering limit reaches
    that far, and running minima find it. The gradient passes each point's time on to that one.
    """
    count = len(line)
    tangent, bend, step, bends = _differentiate(line)
    steepness = np.maximum(np.abs(bends), 1e-9)
    cornering = GRIP * ROAD_GRIP / steepness
    limit = np.minimum(cornering, TOP_SPEED**2)  # of v^2

    way = np.cumsum(np.tile(step, 3))  # three laps, to read the middle one: the line is closed
    limits = np.tile(limit, 3)
    lap = slice(count, 2 * count)
    rise, fall = 2.0 * ENGINE * way, 2.0 * PLANNED_BRAKING * ROAD_GRIP * way
    least, before = _running_minimum(limits - rise)
    gaining = (least + rise)[lap]
    least, behind = _running_minimum((limits + fall)[::-1])
    losing = (least[::-1] - fall)[lap]
    squared = np.minimum(gaining, losing)
    governor = np.where(gaining < losing, before[lap], 3 * count - 1 - behind[::-1][lap])
    speed = np.sqrt(squared)

    # A longer way before the next slow point is driven at the speed that the stretch ends with.
    _, stretch = np.unique(2 * governor + (gaining < losing), return_inverse=True)
    fastest = np.zeros(count)
    np.maximum.at(fastest, stretch, speed)
    by_step = 1.0 / fastest[stretch]
    by_limit = np.bincount(governor % count, -0.5 * step / speed**3, count)
    by_bends = np.where(limit < cornering, 0.0, -by_limit * cornering / steepness) * np.sign(bends)

    cubed = (by_bends / step**3)[:, None]
    by_bend = cubed * _turn_left(tangent)
    by_tangent = -cubed * _turn_left(bend)
    by_tangent += (by_step / step - 3.0 * by_bends * bends / step**2)[:, None] * tangent
    gradient = np.roll(by_bend + by_tangent / 2.0, 1, axis=0)
    gradient += np.roll(by_bend - by_tangent / 2.0, -1, axis=0) - 2.0 * by_bend
    return float(np.sum(step / speed)), gradient


def speed_profile(
    line: np.ndarray, *, grip: float = GRIP, braking: float = BRAKING, top_speed: float = TOP_SPEED
) -> list[float]:
    """Return the target speed, units/s, at each of the n points of `line` (n, 2).

    Cornering alone allows v = sqrt(grip * ROAD_GRIP / |curvature|). A backward pass then begins
    every braking early enough, decelerating by `braking` * ROAD_GRIP times what the friction
    ellipse leaves beside cornering. There is no forward pass: the throttle finds by itself how
    fast the car gains speed.
    """
    step = float(np.mean(_differentiate(line)[2]))
    bends = np.abs(smooth(curvature(line), ROUNDING / step))
    cornering = grip * ROAD_GRIP / np.maximum(bends, 1e-9)
    limit = np.minimum(cornering, top_speed**2).tolist()  # of v^2
    cornering = cornering.tolist()
    loss = 2.0 * step * braking * ROAD_GRIP  # of v^2 per point, braking straight ahead
    squared = limit.copy()
    following = min(limit)
    for _ in range(2):  # the line is closed: the second round starts from the right value
        for i in reversed(range(len(limit))):
            used = min(1.0, following / cornering[i])
            following = min(limit[i], following + loss * (1.0 - used * used) ** 0.5)
            squared[i] = following
    return [value**0.5 for value in squared]


def _differentiate(line: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return tangent (n, 2), second difference (n, 2), |tangent| (n,) and curvature (n,)."""
    ahead, behind = np.roll(line, -1, axis=0), np.roll(line, 1, axis=0)
    tangent = (ahead - behind) / 2.0
    bend = ahead - 2.0 * line + behind
    step = np.hypot(*tangent.T)
    return tangent, bend, step, np.sum(_turn_left(tangent) * bend, axis=1) / step**3


def _turn_left(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` (n, 2) turned by 90 degrees anticlockwise."""
    return np.column_stack([-vectors[:, 1], vectors[:, 0]])


def _running_minimum(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least value up to each place, (n,), and the place where it stands, (n,)."""
    least = np.minimum.accumulate(values)
    places = np.where(values == least, np.arange(len(values)), 0)
    return least, np.maximum.accumulate(places)
