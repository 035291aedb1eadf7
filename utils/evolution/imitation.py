"""C by imitation: a linear map fitted to what a teacher would do where the student goes.

Source: Ross, Gordon & Bagnell, A Reduction of Imitation Learning to No-Regret Online Learning
(DAgger, 2011). Fitting the teacher's own laps alone fails: the student leaves them after a second
and has never seen where it is. So the student drives, the teacher says what it would have done in
every frame, and the map is fitted to all of it; again and again.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from models.controller import ACTIONS, FeatureScale
from models.inference import arithmetic
from utils.racing.race import PATIENCE, Lap, Race
from utils.runtime.errors import UserError
from utils.runtime.timing import Clock, Meter
from utils.runtime.workers import Workers
from utils.simulator import seeds
from utils.storage.artifacts import forms, if_sound, load_arrays, save_arrays
from utils.storage.provenance import game, is_of_this_game

TEACHER_SHARES = (1.0, 0.5)  # of the driving in the first rounds; after them the student drives
RIDGE = 1e-5  # pulls the weights towards zero, those of features that hardly vary above all
STEPS = 40  # of L-BFGS a round, from the last round's map


class Round(NamedTuple):
    """What one round of driving brought."""

    features: np.ndarray  # (N, Z + H) float32
    advice: np.ndarray  # (N, 3) float32
    scores: np.ndarray  # (laps,)
    complete: np.ndarray  # (laps,) bool
    core_hours: np.ndarray  # () what driving it cost


def imitate(
    workers: Workers,
    scale: FeatureScale,
    teacher: dict[str, Any],
    rounds: int,
    laps: int,
    made_from: dict[str, Any],
    folder: Path,
) -> tuple[np.ndarray, dict[str, float]]:
    """Fit C by dataset aggregation.

    Args:
        teacher: settings of the autopilot that gives the advice.
        rounds, laps: how often, and over how many tracks each time, the student drives.
        made_from: what decides the result; finished rounds of the same origin are not repeated.
        folder: where finished rounds are kept.

    Returns:
        Parameters for standardised features, and the frames and core_hours that they took.
    """
    student = np.zeros(ACTIONS * (len(scale.mean) + 1), np.float32)
    data: list[Round] = []
    fitting, clock = 0.0, Clock(0, rounds)  # fitting in core-hours
    for number in range(rounds):
        meter = Meter(workers)
        origin = {**made_from, **teacher, "arithmetic": arithmetic(), "round": number}
        path = folder / f"round_{number:03d}.npz"
        load = partial(_load, origin=origin, width=len(scale.mean))
        done = if_sound(path, load, "Driving this round again.")
        if done is None:
            share = TEACHER_SHARES[number] if number < len(TEACHER_SHARES) else 0.0
            parameters = scale.plain(student)
            races = [
                Race(seed, parameters, PATIENCE, teacher, share)
                for seed in seeds.imitation(number, laps)
            ]
            done = _together(workers.run(races), meter)
            save_arrays(path, "imitation round", done._asdict(), made_from=origin, versions=game())
        data.append(done)
        meter = Meter(workers)
        features = (np.concatenate([r.features for r in data]) - scale.mean) / scale.sd
        student = fit(features, np.concatenate([r.advice for r in data]), student)
        fitting += meter.core_hours
        print(
            f"imitation {number + 1}/{rounds}: score {done.scores.mean():.0f} ± "
            f"{done.scores.std():.0f}, {done.complete.mean():.0%} of laps complete, "
            f"{clock.left(number + 1)} left",
            flush=True,
        )
    frames = sum(len(done.features) for done in data)
    core_hours = fitting + float(sum(done.core_hours for done in data))
    return student, {"frames": frames, "core_hours": core_hours}


def fit(features: np.ndarray, advice: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The linear map whose squashed outputs come closest to the advice.

    Args:
        features: (N, F), standardised; advice: (N, 3) actions; start: (3 * (F + 1),) first guess.

    Returns:
        Parameters (3 * (F + 1),) float32.
    """
    x = torch.from_numpy(np.ascontiguousarray(features.T))  # (F, N): three times as fast
    target = torch.from_numpy(advice)
    table = torch.from_numpy(start.reshape(ACTIONS, -1).copy()).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [table], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = imitation_loss((table[:, :-1] @ x + table[:, -1:]).T, target)
        loss = loss + RIDGE * table[:, :-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return table.detach().numpy().reshape(-1)


def imitation_loss(raw: torch.Tensor, advice: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the squashed actions, raw and advice (N, 3).

    The brake is max(tanh, 0): where none is advised any negative value is right, and where some
    is, the plain tanh is compared, because a brake stuck at 0 would have no gradient.
    """
    steering, gas, brake = torch.tanh(raw).unbind(-1)
    wanted = advice[:, 2]
    brake = torch.where(wanted > 0, brake, F.relu(brake))
    steering, gas, brake = steering - advice[:, 0], (gas + 1) / 2 - advice[:, 1], brake - wanted
    return steering.square().mean() + gas.square().mean() + brake.square().mean()


def _together(laps: list[Lap], meter: Meter) -> Round:
    return Round(
        np.concatenate([lap.features for lap in laps]),
        np.concatenate([lap.advice for lap in laps]),
        np.array([lap.score for lap in laps]),
        np.array([lap.complete for lap in laps]),
        np.array(meter.core_hours),
    )


def _load(path: Path, origin: dict[str, Any], width: int) -> Round:
    """The round at `path`; a UserError if it is damaged, or of another origin or width."""
    header, arrays = load_arrays(path, "imitation round")
    if header.get("made_from") != origin or not is_of_this_game(header):
        raise UserError(f"{path} was driven with another V, M, game, setting or arithmetic.")
    frames, laps = (len(np.atleast_1d(arrays.get(n, 0))) for n in ("features", "scores"))
    wanted = {
        "features": ((frames, width), np.float32), "advice": ((frames, ACTIONS), np.float32),
        "scores": ((laps,), np.float64), "complete": ((laps,), np.bool_),
        "core_hours": ((), np.float64),
    }  # fmt: skip
    if forms(arrays) != wanted:
        raise UserError(f"{path} does not hold the arrays of a round.")
    return Round(**arrays)
