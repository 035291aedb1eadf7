"""The agent beside a person who drives: it watches all the time, and takes the wheel when asked."""

import numpy as np

from models.inference import ROWS
from utils.drivers.keyboard import Copilot
from utils.pictures.cockpit import Thoughts
from utils.racing.agent import Agent
from utils.runtime.errors import UserError
from utils.storage.networks import TrainedAgent, load_agent


class AgentBeside(Copilot):
    """V, M and C in one race that somebody else may be driving.

    At the wheel all the time it drives as in `utils.racing.agent.Races`, to the last bit.
    """

    def __init__(self, trained: TrainedAgent) -> None:
        super().__init__()
        self._parameters = trained.parameters
        self._agent = Agent(trained.vae, trained.rnn)
        self._actions = np.zeros((ROWS, 3), np.float32)  # only the first race exists

    def begin(self) -> None:
        self._agent.begin(0, self._parameters)

    def decide(self, frame: np.ndarray) -> np.ndarray:
        self._agent.frames[0] = frame
        return self._agent.decide()[0]

    def thoughts(self) -> Thoughts:
        return self._agent.thoughts(0)

    def remember(self, action: np.ndarray) -> None:
        self._actions[0] = action
        self._agent.remember(self._actions)


def copilot(checkpoints: str, name: str) -> Copilot:
    """The agent whose C is called `name`; where it cannot be had, one that says why."""
    try:
        return AgentBeside(load_agent(checkpoints, name))
    except UserError as error:
        return Copilot(str(error))
