"""A race to drive, the race under way, and the lap that comes of it."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, SupportsFloat

import numpy as np

from utils.drivers.autopilot import Autopilot
from utils.simulator import seeds
from utils.simulator.envs import MAX_FRAMES
from utils.simulator.road import road_of

FRAME_COST = 0.1  # points a frame, by the environment's rules
PATIENCE = 100  # frames without a new tile, after which a car is lost and teaches nothing more
STRETCH = 50  # frames for which teacher or student keep the wheel


class Environment(Protocol):
    """CarRacing or a dream of it, wrapped or not."""

    @property
    def unwrapped(self) -> Any: ...

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]: ...

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]: ...

    def render(self) -> Any: ...


class Race(NamedTuple):
    """One race to drive: a track and the linear map that drives it."""

    seed: int
    parameters: np.ndarray  # (3 * (Z + H + 1),) of C on plain [z, h]
    patience: int = MAX_FRAMES  # frames without a new tile after which the race is given up
    teacher: dict[str, Any] | None = None  # an autopilot's settings: record what it would do
    teacher_share: float = 0.0  # share of this race's stretches that the teacher itself drives
    trace: bool = False  # record where the car was
    look_every: int = 1  # frames from one look of V to the next
    blind: str = "hold"  # between them z stays; "dream": it goes on as M expects


@dataclass
class Lap:
    """What came of a race.

    A race given up early is charged the frames that it would still have cost, so that its score is
    the one of standing still to the end.
    """

    seed: int
    score: float
    frames: int
    tiles: int
    total_tiles: int
    complete: bool
    progress_frames: int = 0  # frames up to the last new tile
    grass: int = 0  # wheels off the road, summed over those frames
    features: np.ndarray | None = None  # (frames, Z + H) float32, with a teacher
    advice: np.ndarray | None = None  # (frames, 3) float32, the teacher's action in each frame
    positions: np.ndarray | None = None  # (frames, 2), with a trace
    track: np.ndarray | None = None  # (total_tiles, 2) centre points, with a trace
    missed: list[int] | None = None  # tiles never touched, with a trace

    @property
    def dreamt(self) -> bool:
        """Whether there was no track."""
        return not self.total_tiles


class RunningRace:
    """One race under way: it drives on frame by frame, and keeps count."""

    obs: np.ndarray  # what is seen now
    action: np.ndarray  # the last one, and what came of it
    reward: float
    terminated: bool
    info: dict[str, Any]

    def __init__(self, race: Race, env: Environment) -> None:
        self._race = race
        self._env = env
        self.obs, _ = env.reset(seed=race.seed)
        self._road = road_of(env)
        self.over = False
        self._lap = Lap(race.seed, 0.0, 0, self._road.tiles, self._road.total_tiles, False)
        self._grass = 0  # wheels off the road so far
        self._positions: list[tuple[float, float]] = []
        self._features: list[np.ndarray] = []
        self._advice: list[np.ndarray] = []
        self._teacher: Autopilot | None = None
        if race.teacher is not None:
            self._rng = seeds.stream(race.seed, seeds.Draw.TEACHER)
            self._teacher = Autopilot(env, self._rng, **race.teacher)
            self._teacher_drives = False

    def step(self, action: np.ndarray, features: np.ndarray | None = None) -> np.ndarray:
        """Drive one frame with `action` (or the teacher's); returns the action taken.

        Args:
            features: what the student saw, for a race with a teacher.
        """
        if self._teacher is not None and features is not None:
            action = self._consult(self._teacher, action, features)
        self.action = action
        self.obs, reward, self.terminated, truncated, self.info = self._env.step(action)
        self.reward = float(reward)
        lap = self._lap
        lap.score += self.reward
        lap.frames += 1
        if self._race.trace:
            self._positions.append(self._road.position)
        self._grass += self._road.wheels_on_grass
        if self._road.tiles > lap.tiles:
            lap.tiles, lap.progress_frames, lap.grass = self._road.tiles, lap.frames, self._grass
        if self.terminated or truncated:
            self.over = True
            lap.complete = bool(self.info.get("lap_finished", False))
        elif lap.frames - lap.progress_frames >= self._race.patience:
            self.over = True
            lap.score -= FRAME_COST * (MAX_FRAMES - lap.frames)
        return action

    def _consult(self, teacher: Autopilot, action: np.ndarray, features: np.ndarray) -> np.ndarray:
        advice = teacher.advise()
        self._features.append(features.copy())
        self._advice.append(advice)
        if self._lap.frames % STRETCH == 0:
            self._teacher_drives = self._rng.random() < self._race.teacher_share
        return advice if self._teacher_drives else action

    def view(self) -> tuple[np.ndarray, float, int, int, int]:
        """What a camera shows: the picture (H, W, 3), score, frames, tiles, and all the tiles."""
        picture = np.asarray(self._env.render())
        return picture, self._lap.score, self._lap.frames, self._lap.tiles, self._lap.total_tiles

    def lap(self) -> Lap:
        """The result of the race, once it is over."""
        lap = self._lap
        if self._race.teacher is not None:
            lap.features, lap.advice = np.stack(self._features), np.stack(self._advice)
        if self._race.trace:
            lap.positions, lap.track = np.array(self._positions), self._road.centre_line()
            lap.missed = self._road.missed()
        return lap
