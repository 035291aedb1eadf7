"""A privileged driver for CarRacing: it reads the track's geometry and the car's state.

It gives demonstrations with `act` and, without side effects on the car, tells with `advise` what
it would do in any state that another driver has reached.
"""

import math

import numpy as np

from utils.drivers import racing_line

# Steering: pure pursuit (Coulter 1992) of a point ahead on the line, corrected for the slip of
# the car. Lengths in units, angles in radians, speeds in units/s. Tuned on lap times.
NEAREST_AIM = 2.5  # distance to the point aimed at, when standing
AIM_TIME = 0.183  # growth of that distance with speed, s
SLIP_IN_AIM = 0.213  # share of the slip angle that counts as already pointing to the aim
WHEELBASE = 4.108  # front-wheel angle per curvature at low speed
YAW_GAIN = 0.015  # front-wheel angle per yaw rate that is missing, s
COUNTER_STEER = 0.53  # front-wheel angle per slip angle
MAX_STEER = 0.65  # beyond the joint's stop at 0.4, so that it turns at full speed until there

# Pedals: proportional to the missing speed, gently while the car is slow or turning.
GAS_GAIN = 0.135
START_GAS, GAS_PER_SPEED = 0.088, 0.068  # more spins the wheels
BRAKE_GAIN, MAX_BRAKE = 0.107, 0.517  # wheels lock from 0.9 on
PEDAL_DELAY = 0.036  # s; target speeds are read this long behind the car

# A car that runs wide slows down and aims farther ahead.
NEAR = 2.0  # distance from the line from which on it does, units
WIDE_SLOWS = 0.03  # share of the target speed per unit beyond that

# Recovery: a car that is off the road or turned away from its aim slows down and turns to the aim.
ON_ROAD = 7.0  # distance from the line within which the target speeds hold
LOST_ANGLE = 1.2  # angle to the aim beyond which they do not
LOST_STEER = 0.8  # front-wheel angle per angle to the aim
LOST_GAS = 0.3  # more spins a car whose front wheels are turned
TURNING_SPEED, RETURNING_SPEED = 25.0, 50.0  # facing away from the aim and towards it
SLIP_SPEED = 5.0  # below it the direction of motion says nothing
LOST_DISTANCE = 60.0  # farther from the line than this, the nearest point of all is taken
LONGEST_AIM = 64  # points; that many are repeated behind the lap's end

NOISE_MEMORY = 0.94  # of the noise per frame: it changes within about 16 frames (0.3 s)
DISTURBANCE_FRAMES = (5, 25)
DISTURBANCES = np.array(
    [[-1, 0, 0], [1, 0, 0], [-1, 0.5, 0], [1, 0.5, 0], [0, 1, 0], [0, 0, 0.8], [0, 0, 0]],
    dtype=np.float32,
)


