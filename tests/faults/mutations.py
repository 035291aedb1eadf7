"""Files that are not what they should be, and what the stage that reads them makes of each.

`damaged` makes files that somebody or something has spoilt; `unfit` makes whole and well sealed
files that do not fit: of another size, another game, another origin, or with values that are none.
"""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import tiny
import torch

from faults.runs import copy, differences, inside
from utils.runtime.errors import UserError, system_trouble
from utils.storage import artifacts
from utils.storage.artifacts import (
    load_arrays,
    load_header,
    load_tensors,
    save_arrays,
    save_tensors,
)
from utils.world_model.episodes import save_rollout
from utils.world_model.training import Training

BOMB = "executed"  # the file that a hostile file makes if it is ever executed
REMEDY = re.compile(r"run python \d\d_\w+\.py|delete it|move it away|mend that and run")
DREAMED = 5  # frames of the film: they are not the point here

FLAGS = {
    1: {"autopilot_episodes": 0, "random_episodes": 1, "rollouts": "data/driven"},
    2: {"latent_dim": tiny.LATENT_DIM, "epochs": 2, "batch": 16, "pool": 2, "threads": 1},
    3: {},
    4: {"hidden": tiny.HIDDEN, "mixtures": 2, "epochs": 2, "length": 20, "threads": 1},
    5: {"start": "imitation", "rounds": 1, "laps": 1, "generations": 1, "population": 6,
        "tracks": 1, "replayed": 0, "fitness": "score", "select_tracks": 0, "patience": 20},
    6: {"episodes": 1, "first_seed": 6, "env_id": "FastCarRacing-v0", "film": "none"},
}  # fmt: skip
OWN = {"rollouts": "data/dream/rollouts", "latents": "data/dream/latents"}
DREAMS = {"world": "dream", "start": "zeros", "name": "dreamer", "latents": "data/none",
          "population": 6, "starts": 2, "horizon": 10}  # fmt: skip
LEARNS = {"drives": 1, "old": 1, "own_epochs": 1, "own_length": 20}
LOOP = [
    (5, DREAMS), (1, {"agent_episodes": 1, "controller": "dreamer"}), (3, OWN), (4, LEARNS),
    (6, {}),  # once more: the M that dreams is on its page
]  # fmt: skip

ROLLOUT = "data/rollouts/random_001.npz"
LATENTS, IMAGE = "data/latents/random_001.npz", "data/latents/mirrored/random_001.npz"
V, M, C = (f"checkpoints/{name}.pt" for name in ("vae", "mdn_rnn", "controller"))
EVOLUTION = "checkpoints/controller_evolution.npz"
ROUND = "data/imitation/controller/round_000.npz"
STARTS, DREAMING_M = "checkpoints/starts.npz", "checkpoints/mdn_rnn_dream.pt"
DREAMER, OWN_LATENTS = "checkpoints/dreamer_evolution.npz", f"{OWN['latents']}/agent_2000000.npz"
V_TRAINING, M_TRAINING = "checkpoints/vae_training.pt", "checkpoints/mdn_rnn_training.pt"
V_LOG, M_LOG = "checkpoints/vae.csv", "checkpoints/mdn_rnn.csv"
MAKERS = {
    "data/rollouts": 1,
    "data/latents": 3,
    "data/latents/mirrored": 3,
}  # later stages leave these files as they are

# Who reads what, the kind of it, and with which further flags. Logs and reports are only written.
READ = [
    (1, "data/driven/random_1100000.npz", "rollout"), (1, "data/driven.csv", "log"),
    (2, ROLLOUT, "rollout"), (2, V, "V"), (2, V_TRAINING, "training state"),
    (2, V_LOG, "log"),
    (3, ROLLOUT, "rollout"), (3, V, "V"), (3, LATENTS, "latents"),
    (3, IMAGE, "latents"), (4, IMAGE, "latents"),
    (4, V, "V"), (4, M, "M"), (4, LATENTS, "latents"), (4, ROLLOUT, "rollout"),
    (4, M_TRAINING, "training state"), (4, M_LOG, "log"),
    (5, V, "V"), (5, M, "M"), (5, EVOLUTION, "evolution"), (5, ROUND, "imitation round"),
    (5, "checkpoints/controller.csv", "log"), (5, C, "C"),
    (6, V, "V"), (6, M, "M"), (6, C, "C"), (6, "checkpoints/results/latest.json", "report"),
    (5, STARTS, "starts", DREAMS), (5, DREAMING_M, "M", DREAMS), (5, DREAMER, "evolution", DREAMS),
    (4, DREAMING_M, "M", LEARNS), (4, OWN_LATENTS, "latents", LEARNS),
]  # fmt: skip


