"""Lines and speeds on a made-up track: offsets, lap times, gradient and the limits of grip."""

import numpy as np
import pytest

from utils.drivers import racing_line


@pytest.fixture(scope="module")
def track() -> list[tuple[float, float, float, float]]:
    """A bumpy ring of 300 (alpha, beta, x, y) entries, about 1000 units long, driven leftwards."""
    angle = np.linspace(0.0, 2.0 * np.pi, 300, endpoint=False)
    radius = 140.0 + 30.0 * np.cos(3.0 * angle) + 12.0 * np.sin(7.0 * angle)
    return list(zip(angle, angle, radius * np.cos(angle), radius * np.sin(angle), strict=True))


def distances(line: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Distance (n,) of each point of `line` from the closed polyline `centre`."""
    start, along = centre, np.roll(centre, -1, axis=0) - centre
    to_point = line[:, None] - start
    share = np.sum(to_point * along, axis=2) / np.sum(along**2, axis=1)
    nearest = to_point - np.clip(share, 0.0, 1.0)[..., None] * along
    return np.hypot(nearest[..., 0], nearest[..., 1]).min(axis=1)


def test_curvature_of_a_circle_is_one_over_its_radius():
    angle = np.linspace(0.0, 2.0 * np.pi, 200, endpoint=False)
    circle = 40.0 * np.column_stack([np.cos(angle), np.sin(angle)])
    assert racing_line.curvature(circle) == pytest.approx(1 / 40, rel=1e-3)
    assert racing_line.curvature(circle[::-1]) == pytest.approx(-1 / 40, rel=1e-3)


def test_the_centre_line_is_closed_even_and_on_the_road(track):
    line = racing_line.centre_line(track)
    steps = np.hypot(*(np.roll(line, -1, axis=0) - line).T)
    assert steps == pytest.approx(racing_line.SPACING, rel=0.02)
    assert distances(line, np.array(track)[:, 2:]).max() < 1.0


@pytest.mark.parametrize("max_offset", [1.0, 2.5, 5.5])
def test_the_minimum_time_line_keeps_within_its_offset_and_uses_it(track, max_offset):
    centre = racing_line.centre_line(track)
    off = distances(racing_line.minimum_time_line(centre, max_offset)[::3], centre)
    assert 0.8 * max_offset < off.max() <= max_offset + 1e-6


def test_more_room_makes_a_faster_lap(track):
    centre = racing_line.centre_line(track)
    lines = [centre, *(racing_line.minimum_time_line(centre, offset) for offset in (2.5, 5.5))]
    times = [racing_line.lap_time(racing_line.resample(line, 3.5))[0] for line in lines]
    assert times[1] < 0.97 * times[0]
    assert times[2] < 0.98 * times[1]


def test_the_gradient_points_the_way_lap_time_grows(track):
    line = racing_line.resample(racing_line.centre_line(track), 3.5)
    rng = np.random.default_rng(0)
    gradient = racing_line.lap_time(line)[1]
    for _ in range(5):
        nudge = 1e-5 * racing_line.smooth(rng.standard_normal(line.shape), 3.0)
        measured = racing_line.lap_time(line + nudge)[0] - racing_line.lap_time(line - nudge)[0]
        assert 2.0 * np.sum(gradient * nudge) == pytest.approx(measured, rel=0.15, abs=2e-7)


def test_a_long_straight_is_timed_by_the_laws_of_motion():
    """Two half circles of radius 20 joined by straights of 80: v0 in the bends, then a, then b."""
    bend = np.linspace(-np.pi / 2, np.pi / 2, 126)[:-1]
    arc = 20.0 * np.column_stack([np.cos(bend), np.sin(bend)])
    straight = np.column_stack([np.linspace(0.0, 80.0, 161)[:-1], np.full(160, -20.0)])
    far_end = np.array([80.0, 0.0])
    half = np.vstack([straight, far_end + arc])
    line = racing_line.resample(np.vstack([half, far_end - half]), 0.5)
    slow = np.sqrt(racing_line.GRIP * racing_line.ROAD_GRIP * 20.0)
    gain, loss = racing_line.ENGINE, racing_line.PLANNED_BRAKING * racing_line.ROAD_GRIP
    fast = np.sqrt(slow**2 + 2.0 * 80.0 * gain * loss / (gain + loss))
    expected = 2.0 * (np.pi * 20.0 / slow + (fast - slow) * (1.0 / gain + 1.0 / loss))
    assert racing_line.lap_time(line)[0] == pytest.approx(expected, rel=0.03)


def test_target_speeds_respect_grip_braking_and_the_cap(track):
    line = racing_line.centre_line(track)
    grip, braking = 0.9, 0.6
    speeds = np.array(racing_line.speed_profile(line, grip=grip, braking=braking, top_speed=80.0))
    bends = np.abs(racing_line.smooth(racing_line.curvature(line), racing_line.ROUNDING))
    assert len(speeds) == len(line)
    assert speeds.max() == pytest.approx(80.0)
    assert np.all(speeds**2 * bends <= grip * racing_line.ROAD_GRIP * 1.01)
    lost = speeds**2 - np.roll(speeds, -1) ** 2
    assert lost.max() <= 2.0 * braking * racing_line.ROAD_GRIP * racing_line.SPACING * 1.02
    assert lost.max() > 100.0  # it does brake, and late
