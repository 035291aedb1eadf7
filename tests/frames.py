"""Drive stock and fast CarRacing side by side and measure how their frames and physics differ."""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from utils.simulator.envs import shrink
from utils.simulator.fast_car_racing import FastCarRacing
from utils.storage.files import atomic_path

OPENING = 50  # frames of the zooming first second
BEHAVIOURS = ("follow", "smooth", "full_gas", "locked", "spin", "off_track")


@dataclass
class Comparison:
    """Squared and absolute errors of frames, summed, and physics mismatches."""

    frames: int = 0
    squared: float = 0.0
    absolute: float = 0.0
    worst: float = math.inf  # dB, of a single frame
    worst_frame: tuple | None = None
    mismatches: list = field(default_factory=list)

    def add(self, expected: np.ndarray, seen: np.ndarray, label=None) -> float:
        difference = expected.astype(np.int32) - seen
        mean_square = float(np.mean(difference**2))
        self.frames += 1
        self.squared += mean_square
        self.absolute += float(np.mean(np.abs(difference)))
        quality = decibels(mean_square)
        if quality < self.worst:
            self.worst, self.worst_frame = quality, (label, expected, seen)
        return quality

    @property
    def psnr(self) -> float:
        return decibels(self.squared / max(self.frames, 1))

    @property
    def mae(self) -> float:
        return self.absolute / max(self.frames, 1)

    def __str__(self) -> str:
        return (
            f"{self.frames} frames: PSNR {self.psnr:.2f} dB, MAE {self.mae:.4f}, "
            f"worst {self.worst:.2f} dB {self.worst_frame and self.worst_frame[0]}"
        )


def decibels(mean_square: float) -> float:
    return math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


class Driver:
    """One of BEHAVIOURS, acting from the car's state."""

    def __init__(self, behaviour: str, env: CarRacing, seed: int):
        self.behaviour, self.env = behaviour, env
        self.rng = np.random.default_rng(seed)
        self.action = np.zeros(3)
        self.frame = 0

    def act(self) -> np.ndarray:
        self.frame += 1
        return np.array(getattr(self, self.behaviour)(), np.float32)

    def follow(self, target_speed: float = 45.0):
        """Steer for a point of the track a few tiles ahead."""
        car, track = self.env.car, np.array(self.env.track)[:, 2:4]
        x, y = car.hull.position
        nearest = int(np.argmin(np.hypot(track[:, 0] - x, track[:, 1] - y)))
        dx, dy = track[(nearest + 4) % len(track)] - (x, y)
        bearing = math.atan2(-dx, dy) - car.hull.angle
        bearing = math.remainder(bearing, math.tau)
        speed = math.hypot(*car.hull.linearVelocity)
        error = target_speed / (1 + 1.5 * abs(bearing)) - speed
        return -1.5 * bearing, min(max(0.05 * error, 0), 1), min(max(-0.03 * error, 0), 0.8)

    def smooth(self):
        self.action += 0.1 * self.rng.normal(size=3)
        self.action = np.clip(self.action, (-1, -0.2, -0.8), (1, 1, 1))
        return self.action[0], max(self.action[1], 0), max(self.action[2], 0)

    def full_gas(self):
        return 0.3 * math.sin(self.frame / 15), 1, 0

    def straight(self):
        return 0, 0.3, 0

    def locked(self):
        steer, gas, _ = self.follow(70)
        return (steer, gas, 0) if self.frame % 60 < 45 else (0.7, 0, 1)

    def spin(self):
        return 1 if self.frame % 200 < 120 else -1, 1, 0

    def off_track(self):
        return (0, 1, 0) if self.frame < 100 else (0.15 * math.sin(self.frame / 20), 0.6, 0)


def state_of(env: CarRacing) -> tuple:
    """Everything that must be equal to the bit."""
    hull = env.car.hull
    return (
        *[*hull.position, *hull.linearVelocity, hull.angle, hull.angularVelocity],
        *[v for w in env.car.wheels for v in (w.omega, w.phase, w.joint.angle, *w.position)],
        *[env.reward, env.tile_visited_count, env.t, len(env.car.particles)],
    )


def same_world(stock: CarRacing, fast: CarRacing) -> bool:
    """Whether the track, and by now its colours, are the same."""
    return (
        stock.track == fast.track
        and len(stock.road_poly) == len(fast.road_poly)
        and all(
            a == b and np.array_equal(c, d)
            for (a, c), (b, d) in zip(stock.road_poly, fast.road_poly, strict=True)
        )
        and [t.road_visited for t in stock.road] == [t.road_visited for t in fast.road]
    )


def compare_physics(stock, fast, seed, behaviour, steps, found: list) -> int:
    """Drive both without stock's drawing; append what differs to `found`; return steps driven."""
    stock._render = lambda mode: None
    return _drive(stock, fast, seed, behaviour, steps, found, lambda *_: None)


def compare_frames(
    seeds, steps: int = 250, behaviours=BEHAVIOURS, frame_size: int = 96, **env_options
) -> tuple[Comparison, Comparison]:
    """(after the first second, first second) over races of `steps` frames, one per seed.

    frame_size: 96, or 64: the agent's view beside stock's frames, which are shrunk to that.
    """
    rest, opening = Comparison(), Comparison()
    for number, seed in enumerate(seeds):
        behaviour = behaviours[number % len(behaviours)]
        stock = CarRacing(**env_options)
        fast = FastCarRacing(frame_size=frame_size, **env_options)

        def see(step, expected, seen, seed=seed, behaviour=behaviour):
            part = opening if step < OPENING else rest
            expected = expected if frame_size == 96 else shrink(expected)
            part.add(expected, seen, (seed, behaviour, step))

        _drive(stock, fast, seed, behaviour, steps, rest.mismatches, see)
    return rest, opening


def _drive(stock, fast, seed, behaviour, steps, found, see) -> int:
    expected, _ = stock.reset(seed=seed)
    seen, _ = fast.reset(seed=seed)
    see(0, expected, seen)
    driver = Driver(behaviour, stock, seed)
    step = 0
    for step in range(1, steps + 1):
        action = driver.act()
        expected, *outcome = stock.step(action)
        seen, *fast_outcome = fast.step(action)
        if outcome != fast_outcome or state_of(stock) != state_of(fast):
            found.append((seed, behaviour, step))
            break
        see(step, expected, seen)
        if outcome[1]:
            break
    if not same_world(stock, fast):
        found.append((seed, behaviour, "world"))
    return step


def write_picture(path, frames: list[tuple[np.ndarray, np.ndarray]], scale: int = 3) -> None:
    """Rows of stock's frame, ours, and the difference times 8, as a PNG."""
    rows = []
    for expected, seen in frames:
        difference = np.clip(128 + 8 * (seen.astype(int) - expected), 0, 255).astype(np.uint8)
        rows.append(np.hstack([expected, seen, difference]))
    picture = np.vstack(rows).repeat(scale, 0).repeat(scale, 1)
    heads = np.full((28, picture.shape[1], 3), 255, np.uint8)
    for column, head in enumerate(("stock", "ours", "difference x 8")):
        place = 8 + column * picture.shape[1] // 3, 20
        cv2.putText(heads, head, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    drawn = np.vstack([heads, picture[:, :, ::-1]])
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", drawn)[1].tobytes())
