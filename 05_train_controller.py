"""Stage 05: find C, the linear map from [z, h] to steering, gas and brake.

It begins as zeros and is evolved: on the track, where nobody shows it how, or in what M dreams. Or
it is first fitted to an autopilot's advice.

Reads    checkpoints/vae.pt, checkpoints/mdn_rnn.pt
         for the dream: checkpoints/mdn_rnn_dream.pt, the M that has seen the agent's own drives, or
         else mdn_rnn.pt; data/latents and data/dream/latents, or else checkpoints/starts.npz
Writes   checkpoints/NAME.pt, the best mean of the search distribution so far
         checkpoints/NAME.csv and NAME.png (the learning curve)
         checkpoints/NAME_evolution.npz (the whole state of the evolution)
         data/imitation/NAME/*.npz (finished rounds of the imitation)
Time     about 30 minutes on two cores
Run      python 05_train_controller.py
         python 05_train_controller.py --name pupil --start imitation --sigma 0.002 --fitness score
         --population 48 --tracks 12 --replayed 0 --generations 12    (with a teacher, 30 minutes)

Stopped, it goes on from the last finished generation when run again; with more GENERATIONS, from
where it ended. The constants below are for a new search: one that goes on keeps its own settings,
except those given as flags, and says so; GENERATIONS, WORKERS and folders are taken from here.
"""

from utils.runtime.start import run

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from models.controller import FeatureScale, parameter_count
from models.inference import ROWS
from models.mdn_rnn import MDNRNN
from utils.evolution.cma_es import SMALLEST_POPULATION, Evolution
from utils.evolution.curriculum import choose_tracks, remembered
from utils.evolution.dreaming import DREAMS, Dreamer, dream
from utils.evolution.fitness import FITNESSES
from utils.evolution.fitness import of_dreams as fitness_of_dreams
from utils.evolution.history import of_candidates, of_dreams, of_selection
from utils.evolution.imitation import imitate
from utils.evolution.plan import Plan
from utils.evolution.schedule import scheduled
from utils.evolution.search import Files, Search, found_at
from utils.racing.agent import Races, drive
from utils.racing.agreement import cluster
from utils.racing.race import Race
from utils.runtime.command_line import (
    address,
    choice,
    folder,
    number,
    processes,
    seed,
    settings,
    whole,
    word,
)
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.runtime.timing import Clock, Meter
from utils.runtime.workers import OneAtATime, Workers
from utils.simulator import seeds
from utils.simulator.envs import DREAM_ID, ENV_IDS, MAX_FRAMES
from utils.storage import artifacts
from utils.storage.artifacts import demand_writable, sweep
from utils.storage.networks import load_rnn, load_second_rnn, load_vae
from utils.world_model.starts import Moments, load_starts, starts_path

