"""Saving, fingerprinting, loading, and refusing whatever is not sound."""

import errno
import json
import os
import pickle
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch

from utils.runtime.errors import UserError, system_trouble
from utils.storage import artifacts


def arrays() -> dict[str, np.ndarray]:
    return {
        "a": np.arange(1000, dtype=np.float32),
        "b": np.ones((3, 4), np.uint8),
        "c": np.array(2.5),  # without dimensions
        "d": np.arange(12.0).reshape(3, 4).T,  # not in C order
    }


def test_arrays_come_back_as_they_were(tmp_path):
    path = tmp_path / "x.npz"
    mark = artifacts.save_arrays(path, "rollout", arrays(), made_from={"v": "1"})
    header, found = artifacts.load_arrays(path, "rollout")
    assert header == {"kind": "rollout", "made_from": {"v": "1"}, "fingerprint": mark}
    for name, array in arrays().items():
        assert np.array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
    assert artifacts.load_header(path, "rollout") == header


def test_the_same_contents_give_the_same_bytes_and_others_another_fingerprint(tmp_path):
    marks = [
        artifacts.save_arrays(tmp_path / f"{i}.npz", "rollout", {**arrays(), "e": np.array(c)})
        for i, c in enumerate((1.0, 1.0, 2.0))
    ]
    assert marks[0] == marks[1] != marks[2]
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()


def test_tensors_come_back_as_they_were(tmp_path):
    weights = {"w": torch.randn(5, 5)}
    mark = artifacts.save_tensors(tmp_path / "x.pt", "V", weights, sizes={"n": 5})
    found = artifacts.load_tensors(tmp_path / "x.pt", "V")
    assert torch.equal(found["weights"]["w"], weights["w"])
    assert (found["sizes"], found["fingerprint"]) == ({"n": 5}, mark)


def test_a_file_that_is_missing_or_unsound_may_count_as_none(tmp_path, capsys):
    sound, damaged = tmp_path / "sound.npz", tmp_path / "damaged.npz"
    artifacts.save_arrays(sound, "rollout", arrays())
    damaged.write_bytes(sound.read_bytes()[:-30])
    found = [
        artifacts.if_sound(path, lambda path: artifacts.load_header(path, "rollout"), "Never mind.")
        for path in (sound, tmp_path / "missing.npz", damaged)
    ]
    assert found == [artifacts.load_header(sound, "rollout"), None, None]
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{damaged} is not a sound rollout file")
    assert said.endswith(". Never mind.")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "flipped", "foreign", "hostile",
                                    "folder", "kind", "nan"])  # fmt: skip
@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_unsound_files_are_refused_by_name(tmp_path, monkeypatch, suffix, damage):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"x{suffix}"
    value = np.nan if damage == "nan" else 1.0
    kind = "other" if damage == "kind" else "rollout"
    if suffix == ".npz":
        artifacts.save_arrays(path, kind, {"a": np.full(500, value)})
    else:
        artifacts.save_tensors(path, kind, {"a": torch.full((500,), value)})
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    contents = {
        "empty": b"",
        "short": bytes(data[: len(data) // 2]),
        "foreign": b"GIF89a" + bytes(200),
        "hostile": pickle.dumps({"kind": "rollout", "weights": Evil(), "fingerprint": ""}),
    }
    path.write_bytes(contents.get(damage, bytes(data)))
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    load = {".npz": artifacts.load_arrays, ".pt": artifacts.load_tensors}[suffix]
    mended_by = "delete it and run"
    if damage == "missing":
        mended_by = "is missing; run"
    elif damage in ("folder", "kind"):
        mended_by = "move it away and run"
    with pytest.raises(UserError, match=rf"x\{suffix}.*{mended_by} python 01_collect_rollouts.py"):
        load(path, "rollout")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("trouble", [errno.EIO, errno.EMFILE])
def test_a_file_is_not_blamed_for_the_trouble_of_the_machine(tmp_path, monkeypatch, trouble):
    def fail(*_, **__):
        raise OSError(trouble, os.strerror(trouble))

    path = tmp_path / "x.npz"
    artifacts.save_arrays(path, "rollout", {"a": np.zeros(3)})
    monkeypatch.setattr(artifacts.zipfile, "ZipFile", fail)
    with pytest.raises(OSError, match=os.strerror(trouble)):
        artifacts.load_arrays(path, "rollout")


def test_a_header_may_grow_as_long_as_a_search_does(tmp_path):
    rows = [{"generation": i, "mean": i / 7} for i in range(400_000)]
    artifacts.save_arrays(tmp_path / "x.npz", "evolution", arrays(), history=rows)
    assert artifacts.load_header(tmp_path / "x.npz", "evolution")["history"][-1] == rows[-1]


@pytest.mark.parametrize("shortage", [
    MemoryError(), np._core._exceptions._ArrayMemoryError((9, 9), np.dtype(float)),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
])  # fmt: skip
def test_a_lack_of_memory_is_not_the_fault_of_a_file(tmp_path, monkeypatch, shortage):
    def fail(*_, **__):
        raise shortage

    artifacts.save_arrays(tmp_path / "x.npz", "rollout", arrays())
    artifacts.save_tensors(tmp_path / "x.pt", "V", {"w": torch.zeros(3)})
    monkeypatch.setattr(artifacts, "fingerprint", fail)
    for load, name, kind in (
        (artifacts.load_arrays, "x.npz", "rollout"), (artifacts.load_tensors, "x.pt", "V")
    ):  # fmt: skip
        with pytest.raises(type(shortage)) as error:
            load(tmp_path / name, kind)
        assert "no more memory" in system_trouble(error.value)


def test_an_array_that_claims_more_memory_than_its_file_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    array = BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        header = {"kind": "rollout", "fingerprint": "0" * 16}
        archive.writestr(artifacts.HEADER, json.dumps(header))
        archive.writestr("obs.npy", array.getvalue())
    with pytest.raises(UserError, match=r"x\.npz .*impossible size"):
        artifacts.load_arrays(path, "rollout")


@pytest.mark.slow
def test_more_than_two_gigabytes_are_written_and_read_back(tmp_path):
    many = {"features": np.zeros((1 << 31) + 9, np.uint8)}
    artifacts.save_arrays(tmp_path / "x.npz", "imitation round", many)
    _, found = artifacts.load_arrays(tmp_path / "x.npz", "imitation round")
    assert found["features"].nbytes == many["features"].nbytes


def test_a_large_file_may_unpack_to_more_than_a_small_one(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "MOST_BYTES", 1000)
    path = tmp_path / "x.npz"
    artifacts.save_arrays(path, "rollout", {"a": np.zeros(10**7, np.uint8)})  # shrinks 229 times
    artifacts.load_arrays(path, "rollout")
    artifacts.save_tensors(tmp_path / "x.pt", "V", {"w": torch.zeros(1000)})
    artifacts.load_tensors(tmp_path / "x.pt", "V")
    monkeypatch.setattr(artifacts, "MOST_SHRUNK", 100)
    with pytest.raises(UserError, match=r"x\.npz .*impossible size"):
        artifacts.load_arrays(path, "rollout")


def test_a_tensor_that_claims_more_memory_than_its_file_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    claim = torch.zeros(1).expand(1 << 40)
    torch.save({"kind": "V", "weights": {"w": claim}, "fingerprint": ""}, path)
    with pytest.raises(UserError, match=r"x\.pt .*impossible size"):
        artifacts.load_tensors(path, "V")
