"""The agent at the wheel. For a single race, without a teacher, this file does

    frame, h = env.reset(seed), zeros
    while the race is not over:
        z = V(shrink(frame))
        action = C(z, h)
        h = M(z, action, h)
        frame = env.step(action)

but it drives ROWS races in lock-step in one process, each with a C of its own, since V and M take
a batch of frames in little more time than one; a race that ends makes room for the next at once.
"""

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from models.controller import squash, unpack
from models.inference import ROWS, Encoder, Memory
from models.mdn_rnn import MDNRNN, expected_next
from models.vae import VAE, decoded
from utils.pictures.cockpit import Thoughts
from utils.racing.race import Environment, Lap, Race, RunningRace
from utils.runtime.cluster import Cluster
from utils.runtime.progress import run_jobs
from utils.runtime.workers import Workers
from utils.simulator.envs import make_env, shrink

TRUST = 0.4  # share of the change expected by M that z follows; with all of it M loses its way


class Agent:
    """V, M and C for ROWS races at once, each with a C of its own."""

    def __init__(self, vae: VAE, rnn: MDNRNN) -> None:
        self._encoder = Encoder(vae)
        self._memory = Memory(rnn)
        self._vae, self._rnn = vae, rnn
        self.frames = np.zeros((ROWS, 64, 64, 3), np.uint8)  # what each car sees
        width = vae.sizes["latent_dim"] + rnn.sizes["hidden"]
        self.features = np.zeros((ROWS, width), np.float32)  # [z, h]
        self._weights = np.zeros((ROWS, 3, width), np.float32)
        self._bias = np.zeros((ROWS, 3), np.float32)
        self._z = torch.zeros(ROWS, vae.sizes["latent_dim"])
        self._look_every = np.ones(ROWS, np.int64)
        self._age = np.zeros(ROWS, np.int64)  # frames since the race began
        self._dreams = np.zeros(ROWS, bool)  # between two looks

    def begin(
        self, row: int, parameters: np.ndarray, look_every: int = 1, blind: str = "hold"
    ) -> None:
        """A new race in `row`: an empty memory and its own C; the rest as in a `Race`."""
        self._memory.forget(row)
        self._look_every[row], self._age[row] = look_every, 0
        self._dreams[row] = blind == "dream"
        self._weights[row], self._bias[row] = unpack(parameters.astype(np.float32))

    def decide(self) -> np.ndarray:
        """`frames` -> actions (ROWS, 3) float32; leaves [z, h] in `features`."""
        seen, _ = self._encoder.encode(torch.from_numpy(self.frames))
        blind = self._age % self._look_every != 0
        if blind.any():
            kept = self._imagined() if (self._dreams & blind).any() else self._z
            seen = torch.where(torch.from_numpy(blind)[:, None], kept, seen)
        self._z = seen
        self._age += 1
        latent_dim = self._z.shape[1]
        self.features[:, :latent_dim] = self._z.numpy()
        self.features[:, latent_dim:] = self._memory.h.numpy()
        raw = np.matmul(self._weights, self.features[:, :, None])[:, :, 0] + self._bias
        return squash(raw)

    @torch.inference_mode()
    def _imagined(self) -> torch.Tensor:
        """z (ROWS, Z), moved on in the rows that dream, by a share of the change M expects."""
        expected = expected_next(self._rnn.predict(self._memory.h.unsqueeze(1)))[:, 0]
        moved = torch.lerp(self._z, expected, TRUST)
        return torch.where(torch.from_numpy(self._dreams)[:, None], moved, self._z)

    def remember(self, actions: np.ndarray) -> None:
        """Let M take in what was seen and what was done."""
        self._memory.remember(self._z, torch.from_numpy(actions))

    @torch.inference_mode()
    def thoughts(self, row: int) -> Thoughts:
        """What it makes of the frame in `row`, and what it expects by what M remembers now."""
        prediction = self._rnn.predict(self._memory.h[row].view(1, 1, -1))
        z = self.features[row, : self._z.shape[1]]
        both = np.stack([z, expected_next(prediction)[0, 0].numpy()])
        redrawn, expected = decoded(self._vae, both)
        return Thoughts(redrawn, expected, float(prediction.reward))


class Races:
    """Handler of `utils.runtime.workers`, of ROWS places: a job is a `Race`, its result a `Lap`.

    What makes something else of a race, extends `start` and `result`. With render_mode="rgb_array"
    a camera may look at a race between two frames. `options` are those of `make_env`.
    """

    def __init__(
        self, env_id: str, vae: VAE, rnn: MDNRNN, render_mode: str | None = None, **options: Any
    ) -> None:
        self._make_env = partial(make_env, env_id, render_mode, **options)
        self.agent = Agent(vae, rnn)
        self.running: list[tuple[int, RunningRace] | None] = [None] * ROWS  # with the job's id
        self._envs: list[Environment | None] = [None] * ROWS

    def start(self, job_id: int, race: Any) -> None:
        """Begin a race in a free row."""
        row = self.running.index(None)
        env = self._envs[row] or self._make_env()  # few jobs need few
        self._envs[row] = env
        running = RunningRace(race, env)
        self.running[row] = job_id, running
        self.agent.frames[row] = shrink(running.obs)
        self.agent.begin(row, race.parameters, race.look_every, race.blind)

    @property
    def under_way(self) -> list[tuple[int, int, RunningRace]]:
        """The races that are being driven: the row of each in the agent, its job and itself."""
        return [(row, *taken) for row, taken in enumerate(self.running) if taken]

    def advance(self) -> list[tuple[int, Any]]:
        """One frame of every race; returns the results of those that ended with it."""
        actions = self.agent.decide()
        finished = []
        for row, job_id, running in self.under_way:
            actions[row] = running.step(actions[row], self.agent.features[row])
            result = self.result(row, job_id, running)
            if result is None:
                self.agent.frames[row] = shrink(running.obs)
            else:
                finished.append((job_id, result))
                self.running[row] = None
        self.agent.remember(actions)
        return finished

    def result(self, row: int, job_id: int, running: RunningRace) -> Any:
        """What the job comes to, or None while its race goes on; asked after every frame.

        The agent still holds in `row` what it saw before that frame.
        """
        return running.lap() if running.over else None


def drive(workers: Workers, title: str, *groups: list[Race]) -> list[list[Lap]]:
    """Drive all races of all groups at once, behind a progress bar; laps in the groups' order."""
    races = [race for group in groups for race in group]
    laps = iter(run_jobs(workers, races, title, "race", leave=False))
    return [list(islice(laps, len(group))) for group in groups]


def racing_workers(
    count: int, env_id: str, vae: VAE, rnn: MDNRNN, cluster: Cluster | None = None,
    handler: type[Races] = Races, **options: Any,
) -> Workers:  # fmt: skip
    """So many workers, each of whom drives ROWS races at once.

    Args:
        handler: `Races`, or what hands back something else.
        options: of the environment.
    """
    setup = {"env_id": env_id, "vae": vae, "rnn": rnn, **options}
    return Workers(count, handler, setup, slots=ROWS, cluster=cluster)
