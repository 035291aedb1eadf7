"""C: one linear map with bias from [z, h] to steering, gas and brake."""

import numpy as np

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


def unstandardise(parameters: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Parameters for (features - mean) / sd -> the same map for the features themselves.

    Evolution and imitation move in standardised coordinates, where one step size suits every
    feature; what is shipped is the plain linear map.
    """
    weights, bias = unpack(parameters)
    return pack(weights / sd, bias - (weights * (mean / sd)).sum(-1))
