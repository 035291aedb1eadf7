"""M as a world to drive in: it takes an action and says what is seen next, and what it is worth.

Shapes: N dreams side by side, Z latent dimensions, A actions, H hidden units, K mixtures. A dream
has a latent vector z (N, Z), the frame that is seen, and M's memory h and c (N, H) of what was.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.mdn_rnn import LOG_SIGMA_RANGE, MDNRNN


class Luck(NamedTuple):
    """The random numbers of one frame of N dreams."""

    gumbel: Tensor  # (N, Z, K), they choose the mixtures
    normal: Tensor  # (N, Z)

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, sizes: dict[str, int]) -> "Luck":
        """The random numbers of `count` dreams by an M of these sizes."""
        latent_dim, mixtures = sizes["latent_dim"], sizes["mixtures"]
        gumbel = rng.gumbel(size=(count, latent_dim, mixtures)).astype(np.float32)
        normal = rng.standard_normal((count, latent_dim), np.float32)
        return cls(torch.from_numpy(gumbel), torch.from_numpy(normal))


class Imagined(NamedTuple):
    """What comes of an action, as M has it."""

    z: Tensor  # (N, Z) of the next frame
    reward: Tensor  # (N,) points, expected
    ended: Tensor  # (N,) probability that the race is over


class DreamWorld:
    """M laid out for many dreams at once: the LSTM is one matrix product, what it predicts another.

    temperature: 0 takes the most likely future, 1 draws from M's own distribution, and more than
    that from a wider one.
    dtype: of its weights and what they are multiplied with; all the rest is float32.

    Source: World Models, section 4.2 (a controller trained inside the dream); the mixture is chosen
    by the Gumbel-max trick (Maddison, Tarlow & Minka, A* Sampling, 2014).
    """

    @torch.inference_mode()
    def __init__(
        self, rnn: MDNRNN, temperature: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> None:
        self.sizes, self.temperature = rnn.sizes, temperature
        from_input, from_h, input_bias, h_bias = rnn.lstm.all_weights[0]
        self._lstm = _layer(torch.cat([from_input, from_h], 1), input_bias + h_bias, dtype)
        heads = rnn.mixture, rnn.outcome
        self._heads = _layer(
            torch.cat([head.weight for head in heads]),
            torch.cat([head.bias for head in heads]),
            dtype,
        )

    def fresh(self, count: int) -> tuple[Tensor, Tensor]:
        """h and c (N, H) of an M that has seen nothing."""
        return torch.zeros(count, self.sizes["hidden"]), torch.zeros(count, self.sizes["hidden"])

    @torch.inference_mode()
    def remember(self, z: Tensor, action: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Take in z (N, Z) and the action (N, A) chosen on seeing it: h and c (N, H) afterwards."""
        gates = _product(torch.cat([z, action, h], 1), *self._lstm)
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    @torch.inference_mode()
    def imagine(self, h: Tensor, luck: Luck) -> Imagined:
        """h (N, H), having taken in frame and action -> what comes of them."""
        count, sizes = len(h), (self.sizes["latent_dim"], self.sizes["mixtures"])
        out = _product(h, *self._heads)
        *mixture, outcome = out.split([math.prod(sizes)] * 3 + [2], 1)
        logits, mean, log_sigma = (numbers.view(count, *sizes) for numbers in mixture)
        if self.temperature == 0:
            z = mean.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1)
        else:
            chance = torch.add(luck.gumbel, logits, alpha=1 / self.temperature)
            chosen = chance.argmax(-1, keepdim=True)
            sigma = log_sigma.gather(-1, chosen).squeeze(-1).clamp(*LOG_SIGMA_RANGE).exp()
            z = mean.gather(-1, chosen).squeeze(-1)
            z = z + luck.normal * sigma * math.sqrt(self.temperature)
        return Imagined(z, outcome[:, 0], torch.sigmoid(outcome[:, 1]))


def _layer(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """weight (out, in) and bias (out,), laid out for `_product`."""
    return weight.T.contiguous().to(dtype), bias.to(dtype)


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (N, in) float32 -> (N, out) float32."""
    return torch.addmm(bias, x.to(weight.dtype), weight).float()
