"""DreamCarRacing-v0: the race as M dreams it, an environment like the two real ones.

`utils.simulator.envs` registers the id. What is seen is V's decoder's, rewards and ends are M's. A
dream begins with a second of a real drive, and what follows is nobody's track: it has no tiles, and
the lap is never complete.
"""

from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import InvalidAction

from models.dream import DreamWorld, Luck
from models.vae import decoded
from utils.runtime.errors import UserError
from utils.simulator.envs import FPS, HOTTEST, enlarge
from utils.storage.files import files
from utils.storage.networks import load_dreaming, load_networks
from utils.world_model.latents import load_latents, load_of
from utils.world_model.starts import (
    Starts,
    load_starts,
    some_moment,
    starts_path,
    warm_up,
)

RENDERED = (600, 400)  # width and height of a picture, as stock's
LEAST, MOST = np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)  # of an action


class DreamCarRacing(gym.Env[np.ndarray, np.ndarray]):
    """M's dream. Its random numbers are the environment's own: seed and actions decide it all.

    Observations are (96, 96, 3) uint8, of which `shrink` makes the (64, 64, 3) that V decoded.
    Actions are CarRacing's: steering -1..1, gas 0..1, brake 0..1. A reward is what M expects. The
    info says `end_probability`, of this frame by M, and the `temperature`.

    Args:
        render_mode: None or "rgb_array".
        checkpoints: the folder of V, of M, and of the moments that dreams begin with where there
            is no data.
        latents: the folder of encoded episodes. If it has any of this V, a dream begins at a moment
            of one of them, and reads that one alone.
        temperature: from 0, always the likeliest future, to 10; 1 is as uncertain as M is.

    Raises:
        UserError: an option is none of these, or a file is missing, damaged, or made for another V.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 (Gymnasium's way)

    def __init__(
        self,
        render_mode: str | None = None,
        checkpoints: str | Path = "checkpoints",
        latents: str | Path = "data/latents",
        temperature: float = 1.0,
    ) -> None:
        _demand(render_mode in (None, "rgb_array"), "render_mode", 'None or "rgb_array"')
        for name, folder in (("checkpoints", checkpoints), ("latents", latents)):
            _demand(isinstance(folder, str | Path), name, "the name of a folder")
        plain = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        _demand(
            plain and 0 <= temperature <= HOTTEST, "temperature", f"a number from 0 to {HOTTEST:g}"
        )
        self.render_mode = render_mode
        self.action_space = gym.spaces.Box(LEAST, MOST)
        self.observation_space = gym.spaces.Box(0, 255, (96, 96, 3), np.uint8)
        self.reward = 0.0  # so far, under the name that stock has for it
        self.frame = np.zeros((64, 64, 3), np.uint8)  # that V decoded
        networks = load_networks(str(checkpoints))
        self._vae, self._vae_header = networks.vae, networks.vae_header
        rnn, _ = load_dreaming(str(checkpoints), networks)
        self._world = DreamWorld(rnn, float(temperature))
        self._episodes = self._encoded(latents)
        kept = starts_path(checkpoints)
        self._kept = None if self._episodes else load_starts(kept, self._vae_header)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin at another real moment, with a memory of the second before it."""
        super().reset(seed=seed)
        start = self._start()
        self._z, self._h, self._c = warm_up(self._world, start)
        self.reward = 0.0
        return self._seen(), self._info(0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Dream on by a frame.

        Raises:
            InvalidAction: the action is not three finite numbers.
        """
        taken = np.array(action, np.float32)
        if taken.shape != (3,) or not np.isfinite(taken).all():
            raise InvalidAction(f"an action is steering, gas and brake, not {action!r}.")
        doing = torch.from_numpy(taken.clip(LEAST, MOST))[None]
        self._h, self._c = self._world.remember(self._z, doing, self._h, self._c)
        self._z, expected, ended = self._world.imagine(
            self._h, Luck.draw(self.np_random, 1, self._world.sizes)
        )
        reward, end = float(expected), float(ended)
        self.reward += reward
        chance = 0.5 if self.temperature == 0 else self.np_random.random()
        return self._seen(), reward, chance < end, False, self._info(end)

    @property
    def temperature(self) -> float:
        """Of the frames to come; it may be changed while the dream goes on."""
        return self._world.temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        self._world.temperature = temperature

    def render(self) -> np.ndarray | None:
        """The decoded frame, (400, 600, 3) uint8, with render_mode="rgb_array"."""
        if self.render_mode is None:
            return None
        return cv2.resize(self.frame, RENDERED, interpolation=cv2.INTER_CUBIC)

    def _encoded(self, latents: str | Path) -> list[Path]:
        """The episodes, if they are of this V; the first speaks for the folder, as in stage 03."""
        paths = files(latents)
        if not paths:
            return []
        header, _ = load_latents(paths[0])
        return paths if header["made_from"]["vae"] == self._vae_header["fingerprint"] else []

    def _start(self) -> Starts:
        if self._kept is not None:
            return self._kept.take([int(self.np_random.integers(len(self._kept.seen)))])
        path = self._episodes[int(self.np_random.integers(len(self._episodes)))]
        _, latents = load_of(path, self._vae_header)
        return some_moment(latents, self.np_random)

    def _seen(self) -> np.ndarray:
        (self.frame,) = decoded(self._vae, self._z.numpy())
        return enlarge(self.frame)

    def _info(self, end_probability: float) -> dict[str, Any]:
        return {"end_probability": end_probability, "temperature": self.temperature}


def _demand(fulfilled: bool, name: str, wants: str) -> None:
    if not fulfilled:
        raise UserError(f"{name} of DreamCarRacing-v0 must be {wants}.")