# ---- constants: edit them here, or pass them as flags (--population 64) ----
START = "zeros"  # as in the paper: nobody shows C how; "imitation" first copies the autopilot
WORLD = "track"  # where the candidates drive; in the "dream" of M it takes a thirtieth of the time
FEATURES = "zh"  # what C may read: "z" and "h" alone show what each of them is worth
GENERATIONS = 60  # more go on from where the last run ended; 12 after an imitation
POPULATION = 144  # candidates a generation; 48 after an imitation
TRACKS = 2  # races of each candidate, one as long as few laps are complete; 12 without duels
REPLAYED = 1  # of them repeat tracks that went badly of late
SCOUTED = 0  # extra new tracks that only the mean drives, to find bad ones
SIGMA = 0.1  # first step size in standardised features; 0.01 wrecks an imitation, 0.002 does not
LEAST_SIGMA = 0.0  # nearer candidates differ by less than the luck of their tracks
MOST_SIGMA = 0.2  # a wider population is mostly wrecks; halved whenever the mean stands still
MEAN_RATE = 0.5  # share of the proposed step taken; half-steps average the tracks' luck out
FITNESS = "duels"  # of a candidate with its mirror image; "score" ranks all, after an imitation
PATIENCE = 100  # frames without a new tile after which a candidate's race is given up
STARTS = 16  # dreams of each candidate, from moments of real drives; 8 where pairs have their own
HORIZON = 250  # frames of each: five seconds
TEMPERATURE = 1.0  # of the dream: as uncertain as M is; 0 would be its likeliest future
OWN = 0.3  # share of the dreams that begin in the agent's own drives, once there are any
FAILING = 0.35  # further share, beginning up to three seconds before the agent came to grief
BEGINNING = 0.25  # further share, from the first frame of a race: every race has to pass there
AVERAGED = 10  # generations whose means C is the average of: no race says which of them is best
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
    vae, vae_header = load_vae(s.CHECKPOINTS)
    rnn, rnn_header = load_rnn(s.CHECKPOINTS, vae_header["fingerprint"])
    files, rounds = Files.of(s.CHECKPOINTS, s.NAME), Path(s.IMITATION) / s.NAME
    kinds = ("evolution", "C", "log by generation", "picture", "imitation round")
    demand_writable(dict(zip((*files, rounds / "*.npz"), kinds, strict=True)))
    count = parameter_count(vae.sizes["latent_dim"], rnn.sizes["hidden"])
    search = Search.load(files, count)
    if search:  # what it was run with stands in for the constants
        s = _settings(globals() | search.settings, argv)
    plan = Plan.of(s)
    made_from = {"vae": vae_header["fingerprint"], "rnn": rnn_header["fingerprint"]}
    made_from |= {name: getattr(s, name) for name in FIXED}
    if s.START == "imitation":
        made_from |= {name: getattr(s, name) for name in FIXED_BY_IMITATION}
    sweep(s.CHECKPOINTS)
    sweep(rounds)
    if search:
        print(search.follow(plan, made_from, globals(), files))

    scale, nodes = FeatureScale.of(rnn, s.FEATURES), cluster(s.CLUSTER)
    if plan.world == "dream":
        dreaming, moments = _dream(s, vae_header, rnn_header)
        setup: dict[str, Any] = {"function": Dreamer(rnn, dreaming, plan.temperature)}
        preload = ["utils.evolution.dreaming"]
        pool = Workers(s.WORKERS, OneAtATime, setup, preload=preload, cluster=nodes)
    else:
        setup = {"env_id": s.ENV_ID, "vae": vae, "rnn": rnn}
        preload = ["utils.racing.agent"]
        pool = Workers(s.WORKERS, Races, setup, slots=ROWS, preload=preload, cluster=nodes)
    with pool as workers:
        if not search:
            start, spent = np.zeros(count), {"frames": 0, "core_hours": 0.0}
            if s.START == "imitation":
                teacher = {"line_offset": s.TEACHER_LINE, "grip": s.TEACHER_GRIP}
                decisive = ("vae", "rnn", "FEATURES", "LAPS", "ENV_ID")
                origin = {name: made_from[name] for name in decisive}
                start, spent = imitate(workers, scale, teacher, s.ROUNDS, s.LAPS, origin, rounds)
            evolution = Evolution(start, s.SIGMA, s.POPULATION, s.SEED)
            plans = [{"generation": 0, **plan.settings()}]
            search = Search(evolution, scale.plain(start), made_from, spent, found_at(0), plans)
        search.save(files)
        if plan.world == "dream":
            evolve_in_dream(search, plan, workers, scale, moments, s.GENERATIONS, files)
        else:
            evolve(search, plan, workers, scale, s.GENERATIONS, files)
            if plan.select_tracks and search.measured_at != search.evolution.generation:
                measure(search, plan, workers, scale, files)
    named = "" if s.NAME == "controller" else f" --controller {s.NAME}"
    print(f"{search.summary(files)}; next: python 06_evaluate.py{named}")


def evolve(
    search: Search, plan: Plan, workers: Workers, scale: FeatureScale, generations: int,
    files: Files,
) -> None:  # fmt: skip
    """CMA-ES: ask for candidates, let them drive, judge them, tell the outcome, keep the best."""
    evolution, clock = search.evolution, Clock(search.evolution.generation, generations)
    while (generation := evolution.generation) < generations:
        meter, now = Meter(workers), scheduled(plan, search.history)
        candidates = evolution.ask(now.least_sigma, now.most_sigma)  # in standardised features
        mean = scale.plain(evolution.mean)

        groups = now.groups(evolution)
        tracks, scouted = choose_tracks(now, groups, generation, search.driven)
        due = generation % plan.select_every == 0 and search.measured_at != generation
        *laps, scouts, selection = drive(
            workers, f"generation {generation}",
            *(
                [Race(track, parameters, plan.patience) for track in row]
                for parameters, row in zip(scale.plain(candidates), tracks, strict=True)
            ),
            [Race(track, mean, plan.patience) for track in scouted],
            [Race(track, mean) for track in seeds.SELECT[: plan.select_tracks if due else 0]],
        )  # fmt: skip
        driven = [lap for row in (*laps, scouts) for lap in row]

        fitness = FITNESSES[plan.fitness](laps, groups)
        search.measured(mean, selection)
        evolution.tell(candidates, fitness, plan.mean_rate)

        search.driven = remembered(search.driven, generation, driven)
        if search.best_score is None:  # nothing was ever measured: the latest mean has to do
            search.keep(scale.plain(evolution.mean))
        came_to = of_candidates(now, generation, laps) | of_selection(selection)
        said = search.note(generation, [*driven, *selection], meter, came_to)
        search.save(files)
        print(f"{said}{workers.where}, {clock.left(generation + 1)} left", flush=True)


