"""FastCarRacing-v0: Gymnasium's CarRacing, bit for bit in physics and many times faster.

`envs` registers the id. Rewards, terminations, tracks and the car's motion are
those of CarRacing-v3 to the last bit; observations differ from stock's by about a tenth of a grey
level on average, because they are cut out of a picture of the world (`track_canvas`) instead of
being drawn anew.  `render()` is stock's own.

OpenCV's thread pool is left alone: call `cv2.setNumThreads(1)` where many processes share cores.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.box2d import car_dynamics as dynamics
from gymnasium.envs.box2d.car_racing import (
    FPS,
    PLAYFIELD,
    SCALE,
    ZOOM,
    CarRacing,
    FrictionDetector,
)
from gymnasium.error import InvalidAction

from utils.simulator.car_sprites import draw_car, draw_zooming_car, wheel_tables
from utils.simulator.dashboard import draw_dashboard
from utils.simulator.envs import horizon
from utils.simulator.track_canvas import TrackCanvas

PROVED_EQUAL_TO = "1.4.0"  # the Gymnasium version whose CarRacing the tests compare with

# The constants of stock's Car.step, multiplied in its order so that no bit differs.
DT = 1.0 / FPS
ENGINE = DT * dynamics.ENGINE_POWER
INERTIA = dynamics.WHEEL_MOMENT_OF_INERTIA
GRIP, GRASS_GRIP = dynamics.FRICTION_LIMIT * 1.0, dynamics.FRICTION_LIMIT * 0.6
STIFFNESS = 205000 * dynamics.SIZE * dynamics.SIZE
BRAKE_FORCE = 15


class FastCar(dynamics.Car):
    """Stock's car with the same arithmetic on plain floats instead of NumPy scalars."""

    def __init__(self, world: Any, angle: float, x: float, y: float) -> None:
        super().__init__(world, angle, x, y)
        for wheel in self.wheels:
            wheel.fixtures[0].userData = wheel

    def gas(self, gas: float) -> None:
        gas = min(max(gas, 0.0), 1.0)
        for wheel in self.wheels[2:4]:
            wheel.gas += min(gas - wheel.gas, 0.1)

    def step(self, dt: float) -> None:
        for wheel in self.wheels:
            self._step_wheel(wheel)

    def _step_wheel(self, w: Any) -> None:
        joint = w.joint
        turn = w.steer - joint.angle
        speed = min(50.0 * abs(turn), 3.0)
        joint.motorSpeed = speed if turn > 0 else -speed if turn < 0 else 0.0

        on_grass = not w.tiles
        grip = GRASS_GRIP if on_grass else GRIP

        # World vector (1, 0) is (cos, sin) of the wheel; (0, 1) is then exactly (-sin, cos).
        side = w.GetWorldVector((1, 0))
        side_x, side_y = side.x, side.y
        velocity = w.linearVelocity
        vx, vy = velocity.x, velocity.y
        forward_speed = -side_y * vx + side_x * vy
        side_speed = side_x * vx + side_y * vy

        omega = w.omega + ENGINE * w.gas / INERTIA / (abs(w.omega) + 5.0)
        self.fuel_spent += ENGINE * w.gas
        brake = w.brake
        if brake >= 0.9:
            omega = 0.0
        elif brake > 0:
            slowing = min(BRAKE_FORCE * brake, abs(omega))
            omega += -slowing if omega > 0 else slowing
        w.phase += omega * DT

        forward_force = (-forward_speed + omega * w.wheel_rad) * STIFFNESS
        side_force = -side_speed * STIFFNESS
        force = math.sqrt(forward_force * forward_force + side_force * side_force)
        if force > 2.0 * grip:
            self._skid(w, on_grass)
        else:
            w.skid_start = None
            w.skid_particle = None
        if force > grip:
            forward_force = forward_force / force * grip
            side_force = side_force / force * grip

        w.omega = omega - DT * forward_force * w.wheel_rad / INERTIA
        w.ApplyForceToCenter(
            (
                side_force * side_x + forward_force * -side_y,
                side_force * side_y + forward_force * side_x,
            ),
            True,
        )

    def _skid(self, w: Any, on_grass: bool) -> None:
        """Lengthen or start a tyre mark; only render() shows them, observations do not."""
        mark = w.skid_particle
        if mark and mark.grass == on_grass and len(mark.poly) < 30:
            mark.poly.append((w.position[0], w.position[1]))
        elif w.skid_start is None:
            w.skid_start = w.position
        else:
            w.skid_particle = self._create_particle(w.skid_start, w.position, on_grass)
            w.skid_start = None


class Tile:
    """A part of the road; what stock notes on it is declared here."""

    idx: int
    color: np.ndarray
    road_visited: bool
    touched = False  # it has the colour of touched ones

    def __init__(self, fixture: Any) -> None:
        self.fixtures = [fixture]
        fixture.userData = self


class RoadBody:
    """Takes the world's place while stock lays a track: each tile becomes a part of one body.

    Stock's tiles are bodies, hundreds of them, and Box2D visits all bodies in every step. Tiles are
    only felt, by the contact listener, so they move nothing either way.
    """

    def __init__(self, world: Any) -> None:
        self.body = world.CreateStaticBody()

    def CreateStaticBody(self, fixtures: Any) -> Tile:  # noqa: N802
        """What stock asks the world for."""
        return Tile(self.body.CreateFixture(fixtures))


