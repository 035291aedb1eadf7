"""What stands where a stage is about to write: its own earlier files may be replaced, no others."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from utils.runtime.errors import UserError, system_trouble
from utils.storage.artifacts import read_header
from utils.storage.files import files, sweep
from utils.storage.provenance import commit

MARKS = {  # by suffix: what a file is that has these bytes from this place on
    ".png": ("picture", 0, b"\x89PNG"),
    ".gif": ("moving picture", 0, b"GIF8"),
    ".mp4": ("film", 4, b"ftyp"),
    ".html": ("page", 0, b"<!doctype html><!-- a dream by 06_evaluate.py -->"),
}


def prepare(outputs: Mapping[Path, str]) -> None:
    """Check before the work that all its outputs can be written, replacing nothing else, and remove
    what killed writers have left of them.

    Args:
        outputs: the kind of each file to be written, as `kind_of` tells it; a file called "*.npz"
            stands for all of its folder.

    Raises:
        UserError: something of another kind is in the way, or bears the name in other case.
    """
    commit()  # of the code that is about to work, while it is still the one on disk
    for path, kind in outputs.items():
        around = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        if not around.is_dir() or not os.access(around, os.W_OK):
            raise UserError(
                f"{path} cannot be written: {around} is read-only or no folder; change that."
            )
        for there in files(path.parent) if path.name == "*.npz" else path.parent.glob("*"):
            if path.name not in (there.name, "*.npz"):
                if there.name.casefold() != path.name.casefold():
                    continue
                raise UserError(
                    f"{there} differs from {path} in upper and lower case alone, which some disks "
                    "take for the same; choose another name."
                )
            if not os.path.lexists(there):
                continue  # somebody else has removed it by now
            if not there.is_file():
                what = "a folder" if there.is_dir() else "a link that leads nowhere"
                raise UserError(f"{there} is {what} where a file belongs; move it away.")
            if kind_of(there) not in (kind, ""):
                raise UserError(
                    f"{there} is no {kind} file, but stands where one is to be written; "
                    "move it away, or choose another name or folder."
                )
    for path in outputs:
        sweep(path.parent, "*" if path.name == "*.npz" else path.stem)


def kind_of(path: Path) -> str:
    """What a file says it is: the kind of an artefact, "picture", "film", "log by COLUMN" ...

    Returns:
        "" for an empty file and a truncated archive, in which nothing can be lost, and for one that
        is gone; "foreign" for whatever else is not ours.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        return ""
    if not start:
        return ""
    if path.suffix == ".csv":
        return "log by " + start.split(b",")[0].decode("ascii", "replace")
    if path.suffix in MARKS:
        kind, place, mark = MARKS[path.suffix]
        return kind if start.startswith(mark, place) else "foreign"
    try:
        if path.suffix == ".json":
            return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
        with zipfile.ZipFile(path) as archive:
            if path.suffix == ".npz":
                return str(read_header(archive)["kind"])
        return str(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["kind"])
    except zipfile.BadZipFile:
        return "" if start.startswith(b"PK") else "foreign"
    except Exception as error:  # somebody else's file can hold anything
        if system_trouble(error):
            raise
        return "foreign"
