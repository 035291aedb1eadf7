"""Stage 05: find C, the linear map from [z, h] to steering, gas and brake.

It is fitted to the autopilot's advice, or begins as zeros; then it is evolved.

Reads    checkpoints/vae.pt, checkpoints/mdn_rnn.pt
Writes   checkpoints/NAME.pt, the best mean of the search distribution so far
         checkpoints/NAME.csv and NAME.png (the learning curve)
         checkpoints/NAME_evolution.npz (the whole state of the evolution)
         data/imitation/NAME/*.npz (finished rounds of the imitation)
Time     about 30 minutes on two cores
Run      python 05_train_controller.py
         python 05_train_controller.py --start zeros --sigma 0.1 --name zeros --fitness duels
         --population 144 --tracks 2 --replayed 1 --generations 66    (no teacher, as in the paper)
         ... --most-sigma 0.1 --generations 200    (once the mean stands still)

Stopped, it goes on from the last finished generation when run again; with more GENERATIONS it goes
on from where it ended.
"""

from utils.runtime.start import run

from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.controller import parameter_count
from models.inference import ROWS
from models.mdn_rnn import MDNRNN
from utils.evolution.cma_es import Evolution
from utils.evolution.imitation import Round, imitate
from utils.evolution.search import Plan, Search
from utils.racing.agent import Races
from utils.runtime.command_line import (
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
from utils.runtime.timing import Clock
from utils.runtime.workers import Workers
from utils.simulator import seeds
from utils.simulator.envs import ENV_IDS
from utils.storage.artifacts import demand_writable, sweep
from utils.storage.networks import load_rnn, load_vae

# ---- constants: edit them here, or pass them as flags (--population 64) ----
START = "imitation"  # "zeros" is the paper's; "imitation" first copies the autopilot
FEATURES = "zh"  # what C may read: "z" and "h" alone show what each of them is worth
GENERATIONS = 12  # more go on from where the last run ended
POPULATION = 48  # candidates a generation; may be raised as it converges
TRACKS = 12  # races of each candidate, the same for all unless they duel; may be raised, too
REPLAYED = 0  # of them the worst of late, the others new; 1 of 2 for a C from zeros
SCOUTED = 0  # new tracks that the mean alone drives as well, each generation, to find bad ones
SIGMA = 0.002  # first step size in standardised features; 0.1 from zeros, 0.01 wrecks an imitation
LEAST_SIGMA = 0.0  # nearer candidates differ by less than the luck of their tracks
MOST_SIGMA = 0.2  # a wider population from zeros is mostly wrecks; 0.1 once its mean stands still
MEAN_RATE = 0.5  # share of the proposed step taken; half-steps average the tracks' luck out
FITNESS = "score"  # mean of a candidate; "duels" with its mirror image, for a C from zeros
PATIENCE = 100  # frames without a new tile after which a candidate's race is given up
SELECT_TRACKS = 200  # selection seeds on which the distribution's mean is measured
SELECT_EVERY = 4  # generations between two measurements
ROUNDS = 20  # of imitation; nearly every lap is complete from the fifth on
LAPS = 32  # tracks a round
TEACHER_LINE = 2.0  # units off the centre line the teacher may drive; 2.5: C misses 1 lap in 40
TEACHER_GRIP = 0.9  # share of the road's grip that the teacher uses
SEED = 1  # of the evolution; the tracks follow from the generation
ENV_ID = "FastCarRacing-v0"  # ours: the same game, faster; CarRacing-v3 is the stock one
WORKERS = cores()  # processes; 0 drives in this one; the result is the same for any
CHECKPOINTS = "checkpoints"  # where V and M are and C goes
IMITATION = "data/imitation"  # where finished rounds of the imitation are kept
NAME = "controller"  # of this run: its files begin with it
# -----------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        START=choice("imitation", "zeros"), FEATURES=choice("zh", "z", "h"),
        GENERATIONS=whole(0, 1_000_000), POPULATION=whole(6, 10_000),
        TRACKS=whole(1, seeds.EVOLUTION_TRACKS), REPLAYED=whole(),
        SCOUTED=whole(0, seeds.EVOLUTION_TRACKS), SIGMA=number(1e-9, 10),
        LEAST_SIGMA=number(0, 10), MOST_SIGMA=number(1e-9, 10), MEAN_RATE=number(0.01, 1),
        FITNESS=choice("score", "duels"), PATIENCE=whole(1),
        SELECT_TRACKS=whole(0, len(seeds.SELECT)), SELECT_EVERY=whole(1),
        ROUNDS=whole(1, 1000), LAPS=whole(1, 10_000), TEACHER_LINE=number(0, 5.5),
        TEACHER_GRIP=number(0.05, 1), SEED=seed(), ENV_ID=choice(*ENV_IDS),
        WORKERS=processes(), CHECKPOINTS=folder(), IMITATION=folder(),
        NAME=word(),
    )  # fmt: skip
    _demand_possible_plan(s)
    vae, vae_header = load_vae(s.CHECKPOINTS)
    rnn, rnn_header = load_rnn(s.CHECKPOINTS, vae_header["fingerprint"])
    rounds = Path(s.IMITATION) / s.NAME
    sweep(s.CHECKPOINTS)
    sweep(rounds)
    scale = _scale(rnn, s.FEATURES)
    decisive = ["START", "FEATURES", "SIGMA", "PATIENCE", "SEED", "ENV_ID"]
    if s.START == "imitation":
        decisive += ["ROUNDS", "LAPS", "TEACHER_LINE", "TEACHER_GRIP"]
    made_from = {"vae": vae_header["fingerprint"], "rnn": rnn_header["fingerprint"]}
    made_from |= {name: getattr(s, name) for name in decisive}

    count = parameter_count(vae.sizes["latent_dim"], rnn.sizes["hidden"])
    search = Search(s.CHECKPOINTS, s.NAME, made_from, count)
    kinds = ("evolution", "C", "log by generation", "picture", "imitation round")
    demand_writable(dict(zip((*search.files, rounds / "*.npz"), kinds, strict=True)))
    with Workers(
        s.WORKERS, Races, {"env_id": s.ENV_ID, "vae": vae, "rnn": rnn},
        slots=ROWS, preload=["utils.racing.agent"],
    ) as workers:  # fmt: skip
        if search.resume():
            generation = search.evolution.generation
            print(f"resuming at generation {generation} (delete {search.path} to start over)")
            search.evolution = search.evolution.resized(s.POPULATION)
            search.publish()
        else:
            start = np.zeros(count)
            spent = (0, 0.0)
            if s.START == "imitation":
                start, *spent = _imitate(s, workers, scale, made_from, rounds)
            search.begin(Evolution(start, s.SIGMA, s.POPULATION, s.SEED), scale, *spent)
        _evolve(s, search, workers, scale)
    named = "" if s.NAME == "controller" else f" --controller {s.NAME}"
    print(f"{search.summary()}; next: python 06_evaluate.py{named}")


