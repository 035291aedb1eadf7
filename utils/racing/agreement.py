"""What machines must have in common for a race to come to the same on each of them."""

import atexit
import hashlib
import secrets
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.inference import arithmetic
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.racing.agent import Races
from utils.racing.race import Race
from utils.runtime.cluster import Cluster
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID
from utils.storage.provenance import ROOT, game, version

CODE = ("models", "utils")
LIBRARIES = ("torch", "numpy", "opencv-python")
SETTINGS = (  # environment variables of the arithmetic, ours and the libraries'
    "ARITHMETIC", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR",
)  # fmt: skip
TRIAL_FRAMES = 40


def cluster(address: str, shared: str = "") -> Cluster | None:
    """The cluster at that address, of the machines that agree with this one; None for "".

    Args:
        shared: a folder that all machines must have in common, since workers write into it.
    """
    if not address:
        return None
    return Cluster(address, partial(facts, _mark(shared) if shared else ""), SETTINGS)


def _mark(folder: str) -> str:
    """A file in the folder, by which other machines know it again; it goes with this process."""
    path = Path(folder) / f".cluster.tmp.{secrets.token_hex(6)}"  # `sweep` knows what this is
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    atexit.register(path.unlink, missing_ok=True)
    return str(path)


def facts(mark: str = "") -> dict[str, Any]:
    """By name: the code, the versions, and the arithmetic, by what a trial race comes to.

    Args:
        mark: a file that every machine must see.
    """
    return {
        **{f"the code in {folder}": code(folder) for folder in CODE},
        **game(),
        **{library: version(library) for library in LIBRARIES},
        "V's arithmetic (ARITHMETIC=float32 has the same everywhere)": arithmetic(),
        "what a trial race comes to": trial(),
        **({f"the folder {Path(mark).parent}": common(mark)} if mark else {}),
    }


def code(folder: str) -> str:
    """A mark of all the Python files in a folder of the project."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / folder).rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def common(mark: str) -> str:
    """Whether the file is seen from here, in words."""
    return "the common one" if Path(mark).exists() else "another or missing"


@cache
def trial() -> str:
    """A mark of all figures of a short race by networks of fixed weights.

    Processors of different kinds add up in different orders, even in float32, and whoever compares
    versions alone does not notice.
    """
    rng, threads = np.random.default_rng(0), torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker: several add up in another order
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        vae, rnn = VAE().eval(), MDNRNN().eval()
        for parameter in (*vae.parameters(), *rnn.parameters()):
            width = parameter[0].numel() ** -0.5
            drawn = rng.uniform(-width, width, parameter.shape)
            parameter.copy_(torch.from_numpy(drawn))
    races, digest = Races(FAST_ID, vae, rnn), hashlib.sha256()
    width = 3 * (races.agent.features.shape[1] + 1)
    races.start(0, Race(seeds.EVOLUTION, rng.uniform(-0.3, 0.3, width)))
    for _ in range(TRIAL_FRAMES):
        races.advance()
        digest.update(races.agent.features[0].tobytes())
    torch.set_num_threads(threads)
    return digest.hexdigest()[:12]
