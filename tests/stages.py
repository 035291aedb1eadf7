"""The stages on small settings, and what their tests look at."""

import csv
import json

import cv2
import imageio.v3 as imageio
import tiny

from utils.storage.artifacts import load_arrays, save_arrays
from utils.storage.networks import (
    load_rnn,
    load_vae,
    rnn_path,
    save_network,
    vae_path,
)

FLAGS = {
    1: {"autopilot_episodes": 2, "random_episodes": 1, "workers": 0},
    2: {"latent_dim": tiny.LATENT_DIM, "epochs": 1, "batch": 32, "pool": 2, "workers": 0,
        "threads": 1},
    3: {"workers": 0},
    4: {"hidden": tiny.HIDDEN, "mixtures": 2, "epochs": 2, "noise": 0, "length": 50, "workers": 0,
        "threads": 1},
    5: {"generations": 2, "population": 6, "tracks": 1, "replayed": 0, "fitness": "score",
        "select_tracks": 1, "select_every": 1, "patience": 30, "workers": 0},
    6: {"episodes": 2, "first_seed": 6, "controller": "straight_on", "workers": 0},
}  # fmt: skip
EPISODES = ["autopilot_100000.npz", "autopilot_100001.npz", "random_1100000.npz"]
IMITATION = FLAGS[5] | {
    "start": "imitation", "rounds": 2, "laps": 1, "generations": 0, "select_tracks": 0
}  # fmt: skip
DREAMED = 20  # frames, in these tests


def contents(folder):
    """Every file below a folder, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def read_log(path):
    """The rows of a CSV log; an empty cell is left out."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def load_report(path):
    """A report, as plain values."""
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["kind"] == "report"
    return report


def picture(path):
    """A PNG that is not all of one colour."""
    image = cv2.imread(str(path))
    assert image is not None, path
    assert image.std() > 5
    return image


def film_frames(path):
    return [frame.shape for frame in imageio.imiter(path)]


def unmarked(path):
    """The same latents without the versions of their game, as they were written once."""
    header, arrays = load_arrays(path, "latents")
    keep = {k: v for k, v in header.items() if k not in ("kind", "fingerprint", "versions")}
    save_arrays(path, "latents", arrays, **keep)


def replace_v(checkpoints="checkpoints"):
    """Another V of the same sizes in place of the one that all else was made with."""
    vae, _ = tiny.networks(seed=1)
    save_network(vae_path(checkpoints), "V", vae, {})


def replace_m(checkpoints="checkpoints"):
    """Another M for the same V."""
    _, header = load_vae(checkpoints)
    tiny.save_networks("other", seed=1)
    other, _ = load_rnn("other", load_vae("other")[1]["fingerprint"])
    save_network(rnn_path(checkpoints), "M", other, {"vae": header["fingerprint"]})


def expect_the_end(path, logit, reward=0.0):
    """At `path` an M to which the end is always as likely, and each reward so much higher."""
    checkpoints = path.parent
    _, vae = load_vae(checkpoints)
    rnn, _ = load_rnn(checkpoints, vae["fingerprint"])
    rnn.outcome.weight[1] = 0
    rnn.outcome.bias[0] += reward
    rnn.outcome.bias[1] = logit
    save_network(path, "M", rnn, {"vae": vae["fingerprint"]})