def _demand_possible_plan(s) -> None:
    if s.REPLAYED >= s.TRACKS:
        raise UserError(f"REPLAYED (--replayed) must be below TRACKS, {s.TRACKS}: some are new.")
    if s.LEAST_SIGMA > s.MOST_SIGMA:
        raise UserError(f"LEAST_SIGMA (--least-sigma) must be at most MOST_SIGMA, {s.MOST_SIGMA}.")
    duels = s.FITNESS == "duels"
    if duels and s.POPULATION % 2:
        raise UserError(f"POPULATION (--population) must be even for duels, not {s.POPULATION}.")
    driven = s.TRACKS * (s.POPULATION // 2 if duels else 1) + s.SCOUTED
    if driven > seeds.EVOLUTION_TRACKS:
        raise UserError(
            f"a generation has {seeds.EVOLUTION_TRACKS} tracks, not {driven}: lower TRACKS "
            "(--tracks) or SCOUTED (--scouted)."
        )


def _scale(rnn: MDNRNN, features: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of the features; what C may not read is scaled to nothing."""
    mean, sd = rnn.feature_mean.numpy(), rnn.feature_sd.numpy().copy()
    latent_dim = rnn.sizes["latent_dim"]
    if "z" not in features:
        sd[:latent_dim] = np.inf
    if "h" not in features:
        sd[latent_dim:] = np.inf
    return mean, sd


def _imitate(
    s, workers: Workers, scale: tuple, made_from: dict, rounds: Path
) -> tuple[np.ndarray, int, float]:
    clock = Clock(0, s.ROUNDS)

    def report(number: int, done: Round) -> None:
        print(
            f"imitation {number + 1}/{s.ROUNDS}: score {done.scores.mean():.0f} ± "
            f"{done.scores.std():.0f}, {done.complete.mean():.0%} of laps complete, "
            f"{clock.left(number + 1)} left",
            flush=True,
        )

    teacher = {"line_offset": s.TEACHER_LINE, "grip": s.TEACHER_GRIP}
    origin = {name: made_from[name] for name in ("vae", "rnn", "FEATURES", "LAPS", "ENV_ID")}
    return imitate(
        workers, scale, teacher, s.ROUNDS, s.LAPS, {**origin, **teacher}, rounds, report,
    )  # fmt: skip


def _evolve(s, search: Search, workers: Workers, scale: tuple) -> None:
    clock = Clock(search.evolution.generation, s.GENERATIONS)
    plan = Plan(
        s.TRACKS, s.PATIENCE,
        replayed=s.REPLAYED, scouted=s.SCOUTED,
        least_sigma=s.LEAST_SIGMA, most_sigma=s.MOST_SIGMA,
        mean_rate=s.MEAN_RATE, duels=s.FITNESS == "duels",
    )  # fmt: skip
    while (generation := search.evolution.generation) < s.GENERATIONS:
        due = generation % s.SELECT_EVERY == 0 and search.measured_at != generation
        select = seeds.SELECT[: s.SELECT_TRACKS] if due else []
        races = s.POPULATION * s.TRACKS + s.SCOUTED + len(select)
        with tqdm(total=races, desc=f"generation {generation}", unit="race", leave=False) as bar:
            row = search.advance(workers, scale, plan, select, lambda *_: bar.update())
        print(f"{search.status(row)}, {clock.left(generation + 1)} left", flush=True)
    if s.SELECT_TRACKS and search.measured_at != search.evolution.generation:
        print(search.status(search.measure(workers, scale, seeds.SELECT[: s.SELECT_TRACKS])))


if __name__ == "__main__":
    run(main)
