"""Stage 05: find C, the linear map from [z, h] to steering, gas and brake.

It begins as zeros and is evolved: on the track, where nobody shows it how, or in what M dreams. Or
it is first fitted to an autopilot's advice.

Reads    checkpoints/vae.pt, checkpoints/mdn_rnn.pt
         for the dream: checkpoints/mdn_rnn_dream.pt, the M that has seen the agent's own drives, or
         else mdn_rnn.pt; data/latents and data/dream/latents, or else checkpoints/starts.npz
Writes   checkpoints/NAME.pt, the best measured mean of the search distribution; in the dream,
         where none is measured, the average of the last AVERAGED
         checkpoints/NAME.csv and NAME.png (the learning curve)
         checkpoints/NAME_evolution.npz (the whole state of the evolution)
         data/imitation/NAME/*.npz (finished rounds of the imitation)
Time     an hour and a quarter on two cores with bfloat16, a few hours without
Run      python 05_train_controller.py
         python 05_train_controller.py --name pupil --start imitation --sigma 0.002 --fitness score
         --population 48 --tracks 12 --replayed 0 --mean-rate 0.5 --generations 12
         (with a teacher, a quarter of an hour)

Stopped, it goes on from the last finished generation when run again; with more GENERATIONS, from
where it ended. The constants below are for a new search: one that goes on keeps its own settings,
except those given as flags, and says so; START, FEATURES, SIGMA, SEED and ENV_ID can no longer
change, and GENERATIONS, WORKERS and folders are taken from here.

On the track some of them change by themselves (utils/evolution/schedule.py): beginners race on one
track; MOST_SIGMA and GRASS_COST are halved once they drive, and whenever the mean stands still.
With FITNESS "duels" the second time is another: sigma stays where it is (LEAST_SIGMA), POPULATION
is doubled and MEAN_RATE halved, and it goes on with "full_duels", LASTING 0.8 and MOST_DIFFERENCE
1000.
"""

from utils.runtime.start import run

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from models.controller import FeatureScale
from utils.drivers.racing_line import LEAST_GRIP, WIDEST
from utils.evolution.cma_es import HIGHEST_RATE, SMALLEST_POPULATION, Evolution
from utils.evolution.dreaming import DREAMS, dreaming_workers
from utils.evolution.fitness import FITNESSES
from utils.evolution.history import of_selection
from utils.evolution.imitation import imitate
from utils.evolution.plan import Plan
from utils.evolution.search import Files, Search, found_at
from utils.evolution.worlds import Dream, Track, World
from utils.racing.agent import racing_workers
from utils.racing.agreement import cluster
from utils.runtime import command_line as flag
from utils.runtime.command_line import chosen, settings, stage_command
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.runtime.timing import Clock, Meter
from utils.simulator import seeds
from utils.simulator.envs import DREAM_ID, ENV_IDS, HOTTEST, MAX_FRAMES
from utils.storage.networks import Networks, load_dreaming, load_networks
from utils.storage.outputs import prepare
from utils.world_model.starts import Moments

# ---- constants: edit them here, or pass them as flags (--population 64) ----
START = "zeros"  # as in the paper: nobody shows C how; "imitation" first copies the autopilot
WORLD = "track"  # where candidates drive; M's "dream" is thirty to fifty times as fast
FEATURES = "zh"  # what C may read: "z" and "h" alone show what each of them is worth
GENERATIONS = 88  # more go on from where the last run ended
POPULATION = 144  # candidates a generation; an even number for duels
TRACKS = 2  # races of each candidate; use 12 with FITNESS "score"
REPLAYED = 1  # of them repeat tracks that went badly of late
LASTING = 0.0  # share of what is known of a bad track that outlasts another race there
SIGMA = 0.03  # first step size in standardised features; 0.01 wrecks an imitation, 0.002 does not
LEAST_SIGMA = 0.0  # nearer candidates differ by less than the luck of their tracks
MOST_SIGMA = 0.06  # a wider population is mostly wrecks
MEAN_RATE = 4.0  # times the proposed step: long ones of near candidates, since wide ones are wrecks
FITNESS = "duels"  # of mirror images; "full_duels" count to the end of the race; or "score"
MOST_DIFFERENCE = 40.0  # points that a duel on one track is won by at most
GRASS_COST = 0.3  # points a wheel and frame off the road in duels
PATIENCE = 100  # frames without a new tile after which a candidate's race is given up
STARTS = 8  # dreams of each candidate, from moments of real drives
HORIZON = 600  # frames of each; in 250 C learns full gas, and leaves the road right after them
TEMPERATURE = 1.0  # of the dream: as uncertain as M is; 0 would be its likeliest future
OWN = 0.4  # share of the dreams that begin in the agent's own drives, once there are any
FAILING = 0.3  # share that begin there up to three seconds before the agent came to grief
BEGINNING = 0.15  # share that begin there with the first frame: every race has to pass it
AVERAGED = 8  # generations whose means C is the average of, where no race says which is best
SELECT_TRACKS = 200  # selection seeds on which the distribution's mean is measured
SELECT_EVERY = 4  # generations between two measurements
ROUNDS = 20  # of imitation; nearly every lap is complete from the fifth on
LAPS = 32  # tracks a round
TEACHER_LINE = 2.0  # units off the centre line the teacher may drive; 2.5: C misses 1 lap in 40
TEACHER_GRIP = 0.9  # share of the road's grip that the teacher uses
SEED = 1  # of the evolution; the tracks follow from the generation
ENV_ID = "FastCarRacing-v0"  # ours: the same game, faster; CarRacing-v3 is the stock one
WORKERS = cores()  # processes; 0 drives in this one; the result is the same for any
CLUSTER = ""  # "auto" or HOST:PORT of a Ray cluster; WORKERS are then all its processors by default
LATENTS = "data/latents"  # where dreams begin
OWN_LATENTS = "data/dream/latents"  # the agent's own drives
CHECKPOINTS = "checkpoints"  # where V and M are and C goes
IMITATION = "data/imitation"  # where finished rounds of the imitation are kept
NAME = "controller"  # of this run: its files begin with it
# -----------------------------------------------------------------------------

