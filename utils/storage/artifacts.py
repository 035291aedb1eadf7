"""How every artefact is saved, fingerprinted and loaded; no stage does it by itself.

An artefact is a file with a header: its kind, what it was made from, and the fingerprint of its
contents. Arrays live in .npz files, networks in .pt files of plain tensors, reports in .json files.
Writes are atomic. Reading executes nothing that a file holds, and whatever is missing, truncated,
foreign or tampered with becomes a UserError that names the file and its remedy.
"""

import hashlib
import json
import math
import os
import secrets
import shlex
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from utils.runtime.command_line import stage_command
from utils.runtime.errors import UserError, system_trouble
from utils.storage.provenance import ROOT, commit

HEADER = "header.json"
PAGE_MARK = b"<!doctype html><!-- a dream by 06_evaluate.py -->"  # with which our pages begin
MOST_BYTES = 2 << 30  # to which a file may claim to unpack, or to more if it is large itself:
MOST_SHRUNK = 300  # times its own size; nothing that we write shrinks more than 230 times
OLD = 6 * 3600  # seconds; nobody still writes at a temporary file that has not changed for so long

UNSOUND = {  # of a file of each kind: what to do with it, unless its stage replaces it anyway
    "rollout": "delete it and {make}",
    "latents": "delete it and {make}",
    "starts": "delete it and {make}",
    "imitation round": "delete it",
    "evolution": "delete it and its C to start over, or give the new run another NAME",
    "training state": "delete it to start over",
}


COLLECT = f"run {stage_command('01_collect_rollouts')}"


def remedy(path: str | Path, kind: str, missing: bool = False) -> str:
    """What mends a file of this kind that is missing, or that is not sound.

    Args:
        path: of the file, or of its folder.
    """
    path = Path(path)
    folder = path.parent if path.suffix in (".npz", ".pt", ".json") else path
    make = f"run {_making(path, folder, kind)}"
    return make if missing else UNSOUND.get(kind, "{make}").format(make=make)


def _making(path: Path, folder: Path, kind: str) -> str:
    """The command that makes a file of this kind there."""
    match kind:
        case "rollout":
            return stage_command("01_collect_rollouts", rollouts=folder)
        case "V":
            return stage_command("02_train_vae", checkpoints=folder)
        case "latents":
            return stage_command("03_encode_dataset", latents=folder)
        case "M" | "starts":
            return stage_command("04_train_mdn_rnn", checkpoints=folder)
        case "C" | "evolution":
            name = path.stem.removesuffix("_evolution")
            return stage_command("05_train_controller", name=name, checkpoints=folder)
        case "imitation round":
            return stage_command("05_train_controller", name=folder.name, imitation=folder.parent)
        case "report":
            return stage_command("06_evaluate", name=path.stem, checkpoints=folder.parent)
        case _:
            return "the same command again"


def whereabouts(path: str | Path) -> str:
    """Where a relative path was looked for, if that is not the project's own folder."""
    here = Path.cwd()
    if Path(path).is_absolute() or here == ROOT:
        return ""
    return f" in {here} (the project itself is in another folder: cd {shlex.quote(str(ROOT))})"


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