class Case(NamedTuple):
    """One spoilt file: which stage reads it, where it is, what was done to it."""

    number: int
    path: str
    how: str
    change: Callable[[Path], None]  # called with the file's path
    flags: Mapping[str, Any] = MappingProxyType({})  # beside FLAGS


# ---- the project ----


def make_project(folder: Path) -> Path:
    """All stages and a round of the dream, in this process.

    The trainings' states are kept aside in `states`.
    """
    folder.mkdir(parents=True)
    tiny.save_episodes(folder / "data" / "rollouts", [25, 20, 30])
    with quick(), inside(folder):
        for number, flags in FLAGS.items():
            with keeping_state() if number in (2, 4) else contextlib.nullcontext():
                tiny.stage(number, **flags, workers=0)
        for number, flags in LOOP:
            tiny.stage(number, **FLAGS[number] | flags, workers=0)
    (folder / "states").rename(folder.with_name("states"))
    return folder


@contextlib.contextmanager
def keeping_state() -> Iterator[None]:
    """A copy of the training's state after its first epoch goes to `states`."""
    end_epoch = Training.end_epoch

    def end_and_copy(training: Training, *arguments: Any) -> None:
        end_epoch(training, *arguments)
        if len(training.history) == 1:
            Path("states").mkdir(exist_ok=True)
            shutil.copy(training._path, "states")

    with mock.patch.object(Training, "end_epoch", end_and_copy):
        yield


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Short films, and nothing on the terminal."""
    with (
        mock.patch("utils.world_model.replay.DREAMED", DREAMED),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        yield


def go_back(case: Case, folder: Path, states: Path) -> None:
    """Undo as much of a finished project as it takes for the stage to need the file again."""
    if case.path == ROUND:  # stopped before the evolution began
        (folder / EVOLUTION).unlink()
        (folder / C).unlink()
    if (case.number, case.path) == (2, ROLLOUT):
        (folder / V).unlink()
    if (case.number, case.path) == (4, IMAGE):
        (folder / M).unlink()
    if case.path == OWN_LATENTS:
        (folder / DREAMING_M).unlink()
    for log, network, state in ((V_LOG, V, V_TRAINING), (M_LOG, M, M_TRAINING)):
        if case.path in (log, state):  # stopped after the first epoch
            shutil.copy(states / Path(state).name, folder / state)
            (folder / network).unlink()


# ---- what comes of a case ----


class Verdict(NamedTuple):
    """What a stage made of a spoilt file."""

    good: bool
    what: str  # "refused", "healed", or what went wrong
    traceback: bool = False


def judge(case: Case, project: Path, scratch: Path) -> Verdict:
    """Run the stage on a copy of the project with one file spoilt."""
    folder = copy(project, scratch / "project")
    go_back(case, folder, project.with_name("states"))
    case.change(folder / case.path)
    flags = FLAGS[case.number] | case.flags | {"workers": 0}
    try:
        with quick(), inside(folder):
            tiny.stage(case.number, **flags)
    except UserError as error:
        verdict = _of_refusal(case, str(error))
    except (Exception, SystemExit) as error:
        sentence = system_trouble(error) if isinstance(error, OSError) else ""
        verdict = (
            _of_refusal(case, sentence) if sentence
            else Verdict(False, f"{type(error).__name__}: {error}", traceback=True)
        )  # fmt: skip
    else:
        made_here = MAKERS.get(str(Path(case.path).parent), case.number) == case.number
        differ = [d for d in differences(folder, project) if made_here or d != case.path]
        verdict = Verdict(not differ, f"another result: {differ}" if differ else "healed")
    if (folder / BOMB).exists():
        return Verdict(False, "it was executed")
    return verdict


def _of_refusal(case: Case, sentence: str) -> Verdict:
    names_it = Path(case.path).name in sentence
    is_one = "\n" not in sentence and len(sentence) < 500
    good = names_it and is_one and REMEDY.search(sentence) is not None
    return Verdict(good, "refused" if good else f"refused, but by: {sentence}")


# ---- damaged files ----


def damaged(rng: np.random.Generator, every: int, project: Path, scratch: Path) -> list[Case]:
    """Every `every`-th combination of a file that is read and a way to spoil it."""
    others = {Path(path).suffix: project / path for path in (ROLLOUT, C)}
    ways = _ways(rng, others, _huge_zip(scratch / "huge.zip"))
    cases = [
        Case(number, path, name, change, *flags)
        for number, path, kind, *flags in READ
        for name, change in ways(kind).items()
    ]
    return cases[::every]


def _ways(rng: np.random.Generator, others: dict[str, Path], huge: Path) -> Callable:
    """A function kind -> {name of the damage: what does it to a path}."""

    def cut(share: float) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(path.read_bytes()[: int(share * _size(path))])

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)

    def noise(path: Path) -> None:
        path.write_bytes(rng.bytes(_size(path)))

    def swap(path: Path) -> None:
        shutil.copy(others[".pt" if path.suffix == ".npz" else ".npz"], path)

    def folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def ways(kind: str) -> dict[str, Callable[[Path], None]]:
        return {
            "empty": cut(0), "cut at a quarter": cut(0.25), "cut at a random place":
            cut(float(rng.random())), "its last byte lost": lambda p: cut(1 - 1 / _size(p))(p),
            "a bit flipped": flip, "another bit flipped": flip, "a third bit flipped": flip,
            "noise": noise, "of another kind": swap, "a folder": folder,
            "a pickle": lambda p: p.write_bytes(pickle.dumps(_bomb())),
            "a network with a bomb": lambda p: torch.save({"kind": kind, "weights": _bomb()}, p),
            "arrays with a bomb": lambda p: _object_arrays(p, kind),
            "a zip of 5 GB": lambda p: shutil.copy(huge, p),
            "a header that is none": lambda p: _headers(p, kind, ["no", 5, {"kind": kind}], rng),
        }  # fmt: skip

    return ways


def _size(path: Path) -> int:
    return max(1, path.stat().st_size)


class _Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, (BOMB,)


def _bomb() -> Any:
    return {"kind": "rollout", "weights": _Bomb(), "fingerprint": ""}


def _object_arrays(path: Path, kind: str) -> None:
    """An .npz of ours whose one array is a pickle."""
    array = io.BytesIO()
    np.lib.format.write_array(array, np.array([_Bomb()], object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(artifacts.HEADER, json.dumps({"kind": kind, "fingerprint": "0" * 16}))
        archive.writestr("obs.npy", array.getvalue())


def _headers(path: Path, kind: str, choices: list, rng: np.random.Generator) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(artifacts.HEADER, json.dumps(choices[rng.integers(len(choices))]))


def _huge_zip(path: Path) -> Path:
    """Five gigabytes of zeros, as a file of 5 MB."""
    zeros = bytes(1 << 24)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("obs.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(zeros)
    return path


# ---- files that do not fit ----


def unfit() -> list[Case]:
    """Whole and well sealed, and wrong all the same."""
    nan, inf = np.float32("nan"), np.float32("inf")
    networks = [(6, C), (6, V), (5, M), (3, V)]
    return [
        *(Case(n, path, "NaN weights", _weights(lambda w: w.fill_(nan))) for n, path in networks),
        *(Case(n, path, "infinite", _weights(lambda w: w.fill_(inf))) for n, path in networks),
        Case(6, C, "other sizes", _resized),
        Case(5, V, "other sizes", _resized),
        Case(5, M, "other sizes", _resized),
        Case(6, C, "numbers of another type", _weights(lambda w: w.double())),
        Case(5, M, "of another V", _header(made_from={"vae": "0" * 16})),
        Case(6, M, "of another V", _header(made_from={"vae": "0" * 16})),
        Case(6, C, "of another M", _header(made_from={})),
        Case(6, C, "of nothing sensible", _header(made_from=["a"])),
        Case(3, V, "of sizes beyond memory", _header(sizes={"latent_dim": 10**8})),
        Case(3, V, "of sizes that are none", _header(sizes="many")),
        Case(2, ROLLOUT, "of another Gymnasium", _of_another_game("rollout")),
        Case(3, ROLLOUT, "of another Gymnasium", _of_another_game("rollout")),
        Case(1, "data/driven/random_1100000.npz", "of another Gymnasium",
             _of_another_game("rollout")),
        Case(5, EVOLUTION, "of another Gymnasium", _of_another_game("evolution")),
        Case(5, ROUND, "of another Gymnasium", _of_another_game("imitation round")),
        Case(2, ROLLOUT, "NaN rewards", _arrays("rollout", reward=lambda a: a + nan)),
        Case(3, ROLLOUT, "frames of another size", _arrays("rollout", obs=lambda a: a[:, :32])),
        Case(3, ROLLOUT, "a frame too few", _arrays("rollout", obs=lambda a: a[:-1])),
        Case(4, LATENTS, "infinite latents", _arrays("latents", mu=lambda a: a + inf)),
        Case(4, LATENTS, "latents of another width", _latents_of_another_width),
        Case(4, LATENTS, "latents of another V", _meta("latents", made_from={
            "vae": "0" * 16, "rollout": "0" * 16})),
        Case(4, IMAGE, "an image that was never encoded", Path.unlink),
        Case(4, LATENTS, "latents of nothing", _meta("latents", made_from=7)),
        Case(4, LATENTS, "latents of another rollout", _another_rollout),
        Case(4, "data/rollouts/random_009.npz", "a rollout never encoded", _new_rollout),
        Case(5, EVOLUTION, "an evolution of other settings", _meta("evolution", made_from={})),
        Case(5, EVOLUTION, "of nothing", _meta("evolution", made_from=[1])),
        Case(5, EVOLUTION, "of another size", _arrays("evolution", best=lambda a: a[:-3])),
        Case(5, EVOLUTION, "words for numbers", _arrays("evolution", best=lambda a: a.astype(str))),
        Case(5, EVOLUTION, "a score that is NaN", _meta("evolution", best_score=float("nan"))),
        Case(5, EVOLUTION, "an endless track", _meta("evolution", driven=[[float("inf"), 1.0]])),
        Case(5, EVOLUTION, "a history that is none", _meta("evolution", history="long")),
        Case(5, EVOLUTION, "rows that are none", _meta("evolution", history=[{"frames": "x"}])),
        Case(5, EVOLUTION, "a score that is none", _meta("evolution", best_score="high")),
        Case(5, ROUND, "a round of another width", _arrays("imitation round",
             features=lambda a: a[:, :-1])),
        Case(5, ROUND, "a round without scores", _arrays("imitation round", scores=None)),
        Case(2, V_TRAINING, "an epoch beyond the last", _header(epoch=99)),
        Case(4, M_TRAINING, "no history", _header(history=None)),
        Case(4, M_TRAINING, "other sizes", _resized),
        Case(5, STARTS, "of another V", _meta("starts", vae="0" * 16), DREAMS),
        Case(5, STARTS, "latents of another width", _arrays("starts", mu=lambda a: a[..., :-1]),
             DREAMS),
        Case(5, STARTS, "no moments", _arrays(
            "starts", mu=_none, action=_none, seen=_none), DREAMS),
        Case(5, DREAMING_M, "of another V", _header(made_from={"vae": "0" * 16}), DREAMS),
        Case(5, DREAMING_M, "NaN weights", _weights(lambda w: w.fill_(nan)), DREAMS),
        Case(4, DREAMING_M, "other sizes", _resized, LEARNS),
        Case(4, OWN_LATENTS, "infinite latents", _arrays("latents", mu=lambda a: a + inf), LEARNS),
        Case(4, OWN_LATENTS, "latents of another V", _meta("latents", made_from={
            "vae": "0" * 16, "rollout": "0" * 16}), LEARNS),
    ]  # fmt: skip


def _kind_and_contents(path: Path) -> tuple[str, dict[str, Any]]:
    contents = torch.load(path, weights_only=True)
    return contents["kind"], load_tensors(path, contents["kind"])


def _save(path: Path, kind: str, contents: dict[str, Any]) -> None:
    header = {k: v for k, v in contents.items() if k not in ("kind", "weights", "fingerprint")}
    save_tensors(path, kind, contents["weights"], **header)


def _weights(change: Callable) -> Callable[[Path], None]:
    """Change the first weights of a network, and seal it anew."""

    def apply(path: Path) -> None:
        kind, contents = _kind_and_contents(path)
        name = next(iter(contents["weights"]))
        contents["weights"][name] = change(contents["weights"][name])
        _save(path, kind, contents)

    return apply


def _resized(path: Path) -> None:
    _weights(lambda weight: weight.flatten()[:-1].clone())(path)


def _header(**changes: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        kind, contents = _kind_and_contents(path)
        _save(path, kind, contents | changes)

    return apply


def _arrays(kind: str, **changes: Callable | None) -> Callable[[Path], None]:
    """Change some arrays of an .npz (None drops one), and seal it anew."""

    def apply(path: Path) -> None:
        header = load_header(path, kind)
        _, arrays = load_arrays(path, kind)
        for name, change in changes.items():
            array = arrays.pop(name)
            if change is not None:
                arrays[name] = change(array)
        del header["kind"], header["fingerprint"]
        save_arrays(path, kind, arrays, **header)

    return apply


def _meta(kind: str, **changes: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        header, arrays = load_arrays(path, kind)
        del header["kind"], header["fingerprint"]
        save_arrays(path, kind, arrays, **header | changes)

    return apply


def _of_another_game(kind: str) -> Callable[[Path], None]:
    return _meta(kind, versions={"gymnasium": "0.29.1", "box2d": "2.3.5"})


def _none(array: np.ndarray) -> np.ndarray:
    return array[:0]


def _latents_of_another_width(path: Path) -> None:
    narrow = {"mu": lambda a: a[:, :-1], "logvar": lambda a: a[:, :-1]}
    _arrays("latents", **narrow)(path)


def _another_rollout(path: Path) -> None:
    """The rollout is another one by now."""
    save_rollout(path.parent.parent / "rollouts" / path.name, tiny.episode(22, 9))


def _new_rollout(path: Path) -> None:
    save_rollout(path, tiny.episode(22, 9))
