"""How far M sees ahead: what it dreams, and when it expects the end, against real drives."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.dream import DreamWorld, Luck
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.runtime.errors import UserError
from utils.storage.remedies import COLLECT
from utils.world_model.latents import Latents
from utils.world_model.starts import FRAMES, start_at, together, warm_up

AHEAD = (1, 10, 50, 100)  # frames after which a dream is compared with the drive
MOMENTS_EACH = 16  # of each drive, at which dreams begin
CHANCES = (0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1)  # of the end in a frame: bins

Figure = dict[str, float | None]  # a mean and its standard error, which a single drive lacks


@torch.inference_mode()
def errors(
    vae: VAE, worlds: Mapping[str, DreamWorld], drives: Sequence[Latents], seed: int
) -> dict[str, dict[str, dict[str, Figure]]]:
    """How far dreams are from real drives with the same actions, by frames ahead and by dreamer.

    Every dream begins at what V saw at a real moment, in an M that has seen the second before.
    Beside the `worlds` stands "nothing changes": what was seen at that moment is seen for ever.

    Returns:
        After {frames: {dreamer: {"z": ..., "frame": ...}}} the mean squared error of z, over its
        dimensions, and of the frame, over pixels from 0 to 1 (V draws both frames: its own error
        plays no part). The standard errors are over drives, since moments of one are alike.

    Raises:
        UserError: no drive is long enough.
    """
    least = FRAMES + AHEAD[-1]
    long = [drive for drive in drives if len(drive.action) >= least]
    if not long:
        raise UserError(f"of the drives unknown to M none has {least} frames; {COLLECT} for more.")
    places = [
        (drive, int(t)) for drive in long
        for t in np.linspace(FRAMES, len(drive.action) - AHEAD[-1], MOMENTS_EACH)
    ]  # fmt: skip
    starts = together([start_at(drive, t) for drive, t in places])
    actions = torch.from_numpy(np.stack([drive.action[t:][: AHEAD[-1]] for drive, t in places]))
    seen = torch.from_numpy(starts.mu)
    dreamt = {"nothing changes": seen[:, -1:].expand(-1, AHEAD[-1], -1)}
    for name, world in worlds.items():
        begun = warm_up(world, starts)
        dreamt[name] = dream_on(world, *begun, actions, np.random.default_rng(seed))

    found: dict[str, dict[str, dict[str, Figure]]] = {}
    for ahead in AHEAD:
        real = torch.from_numpy(np.stack([drive.mu[t + ahead] for drive, t in places]))
        picture = vae.decode(real)
        found[str(ahead)] = {
            name: {
                "z": _by_drive((z[:, ahead - 1] - real).square(), len(long)),
                "frame": _by_drive((vae.decode(z[:, ahead - 1]) - picture).square(), len(long)),
            }
            for name, z in dreamt.items()
        }
    return found


@torch.inference_mode()
def dream_on(
    world: DreamWorld, z: Tensor, h: Tensor, c: Tensor, actions: Tensor, rng: np.random.Generator
) -> Tensor:
    """z (N, Z), memory h and c (N, H), actions (N, T, A) -> z as M dreams them, (N, T, Z)."""
    dreamt = torch.empty(*actions.shape[:2], z.shape[-1])
    for t, action in enumerate(actions.unbind(1)):
        h, c = world.remember(z, action, h, c)
        z = world.imagine(h, Luck.draw(rng, len(z), world.sizes)).z
        dreamt[:, t] = z
    return dreamt


@torch.inference_mode()
def calibration(rnn: MDNRNN, drives: Sequence[Latents]) -> list[dict[str, float]]:
    """How often a race was over after a frame for which M had predicted it with some probability.

    M sees the real drives. Returns a row for each bin of predictions that has any: its frames, the
    mean prediction, the share of the frames that were the last, and their number.
    """
    predicted, ended = [], []
    for drive in drives:
        z, action = torch.from_numpy(drive.mu[:-1]), torch.from_numpy(drive.action)
        prediction, _ = rnn(z[None], action[None])
        predicted.append(torch.sigmoid(prediction.terminated[0]).double().numpy())
        ended.append(drive.terminated)
    chance, over = np.concatenate(predicted), np.concatenate(ended)
    bins = np.clip(np.digitize(chance, CHANCES) - 1, 0, len(CHANCES) - 2)
    return [
        {
            "frames": int((bins == i).sum()),
            "predicted": float(chance[bins == i].mean()),
            "ended": float(over[bins == i].mean()),
            "ends": int(over[bins == i].sum()),
        }
        for i in np.unique(bins)
    ]


def mean_and_error(values: np.ndarray) -> Figure:
    """Of independent values (N,): their mean and its standard error, None for a single one."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}


def _by_drive(squares: Tensor, drives: int) -> Figure:
    """(drives * MOMENTS_EACH, ...) -> the mean over all, its error over the drives."""
    return mean_and_error(squares.reshape(drives, -1).double().mean(1).numpy())
