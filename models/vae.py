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
        self.encoder = nn.Sequential()
        for a, b in pairwise(ENCODER_CHANNELS):
            self.encoder += nn.Sequential(nn.Conv2d(a, b, 4, stride=2), nn.ReLU(inplace=True))
        self.encoder.append(nn.Flatten())
        self.mu = nn.Linear(ENCODED, latent_dim)
        self.logvar = nn.Linear(ENCODED, latent_dim)
        first, last = DECODER_CHANNELS[0], DECODER_CHANNELS[-1]
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, first * 4 * 4), nn.Unflatten(1, (first, 4, 4)), nn.ReLU()
        )
        for a, b in pairwise(DECODER_CHANNELS):
            up = nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)
            self.decoder += nn.Sequential(up, nn.ReLU(inplace=True))
        self.decoder += nn.Sequential(
            nn.Conv2d(last, 2 * 2 * 3, 3, padding=1), nn.PixelShuffle(2), nn.Sigmoid()
        )

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (B, 64, 64, 3) uint8 -> mu (B, Z), logvar (B, Z) of the posterior q(z | frame)."""
        encoded = self.encoder(to_floats(frames))
        return self.mu(encoded), self.logvar(encoded)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, Z) -> images (B, 3, 64, 64), from 0 to 1."""
        return self.decoder(z)

    def loss(
        self, frames: Tensor, tolerance: float = 0.5, kl_weight: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative evidence lower bound with the paper's tolerance on the KL term.

        loss = sum of squared errors of an image + kl_weight * max(KL(q || N(0, 1)), tolerance * Z),
        averaged over the images. Both are sums: averaging the error over pixels would leave the KL
        term thousands of times too strong, and z would collapse.

        Args:
            frames: (B, 64, 64, 3) uint8.
            tolerance: nats per latent dimension that cost nothing more.
            kl_weight: 1, or less while V has yet to find out what there is to be encoded (Bowman et
                al., Generating Sentences from a Continuous Space, 2016).
        """
        mu, logvar = self.encode(frames)
        decoded = self.decode(sample(mu, logvar)).float()
        wanted = frames.permute(0, 3, 1, 2).float().div_(255)
        reconstruction = F.mse_loss(decoded, wanted, reduction="sum") / len(frames)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).float().sum(1)
        loss = reconstruction + kl_weight * kl.clamp(min=tolerance * mu.shape[1]).mean()
        return loss, {"reconstruction": reconstruction, "kl": kl.mean()}


def sample(mu: Tensor, logvar: Tensor, noise: float = 1.0) -> Tensor:
    """z ~ N(mu, noise² exp(logvar)), by the reparametrisation trick."""
    return mu + torch.randn_like(mu) * (noise * (0.5 * logvar).exp())


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
