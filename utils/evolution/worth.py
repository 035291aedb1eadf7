"""What M is worth: whether a C gets out of its dream what it gets on the track."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.controller import FeatureScale
from models.dream import DreamWorld
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.evolution.dreaming import DREAMS, Dreams, dreaming_workers
from utils.pictures.plots import worth_of_m
from utils.racing.agent import Races, racing_workers
from utils.racing.race import Race, RunningRace
from utils.runtime.cluster import Cluster
from utils.runtime.progress import run_jobs
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID
from utils.storage.artifacts import save_json
from utils.storage.networks import TrainedAgent, about, load_agent, load_dreaming
from utils.storage.outputs import prepare
from utils.storage.provenance import provenance
from utils.world_model.episodes import Recorder, episodes
from utils.world_model.foresight import calibration, errors, mean_and_error
from utils.world_model.latents import Latents, load_some
from utils.world_model.starts import start_at, together
from utils.world_model.training import split

HORIZON = 250  # frames of a return: five seconds
SIGMAS = (0.003, 0.01, 0.03, 0.1, 0.3)  # of C's around the one at hand, in standardised features
DRAWS = 2  # of them at each sigma
TRACKS = 8  # selection tracks that each C drives
MOMENTS_EACH = 8  # of each drive, at which dreams begin
SEED = 1  # of the C's and of the dreams' luck


class RealDrives(Races):
    """Races of which the result is what the agent saw and did.

    It reads mu alone: V's doubt, logvar, is minus infinity.
    """

    def __init__(self, env_id: str, vae: VAE, rnn: MDNRNN) -> None:
        super().__init__(env_id, vae, rnn)
        self._latent_dim = vae.sizes["latent_dim"]
        self._recorders: dict[int, Recorder] = {}

    def start(self, job_id: int, race: Race) -> None:
        super().start(job_id, race)
        self._recorders[job_id] = Recorder()

    def result(self, row: int, job_id: int, running: RunningRace) -> Latents | None:
        """The drive, once it is over."""
        z = self.agent.features[row, : self._latent_dim].copy()
        self._recorders[job_id].note(z, running.action, running.reward, running.terminated)
        if not running.over:
            return None
        drive = self._recorders.pop(job_id).episode(z)  # V never sees the last frame
        return Latents(drive.obs, np.full_like(drive.obs, -np.inf), *drive[1:4])


def measure_m(
    checkpoints: str, controller: str, latents: str, temperature: float, count: int,
    cluster: Cluster | None = None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Measure what M's dream is worth, write the report and draw it beside; returns both.

    Args:
        checkpoints: where V and M are, and C by the name of `controller`.
        latents: the folder of real drives. M was not trained on every twentieth, unless the folder
            has changed since, which is said.
        temperature: of the dreams.
        count: of workers.
        cluster: where the workers are, if not on this machine.
    """
    start = time.monotonic()
    path = Path(checkpoints) / "results" / f"{about('m', controller)}.json"
    prepare({path: "report on M", path.with_suffix(".png"): "picture"})
    agent = load_agent(checkpoints, controller)
    dreaming, header = load_dreaming(checkpoints, agent)
    recorded, mark = load_some(episodes(latents, "latents"), agent.vae_header)
    unseen = split(recorded)[1]
    if agent.rnn_header["made_from"].get("latents") != mark:
        print(
            f"M was trained from other drives than {latents} holds: it may have seen those, every "
            "twentieth, by which it is measured."
        )
    worlds = {
        "M": DreamWorld(dreaming, temperature),
        "M, likeliest future": DreamWorld(dreaming, 0),
        "untrained M": DreamWorld(untrained(dreaming), temperature),
    }
    wrong = errors(agent.vae, worlds, unseen, SEED)

    controllers = around(agent.parameters, FeatureScale.of(agent.rnn))
    drives = drive_for_real(agent, [parameters for _, parameters in controllers], count, cluster)
    real, dreamt = returns(agent.rnn, dreaming, temperature, controllers, drives, count, cluster)
    report = {
        "kind": "report on M",
        **agent.origin,
        "dreaming_rnn": header["fingerprint"],
        **provenance(),
        "temperature": temperature,
        "errors": wrong,
        "returns": compared([sigma for sigma, _ in controllers], real, dreamt),
        "end": calibration(dreaming, [*unseen, *itertools.chain(*drives)]),
    }
    report["wall_seconds"] = round(time.monotonic() - start, 1)
    save_json(path, report)
    worth_of_m(path.with_suffix(".png"), report)
    return path, report


def said_of_m(report: dict[str, Any]) -> str:
    """What came of it, to print."""
    found, after = report["returns"], report["errors"]["50"]
    m, still = (after[name]["frame"]["mean"] for name in ("M", "nothing changes"))
    return (
        f"dreams return {found['ratio']:.2f} ± {found['ratio_standard_error']:.2f} of what is real "
        f"(correlation over {len(found['controllers'])} C's {found['correlation']:.2f}), and after "
        f"50 frames err by {m / still:.2f} of what a frozen picture does"
    )


