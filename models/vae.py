"""V: the convolutional variational autoencoder that turns a frame into a small latent vector z.

Shapes: B images, Z latent dimensions. Frames are (B, 64, 64, 3) uint8 wherever they are stored and
(B, 3, 64, 64) floats from 0 to 1 inside the network.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER_CHANNELS = (3, 32, 64, 128, 256)  # World Models, appendix A.1
DECODER_CHANNELS = (128, 64, 32, 16, 3)  # lighter than the paper's: seven times as fast to train
ENCODED = 256 * 2 * 2  # length of the flattened encoder output for a 64x64 frame


class VAE(nn.Module):
    """The paper's encoder (four 4x4 convolutions of stride 2) and a light decoder.

    Source: Ha & Schmidhuber, World Models (2018), appendix A.1; Kingma & Welling (2014).
    """

    def __init__(self, latent_dim: int = 32) -> None:
        super().__init__()
        self.sizes = {"latent_dim": latent_dim}
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2) for a, b in pairwise(ENCODER_CHANNELS)
        )
        self.mu = nn.Linear(ENCODED, latent_dim)
        self.logvar = nn.Linear(ENCODED, latent_dim)
        self.expand = nn.Linear(latent_dim, DECODER_CHANNELS[0] * 4 * 4)
        self.deconvolutions = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(DECODER_CHANNELS)
        )

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (B, 64, 64, 3) uint8 -> mu (B, Z), logvar (B, Z) of the posterior q(z | frame)."""
        x = to_floats(frames)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        x = x.flatten(1)
        return self.mu(x), self.logvar(x)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, Z) -> images (B, 3, 64, 64), from 0 to 1."""
        x = F.relu(self.expand(z)).unflatten(1, (DECODER_CHANNELS[0], 4, 4))
        *hidden, last = self.deconvolutions
        for deconvolution in hidden:
            x = F.relu(deconvolution(x))
        return torch.sigmoid(last(x))

    def loss(self, frames: Tensor, tolerance: float = 0.5) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative evidence lower bound with the paper's tolerance on the KL term.

        loss = sum of squared errors of an image + max(KL(q || N(0, 1)), tolerance * Z),
        averaged over the images. Both are sums: averaging the error over pixels would leave the KL
        term thousands of times too strong, and z would collapse.

        Args:
            frames: (B, 64, 64, 3) uint8.
            tolerance: nats per latent dimension that cost nothing more.
        """
        mu, logvar = self.encode(frames)
        decoded = self.decode(sample(mu, logvar)).float()
        reconstruction = (decoded - to_floats(frames)).square().sum((1, 2, 3)).mean()
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).float().sum(1)
        loss = reconstruction + kl.clamp(min=tolerance * mu.shape[1]).mean()
        return loss, {"reconstruction": reconstruction, "kl": kl.mean()}


def sample(mu: Tensor, logvar: Tensor) -> Tensor:
    """z ~ N(mu, exp(logvar)), by the reparametrisation trick."""
    return mu + torch.randn_like(mu) * (0.5 * logvar).exp()


def to_floats(frames: Tensor) -> Tensor:
    """frames (B, 64, 64, 3) uint8 -> (B, 3, 64, 64) from 0 to 1, channels last in memory."""
    return frames.permute(0, 3, 1, 2).float() / 255


def to_frames(images: Tensor) -> Tensor:
    """images (B, 3, 64, 64) from 0 to 1 -> frames (B, 64, 64, 3) uint8."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
