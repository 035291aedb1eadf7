"""The decision loop: simulate, shrink, V, C, M, for ROWS races in lock-step in one process.

`Races` is a handler for `utils.runtime.workers`: a job is a `Race`, its result a `Lap`. A race that
ends makes room for the next at once.
"""


import numpy as np
import torch

from models.controller import squash, unpack
from models.inference import ROWS, Encoder, Memory
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.racing.race import Lap, Race, Seat
from utils.simulator.envs import make_env, shrink


class Agent:
    """V, M and C for ROWS races at once, each with a C of its own."""

    def __init__(self, vae: VAE, rnn: MDNRNN) -> None:
        self._encoder = Encoder(vae)
        self._memory = Memory(rnn)
        self.frames = np.zeros((ROWS, 64, 64, 3), np.uint8)  # what each car sees
        width = vae.sizes["latent_dim"] + rnn.sizes["hidden"]
        self.features = np.zeros((ROWS, width), np.float32)  # [z, h]
        self._weights = np.zeros((ROWS, 3, width), np.float32)
        self._bias = np.zeros((ROWS, 3), np.float32)
        self._z = torch.zeros(ROWS, vae.sizes["latent_dim"])
        self._look_every = torch.ones(ROWS, dtype=torch.int64)
        self._age = torch.zeros(ROWS, dtype=torch.int64)  # frames since the race began

    def begin(self, row: int, parameters: np.ndarray, look_every: int = 1) -> None:
        """A new race in `row`: an empty memory and its own C."""
        self._memory.forget(row)
        self._look_every[row], self._age[row] = look_every, 0
        self._weights[row], self._bias[row] = unpack(parameters.astype(np.float32))

    def decide(self) -> np.ndarray:
        """`frames` -> actions (ROWS, 3) float32; leaves [z, h] in `features`."""
        seen, _ = self._encoder.encode(torch.from_numpy(self.frames))
        looks = self._age % self._look_every == 0
        self._z = torch.where(looks[:, None], seen, self._z)
        self._age += 1
        latent_dim = self._z.shape[1]
        self.features[:, :latent_dim] = self._z.numpy()
        self.features[:, latent_dim:] = self._memory.h.numpy()
        raw = np.matmul(self._weights, self.features[:, :, None])[:, :, 0] + self._bias
        return squash(raw)

    def remember(self, actions: np.ndarray) -> None:
        """Let M take in what was seen and what was done."""
        self._memory.remember(self._z, torch.from_numpy(actions))

    @property
    def h(self) -> torch.Tensor:
        """M's hidden state after the last `remember`, (ROWS, H)."""
        return self._memory.h


class Races:
    """Handler: drives up to ROWS races in lock-step.

    With render_mode="rgb_array" a camera may look at a race between two frames.
    """

    def __init__(
        self, env_id: str, vae: VAE, rnn: MDNRNN, render_mode: str | None = None
    ) -> None:
        self._env_id, self._render_mode = env_id, render_mode
        self.agent = Agent(vae, rnn)
        self.seats: list[Seat | None] = [None] * ROWS
        self._envs: list = [None] * ROWS

    def start(self, job_id: int, race: Race) -> None:
        """Begin a race in a free row."""
        row = self.seats.index(None)
        if self._envs[row] is None:  # made on demand: few jobs in many processes need few
            self._envs[row] = make_env(self._env_id, self._render_mode)
        seat = self.seats[row] = Seat(job_id, race, self._envs[row])
        self.agent.frames[row] = shrink(seat.obs)
        self.agent.begin(row, race.parameters, race.look_every)

    def advance(self) -> list[tuple[int, Lap]]:
        """One frame of every race; returns the laps that ended with it."""
        actions = self.agent.decide()
        finished = []
        for row, seat in enumerate(self.seats):
            if seat is None:
                continue
            actions[row] = seat.step(actions[row], self.agent.features[row])
            if seat.over:
                finished.append((seat.job_id, seat.lap()))
                self.seats[row] = None
            else:
                self.agent.frames[row] = shrink(seat.obs)
        self.agent.remember(actions)
        return finished
