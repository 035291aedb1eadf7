"""V: the convolutional variational autoencoder that turns a frame into a small latent vector z.

Shapes: B images, Z latent dimensions. Frames are (B, 64, 64, 3) uint8 wherever they are stored and
(B, 3, 64, 64) floats from 0 to 1 inside the network.
"""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER_CHANNELS = (3, 16, 32, 64, 128)  # half of the paper's: as clear, and twice as fast
DECODER_CHANNELS = (64, 32, 16, 8)  # the error is no larger than with the paper's 1024 at the top
ENCODED = ENCODER_CHANNELS[-1] * 2 * 2  # length of the flattened encoder output for a 64x64 frame


class VAE(nn.Module):
    """The paper's encoder (four 4x4 convolutions of stride 2), narrower, and a light decoder.

    The decoder's last layer makes blocks of 2x2 pixels from 32x32 places, where a transposed
    convolution would spend a third of the training on three channels.

    Source: Ha & Schmidhuber, World Models (2018), appendix A.1; Kingma & Welling (2014); for the
    last layer Shi et al., Real-Time Single Image and Video Super-Resolution (2016).
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
        self.blocks = nn.Conv2d(DECODER_CHANNELS[-1], 2 * 2 * 3, 3, padding=1)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (B, 64, 64, 3) uint8 -> mu (B, Z), logvar (B, Z) of the posterior q(z | frame)."""
        x = to_floats(frames)
        for convolution in self.convolutions:
            x = F.relu(convolution(x), inplace=True)
        x = x.flatten(1)
        return self.mu(x), self.logvar(x)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, Z) -> images (B, 3, 64, 64), from 0 to 1."""
        return from_blocks(self._decode(z))

    def _decode(self, z: Tensor) -> Tensor:
        x = F.relu(self.expand(z)).unflatten(1, (4, 4, DECODER_CHANNELS[0])).permute(0, 3, 1, 2)
        for deconvolution in self.deconvolutions:
            x = F.relu(deconvolution(x), inplace=True)
        return torch.sigmoid(self.blocks(x))

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
        decoded = self._decode(sample(mu, logvar)).float()
        wanted = to_blocks(frames).float().div_(255)
        reconstruction = F.mse_loss(decoded, wanted, reduction="sum") / len(frames)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).float().sum(1)
        loss = reconstruction + kl.clamp(min=tolerance * mu.shape[1]).mean()
        return loss, {"reconstruction": reconstruction, "kl": kl.mean()}


def sample(mu: Tensor, logvar: Tensor) -> Tensor:
    """z ~ N(mu, exp(logvar)), by the reparametrisation trick."""
    return mu + torch.randn_like(mu) * (0.5 * logvar).exp()


def to_floats(frames: Tensor) -> Tensor:
    """frames (B, 64, 64, 3) uint8 -> (B, 3, 64, 64) from 0 to 1, channels last in memory.

    Under autocast they are at once of its type: a float32 copy would only be made to be converted.
    """
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else torch.float32
    return frames.permute(0, 3, 1, 2).to(dtype).div_(255)


def to_frames(images: Tensor) -> Tensor:
    """images (B, 3, 64, 64) from 0 to 1 -> frames (B, 64, 64, 3) uint8."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


@torch.inference_mode()
def decoded(vae: VAE, z: np.ndarray) -> np.ndarray:
    """z (N, Z) -> frames (N, 64, 64, 3) uint8."""
    return to_frames(vae.decode(torch.from_numpy(np.ascontiguousarray(z)))).numpy()


def to_blocks(frames: Tensor) -> Tensor:
    """frames (B, 64, 64, 3) -> (B, 12, 32, 32): the numbers of 2x2 pixels, in rows, together."""
    rows = frames.unflatten(2, (32, 2)).unflatten(1, (32, 2)).transpose(2, 3)
    return rows.flatten(3).permute(0, 3, 1, 2)


def from_blocks(blocks: Tensor) -> Tensor:
    """blocks (B, 12, 32, 32), as of `to_blocks` -> images (B, 3, 64, 64)."""
    rows = blocks.permute(0, 2, 3, 1).unflatten(3, (2, 2, 3)).transpose(2, 3)
    return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
