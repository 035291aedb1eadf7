"""What mends a file that is missing or unsound: it follows from what kind of file it is."""

import shlex
from pathlib import Path

from utils.runtime.command_line import stage_command
from utils.storage.files import files
from utils.storage.provenance import ROOT

UNSOUND = {  # of a file of each kind: what to do with it, unless its stage replaces it anyway
    "rollout": "delete it and {make}",
    "latents": "delete it and {make}",
    "starts": "delete it and {make}",
    "imitation round": "delete it",
    "evolution": "delete it and its C to start over, or give the new run another NAME",
    "training state": "delete it to start over",
}
MIRRORED = "mirrored"  # folder in one of latents that holds those of their mirror images
COLLECT = f"run {stage_command('01_collect_rollouts')}"


def remedy(path: str | Path, kind: str, missing: bool = False, **flags: str | Path) -> str:
    """What mends a file of this kind that is missing, or that is not sound.

    Args:
        path: of the file, or of its folder.
        flags: further ones of the command that makes it.
    """
    path = Path(path)
    folder = path.parent if path.suffix in (".npz", ".pt") else path
    make = f"run {_making(path, folder, kind, flags)}"
    return make if missing else UNSOUND.get(kind, "{make}").format(make=make)


def _making(path: Path, folder: Path, kind: str, flags: dict[str, str | Path]) -> str:
    """The command that makes a file of this kind there."""
    match kind:
        case "rollout":
            own = sum(file.name.startswith("agent_") for file in files(folder))
            if own:
                flags |= {"agent_episodes": str(own), "own_rollouts": folder}
            else:
                flags |= {"rollouts": folder}
            return stage_command("01_collect_rollouts", **flags)
        case "V":
            return stage_command("02_train_vae", checkpoints=folder)
        case "latents":
            folder = folder.parent if folder.name == MIRRORED else folder
            if folder.name == "latents":
                flags["rollouts"] = folder.with_name("rollouts")
            return stage_command("03_encode_dataset", latents=folder, **flags)
        case "M" | "starts":
            return stage_command("04_train_mdn_rnn", checkpoints=folder)
        case "C" | "evolution":
            name = path.stem.removesuffix("_evolution")
            return stage_command("05_train_controller", name=name, checkpoints=folder)
        case "imitation round":
            return stage_command("05_train_controller", name=folder.name, imitation=folder.parent)
        case _:
            return "the same command again"


def whereabouts(path: str | Path) -> str:
    """Where a relative path was looked for, if that is not the project's own folder."""
    here = Path.cwd()
    if Path(path).is_absolute() or here == ROOT:
        return ""
    return f" in {here} (the project itself is in another folder: cd {shlex.quote(str(ROOT))})"
