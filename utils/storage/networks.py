"""V, M and C on disk: saving them with what they were made from, loading them with every check."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.controller import parameter_count
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.runtime.command_line import stage_command
from utils.runtime.errors import UserError, system_trouble
from utils.storage.artifacts import forms, if_sound, load_tensors, save_tensors
from utils.storage.provenance import provenance
from utils.storage.remedies import remedy

FORGET = "delete it: M itself dreams then, until stage 04 makes another (--drives)"


def vae_path(checkpoints: str) -> Path:
    return Path(checkpoints) / "vae.pt"


def rnn_path(checkpoints: str) -> Path:
    return Path(checkpoints) / "mdn_rnn.pt"


def dreaming_path(checkpoints: str) -> Path:
    """Where an M is kept that goes on learning while C reads the h of the one in `rnn_path`."""
    return Path(checkpoints) / "mdn_rnn_dream.pt"


def controller_path(checkpoints: str, name: str = "controller") -> Path:
    """Where C is kept; `name` tells one experiment's C from another's."""
    return Path(checkpoints) / f"{name}.pt"


def about(what: str, name: str) -> str:
    """The name of a file on one C: `what`, and for any but the usual C the name of that C, too."""
    return what if name == "controller" else f"{what}_{name}"


def save_network(
    path: Path, kind: str, network: nn.Module, made_from: dict[str, Any], *derived: Path,
    **header: Any,
) -> str:  # fmt: skip
    """Write V or M, unless it holds NaN or infinity; returns its fingerprint.

    What was `derived` from the network before, such as its curves, is removed: it would lie.
    """
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise UserError(
            f"{kind} holds NaN or infinite values: training diverged; lower LEARNING_RATE and run "
            "the same command again."
        )
    for former in derived:
        former.unlink(missing_ok=True)
    return save_tensors(
        path, kind, network.state_dict(),
        sizes=network.sizes, made_from=made_from, provenance=provenance(), **header,
    )  # fmt: skip


@dataclass(frozen=True)
class Networks:
    """V and an M that was made for it, with the headers of their files."""

    vae: VAE
    rnn: MDNRNN
    vae_header: dict[str, Any]
    rnn_header: dict[str, Any]

    @property
    def fingerprints(self) -> dict[str, str]:
        """What tells them from all others, under "vae" and "rnn"."""
        return {"vae": self.vae_header["fingerprint"], "rnn": self.rnn_header["fingerprint"]}

    @property
    def parameter_count(self) -> int:
        """How many numbers a C for them has."""
        return parameter_count(self.vae.sizes["latent_dim"], self.rnn.sizes["hidden"])


def load_networks(checkpoints: str) -> Networks:
    vae, vae_header = load_vae(checkpoints)
    rnn, rnn_header = load_rnn(checkpoints, vae_header["fingerprint"])
    return Networks(vae, rnn, vae_header, rnn_header)


def load_vae(checkpoints: str) -> tuple[VAE, dict[str, Any]]:
    """V and its header, which says under "folder" where it was read from."""
    return _load_network(vae_path(checkpoints), "V", VAE)


def load_rnn(checkpoints: str, vae_fingerprint: str) -> tuple[MDNRNN, dict[str, Any]]:
    """M and its header; it must have been made for this V."""
    path = rnn_path(checkpoints)
    encode = stage_command("03_encode_dataset", checkpoints=checkpoints)
    return _load_rnn(path, vae_fingerprint, f"run {encode}, then {remedy(path, 'M')}")


def load_dreaming(checkpoints: str, networks: Networks) -> tuple[MDNRNN, dict[str, Any]]:
    """The M in which dreams take place, and its header.

    It is the one that goes on learning; where there is none, or none that differs from the first,
    `networks.rnn` itself.
    """
    path, first = dreaming_path(checkpoints), networks.fingerprints
    if not path.exists():
        return networks.rnn, networks.rnn_header
    second, header = _load_rnn(path, first["vae"], FORGET)
    if header["made_from"].get("rnn", first["rnn"]) != first["rnn"]:
        raise UserError(f"{path} began as another M than {rnn_path(checkpoints)}; {FORGET}.")
    return second if header["fingerprint"] != first["rnn"] else networks.rnn, header


def _load_rnn(path: Path, vae_fingerprint: str, mend: str) -> tuple[MDNRNN, dict[str, Any]]:
    rnn, header = _load_network(path, "M", MDNRNN)
    if header["made_from"].get("vae") != vae_fingerprint:
        raise UserError(f"{path} was made for another V; {mend}.")
    return rnn, header


def save_controller(
    path: Path, parameters: np.ndarray, made_from: dict[str, Any], **header: Any
) -> str:
    """Write C, a plain linear map from [z, h], and how it was found; returns its fingerprint."""
    weights = {"parameters": torch.from_numpy(np.asarray(parameters, np.float32).copy())}
    return save_tensors(path, "C", weights, made_from=made_from, **header)


def load_controller(path: Path, networks: Networks) -> tuple[np.ndarray, dict[str, Any]]:
    """C's parameters and header; it must have been made for these networks."""
    header = load_tensors(path, "C")
    parameters = header.pop("weights").get("parameters")
    count = networks.parameter_count
    if parameters is None or parameters.shape != (count,) or parameters.dtype != torch.float32:
        raise UserError(f"{path} does not hold the {count} numbers of C; {remedy(path, 'C')}.")
    made_from = header.get("made_from")
    for name, mark in networks.fingerprints.items():
        if not isinstance(made_from, dict) or made_from.get(name) != mark:
            what = {"vae": "V", "rnn": "M"}[name]
            raise UserError(f"{path} was made for another {what}; {remedy(path, 'C')}.")
    return parameters.numpy(), header


