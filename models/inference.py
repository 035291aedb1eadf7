"""V and M as the driver uses them: the same weights, in the fastest arithmetic of the processor.

Every batch has the full number of rows, whether or not they are all in use, so that a row's result
depends on that row alone: to the last bit the same in any company, in any process.
"""

import os

import torch
from torch import Tensor, nn

from models.dream import DreamWorld
from models.mdn_rnn import MDNRNN
from models.vae import VAE

ROWS = 8  # races driven in lock-step by one process; 16 is 5 % faster but leaves longer tails


def arithmetic() -> str:
    """The number format in which frames are encoded here: it belongs to what z is made of.

    The environment variable ARITHMETIC=float32 has float32 everywhere, so that machines agree.
    """
    if os.environ.get("ARITHMETIC") == "float32":
        return "float32"
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not without oneDNN
    return "bfloat16" if supported and supported() else "float32"


class Encoder:
    """V's encoder for ROWS frames at a time.

    The convolutions run in bfloat16 where the processor multiplies it natively and in float32
    elsewhere, with weights that are laid out once (each call would otherwise rearrange them: in
    bfloat16 half of its time, in float32 a third) and with the ReLU fused. A PyTorch without oneDNN
    runs the plain network.
    """

    def __init__(self, vae: VAE) -> None:
        self.vae = vae.eval()
        self.latent_dim = vae.sizes["latent_dim"]
        self._frames = torch.zeros(ROWS, 64, 64, 3, dtype=torch.uint8)
        self._dtype = getattr(torch, arithmetic())
        self._plain = not hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        if not self._plain:
            self._lay_out_weights()

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (N <= ROWS, 64, 64, 3) uint8 -> mu (N, Z), logvar (N, Z) float32."""
        count = len(frames)
        self._frames[:count] = frames
        if self._plain:
            mu, logvar = self.vae.encode(self._frames)
            return mu[:count], logvar[:count]
        x = self._frames.permute(0, 3, 1, 2).to(self._dtype)
        for weight, bias in self._convolutions:
            x = torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, [0, 0], [2, 2], [1, 1], 1, "relu", [], ""
            )
        flat = x.permute(0, 2, 3, 1).reshape(ROWS, -1).float()
        both = torch.addmm(self._bias, flat, self._weight)[:count]
        return both[:, : self.latent_dim], both[:, self.latent_dim :]

    @torch.inference_mode()
    def _lay_out_weights(self) -> None:
        x = torch.zeros(ROWS, 3, 64, 64)
        self._convolutions = []
        convolutions = [layer for layer in self.vae.encoder if isinstance(layer, nn.Conv2d)]
        for i, layer in enumerate(convolutions):
            weight, bias = layer.parameters()
            scale = 1 / 255 if i == 0 else 1  # the frames come in as 0..255
            laid_out = torch.ops.mkldnn._reorder_convolution_weight(
                (weight * scale).to(self._dtype), [0, 0], [2, 2], [1, 1], 1, list(x.shape)
            )
            self._convolutions.append((laid_out, bias.to(self._dtype)))
            x = layer(x)
        # The convolutions leave channels last; the linear layers were trained with them first.
        order = torch.arange(x[0].numel()).view(x.shape[1:]).permute(1, 2, 0).flatten()
        heads = (self.vae.mu, self.vae.logvar)
        self._weight = torch.cat([head.weight for head in heads])[:, order].T.contiguous()
        self._bias = torch.cat([head.bias for head in heads])


class Memory:
    """M's LSTM for ROWS races at a time; `h` (ROWS, H) is what C reads beside z."""

    def __init__(self, rnn: MDNRNN) -> None:
        self._world = DreamWorld(rnn)
        with torch.inference_mode():
            self.h, self._c = self._world.fresh(ROWS)

    @torch.inference_mode()
    def forget(self, row: int) -> None:
        """Start a new race in `row`."""
        self.h[row] = 0
        self._c[row] = 0

    def remember(self, z: Tensor, action: Tensor) -> None:
        """Take in z (ROWS, Z) and the action (ROWS, A) chosen on seeing it: the LSTM's step."""
        self.h, self._c = self._world.remember(z, action, self.h, self._c)