FIXED = ("START", "FEATURES", "SIGMA", "SEED", "ENV_ID")  # for as long as a search goes on
FIXED_BY_IMITATION = ("ROUNDS", "LAPS", "TEACHER_LINE", "TEACHER_GRIP")


def main(argv: list[str] | None = None) -> None:
    s = _settings(globals(), argv)
    if s.ENV_ID == DREAM_ID:
        raise UserError(
            f"{DREAM_ID} shows a dream frame by frame, too slowly to train in it; leave ENV_ID "
            '(--env-id) as it was and set WORLD = "dream" (--world dream).'
        )
    networks = load_networks(s.CHECKPOINTS)
    files, rounds = Files.of(s.CHECKPOINTS, s.NAME), Path(s.IMITATION) / s.NAME
    prepare({
        files.state: "evolution", files.controller: "C", files.log: "log by generation",
        files.picture: "picture", rounds / "*.npz": "imitation round",
    })  # fmt: skip
    search = Search.load(files, networks.parameter_count)
    if search:  # what it was run with stands in for the constants
        s = _settings(globals() | search.settings, argv)
    plan = Plan.of(s)
    made_from = networks.fingerprints | chosen(s, *FIXED)
    if s.START == "imitation":
        made_from |= chosen(s, *FIXED_BY_IMITATION)
    if search:
        print(search.follow(plan, made_from, globals(), files))
        if search.evolution.generation >= s.GENERATIONS:
            print(f"GENERATIONS (--generations) asks for {s.GENERATIONS}: no more to evolve")
    elif plan.world == "dream" and s.START == "imitation":
        raise UserError(
            "START (--start) must be zeros in the dream; an imitation needs real races."
        )

    world = (dream_world if plan.world == "dream" else track_world)(s, networks)
    with world.workers:
        search = search or begin(s, networks, world, made_from, rounds)
        search.save(files)
        evolve(search, plan, world, s.GENERATIONS, files)
        measure(search, search.scheduled(plan), world, files)
    said = stage_command("06_evaluate", controller=s.NAME, checkpoints=s.CHECKPOINTS)
    print(f"{search.summary(files)}; next: {said}")


def evolve(search: Search, plan: Plan, world: World, generations: int, files: Files) -> None:
    """CMA-ES: ask for candidates, let them drive, judge them, tell the outcome, keep the best."""
    scale, clock = world.scale, Clock(search.evolution.generation, generations)
    while (generation := search.evolution.generation) < generations:
        meter, now = Meter(world.workers), search.scheduled(plan)
        evolution = search.evolution = search.evolution.resized(now.population)
        candidates = evolution.ask(now.least_sigma, now.most_sigma)  # in standardised features

        groups = now.groups(evolution)
        driven = world.drive(candidates, groups, now, search)

        fitness = FITNESSES[now.fitness].compare(driven.points, groups, now.most_difference)
        search.take_selection(scale.plain(evolution.mean), driven.selection)
        evolution.tell(candidates, fitness, now.mean_rate)
        search.driven = driven.tracks

        if search.best_score is None:  # nothing was ever measured: no race says which mean is best
            search.keep(scale.plain(search.update_average(now.averaged)))
        said = search.note(generation, driven.laps, meter, driven.row)
        search.save(files)
        print(f"{said}{world.workers.where}, {clock.left(generation + 1)} left", flush=True)