def demand_writable(outputs: Mapping[Path, str]) -> None:
    """Check before the work that all its outputs can be written, and replace nothing else.

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
    if path.suffix == ".png":
        return "picture" if start.startswith(b"\x89PNG") else "foreign"
    if path.suffix == ".gif":
        return "moving picture" if start.startswith(b"GIF8") else "foreign"
    if path.suffix == ".mp4":
        return "film" if start[4:8] == b"ftyp" else "foreign"
    if path.suffix == ".html":
        return "page" if start.startswith(PAGE_MARK) else "foreign"
    try:
        if path.suffix == ".json":
            return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
        with zipfile.ZipFile(path) as archive:
            if path.suffix == ".npz":
                return str(_header(archive)["kind"])
        return str(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["kind"])
    except zipfile.BadZipFile:
        return "" if start.startswith(b"PK") else "foreign"
    except Exception as error:  # somebody else's file can hold anything
        if system_trouble(error):
            raise
        return "foreign"


def fingerprint(contents: Mapping[str, Any]) -> str:
    """16 hex digits that change when any array, tensor or plain value in `contents` does."""
    digest = hashlib.sha256()
    for name in sorted(contents):
        value = contents[name]
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().contiguous().numpy()
        if isinstance(value, np.ndarray):
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
        else:
            digest.update(f"{name} {json.dumps(value, sort_keys=True)}".encode())
    return digest.hexdigest()[:16]


def save_arrays(
    path: str | Path, kind: str, arrays: Mapping[str, np.ndarray], **header: Any
) -> str:
    """Write arrays and a JSON header to an .npz; returns the fingerprint of the contents.

    The same contents give the same bytes: the members carry no time.
    """
    header = {"kind": kind, **header}
    header["fingerprint"] = fingerprint({**arrays, "header": header})
    with (
        atomic_path(path) as temporary,
        # level 1: frames shrink tenfold all the same, and the simulator is not kept waiting
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        with archive.open(HEADER, "w") as file:
            file.write(json.dumps(header).encode())
        for name, array in arrays.items():
            large = array.nbytes > 1 << 30  # zip wants to know beforehand if it may exceed 2 GiB
            with archive.open(f"{name}.npy", "w", force_zip64=large) as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
    return header["fingerprint"]


def load_header(path: str | Path, kind: str) -> dict[str, Any]:
    """The header of an .npz artefact, without its arrays."""
    with _refusing(path, kind), zipfile.ZipFile(path) as archive:
        return _header(archive, kind)


def load_arrays(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of an .npz artefact, whole and as they were written.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    with _refusing(path, kind), zipfile.ZipFile(path) as archive:
        _demand_possible(path, _unpacked(archive))
        header = _header(archive, kind)
        arrays = {}
        for member in archive.infolist():
            if member.filename != HEADER:
                with archive.open(member) as data:
                    _demand_honest(data, member.file_size)
                    data.seek(0)
                    array = np.lib.format.read_array(data, allow_pickle=False)
                arrays[member.filename.removesuffix(".npy")] = array
        claimed = header.pop("fingerprint")
        if fingerprint({**arrays, "header": header}) != claimed:
            raise ValueError("its contents are not those that were written")
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} holds NaN or infinite values")
        return {**header, "fingerprint": claimed}, arrays


def save_tensors(
    path: str | Path, kind: str, weights: Mapping[str, torch.Tensor], **header: Any
) -> str:
    """Write a network's weights and a plain header to a .pt file; returns their fingerprint."""
    mark = fingerprint(weights)
    contents = {"kind": kind, **header, "fingerprint": mark, "weights": dict(weights)}
    buffer = BytesIO()  # torch itself would not say that the disk is full
    torch.save(contents, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return mark


def load_tensors(path: str | Path, kind: str) -> dict[str, Any]:
    """Header and, under "weights", the tensors of a .pt artefact.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    with _refusing(path, kind):
        with zipfile.ZipFile(path) as archive:
            _demand_possible(path, _unpacked(archive))
            if archive.testzip():  # the fingerprint speaks for the weights, not for the header
                raise ValueError("its contents are not those that were written")
        contents = torch.load(path, map_location="cpu", weights_only=True)
        _demand_kind(contents, kind)
        weights = contents["weights"]
        _demand_possible(path, sum(t.numel() * t.element_size() for t in weights.values()))
        if fingerprint(weights) != contents["fingerprint"]:
            raise ValueError("its contents are not those that were written")
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ValueError(f"{name} holds NaN or infinite values")
        return contents


def save_json(path: str | Path, contents: Mapping[str, Any]) -> None:
    """Write a report."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def load_json(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a report back."""
    with _refusing(path, kind):
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
        _demand_kind(contents, kind)
        return contents


def _unpacked(archive: zipfile.ZipFile) -> int:
    return sum(member.file_size for member in archive.infolist())


def _demand_possible(path: str | Path, size: int) -> None:
    if size > max(MOST_BYTES, MOST_SHRUNK * os.path.getsize(path)):
        raise ValueError("it claims an impossible size")


def _demand_honest(data: IO[bytes], size: int) -> None:
    """Refuse an array that claims more than its `size` in the archive: claims take memory."""
    np.lib.format.read_magic(data)
    shape, _, dtype = np.lib.format.read_array_header_1_0(data)
    if math.prod(shape) * dtype.itemsize != size - data.tell():
        raise ValueError("it claims an impossible size")


def _header(archive: zipfile.ZipFile, kind: str = "") -> dict[str, Any]:
    member = archive.getinfo(HEADER)
    if member.file_size > max(1 << 24, MOST_SHRUNK * member.compress_size):
        raise ValueError("it claims an impossible size")
    header = json.loads(archive.read(member))
    if kind:
        _demand_kind(header, kind)
        if not isinstance(header.get("fingerprint"), str):
            raise ValueError("it bears no fingerprint")
    return header


class _OtherKindError(ValueError):
    pass


def _demand_kind(contents: Any, kind: str) -> None:
    if not isinstance(contents, dict) or contents.get("kind") != kind:
        raise _OtherKindError


@contextmanager
def _refusing(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into one sentence.

    A hostile file can make a decoder raise anything at all, so everything is caught here; running
    out of the machine's own means, memory among them, is not the file's fault and passes.
    """
    path, make = Path(path), remedy(path, kind, missing=True)
    if not path.exists():
        raise UserError(f"{path} (the {kind}) is missing{whereabouts(path)}; {make}.")
    try:
        if not path.is_file():
            raise _OtherKindError
        yield
    except PermissionError as error:
        raise UserError(
            f"{path} may not be read ({error.strerror}); give yourself access."
        ) from error
    except _OtherKindError:
        raise UserError(f"{path} is no {kind} file; move it away and {make}.") from None
    except Exception as error:
        if system_trouble(error):
            raise
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(
            f"{path} is not a sound {kind} file ({reason}); {remedy(path, kind)}."
        ) from error
