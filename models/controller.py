"""C: one linear map with bias from [z, h] to steering, gas and brake."""

from typing import NamedTuple

import numpy as np

from models.mdn_rnn import MDNRNN

ACTIONS = 3  # steering, gas, brake


def parameter_count(latent_dim: int, hidden: int) -> int:
    """867 for z = 32 and h = 256."""
    return ACTIONS * (latent_dim + hidden + 1)


def unpack(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """parameters (..., 3 * (F + 1)) -> weights (..., 3, F), bias (..., 3), as views."""
    table = parameters.reshape(*parameters.shape[:-1], ACTIONS, -1)
    return table[..., :-1], table[..., -1]


def pack(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The inverse of `unpack`."""
    return np.concatenate([weights, bias[..., None]], -1).reshape(*weights.shape[:-2], -1)


def squash(raw: np.ndarray) -> np.ndarray:
    """raw (..., 3) -> action (..., 3): steering -1..1, gas 0..1, brake 0..1 (float32).

    Source: the released code of World Models: tanh; gas (t + 1) / 2; brake max(t, 0).
    """
    action = np.tanh(raw, dtype=np.float32)
    action[..., 1] = (action[..., 1] + 1) / 2
    action[..., 2] = np.maximum(action[..., 2], 0)
    return action


class FeatureScale(NamedTuple):
    """Mean and sd (F,) of the features [z, h].

    Evolution and imitation move in standardised features, (features - mean) / sd, where one step
    size suits every one of them; what drives and is shipped is the plain linear map.
    """

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, rnn: MDNRNN, readable: str = "zh") -> "FeatureScale":
        """As M's training data had them; what C may not read, z or h, is scaled to nothing."""
        mean, sd = (rnn.get_buffer(f"feature_{name}").numpy().copy() for name in ("mean", "sd"))
        latent_dim = rnn.sizes["latent_dim"]
        if "z" not in readable:
            sd[:latent_dim] = np.inf
        if "h" not in readable:
            sd[latent_dim:] = np.inf
        return cls(mean, sd)

    def plain(self, parameters: np.ndarray) -> np.ndarray:
        """Parameters (..., 3 * (F + 1)) for standardised features -> for plain ones, float32."""
        weights, bias = unpack(parameters)
        shift = (weights * (self.mean / self.sd)).sum(-1)
        return pack(weights / self.sd, bias - shift).astype(np.float32)