def evolve_in_dream(
    search: Search, plan: Plan, workers: Workers, scale: FeatureScale, moments: Moments,
    generations: int, files: Files,
) -> None:  # fmt: skip
    """CMA-ES once more, but the candidates dream: no real race judges them or chooses a mean."""
    evolution, clock = search.evolution, Clock(search.evolution.generation, generations)
    while (generation := evolution.generation) < generations:
        meter = Meter(workers)
        candidates = evolution.ask(plan.least_sigma, plan.most_sigma)
        groups = plan.groups(evolution)
        count = plan.starts * len(groups)
        choice, *luck = [(evolution.seed, generation, i) for i in range(1, count + 2)]
        starts = moments.choose(
            np.random.default_rng(choice), count, plan.own, plan.failing, plan.beginning
        )
        returns = dream(workers, scale.plain(candidates), groups, starts, luck, plan.horizon)
        fitness = fitness_of_dreams(plan.fitness, returns, groups)
        evolution.tell(candidates, fitness, plan.mean_rate)

        average = search.averaged(plan.averaged)
        if search.best_score is None:
            search.keep(scale.plain(average))
        said = search.note(generation, [], meter, of_dreams(plan, returns, search.dreamt))
        search.save(files)
        print(f"{said}{workers.where}, {clock.left(generation + 1)} left", flush=True)


def measure(
    search: Search, plan: Plan, workers: Workers, scale: FeatureScale, files: Files
) -> None:
    """Measure the mean on the selection seeds without going on; it is kept if it is the best."""
    meter, mean = Meter(workers), scale.plain(search.evolution.mean)
    races = [Race(track, mean) for track in seeds.SELECT[: plan.select_tracks]]
    (laps,) = drive(workers, "selection", races)
    search.measured(mean, laps)
    print(search.note(search.evolution.generation, laps, meter, of_selection(laps)))
    search.save(files)


def _dream(
    s: SimpleNamespace, vae: dict[str, Any], rnn: dict[str, Any]
) -> tuple[MDNRNN | None, Moments]:
    dreaming, _ = load_second_rnn(s.CHECKPOINTS, vae["fingerprint"], rnn["fingerprint"])
    others, own = artifacts.files(s.LATENTS), artifacts.files(s.OWN_LATENTS)
    kept = None if others else load_starts(starts_path(s.CHECKPOINTS), vae)
    return dreaming, Moments(others, own, vae, kept)


def _settings(script: dict[str, Any], argv: list[str] | None) -> SimpleNamespace:
    return settings(
        script, argv,
        START=choice("imitation", "zeros"), WORLD=choice("track", "dream"),
        FEATURES=choice("zh", "z", "h"),
        GENERATIONS=whole(0, 1_000_000), POPULATION=whole(SMALLEST_POPULATION, 10_000),
        TRACKS=whole(1, seeds.EVOLUTION_TRACKS), REPLAYED=whole(), FITNESS=choice(*FITNESSES),
        SCOUTED=whole(0, seeds.EVOLUTION_TRACKS), SIGMA=number(1e-9, 10), PATIENCE=whole(1),
        LEAST_SIGMA=number(0, 10), MOST_SIGMA=number(1e-9, 10), MEAN_RATE=number(0.01, 1),
        SELECT_TRACKS=whole(0, len(seeds.SELECT)), SELECT_EVERY=whole(1), ROUNDS=whole(1, 1000),
        LAPS=whole(1, 10_000), TEACHER_LINE=number(0, 5.5), TEACHER_GRIP=number(0.05, 1),
        STARTS=whole(1, DREAMS), HORIZON=whole(1, MAX_FRAMES), TEMPERATURE=number(0, 10),
        AVERAGED=whole(1), OWN=number(0, 1), FAILING=number(0, 1), BEGINNING=number(0, 1),
        LATENTS=folder(),
        OWN_LATENTS=folder(), SEED=seed(), ENV_ID=choice(*ENV_IDS), WORKERS=processes(),
        CLUSTER=address(), CHECKPOINTS=folder(), IMITATION=folder(), NAME=word(),
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
