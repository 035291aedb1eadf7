"""The page on which anybody drives in the agent's dream: one file, opened by a double click.

The page is `dream_page.html` with `dream_page.js` in it; this module fills in the networks, as
numbers of half precision: of the same moment a pixel changes by less than a grey level, and an
action by 0.0004.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from models.mdn_rnn import MDNRNN
from utils.runtime.errors import UserError
from utils.storage.files import atomic_path
from utils.storage.networks import TrainedAgent

TEMPLATE, SCRIPT = (Path(__file__).with_suffix(suffix) for suffix in (".html", ".js"))
PAGE_MOMENTS = 24  # of the starts that go into the page, 5 KB each
TEMPERATURE = 1.0  # to begin with: M as unsure as it is; at 0 no road bends


def write_page(
    path: Path,
    agent: TrainedAgent,
    dreaming: MDNRNN,
    starts: tuple[np.ndarray, np.ndarray, np.ndarray],
    name: str,
) -> None:
    """Write the page of this agent.

    Args:
        dreaming: the M that dreams: the agent's own, whose h C reads, or another.
        starts: mu (N, T + 1, Z), action (N, T, 3) and seen (N,) of real moments, to begin with.
        name: of the agent, for the reader.

    Raises:
        UserError: a number is too large for half precision.
    """
    mu, action, seen = (
        array[:: max(1, len(array) // PAGE_MOMENTS)][:PAGE_MOMENTS] for array in starts
    )
    another = dreaming is not agent.rnn
    arrays = {
        **_weights("decoder", agent.vae.decoder),
        **_weights("rnn", agent.rnn),
        **(_weights("dreaming", dreaming) if another else {}),
        "controller": agent.parameters,
    }
    count = sum(array.size for array in arrays.values())
    table, numbers = _as_halves({**arrays, "starts.mu": mu, "starts.action": action})
    page = {
        "agent": name,
        "weights": count,
        "sizes": agent.rnn.sizes,
        "dreaming_sizes": dreaming.sizes if another else None,
        "starts": len(seen),
        "seen": seen.tolist(),
        "table": table,
        "numbers": numbers,
    }
    parts = {
        "TEMPERATURE": str(TEMPERATURE),
        "LATENT_DIM": str(agent.rnn.sizes["latent_dim"]),
        "HIDDEN": str(agent.rnn.sizes["hidden"]),
        "PARAMETERS": str(agent.parameters.size),
        "SCRIPT": SCRIPT.read_text(encoding="utf-8"),
        "PAGE": json.dumps(page).replace("<", "\\u003c"),  # ends no <script>
    }
    template = TEMPLATE.read_text(encoding="utf-8")  # in what is filled in nothing is replaced
    filled = re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], template)
    with atomic_path(path) as temporary:
        temporary.write_text(filled, encoding="utf-8")


def _weights(network: str, module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {f"{network}.{name}": w.numpy() for name, w in module.named_parameters()}


def _as_halves(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, tuple[Sequence, int]], str]:
    """Shape and place of each array, and all their numbers as base64."""
    table: dict[str, tuple[Sequence, int]] = {}
    at = 0
    for name, array in arrays.items():
        table[name] = (array.shape, at)
        at += array.size
    with np.errstate(over="ignore"):
        halves = np.concatenate([array.ravel() for array in arrays.values()]).astype("<f2")
    if not np.isfinite(halves).all():
        raise UserError("a weight of the agent is too large for half precision.")
    return table, base64.b64encode(halves.tobytes()).decode()