@dataclass(frozen=True)
class TrainedAgent(Networks):
    """V, M and a C that was made for them."""

    parameters: np.ndarray  # of C, (867,) float32
    controller_header: dict[str, Any]

    @property
    def origin(self) -> dict[str, Any]:
        """What a report says of the agent: the fingerprints, and how C was found."""
        header = self.controller_header
        return {
            **self.fingerprints,
            "controller": header["fingerprint"],
            "controller_made_from": header["made_from"],
            "controller_generation": header.get("generation"),
            "controller_frames": header.get("frames"),  # driven until it was found
            "controller_core_hours": header.get("core_hours"),
        }


def load_agent(checkpoints: str, name: str = "controller") -> TrainedAgent:
    """The agent whose C is called `name`."""
    networks = load_networks(checkpoints)
    parameters, header = load_controller(controller_path(checkpoints, name), networks)
    return TrainedAgent(**vars(networks), parameters=parameters, controller_header=header)


def is_made_from(path: Path, kind: str, made_from: dict[str, Any]) -> bool:
    """Whether the result at `path` is there, sound, and made from exactly this."""
    found = if_sound(path, partial(load_tensors, kind=kind), "Making it anew.")
    return found is not None and found.get("made_from") == made_from


def _load_network(path: Path, kind: str, network: type[nn.Module]) -> tuple[Any, dict[str, Any]]:
    header = load_tensors(path, kind)
    try:
        sizes, weights = header["sizes"], header.pop("weights")
        with torch.device("meta"):  # takes no memory, however large the sizes say it is
            wanted = network(**sizes).state_dict()
        if forms(wanted) != forms(weights) or not isinstance(header["made_from"], dict):
            raise ValueError("other sizes")
        loaded = network(**sizes)
        loaded.load_state_dict(weights)
    except Exception as error:  # a foreign file can hold anything where sizes belong
        if system_trouble(error):
            raise
        raise UserError(
            f"{path} does not hold the weights of {kind}; {remedy(path, kind)}."
        ) from error
    return loaded.eval().requires_grad_(False), header | {"folder": path.parent}
