"""Flags that make no sense, flags that would destroy, and folders where files belong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import stages
import tiny

from faults import mutations, runs
from faults.campaign import STAGES, Campaign, Result, Row, outcome, total
from utils.runtime.errors import UserError

NONSENSE = [
    *((n, {"workers": w}) for n in STAGES for w in (-1, "two", 10**9)),
    (1, {"autopilot_episodes": -3}), (1, {"random_episodes": 10**12}), (1, {"noise": "nan"}),
    (1, {"env_id": "Pong-v5"}), (1, {"env_id": "DreamCarRacing-v0"}),
    (1, {"temperature": "hot"}), (1, {"rollouts": "a_file"}), (1, {"rollouts": ""}),
    (1, {"grip": 1}), (2, {"epochs": 0}), (2, {"batch": 0}), (2, {"learning_rate": "inf"}),
    (2, {"seed": 10**30}), (2, {"threads": 0}), (2, {"checkpoints": "a_file/below"}),
    (3, {"latents": "a_file"}), (4, {"hidden": 0}), (4, {"temperature": -1}),
    (4, {"length": 1.5}), (5, {"population": 5}), (5, {"start": "scratch"}),
    (5, {"name": "../up"}), (5, {"sigma": 0}), (5, {"tracks": 0}), (5, {"select_tracks": 10**6}),
    (5, {"env_id": "DreamCarRacing-v0"}), (6, {"temperature": 11}),
    (1, {"hand_back": -1}), (1, {"agent_episodes": -1}), (4, {"drives": -1}), (4, {"noise": 2}),
    (5, {"world": "moon"}), (5, {"beginning": 2}), (5, {"starts": 0}), (6, {"measure": "c"}),
    (6, {"blind": "deaf"}), *((n, {"cluster": "no host:1"}) for n in (1, 5, 6)),
    (6, {"episodes": 0}), (6, {"driver": "nobody"}), (6, {"film": "up/there.mp4"}),
    (6, {"controller": "no/name"}), (6, {"first_seed": -1}), (6, {"seed": 1}),
]  # fmt: skip
IN_THE_WAY = [
    (1, "data/rollouts.csv"), (2, "checkpoints/vae.csv"), (2, "checkpoints/vae_frames.png"),
    (3, "data/latents.png"), (4, "checkpoints/mdn_rnn.pt"), (4, "checkpoints/dream_replay.mp4"),
    (4, "checkpoints/starts.npz"),
    (5, "checkpoints/controller.csv"), (5, "checkpoints/controller_evolution.npz"),
    (6, "checkpoints/results/latest.json"), (6, "best_lap.mp4"),
    (6, "checkpoints/dream_straight_on.html"),
]  # fmt: skip
WOULD_DESTROY = [  # with all stages done: what is there is of another kind
    *((5, {"name": name}) for name in ("vae", "mdn_rnn", "VAE", "Controller")),
    (1, {"rollouts": "data/latents"}), (1, {"rollouts": "data/imitation/controller"}),
    (1, {"rollouts": "checkpoints"}),
    *((3, {"latents": there}) for there in ("data/rollouts", "checkpoints")),
    *((3, {"latents": there}) for there in ("data/imitation/controller", "data/driven")),
    *((5, {"imitation": "data", "name": name}) for name in ("rollouts", "latents")),
    (5, {}),  # only the .pt files were copied, not the evolution's state
]  # fmt: skip


def nonsense(campaign: Campaign) -> Result:
    """Flags that make no sense, and folders where files belong: nothing may be begun."""
    found = []
    for number, wrong in NONSENSE:
        folder = campaign.fresh(number, "nonsense")
        (folder / "a_file").touch()
        (name,) = wrong
        found.append(refused_at_once(folder, number, wrong, f"--{name.replace('_', '-')}"))
    for number, path in IN_THE_WAY:
        folder = campaign.fresh(number, "in_the_way")
        (folder / path).mkdir(parents=True)
        found.append(refused_at_once(folder, number, {}, path))
    return total(found)


def would_destroy(campaign: Campaign) -> Result:
    """Flags by which a stage would write over, or remove, what another one made."""
    found = []
    for number, flags in WOULD_DESTROY[:: max(1, campaign.effort.every // 10)]:
        folder = runs.copy(campaign.finished(), campaign.folder / "would_destroy")
        if not flags:
            (folder / mutations.EVOLUTION).unlink()
        flags = mutations.FLAGS[number] | {"workers": 0} | flags
        found.append(refused_at_once(folder, number, flags, ""))
    return total(found)


def refused_at_once(folder: Path, number: int, flags: dict[str, Any], named: str) -> Result:
    before = stages.contents(folder)
    try:
        begun = mock.patch("utils.runtime.workers.Workers.run", side_effect=BegunError)
        with runs.inside(folder), begun:
            tiny.stage(number, **runs.FLAGS[number] | flags)
    except UserError as error:
        if named not in str(error) or "\n" in str(error):
            return outcome(1, f"stage {number} with {flags or named}: {error}")
    except (Exception, SystemExit) as error:
        what = f"stage {number} with {flags or named}: {type(error).__name__}: {error}"
        return outcome(1, what)._replace(tracebacks=1)
    else:
        return outcome(1, f"stage {number} took {flags or named}")
    untouched = stages.contents(folder) == before
    return outcome(1, "" if untouched else f"stage {number} with {flags or named}: other files")


class BegunError(Exception):
    """Work was begun."""


def rows(campaign: Campaign) -> Iterator[Row]:
    """What a user may ask for by mistake."""
    found = nonsense(campaign)
    yield Row("nonsense in flags and paths", found, "refused before any work")
    found = would_destroy(campaign)
    yield Row("flags that would destroy", found, "refused before any work, every file as it was")