class TouchDetector(FrictionDetector):
    """Stock's contact rules with fewer look-ups; it also repaints the tiles that are touched.

    Tiles and wheels are the data of their fixtures, those of the hull have none.
    """

    def BeginContact(self, contact: Any) -> None:  # noqa: N802
        """What Box2D calls."""
        tile, wheel = contact.fixtureA.userData, contact.fixtureB.userData
        if type(tile) is not Tile:
            tile, wheel = wheel, tile
            if type(tile) is not Tile:
                return
        env = self.env
        if not tile.touched:
            tile.touched = True
            tile.color[:] = env.road_color
            env.canvas.recolor_tile(tile.idx, env.road_color)
        if wheel is None:
            return
        wheel.tiles.add(tile)
        if not tile.road_visited:
            tile.road_visited = True
            env.reward += 1000.0 / len(env.track)
            env.tile_visited_count += 1
            if (
                tile.idx == 0
                and env.tile_visited_count / len(env.track) > self.lap_complete_percent
            ):
                env.new_lap = True

    def EndContact(self, contact: Any) -> None:  # noqa: N802
        """What Box2D calls."""
        tile, wheel = contact.fixtureA.userData, contact.fixtureB.userData
        if tile is not None and wheel is not None:
            if type(tile) is not Tile:
                tile, wheel = wheel, tile
            wheel.tiles.remove(tile)


class FastCarRacing(CarRacing):
    """CarRacing with the same arguments, spaces, options and seeds as stock's.

    Args:
        frame_size: pixels per side of an observation: 96 as stock's, or 64: what `envs.shrink`
            makes of that, drawn at once.
    """

    car: FastCar  # stock's None lasts until the first reset

    def __init__(self, *args: Any, frame_size: int = 96, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gym.utils.EzPickle.__init__(self, *args, frame_size=frame_size, **kwargs)
        self.frame_size = frame_size
        self.observation_space = gym.spaces.Box(0, 255, (frame_size, frame_size, 3), np.uint8)
        self.canvas = TrackCanvas(frame_size)
        # One listener for life, where stock makes another at every reset.
        self.contactListener_keepref = TouchDetector(self, self.lap_complete_percent)
        self.world.contactListener = self.contactListener_keepref

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        gym.Env.reset(self, seed=seed)
        self._destroy()
        self.contactListener_keepref.env = self  # unpickling leaves it with another environment
        self.reward = 0.0
        self.prev_reward = 0.0
        self.tile_visited_count = 0
        self.t = 0.0
        self.new_lap = False
        self.road_poly = []
        if self.domain_randomize:
            self._reinit_colors((options or {}).get("randomize", True))
        world, self.world = self.world, RoadBody(self.world)
        self.road_body = self.world.body
        while not self._create_track():
            if self.verbose:
                print("retry to generate track")
        self.world = world
        self.car = FastCar(self.world, *self.track[0][1:4])
        self.canvas.paint(self.road_poly, self.bg_color, self.grass_color)
        wheel_tables(self.frame_size)  # takes a second, once; not while somebody already drives
        if self.render_mode == "human":
            self.render()
        return self.step(None)[0], {}

    def _destroy(self) -> None:
        if self.road:
            # Box2D keeps what is the data of a fixture, and with it every track that ever was.
            for body in (self.road_body, *self.car.wheels):
                for fixture in body.fixtures:
                    fixture.ClearUserData()
            self.world.DestroyBody(self.road_body)
            self.road = []
            self.car.destroy()

    def step(self, action: np.ndarray | int | None) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.car is not None
        if action is not None:
            self._control(action)
        self.car.step(DT)
        self.world.Step(DT, 6 * 30, 2 * 30)
        self.t += DT
        self.state = self._observe()

        info: dict[str, bool] = {}
        step_reward, terminated = (0, False) if action is None else self._score(info)
        if self.render_mode == "human":
            self.render()
        return self.state, step_reward, terminated, False, info

    def _control(self, action: Any) -> None:
        if self.continuous:
            steer, gas, brake = action.tolist()
            self.car.steer(-steer)
            self.car.gas(gas)
            self.car.brake(brake)
        else:
            if not self.action_space.contains(action):
                raise InvalidAction(
                    f"you passed the invalid action `{action}`. "
                    f"The supported action_space is `{self.action_space}`"
                )
            self.car.steer(-0.6 * (action == 1) + 0.6 * (action == 2))
            self.car.gas(0.2 * (action == 3))
            self.car.brake(0.8 * (action == 4))

    def _score(self, info: dict) -> tuple[float, bool]:
        self.reward -= 0.1
        self.car.fuel_spent = 0.0
        step_reward = self.reward - self.prev_reward
        self.prev_reward = self.reward
        terminated = False
        if self.tile_visited_count == len(self.track) or self.new_lap:
            terminated = True
            info["lap_finished"] = True
        x, y = self.car.hull.position
        if abs(x) > PLAYFIELD or abs(y) > PLAYFIELD:
            terminated = True
            info["lap_finished"] = False
            step_reward = -100
        return step_reward, terminated

    def _observe(self) -> np.ndarray:
        """A new frame, of the score before this step's 0.1 is subtracted."""
        car, t = self.car, self.t
        hull, wheels = car.hull, car.wheels
        position, velocity = hull.position, hull.linearVelocity
        zoom = 0.1 * SCALE * max(1 - t, 0) + ZOOM * SCALE * min(t, 1)
        frame = np.empty((self.frame_size, self.frame_size, 3), np.uint8)
        bar = horizon(self.frame_size)
        self.canvas.view(frame[:bar], position.x, position.y, hull.angle, zoom)
        steering = wheels[0].joint.angle
        if t < 1:
            draw_zooming_car(frame, zoom)
        else:
            draw_car(frame, steering, [wheel.phase for wheel in wheels])
        draw_dashboard(
            frame[bar:],
            self.reward,
            math.hypot(velocity.x, velocity.y),
            [wheel.omega for wheel in wheels],
            steering,
            hull.angularVelocity,
        )
        return frame
