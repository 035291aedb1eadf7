"""M: the mixture density network on an LSTM that predicts what the car will see next.

Shapes: B episodes, T frames, Z latent dimensions, A actions, H hidden units, K mixtures.
action[t] was chosen on seeing z[t]; reward[t], terminated[t] and z[t + 1] are its outcome. The
hidden state h[t + 1] has seen z[..t] and action[..t]: it is the memory on which the next action,
the one at z[t + 1], is based.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
LOG_SIGMA_RANGE = (-7.0, 5.0)  # keeps a mixture from collapsing on a point, where the loss diverges

State = tuple[Tensor, Tensor]  # h and c of the LSTM, (1, B, H) each


class Prediction(NamedTuple):
    """What M expects at the next frame."""

    log_pi: Tensor  # (B, T, Z, K) logarithms of the mixtures' weights
    mean: Tensor  # (B, T, Z, K)
    log_sigma: Tensor  # (B, T, Z, K)
    reward: Tensor  # (B, T)
    terminated: Tensor  # (B, T) logit


class MDNRNN(nn.Module):
    """LSTM with a mixture of K Gaussians for every latent dimension, reward and termination.

    `feature_mean` and `feature_sd` describe [z, h] over the data that M was trained on: C is
    searched for in features of mean 0 and sd 1, where one step size suits all of them.

    Source: Ha & Schmidhuber, World Models (2018), appendix A.2; Bishop, Mixture Density Networks
    (1994).
    """

    def __init__(
        self, latent_dim: int = 32, action_dim: int = 3, hidden: int = 256, mixtures: int = 5
    ) -> None:
        super().__init__()
        self.sizes = {
            "latent_dim": latent_dim,
            "action_dim": action_dim,
            "hidden": hidden,
            "mixtures": mixtures,
        }
        self.lstm = nn.LSTM(latent_dim + action_dim, hidden, batch_first=True)
        self.mixture = nn.Linear(hidden, 3 * latent_dim * mixtures)
        self.outcome = nn.Linear(hidden, 2)
        self.feature_mean: Tensor
        self.feature_sd: Tensor
        self.register_buffer("feature_mean", torch.zeros(latent_dim + hidden))
        self.register_buffer("feature_sd", torch.ones(latent_dim + hidden))

    def forward(
        self, z: Tensor, action: Tensor, state: State | None = None
    ) -> tuple[Prediction, State]:
        """z (B, T, Z), action (B, T, A) and the state before them -> prediction, state after."""
        h, state = self.lstm(torch.cat([z, action], -1), state)
        return self.predict(h), state

    def predict(self, h: Tensor) -> Prediction:
        """h (B, T, H), having seen z[t] and action[t] -> what is expected at t + 1."""
        sizes = (self.sizes["latent_dim"], self.sizes["mixtures"])
        logits, mean, log_sigma = self.mixture(h).chunk(3, -1)
        reward, terminated = self.outcome(h).unbind(-1)
        return Prediction(
            F.log_softmax(logits.unflatten(-1, sizes), -1),
            mean.unflatten(-1, sizes),
            log_sigma.unflatten(-1, sizes).clamp(*LOG_SIGMA_RANGE),
            reward,
            terminated,
        )

    def loss(
        self,
        z: Tensor,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        weight: Tensor,
        state: State | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], State]:
        """Negative log-likelihood of what happened next, as a weighted mean of the frames'.

        loss = (-sum_z log p(z[t + 1]) + (reward error)^2 + cross-entropy of terminated) / (Z + 2)

        Args:
            z: (B, T + 1, Z); its last frame is only predicted.
            action: (B, T, A).
            reward: (B, T).
            terminated: (B, T), 0 or 1.
            weight: (B, T) of each frame in the means, 0 where the batch is padded.
            state: what the LSTM remembers of the frames before; None at the start of episodes.

        Returns:
            The loss, its parts, and the state after the last frame, detached from the gradient.
        """
        prediction, (h, c) = self(z[:, :-1], action, state)
        parts = {
            "z_nll": mixture_nll(prediction, z[:, 1:]).sum(-1),
            "reward_error": (prediction.reward - reward).square(),
            "terminated_nll": F.binary_cross_entropy_with_logits(
                prediction.terminated, terminated, reduction="none"
            ),
        }
        parts = {name: (part * weight).sum() for name, part in parts.items()}
        return sum(parts.values()) / (z.shape[-1] + 2), parts, (h.detach(), c.detach())


def mixture_nll(prediction: Prediction, z: Tensor) -> Tensor:
    """-log sum_k pi_k N(z; mean_k, sigma_k), z (B, T, Z) -> (B, T, Z)."""
    log_pi, mean, log_sigma, *_ = prediction
    deviation = (z.unsqueeze(-1) - mean) * (-log_sigma).exp()
    log_normal = -0.5 * deviation.square() - log_sigma - LOG_SQRT_2PI
    return -torch.logsumexp(log_pi + log_normal, -1)


def expected_next(prediction: Prediction) -> Tensor:
    """The mean of the mixture, (B, T, Z): M's single best guess at what comes next."""
    return (prediction.log_pi.exp() * prediction.mean).sum(-1)
