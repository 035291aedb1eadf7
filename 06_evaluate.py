"""Stage 06: drive, score and film the agent on the stock CarRacing-v3.

Reads    checkpoints/vae.pt, checkpoints/mdn_rnn.pt, checkpoints/controller.pt
         for dreams: checkpoints/mdn_rnn_dream.pt, or else mdn_rnn.pt, and moments to begin with
         from data/latents, or else checkpoints/starts.npz
Writes   checkpoints/results/NAME.json (every race, and where the figures come from)
         checkpoints/results/NAME.png (maps of the worst five laps)
         best_lap.mp4 (the best race, beside what V sees and what M expects next)
         checkpoints/pictures/best_lap.gif (its first 12 seconds, for a page that plays them)
         checkpoints/dream.html (drive in the agent's dream, in any browser; it begins with moments
         from checkpoints/starts.npz; of another CONTROLLER dream_CONTROLLER.html)
         instead, with MEASURE = "m": checkpoints/results/m.json and m.png, of another CONTROLLER
         m_CONTROLLER.json (what M is worth; it reads data/latents, too, and
         checkpoints/mdn_rnn_dream.pt where there is one)
Time     about 1 minute on two cores; 100 tracks take 3 to 10; what M is worth takes 5
Run      python 06_evaluate.py
         python 06_evaluate.py --episodes 100 --name shipped     (the README's table)
         python 06_evaluate.py --driver autopilot --episodes 100 --name autopilot
         python 06_evaluate.py --env-id DreamCarRacing-v0 --name dream
         (the agent drives in its dream: there is no map, and the film of the best dream is
         checkpoints/dream.mp4, or dream_CONTROLLER.mp4, beside a real race of the same agent)
         python 06_evaluate.py --measure m                       (what M is worth)
"""

from utils.runtime.start import run

from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.drivers.racing_line import LEAST_GRIP, WIDEST
from utils.drivers.registry import DRIVERS
from utils.evolution.worth import measure_m, said_of_m
from utils.pictures.dream_page import write_page
from utils.pictures.left_out import leave_out
from utils.pictures.plots import worst_laps
from utils.racing.agent import racing_workers
from utils.racing.agreement import cluster
from utils.racing.driver_races import DriverRaces
from utils.racing.evaluation import film, film_dream, save_report, sentence
from utils.racing.race import Race
from utils.runtime import command_line as flag
from utils.runtime.command_line import settings
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.runtime.progress import run_jobs
from utils.runtime.timing import Meter
from utils.runtime.workers import OneAtATime, Workers
from utils.simulator.envs import DREAM_ID, ENV_IDS, HOTTEST
from utils.storage.networks import TrainedAgent, about, load_agent, load_dreaming, load_networks
from utils.storage.outputs import prepare
from utils.world_model.starts import load_starts, starts_path