def untrained(rnn: MDNRNN) -> MDNRNN:
    """An M of the same sizes with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return MDNRNN(**rnn.sizes).eval().requires_grad_(False)


def around(parameters: np.ndarray, scale: FeatureScale) -> list[tuple[float | None, np.ndarray]]:
    """The C at hand, draws around it with their sigma, good and bad, and zeros, which has none."""
    rng = np.random.default_rng(SEED)
    drawn = [
        (sigma, parameters + scale.plain(sigma * rng.standard_normal(len(parameters))))
        for sigma in SIGMAS for _ in range(DRAWS)
    ]  # fmt: skip
    return [(0.0, parameters), *drawn, (None, np.zeros_like(parameters))]


def drive_for_real(
    agent: TrainedAgent, controllers: Sequence[np.ndarray], count: int,
    cluster: Cluster | None = None,
) -> list[list[Latents]]:  # fmt: skip
    """Every C on the same TRACKS selection tracks, by `count` workers.

    A race is followed for HORIZON frames after its last tile: what comes then is all the same.
    """
    races = [Race(seed, c, HORIZON) for c in controllers for seed in seeds.SELECT[:TRACKS]]
    with racing_workers(count, FAST_ID, agent.vae, agent.rnn, cluster, RealDrives) as pool:
        drives = run_jobs(pool, races, "driving", "race", leave=False)
    return [drives[i : i + TRACKS] for i in range(0, len(drives), TRACKS)]


def moments(drive: Latents) -> list[int]:
    """MOMENTS_EACH frames in the middles of equal stretches, whose next HORIZON frames are known.

    After its end they are known, too, for nothing comes any more: M cannot see how far the finish
    is, so its dreams end at any time, and at all times together as often as drives do.
    """
    frames = len(drive.action)
    known = frames if drive.terminated[-1] else max(1, frames - HORIZON)
    return ((np.arange(MOMENTS_EACH) + 0.5) / MOMENTS_EACH * known).astype(int).tolist()


def returns(
    rnn: MDNRNN, dreaming: MDNRNN, temperature: float,
    controllers: Sequence[tuple[float | None, np.ndarray]], drives: Sequence[Sequence[Latents]],
    count: int, cluster: Cluster | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What each C got in reality and gets in its dreams, from the same moments of its own drives.

    Returns:
        Two arrays (controllers, TRACKS): points over HORIZON frames, the mean over the moments of
        a drive, and for the dreams over as many lucks as fit into one batch of them.
    """
    lucks = DREAMS // (TRACKS * MOMENTS_EACH)
    jobs, real = [], []
    for (_, parameters), row in zip(controllers, drives, strict=True):
        places = [(drive, t) for drive in row for t in moments(drive)]
        real.append([drive.reward[t:][:HORIZON].sum() for drive, t in places])
        starts = together([start_at(drive, t) for drive, t in places])
        again = starts.take(np.repeat(np.arange(len(places)), lucks))
        luck = [(SEED, i) for i in range(len(again.seen))]
        jobs.append(Dreams(parameters[None], again, luck, np.arange(len(luck))[None], HORIZON))
    with dreaming_workers(count, rnn, dreaming, temperature, cluster) as pool:
        dreamt = run_jobs(pool, jobs, "dreaming", "batch", leave=False)
    return tuple(
        np.reshape(found, (len(controllers), TRACKS, -1)).mean(-1, dtype=float)
        for found in (real, dreamt)
    )


def compared(
    sigmas: Sequence[float | None], real: np.ndarray, dreamt: np.ndarray
) -> dict[str, Any]:
    """Returns (controllers, TRACKS) in figures; the first C is the one at hand.

    "ratio" is its dreamt return over its real one, with a standard error from leaving out each
    track in turn (the jackknife); "correlation" is over the controllers' means, 0 where either
    does not vary.
    """
    rest = [(np.delete(dreamt[0], i).mean(), np.delete(real[0], i).mean()) for i in range(TRACKS)]
    ratios = np.array([x / y for x, y in rest])
    means = real.mean(1), dreamt.mean(1)
    vary = min(np.ptp(figures) for figures in means) > 0
    return {
        "horizon": HORIZON,
        "ratio": float(means[1][0] / means[0][0]),
        "ratio_standard_error": float(ratios.std() * (TRACKS - 1) ** 0.5),
        "correlation": float(np.corrcoef(*means)[0, 1]) if vary else 0.0,
        "mean_real": float(means[0].mean()),
        "mean_dreamt": float(means[1].mean()),
        "controllers": [
            {
                "sigma": sigma,
                "real": mean_and_error(real[i]),
                "dreamt": mean_and_error(dreamt[i]),
            }
            for i, sigma in enumerate(sigmas)
        ],
    }
