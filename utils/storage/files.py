"""Finding files, naming them, and writing them so that nobody ever sees half of one."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.runtime.errors import UserError

OLD = 6 * 3600  # seconds; nobody still writes at a temporary file that has not changed for so long


def files(folder: str | Path) -> list[Path]:
    """The .npz files of a folder by name, without hidden and half-written ones."""
    paths = Path(folder).glob("*.npz")
    return sorted(p for p in paths if not p.name.startswith(".") and ".tmp." not in p.name)


def beside(folder: str | Path, suffix: str) -> Path:
    """The file next to a folder that bears its name: data/rollouts -> data/rollouts.csv."""
    folder = Path(folder) if Path(folder).name else Path.cwd()  # "." has no name
    return folder.with_name(folder.name + suffix)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that becomes `path` if the block succeeds.

    A reader sees the old file or the new one whole, whenever the writer dies. No two writers have
    the same temporary path, on whatever machines that share the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, FileNotFoundError) and error.filename == str(temporary):
            raise UserError(
                f"{path} was removed while it was written; run the same command again."
            ) from error
        raise


def sweep(directory: str | Path, stem: str = "*") -> None:
    """Remove what killed writers left half-written in `directory`, of files called `stem`.

    Only age tells it from a living writer's, who may be on another machine.
    """
    for path in Path(directory).glob(f".{stem}.tmp.*"):
        with suppress(OSError):  # somebody else's, or gone by now
            if time.time() - path.stat().st_mtime > OLD:
                path.unlink()
