"""Stage 01: drive, and record what the car sees.

Reads    nothing (in the dream: V, M, and data/latents or checkpoints/starts.npz to begin with;
         beside you in the window the agent, where there is one; for its own drives V, M and
         checkpoints/controller_evolution.npz)
Writes   data/rollouts/DRIVER_SEED.npz, one episode each: obs 64x64x3, action, reward, terminated
         (and by_agent, if by hand)
         data/rollouts.csv, a line for every episode; data/rollouts.png, what they look like
Time     about 1 minute on two cores
Run      python 01_collect_rollouts.py
         python 01_collect_rollouts.py --keyboard-episodes 1  (only you, by arrow keys in a window;
         m hands the wheel to the agent and takes it back, Tab shows what V and M make of it)
         python 01_collect_rollouts.py --keyboard-episodes 1 --env-id DreamCarRacing-v0  (in M's
         dream; that is never saved)
         python 01_collect_rollouts.py --agent-episodes 32    (only the agent, by the C that stage
         05 has reached and by draws around it, to data/dream/rollouts, for the M that dreams; what
         they come to is drawn in checkpoints/own_drives.png)

Run it again to go on where it stopped, or to add episodes: what is there is kept.
"""

from utils.runtime.start import run

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from models.controller import FeatureScale
from models.inference import ROWS
from utils.drivers.racing_line import GRIP, LEAST_GRIP, WIDEST
from utils.evolution.own_drives import RecordedRaces, plan_drives
from utils.evolution.search import load_search
from utils.pictures.plots import contact_sheet, own_drives
from utils.racing.agent import racing_workers
from utils.racing.agreement import cluster
from utils.racing.copilot import copilot
from utils.runtime import command_line as flag
from utils.runtime.command_line import settings, stage_command
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.runtime.progress import run_jobs
from utils.runtime.workers import OneAtATime, Workers
from utils.simulator.envs import DREAM_ID, ENV_IDS, HOTTEST
from utils.storage.artifacts import load_header
from utils.storage.files import beside, files
from utils.storage.logs import write_log
from utils.storage.networks import load_networks
from utils.storage.outputs import prepare
from utils.world_model.collection import (
    COLUMNS,
    MOST_EPISODES,
    collect,
    drive_by_keyboard,
    is_collected,
    plan,
)
from utils.world_model.episodes import load_rollout

