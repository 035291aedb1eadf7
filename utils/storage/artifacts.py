"""How every artefact is saved, fingerprinted and loaded; no stage does it by itself.

An artefact is a file with a header: its kind, what it was made from, and the fingerprint of its
contents. Arrays live in .npz files, networks in .pt files of plain tensors, reports in .json files.
Writes are atomic. Reading never executes anything: no pickle is ever loaded, and whatever is
missing, truncated, foreign or tampered with becomes a UserError that names the file and its remedy.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.runtime.errors import UserError, system_trouble

HEADER = "header.json"
MOST_BYTES = 2 << 30  # a file that claims to unpack to more than this is not one of ours


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that becomes `path` if the block succeeds.

    A reader sees the old file or the new one whole, whenever the writer dies.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.tmp.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def sweep(directory: str | Path, stem: str = "*") -> None:
    """Remove what killed writers left half-written in `directory`, of files called `stem`."""
    for path in Path(directory).glob(f"{stem}.tmp.*"):
        writer = path.name.split(".tmp.")[1].split(".")[0]
        if writer.isdigit() and not _runs(int(writer)):
            path.unlink(missing_ok=True)


def demand_writable(*paths: str | Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        UserError: a folder stands where a file belongs, or the folder around it is read-only.
    """
    for path in map(Path, paths):
        if path.is_dir():
            raise UserError(f"{path} is a folder where a file belongs; move it away.")
        around = next(parent for parent in path.absolute().parents if parent.exists())
        if not os.access(around, os.W_OK):
            raise UserError(f"{path} cannot be written: {around} is read-only; change that.")


def _runs(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it runs, as somebody else's
    return True


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
    members = {HEADER: json.dumps(header).encode()}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
        members[f"{name}.npy"] = buffer.getbuffer()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(_fast(member), "w") as file:
                file.write(data)
    return header["fingerprint"]


def load_header(path: str | Path, kind: str, remedy: str) -> dict[str, Any]:
    """The header of an .npz artefact, without its arrays."""
    with _refusing(path, kind, remedy), zipfile.ZipFile(path) as archive:
        return _header(archive, kind)


def load_arrays(
    path: str | Path, kind: str, remedy: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of an .npz artefact, whole and as they were written.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    with _refusing(path, kind, remedy), zipfile.ZipFile(path) as archive:
        _demand_possible(_unpacked(archive))
        header = _header(archive, kind)
        arrays = {}
        for member in archive.infolist():
            if member.filename != HEADER:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as data:
                    arrays[name] = np.lib.format.read_array(data, allow_pickle=False)
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
    buffer = io.BytesIO()  # torch itself would not say that the disk is full
    torch.save(contents, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return mark


def load_tensors(path: str | Path, kind: str, remedy: str) -> dict[str, Any]:
    """Header and, under "weights", the tensors of a .pt artefact.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    with _refusing(path, kind, remedy):
        with zipfile.ZipFile(path) as archive:
            _demand_possible(_unpacked(archive))
            if archive.testzip():  # the fingerprint speaks for the weights, not for the header
                raise ValueError("its contents are not those that were written")
        contents = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(contents, dict) or contents.get("kind") != kind:
            raise ValueError(f"it is no {kind} file")
        weights = contents["weights"]
        _demand_possible(sum(t.numel() * t.element_size() for t in weights.values()))
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


def load_json(path: str | Path, kind: str, remedy: str) -> dict[str, Any]:
    """Read a report back."""
    with _refusing(path, kind, remedy):
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(contents, dict) or contents.get("kind") != kind:
            raise ValueError(f"it is no {kind} file")
        return contents


def _unpacked(archive: zipfile.ZipFile) -> int:
    return sum(member.file_size for member in archive.infolist())


def _demand_possible(size: int, most: int = MOST_BYTES) -> None:
    if size > most:
        raise ValueError("it claims an impossible size")


def _header(archive: zipfile.ZipFile, kind: str) -> dict[str, Any]:
    member = archive.getinfo(HEADER)
    _demand_possible(member.file_size, 1 << 24)
    header = json.loads(archive.read(member))
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise ValueError(f"it is no {kind} file")
    if not isinstance(header.get("fingerprint"), str):
        raise ValueError("it bears no fingerprint")
    return header


def _fast(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Level 1: frames shrink tenfold all the same, and the simulator is not kept waiting."""
    if hasattr(member, "compress_level"):  # public since Python 3.13
        member.compress_level = 1
    else:
        member._compresslevel = 1
    return member


@contextmanager
def _refusing(path: str | Path, kind: str, remedy: str) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into one sentence.

    A hostile file can make a decoder raise anything at all, so everything is caught here; running
    out of the machine's own means (memory apart) is not the file's fault and passes.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} (the {kind}) is missing; {remedy}.")
    if not path.is_file():
        raise UserError(f"{path} should be a {kind} file but is not a file; {remedy}.")
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"{path} may not be read ({error.strerror}); give yourself access."
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and system_trouble(error):
            raise
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(f"{path} is not a sound {kind} file ({reason}); {remedy}.") from error