# ---- constants: edit them here, or pass them as flags (--episodes 100) ----
EPISODES = 10  # tracks to drive, as CAR RACER-v3 VMC reports; 100 for the table
FIRST_SEED = 0  # of the tracks; 0-99 are for reports, nothing is trained on them
ENV_ID = "CarRacing-v3"  # stock's, on which scores are reported; DreamCarRacing-v0 is M's dream
TEMPERATURE = 1.0  # of the dream: 0 is the likeliest future, 1 as uncertain as M is
DRIVER = "agent"  # or "autopilot" or "random", to compare with
LINE_OFFSET = 2.5  # units off the centre line that the autopilot's line may take
GRIP = 0.94  # share of the road's grip that the autopilot uses
CONTROLLER = "controller"  # which C drives: checkpoints/CONTROLLER.pt
MEASURE = "races"  # or "m": what M is worth, its dreams against real drives
LOOK_EVERY = 1  # frames from one look of V to the next; 2 is an eye of 25 frames a second
BLIND = "hold"  # z between two looks stays as it is; "dream" lets it go on as M expects
NAME = "latest"  # of the report
FILM = "best_lap.mp4"  # the best race; "none" leaves it out
WORKERS = cores()  # processes; 0 drives in this one; the scores are the same for any
CLUSTER = ""  # "auto" or HOST:PORT of a Ray cluster; WORKERS are then all its processors by default
LATENTS = "data/latents"  # real drives: dreams begin there, and M has not seen every twentieth
CHECKPOINTS = "checkpoints"  # where V, M and C are and the report goes
# ---------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        EPISODES=flag.whole(1, 1_000_000), FIRST_SEED=flag.seed(), ENV_ID=flag.choice(*ENV_IDS),
        TEMPERATURE=flag.number(0, HOTTEST), DRIVER=flag.choice("agent", *DRIVERS),
        LINE_OFFSET=flag.number(0, WIDEST), GRIP=flag.number(LEAST_GRIP, 1), CONTROLLER=flag.word(),
        MEASURE=flag.choice("races", "m"), LOOK_EVERY=flag.whole(1, 1000),
        BLIND=flag.choice("hold", "dream"), NAME=flag.word(), FILM=flag.film_name(),
        WORKERS=flag.processes(), CLUSTER=flag.address(), LATENTS=flag.folder(),
        CHECKPOINTS=flag.folder(),
    )  # fmt: skip
    if s.MEASURE == "m":
        path, found = measure_m(
            s.CHECKPOINTS, s.CONTROLLER, s.LATENTS, s.TEMPERATURE, s.WORKERS, cluster(s.CLUSTER)
        )
        print(f"{said_of_m(found)}; all figures are in {path}")
        return
    dreams = s.ENV_ID == DREAM_ID
    if dreams and s.DRIVER == "autopilot":
        raise UserError(
            f"the autopilot reads the track, and in {DREAM_ID} there is none; let the agent or the "
            "random driver drive there (--driver agent)."
        )
    if dreams and s.CLUSTER:
        raise UserError(
            f"in {DREAM_ID} the agent is read from this machine's files; leave CLUSTER (--cluster) "
            "empty."
        )
    report = Path(s.CHECKPOINTS) / "results" / f"{s.NAME}.json"
    maps = report.with_suffix(".png")
    filmed = s.DRIVER == "agent" and s.FILM != "none"
    shown = Path(s.CHECKPOINTS) / f"{about('dream', s.CONTROLLER)}.mp4" if dreams else Path(s.FILM)
    moving = Path(s.CHECKPOINTS) / "pictures" / Path(s.FILM).with_suffix(".gif")
    films = {shown: "film"} | ({} if dreams else {moving: "moving picture"})
    page = Path(s.CHECKPOINTS) / f"{about('dream', s.CONTROLLER)}.html"
    outputs = {report: "report", maps: "picture"} | (films if filmed else {})
    prepare(outputs | ({page: "page"} if s.DRIVER == "agent" else {}))
    agent = load_agent(s.CHECKPOINTS, s.CONTROLLER) if s.DRIVER == "agent" else None
    parameters = agent.parameters if agent else np.zeros(0)
    seeds = range(s.FIRST_SEED, s.FIRST_SEED + s.EPISODES)
    races = [
        Race(seed, parameters, trace=not dreams, look_every=s.LOOK_EVERY, blind=s.BLIND)
        for seed in seeds
    ]

    made_from = _made_from(s, agent)
    torch.set_num_threads(1)  # as in a worker: several add up in another order
    with _workers(s, agent) as workers:
        meter = Meter(workers)
        laps = run_jobs(workers, races, "racing", "race")
    save_report(report, laps, made_from, meter.seconds, meter.processor_seconds)
    print(f"{sentence(laps)}; every race is in {report}")
    if dreams:
        maps.unlink(missing_ok=True)  # of other races, under the same name
    else:
        worst_laps(maps, [vars(lap) for lap in laps])

    if agent:
        dream_page(page, s, agent)
    if agent and filmed:
        race, best = max(zip(races, laps, strict=True), key=lambda driven: driven[1].score)
        try:
            if dreams:
                made = film_dream(shown, _options(s), agent, race, best)
            else:
                made = film(shown, moving, s.ENV_ID, agent, race, best)
        except (OSError, UserError) as error:
            raise UserError(f"no film: {error} The scores are safe in {report}.") from error
        if made:
            what = "dream" if dreams else "track"
            print(f"{shown} shows the best one: {what} {best.seed}, score {best.score:.1f}")


def dream_page(page: Path, s, agent: TrainedAgent) -> None:
    """The page on which anybody drives in the agent's dream."""
    try:
        dreaming, _ = load_dreaming(s.CHECKPOINTS, agent)
        starts = load_starts(starts_path(s.CHECKPOINTS), agent.vae_header)
        write_page(page, agent, dreaming, starts, s.CONTROLLER)
    except (OSError, UserError) as error:
        leave_out(page, error)
    else:
        print(f"{page} lets you drive in its dream; open it in a browser")


def _made_from(s, agent: TrainedAgent | None) -> dict[str, Any]:
    """What the report says of who drove where."""
    made_from = {"env_id": s.ENV_ID, "driver": s.DRIVER}
    if agent:
        made_from |= {**agent.origin, "look_every": s.LOOK_EVERY, "blind": s.BLIND}
    made_from |= _of_driver(s)
    if s.ENV_ID == DREAM_ID:
        networks = agent or load_networks(s.CHECKPOINTS)
        _, dreaming = load_dreaming(s.CHECKPOINTS, networks)
        made_from |= {
            "vae": networks.fingerprints["vae"], "dreaming_rnn": dreaming["fingerprint"],
            "temperature": s.TEMPERATURE,
        }  # fmt: skip
    return made_from


def _of_driver(s) -> dict[str, float]:
    """The settings of a driver that has any."""
    return {"line_offset": s.LINE_OFFSET, "grip": s.GRIP} if s.DRIVER == "autopilot" else {}


def _options(s) -> dict[str, Any]:
    """What else the environment is made with."""
    if s.ENV_ID != DREAM_ID:
        return {}
    return {
        "checkpoints": s.CHECKPOINTS, "latents": s.LATENTS, "temperature": s.TEMPERATURE
    }  # fmt: skip


def _workers(s, agent: TrainedAgent | None) -> Workers:
    workers, nodes = min(s.WORKERS, s.EPISODES), cluster(s.CLUSTER)
    if agent is None:
        driver = DriverRaces(s.DRIVER, _of_driver(s), s.ENV_ID, **_options(s))
        return Workers(workers, OneAtATime, {"function": driver}, cluster=nodes)
    return racing_workers(workers, s.ENV_ID, agent.vae, agent.rnn, nodes, **_options(s))


if __name__ == "__main__":
    run(main)
