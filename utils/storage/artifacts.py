"""Artefacts: files with a header, and how all of them are saved, fingerprinted and loaded.

The header holds an artefact's kind, what it was made from, and the fingerprint of its contents.
Arrays live in .npz files, networks in .pt files of plain tensors, reports in .json files. Writes
are atomic. Reading executes nothing that a file holds, and whatever is missing, truncated, foreign
or tampered with becomes a UserError that names the file and its remedy.
"""

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch

from utils.runtime.errors import UserError, system_trouble
from utils.storage.files import atomic_path
from utils.storage.remedies import remedy, whereabouts

HEADER = "header.json"
MOST_BYTES = 2 << 30  # to which a file may claim to unpack, or to more if it is large itself:
MOST_SHRUNK = 300  # times its own size; nothing that we write shrinks more than 230 times

Loaded = TypeVar("Loaded")


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


def forms(arrays: Mapping[str, Any]) -> dict[str, tuple]:
    """Shape and type of each array or tensor, by name.

    An array's type tells foreign from native order of bytes, and torch takes native alone.
    """
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def load_header(path: str | Path, kind: str) -> dict[str, Any]:
    """The header of an .npz artefact, without its arrays."""
    with _refusing(path, kind), zipfile.ZipFile(path) as archive:
        return read_header(archive, kind)


def read_header(archive: zipfile.ZipFile, kind: str = "") -> dict[str, Any]:
    """The header of an open .npz file; with a `kind`, only of an artefact of that kind."""
    member = archive.getinfo(HEADER)
    if member.file_size > max(1 << 24, MOST_SHRUNK * member.compress_size):
        raise ValueError("it claims an impossible size")
    header = json.loads(archive.read(member))
    if kind:
        _demand_kind(header, kind)
        if not isinstance(header.get("fingerprint"), str):
            raise ValueError("it bears no fingerprint")
    return header


def load_arrays(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of an .npz artefact, whole and as they were written.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    with _refusing(path, kind), zipfile.ZipFile(path) as archive:
        _demand_possible(path, _unpacked(archive))
        header = read_header(archive, kind)
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


def if_sound(path: Path, load: Callable[[Path], Loaded], otherwise: str) -> Loaded | None:
    """What `load` makes of the file at `path`; None where there is none, or no sound one.

    Args:
        otherwise: the sentence that says, after what is wrong with the file, what is done about it.
    """
    try:
        return load(path) if path.exists() else None
    except UserError as error:
        print(f"{error} {otherwise}")
        return None


def save_json(path: str | Path, contents: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


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
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"{path} (the {kind}) is missing{whereabouts(path)}; "
            f"{remedy(path, kind, missing=True)}."
        )
    try:
        if not path.is_file():
            raise _OtherKindError
        yield
    except PermissionError as error:
        raise UserError(
            f"{path} may not be read ({error.strerror}); give yourself access."
        ) from error
    except _OtherKindError:
        make = remedy(path, kind, missing=True)
        raise UserError(f"{path} is no {kind} file; move it away and {make}.") from None
    except Exception as error:
        if system_trouble(error):
            raise
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(
            f"{path} is not a sound {kind} file ({reason}); {remedy(path, kind)}."
        ) from error