def measure(search: Search, plan: Plan, world: World, files: Files) -> None:
    """Measure the last mean on the selection tracks, too; it is kept if it is the best."""
    if search.measured_at == search.evolution.generation:
        return
    meter, mean = Meter(world.workers), world.scale.plain(search.evolution.mean)
    laps = world.measure(mean, plan)
    if not laps:
        return
    search.take_selection(mean, laps)
    print(search.note(search.evolution.generation, laps, meter, of_selection(laps)))
    search.save(files)


def track_world(s: SimpleNamespace, networks: Networks) -> World:
    vae, rnn, nodes = networks.vae, networks.rnn, cluster(s.CLUSTER)
    return Track(
        racing_workers(s.WORKERS, s.ENV_ID, vae, rnn, nodes), FeatureScale.of(rnn, s.FEATURES)
    )


def dream_world(s: SimpleNamespace, networks: Networks) -> World:
    """What M imagines, from moments of real drives on; of the agent's own those that M knows."""
    rnn, nodes = networks.rnn, cluster(s.CLUSTER)
    dreaming, header = load_dreaming(s.CHECKPOINTS, networks)
    known = header["made_from"].get("drives", 0)
    moments = Moments.of(s.LATENTS, s.OWN_LATENTS, known, s.CHECKPOINTS, networks.vae_header)
    workers = dreaming_workers(s.WORKERS, rnn, dreaming, s.TEMPERATURE, nodes)
    return Dream(workers, FeatureScale.of(rnn, s.FEATURES), moments)


def begin(
    s: SimpleNamespace, networks: Networks, world: World, made_from: dict[str, Any], rounds: Path
) -> Search:
    """A search that begins with zeros, or with what imitates the autopilot."""
    start, spent = np.zeros(networks.parameter_count), {"frames": 0, "core_hours": 0.0}
    if s.START == "imitation":
        teacher = {"line_offset": s.TEACHER_LINE, "grip": s.TEACHER_GRIP}
        decisive = ("vae", "rnn", "FEATURES", "LAPS", "ENV_ID")
        origin = {name: made_from[name] for name in decisive}
        start, spent = imitate(
            world.workers, world.scale, teacher, s.ROUNDS, s.LAPS, origin, rounds
        )
    evolution = Evolution(start, s.SIGMA, s.POPULATION, s.SEED)
    plans = [{"generation": 0, **Plan.of(s).settings()}]
    return Search(evolution, world.scale.plain(start), made_from, spent, found_at(0), plans)


def _settings(script: dict[str, Any], argv: list[str] | None) -> SimpleNamespace:
    return settings(
        script, argv,
        START=flag.choice("imitation", "zeros"), WORLD=flag.choice("track", "dream"),
        FEATURES=flag.choice("zh", "z", "h"), GENERATIONS=flag.whole(0, 1_000_000),
        POPULATION=flag.whole(SMALLEST_POPULATION, 10_000),
        TRACKS=flag.whole(1, seeds.EVOLUTION_TRACKS), REPLAYED=flag.whole(),
        FITNESS=flag.choice(*FITNESSES), LASTING=flag.number(0, 1), PATIENCE=flag.whole(1),
        SIGMA=flag.number(1e-9, 10), LEAST_SIGMA=flag.number(0, 10),
        MOST_SIGMA=flag.number(1e-9, 10), MEAN_RATE=flag.number(0.01, HIGHEST_RATE),
        SELECT_TRACKS=flag.whole(0, len(seeds.SELECT)), SELECT_EVERY=flag.whole(1),
        ROUNDS=flag.whole(1, 1000), LAPS=flag.whole(1, 10_000), TEACHER_LINE=flag.number(0, WIDEST),
        TEACHER_GRIP=flag.number(LEAST_GRIP, 1), STARTS=flag.whole(1, DREAMS),
        HORIZON=flag.whole(1, MAX_FRAMES), TEMPERATURE=flag.number(0, HOTTEST),
        AVERAGED=flag.whole(1), OWN=flag.number(0, 1), FAILING=flag.number(0, 1),
        BEGINNING=flag.number(0, 1), MOST_DIFFERENCE=flag.number(0.1, 10_000),
        GRASS_COST=flag.number(0, 10), SEED=flag.seed(), ENV_ID=flag.choice(*ENV_IDS),
        WORKERS=flag.processes(), CLUSTER=flag.address(), LATENTS=flag.folder(),
        OWN_LATENTS=flag.folder(), CHECKPOINTS=flag.folder(), IMITATION=flag.folder(),
        NAME=flag.word(),
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
