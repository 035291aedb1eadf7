"""Saving, fingerprinting, loading, and refusing whatever is not sound."""

import errno
import os
import pickle

import numpy as np
import pytest
import torch

from utils.runtime.errors import UserError
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
    mark = artifacts.save_arrays(path, "thing", arrays(), made_from={"v": "1"})
    header, found = artifacts.load_arrays(path, "thing", "make it")
    assert header == {"kind": "thing", "made_from": {"v": "1"}, "fingerprint": mark}
    for name, array in arrays().items():
        assert np.array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
    assert artifacts.load_header(path, "thing", "make it") == header


def test_the_same_contents_give_the_same_bytes_and_others_another_fingerprint(tmp_path):
    marks = [
        artifacts.save_arrays(tmp_path / f"{i}.npz", "thing", {**arrays(), "e": np.array(c)})
        for i, c in enumerate((1.0, 1.0, 2.0))
    ]
    assert marks[0] == marks[1] != marks[2]
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()


def test_tensors_come_back_as_they_were(tmp_path):
    weights = {"w": torch.randn(5, 5)}
    mark = artifacts.save_tensors(tmp_path / "x.pt", "V", weights, sizes={"n": 5})
    found = artifacts.load_tensors(tmp_path / "x.pt", "V", "make it")
    assert torch.equal(found["weights"]["w"], weights["w"])
    assert (found["sizes"], found["fingerprint"]) == ({"n": 5}, mark)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "flipped", "foreign", "hostile",
                                    "folder", "kind", "nan"])  # fmt: skip
@pytest.mark.parametrize("suffix", [".npz", ".pt", ".json"])
def test_unsound_files_are_refused_by_name(tmp_path, monkeypatch, suffix, damage):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"x{suffix}"
    value = np.nan if damage == "nan" else 1.0
    kind = "other" if damage == "kind" else "thing"
    if suffix == ".npz":
        artifacts.save_arrays(path, kind, {"a": np.full(500, value)})
    elif suffix == ".pt":
        artifacts.save_tensors(path, kind, {"a": torch.full((500,), value)})
    elif damage in ("nan", "flipped"):
        pytest.skip("a report is text")
    else:
        artifacts.save_json(path, {"kind": kind, "a": value})
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    contents = {
        "empty": b"",
        "short": bytes(data[: len(data) // 2]),
        "foreign": b"GIF89a" + bytes(200),
        "hostile": pickle.dumps({"kind": "thing", "weights": Evil(), "fingerprint": ""}),
    }
    path.write_bytes(contents.get(damage, bytes(data)))
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    load = {".npz": artifacts.load_arrays, ".pt": artifacts.load_tensors,
            ".json": artifacts.load_json}[suffix]  # fmt: skip
    with pytest.raises(UserError, match=rf"x\{suffix}.*make it\."):
        load(path, "thing", "make it")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("trouble", [errno.EIO, errno.EMFILE])
def test_a_file_is_not_blamed_for_the_trouble_of_the_machine(tmp_path, monkeypatch, trouble):
    def fail(*_, **__):
        raise OSError(trouble, os.strerror(trouble))

    path = tmp_path / "x.npz"
    artifacts.save_arrays(path, "thing", {"a": np.zeros(3)})
    monkeypatch.setattr(artifacts.zipfile, "ZipFile", fail)
    with pytest.raises(OSError, match=os.strerror(trouble)):
        artifacts.load_arrays(path, "thing", "delete it")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    artifacts.save_json(path, {"kind": "old"})

    def fail():
        with artifacts.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert artifacts.load_json(path, "old", "")["kind"] == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_could_not_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "x.csv").mkdir()
    artifacts.demand_writable(tmp_path / "y.csv", tmp_path / "new" / "z.csv")
    with pytest.raises(UserError, match=r"x\.csv is a folder .*move it away"):
        artifacts.demand_writable(tmp_path / "y.csv", tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_a_tensor_that_claims_more_memory_than_its_file_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    claim = torch.zeros(1).expand(1 << 40)
    torch.save({"kind": "V", "weights": {"w": claim}, "fingerprint": ""}, path)
    with pytest.raises(UserError, match=r"x\.pt .*impossible size"):
        artifacts.load_tensors(path, "V", "make it")


def test_sweep_removes_what_dead_writers_left(tmp_path):
    dead, alive = tmp_path / "x.tmp.999999999.npz", tmp_path / f"y.tmp.{os.getpid()}.npz"
    dead.touch()
    alive.touch()
    artifacts.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [alive]