class Autopilot:
    """Drive along the centre line or a racing line of an environment that has been reset.

    env: CarRacing, wrapped or not. rng: all that is random comes from it.
    line_offset: how far the line may leave the centre, units; 0 is the centre line.
    grip, braking: shares of the road's grip used in bends and for braking. top_speed: units/s.
    noise: standard deviation of a slowly changing error added to steering and pedals.
    disturbance: probability per frame that `act` does something wrong for 5 to 25 frames.
    """

    def __init__(
        self,
        env,
        rng: np.random.Generator,
        *,
        line_offset: float = 0.0,
        grip: float = racing_line.GRIP,
        braking: float = racing_line.BRAKING,
        top_speed: float = racing_line.TOP_SPEED,
        noise: float = 0.0,
        disturbance: float = 0.0,
    ):
        self.rng = rng
        self.noise = noise
        self.disturbance = disturbance
        self._car = env.unwrapped.car
        line = racing_line.centre_line(env.unwrapped.track)
        if line_offset > 0:
            line = racing_line.minimum_time_line(line, line_offset)
        self.line = line  # (n, 2)
        self._count = len(line)
        self._x, self._y = np.vstack([line, line[: LONGEST_AIM + 1]]).T.tolist()
        self._speeds = racing_line.speed_profile(
            line, grip=grip, braking=braking, top_speed=top_speed
        )
        self._index = self._nearest(*self._car.hull.position)
        self._error = np.zeros(2)  # of steering and of the pedals
        self._wrong = DISTURBANCES[0]
        self._wrong_frames = 0

    def act(self, obs: np.ndarray | None = None) -> np.ndarray:
        """Return the action (3,) float32 to take: the advice, noisy and at times plainly wrong."""
        action = self.advise()
        if self.noise > 0:
            fresh = self.rng.standard_normal(2) * (self.noise * math.sqrt(1 - NOISE_MEMORY**2))
            self._error = NOISE_MEMORY * self._error + fresh
            pedal = action[1] - action[2] + self._error[1]
            action = np.array(
                (action[0] + self._error[0], max(pedal, 0.0), max(-pedal, 0.0)), dtype=np.float32
            )
            action = action.clip((-1, 0, 0), 1, dtype=np.float32)
        if self.disturbance > 0:
            if self._wrong_frames == 0 and self.rng.random() < self.disturbance:
                self._wrong_frames = int(self.rng.integers(*DISTURBANCE_FRAMES, endpoint=True))
                self._wrong = DISTURBANCES[self.rng.integers(len(DISTURBANCES))]
            if self._wrong_frames > 0:
                self._wrong_frames -= 1
                return self._wrong.copy()
        return action

    def advise(self) -> np.ndarray:
        """Return the action (3,) float32 that is right in the car's present state.

        Call it every frame, since it follows the car's progress along the line.
        """
        hull = self._car.hull
        x, y = hull.position
        vx, vy = hull.linearVelocity
        sin, cos = math.sin(hull.angle), math.cos(hull.angle)  # the nose points to (-sin, cos)
        speed = math.hypot(vx, vy)
        slip = math.atan2(cos * vx + sin * vy, cos * vy - sin * vx) if speed > SLIP_SPEED else 0.0

        distance = self._follow(x, y)
        reach = NEAREST_AIM + AIM_TIME * speed + max(0.0, distance - NEAR)
        aim = self._index + min(LONGEST_AIM, round(reach))
        dx, dy = self._x[aim] - x, self._y[aim] - y
        aim_angle = math.atan2(cos * dx + sin * dy, cos * dy - sin * dx)  # right positive
        target = self._speeds[self._index - round(PEDAL_DELAY * speed)]
        most_gas = min(1.0, START_GAS + GAS_PER_SPEED * speed)
        if distance > ON_ROAD or abs(aim_angle) > LOST_ANGLE:
            steer = -LOST_STEER * aim_angle
            facing = max(0.0, math.cos(aim_angle))
            target = min(target, TURNING_SPEED + (RETURNING_SPEED - TURNING_SPEED) * facing)
            most_gas = min(most_gas, LOST_GAS)
        else:
            bend = -2.0 * math.sin(aim_angle - SLIP_IN_AIM * slip) / math.hypot(dx, dy)
            steer = WHEELBASE * bend + YAW_GAIN * (speed * bend - hull.angularVelocity)
            target *= 1.0 - WIDE_SLOWS * max(0.0, distance - NEAR)
        steer = max(-MAX_STEER, min(MAX_STEER, steer - COUNTER_STEER * slip))

        if abs(slip) > math.pi / 2:
            target = 0.0  # rolling backwards
        missing = target - speed
        gas = brake = 0.0
        if missing > 0:
            sliding = abs(self._car.wheels[0].joint.angle) + abs(slip)
            gas = min(GAS_GAIN * missing, most_gas) * max(0.0, 1.0 - sliding)
        else:
            brake = min(-BRAKE_GAIN * missing, MAX_BRAKE)
        return np.array((-steer, gas, brake), dtype=np.float32)

    def _follow(self, x: float, y: float) -> float:
        """Move the index downhill to the nearest point around it; return the distance.

        Only neighbours are compared, so that another part of the track close by does not capture
        the car, unless it has strayed very far.
        """
        xs, ys, index = self._x, self._y, self._index
        nearest = (xs[index] - x) ** 2 + (ys[index] - y) ** 2
        for direction in (1, -1):
            while True:
                neighbour = (index + direction) % self._count
                squared = (xs[neighbour] - x) ** 2 + (ys[neighbour] - y) ** 2
                if squared >= nearest:
                    break
                index, nearest = neighbour, squared
        if nearest > LOST_DISTANCE**2:
            index = self._nearest(x, y)
            nearest = (xs[index] - x) ** 2 + (ys[index] - y) ** 2
        self._index = index
        return math.sqrt(nearest)

    def _nearest(self, x: float, y: float) -> int:
        return int(np.argmin(np.sum((self.line - (x, y)) ** 2, axis=1)))