# ---- constants: edit them here, or pass them as flags (--random-episodes 10) ----
AUTOPILOT_EPISODES = 240  # a driver that reads the track; 240 make about 220,000 frames
RANDOM_EPISODES = 40  # smoothed random actions: grass, spins, and standing still
AGENT_EPISODES = 0  # if any, only these are driven: what M has to know of the agent's own driving
KEYBOARD_EPISODES = 0  # if any, only these are driven: by you, in a window
HAND_BACK = 0.0  # seconds after your last key until the agent you stopped drives on; 0 is never
NOISE = 0.12  # most noise on the autopilot's actions; each episode draws its own from 0 to this
DISTURBANCE = 0.006  # most disturbances a frame (a wrong action for a while), drawn likewise
LINE_OFFSET = 4.0  # most units off the centre line that the autopilot's line takes, drawn likewise
SLOWEST = 0.4  # least share of the road's grip that the autopilot uses; most is 0.94
ENV_ID = "FastCarRacing-v0"  # ours, as stock's CarRacing-v3 but faster; or DreamCarRacing-v0
TEMPERATURE = 1.0  # of the dream: 0 is the likeliest future, 1 as uncertain as M is
WORKERS = cores()  # processes; 0 drives in this one
CLUSTER = ""  # "auto" or HOST:PORT of a Ray cluster; WORKERS are then all its processors by default
ROLLOUTS = "data/rollouts"  # where the episodes go
OWN_ROLLOUTS = "data/dream/rollouts"  # where the agent's go
CHECKPOINTS = "checkpoints"  # where the agent is, or the M that dreams
CONTROLLER = "controller"  # which C of the agent drives
# ---------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        AUTOPILOT_EPISODES=flag.whole(0, MOST_EPISODES),
        RANDOM_EPISODES=flag.whole(0, MOST_EPISODES), AGENT_EPISODES=flag.whole(0, MOST_EPISODES),
        KEYBOARD_EPISODES=flag.whole(), HAND_BACK=flag.number(0, 3600), NOISE=flag.number(0, 1),
        DISTURBANCE=flag.number(0, 1), LINE_OFFSET=flag.number(0, WIDEST),
        SLOWEST=flag.number(LEAST_GRIP, GRIP), ENV_ID=flag.choice(*ENV_IDS),
        TEMPERATURE=flag.number(0, HOTTEST), WORKERS=flag.processes(), CLUSTER=flag.address(),
        ROLLOUTS=flag.folder(), OWN_ROLLOUTS=flag.folder(), CHECKPOINTS=flag.folder(),
        CONTROLLER=flag.word(),
    )  # fmt: skip
    if s.ENV_ID == DREAM_ID:
        drive_in_the_dream(s)
        return
    if s.AGENT_EPISODES and s.KEYBOARD_EPISODES:
        raise UserError("either the agent drives (--agent-episodes) or you (--keyboard-episodes).")
    directory = s.OWN_ROLLOUTS if s.AGENT_EPISODES else s.ROLLOUTS
    log, picture = beside(directory, ".csv"), beside(directory, ".png")
    curve = Path(s.CHECKPOINTS) / "own_drives.png"
    prepare(
        {Path(directory, "*.npz"): "rollout", log: "log by seed", picture: "picture"}
        | ({curve: "picture"} if s.AGENT_EPISODES else {})
    )
    if s.AGENT_EPISODES:
        record_agent(s)
    elif s.KEYBOARD_EPISODES:
        for row in drive_by_hand(s):
            print(f"track {row['seed']}: score {row['score']:.1f} in {row['frames']} frames")
    else:
        record_others(s)

    paths = files(directory)
    if not paths:
        raise UserError(f"{directory} holds no rollouts; ask for at least one episode.")
    headers = [load_header(path, "rollout") for path in paths]
    write_log(log, COLUMNS, headers)
    samples = [load_rollout(path)[1].obs for path in paths[:: max(1, len(paths) // 8)][:8]]
    contact_sheet(picture, samples)
    if s.AGENT_EPISODES:
        own_drives(curve, [header for header in headers if header.get("driver") == "agent"])
    said = stage_command("02_train_vae", rollouts=directory)
    if s.AGENT_EPISODES:
        places = {"latents": log.with_name("latents"), "checkpoints": s.CHECKPOINTS}
        said = stage_command("03_encode_dataset", rollouts=directory, **places)
    print(f"{len(paths)} episodes in {directory}; next: {said}")


def record_others(s: SimpleNamespace) -> None:
    """Races of the autopilot, slow and fast, tidy and sloppy; by random actions."""
    planned = plan(
        s.ROLLOUTS, s.ENV_ID,
        counts={"autopilot": s.AUTOPILOT_EPISODES, "random": s.RANDOM_EPISODES},
        ranges={
            "noise": (0, s.NOISE), "disturbance": (0, s.DISTURBANCE),
            "line_offset": (0, s.LINE_OFFSET), "grip": (s.SLOWEST, GRIP),
        },
    )  # fmt: skip
    missing = not_collected(planned)
    workers, nodes = min(s.WORKERS, len(missing)), cluster(s.CLUSTER, s.ROLLOUTS)
    drive(Workers(workers, OneAtATime, {"function": collect}, cluster=nodes), missing)


def record_agent(s: SimpleNamespace) -> None:
    """Races of the agent as its search stands: in turn by C and by draws around it."""
    networks = load_networks(s.CHECKPOINTS)
    vae, rnn = networks.vae, networks.rnn
    search = load_search(s.CHECKPOINTS, s.CONTROLLER, networks)
    scale = FeatureScale.of(rnn, search.made_from["FEATURES"])
    planned = plan_drives(s.OWN_ROLLOUTS, s.ENV_ID, s.AGENT_EPISODES, search, scale)
    missing = not_collected(planned)
    workers, nodes = min(s.WORKERS, -(-len(missing) // ROWS)), cluster(s.CLUSTER, s.OWN_ROLLOUTS)
    drive(racing_workers(workers, s.ENV_ID, vae, rnn, nodes, RecordedRaces), missing)


def not_collected(planned: Sequence[Any]) -> list[Any]:
    """Those of the planned episodes that are not on disk yet."""
    missing = [assignment for assignment in planned if not is_collected(assignment)]
    if len(missing) < len(planned):
        print(f"{len(planned) - len(missing)} of {len(planned)} episodes are there already")
    if stale := sum(Path(assignment.path).exists() for assignment in missing):
        print(f"{stale} were made with other settings or are damaged, and are driven again")
    return missing


def drive(pool: Workers, missing: Sequence[Any]) -> None:
    """Let the workers drive and save them."""
    with pool as workers:
        run_jobs(workers, missing, "collecting", "episode", frames=lambda row: row["frames"])


def drive_by_hand(s: SimpleNamespace, **options: Any) -> Iterator[dict[str, float]]:
    """Races in a window, with the agent beside the driver."""
    torch.set_num_threads(1)  # the frames are too small to be shared
    agent = copilot(s.CHECKPOINTS, s.CONTROLLER)
    return drive_by_keyboard(
        s.ROLLOUTS, s.KEYBOARD_EPISODES, s.ENV_ID, agent, s.HAND_BACK, **options
    )


def drive_in_the_dream(s: SimpleNamespace) -> None:
    """Let the user drive in M's dream, and keep nothing of it."""
    if s.AGENT_EPISODES or not s.KEYBOARD_EPISODES:
        raise UserError(
            f"in {DREAM_ID} (--env-id) only you can drive, and nothing is recorded, since a dream "
            "is no data; add --keyboard-episodes 1, and no --agent-episodes."
        )
    for row in drive_by_hand(s, checkpoints=s.CHECKPOINTS, temperature=s.TEMPERATURE):
        print(f"dream {row['seed']}: M expected {row['score']:.1f} in {row['frames']} frames")


if __name__ == "__main__":
    run(main)
