"""Saving, fingerprinting, loading, and refusing whatever is not sound."""

import errno
import json
import os
import pickle
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.runtime.errors import UserError, system_trouble
from utils.storage import artifacts
from utils.storage.logs import write_log


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
    kind = "other" if damage == "kind" else "rollout"
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
        "hostile": pickle.dumps({"kind": "rollout", "weights": Evil(), "fingerprint": ""}),
    }
    path.write_bytes(contents.get(damage, bytes(data)))
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    load = {".npz": artifacts.load_arrays, ".pt": artifacts.load_tensors,
            ".json": artifacts.load_json}[suffix]  # fmt: skip
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


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    artifacts.save_json(path, {"kind": "report", "n": "old"})

    def fail():
        with artifacts.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert artifacts.load_json(path, "report")["n"] == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_could_not_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("/not/mounted")
    fine = {tmp_path / "y.csv": "log by seed", tmp_path / "new" / "z.csv": "log by seed"}
    artifacts.demand_writable(fine)
    for name, sentence in (
        ("x.csv", r"x\.csv is a folder .*move it away"),
        ("gone", "gone is a link that leads nowhere"),
        ("gone/x.csv", "gone is read-only or no folder"),
        ("file/x.csv", "file is read-only or no folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            artifacts.demand_writable(fine | {tmp_path / name: "log by seed"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "gone", "x.csv"]


def save_of_each_kind(folder):
    """What a file of each kind looks like: name -> kind."""
    artifacts.save_arrays(folder / "a.npz", "rollout", arrays())
    artifacts.save_arrays(folder / "b.npz", "latents", arrays())
    artifacts.save_tensors(folder / "c.pt", "V", {"w": torch.zeros(3)})
    artifacts.save_tensors(folder / "d.pt", "C", {"w": torch.zeros(3)})
    artifacts.save_json(folder / "e.json", {"kind": "report"})
    write_log(folder / "f.csv", ("epoch", "loss"), [])
    write_log(folder / "g.csv", ("seed", "score"), [])
    (folder / "h.png").write_bytes(b"\x89PNG\r\n" + bytes(50))
    (folder / "i.mp4").write_bytes(bytes(4) + b"ftypisom" + bytes(50))
    (folder / "j.gif").write_bytes(b"GIF89a" + bytes(50))
    (folder / "k.html").write_bytes(artifacts.PAGE_MARK + b"\n<html>")
    kinds = ["rollout", "latents", "V", "C", "report", "log by epoch", "log by seed", "picture",
             "film", "moving picture", "page"]  # fmt: skip
    return dict(zip(sorted(path.name for path in folder.iterdir()), kinds, strict=True))


def test_only_a_file_of_the_same_kind_is_replaced(tmp_path):
    kinds = save_of_each_kind(tmp_path)
    for name, kind in kinds.items():
        artifacts.demand_writable({tmp_path / name: kind})
        for other in set(kinds.values()) - {kind}:
            with pytest.raises(UserError, match=f"{name} is no {other} file.* move it away"):
                artifacts.demand_writable({tmp_path / name: other})
    folder = tmp_path / "*.npz"
    with pytest.raises(UserError, match=r"a\.npz is no latents file"):
        artifacts.demand_writable({folder: "latents"})
    (tmp_path / "a.npz").rename(tmp_path / "._a.npz")
    artifacts.demand_writable({folder: "latents"})


def test_what_others_made_is_not_replaced_and_what_is_damaged_is(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    torch.save(torch.nn.Linear(1, 1), tmp_path / "whole.pt")  # a pickle that is not read
    torch.save({"weights": 1}, tmp_path / "weights.pt")
    for name in ("x.json", "y.png", "y.gif", "y.mp4", "y.html", "y.csv", "y.npz", "y.pt", "y.json"):
        (tmp_path / name).write_text('{"a": 1}' if name == "x.json" else "notes, of mine")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=f"{path.name} is no V file"):
            artifacts.demand_writable({path: "V"})
    ours = tmp_path / "v.pt"
    artifacts.save_tensors(ours, "M", {"w": torch.zeros(300)})
    for contents in (ours.read_bytes()[:-50], b""):
        ours.write_bytes(contents)
        artifacts.demand_writable({ours: "V"})


def test_a_name_that_differs_in_case_alone_is_refused_on_any_disk(tmp_path):
    artifacts.save_tensors(tmp_path / "controller.pt", "C", {"w": torch.zeros(3)})
    with pytest.raises(UserError, match=r"controller\.pt differs from .*Controller\.pt"):
        artifacts.demand_writable({tmp_path / "Controller.pt": "C"})


def test_a_missing_file_is_said_to_be_looked_for_elsewhere_than_in_the_project(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        artifacts.load_tensors("checkpoints/vae.pt", "V")
    assert f"missing in {tmp_path}" in str(error.value)
    assert f"cd {artifacts.ROOT}" in str(error.value)
    monkeypatch.chdir(artifacts.ROOT)
    with pytest.raises(UserError, match=r"x\.pt \(the C\) is missing; run .*05.*--name x\.$"):
        artifacts.load_tensors("checkpoints/x.pt", "C")


@pytest.mark.parametrize(("path", "kind", "command"), [
    ("data/rollouts/x.npz", "rollout", "python 01_collect_rollouts.py"),
    ("data/rollouts", "rollout", "python 01_collect_rollouts.py"),
    ("mine/x.npz", "rollout", "python 01_collect_rollouts.py --rollouts mine"),
    ("checkpoints/vae.pt", "V", "python 02_train_vae.py"),
    ("my runs/vae.pt", "V", "python 02_train_vae.py --checkpoints 'my runs'"),
    ("a/b", "latents", "python 03_encode_dataset.py --latents a/b"),
    ("a/mdn_rnn.pt", "M", "python 04_train_mdn_rnn.py --checkpoints a"),
    ("a/starts.npz", "starts", "python 04_train_mdn_rnn.py --checkpoints a"),
    ("checkpoints/controller.pt", "C", "python 05_train_controller.py"),
    ("checkpoints/controller2.pt", "C", "python 05_train_controller.py --name controller2"),
    ("a/x_evolution.npz", "evolution", "python 05_train_controller.py --name x --checkpoints a"),
    ("data/imitation/x/round_003.npz", "imitation round", "python 05_train_controller.py --name x"),
    ("checkpoints/results/latest.json", "report", "python 06_evaluate.py"),
    ("a/results/latest2.json", "report", "python 06_evaluate.py --name latest2 --checkpoints a"),
    ("a/vae_training.pt", "training state", "the same command again"),
])  # fmt: skip
def test_a_missing_file_is_made_by_the_command_that_writes_it_there(path, kind, command):
    assert artifacts.remedy(path, kind, missing=True) == f"run {command}"


def test_a_file_beside_a_folder_bears_its_name_however_the_folder_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in "data/x", "data/x/", Path("data/x"):
        assert artifacts.beside(folder, ".csv") == Path("data/x.csv")
    assert artifacts.beside(".", ".png") == tmp_path.with_name(tmp_path.name + ".png")


def test_an_unsound_file_is_deleted_first_where_its_stage_would_not_replace_it():
    assert artifacts.remedy("a/vae.pt", "V").startswith("run python 02")
    assert artifacts.remedy("a/x.npz", "latents").startswith("delete it and run python 03")
    assert artifacts.remedy("data/imitation/x/round_003.npz", "imitation round") == "delete it"


def test_a_header_may_grow_as_long_as_a_search_does(tmp_path):
    rows = [{"generation": i, "mean": i / 7} for i in range(400_000)]
    artifacts.save_arrays(tmp_path / "x.npz", "evolution", arrays(), history=rows)
    assert artifacts.load_header(tmp_path / "x.npz", "evolution")["history"][-1] == rows[-1]


def test_what_another_process_removes_meanwhile_stands_in_nobodys_way(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    artifacts.save_arrays(path, "rollout", arrays())
    monkeypatch.setattr(artifacts, "files", lambda folder: [path])
    path.unlink()
    artifacts.demand_writable({tmp_path / "*.npz": "latents"})
    assert artifacts.kind_of(path) == ""


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


def test_sweep_removes_what_is_old_alone(tmp_path):
    old, new = tmp_path / ".x.tmp.0a.npz", tmp_path / ".y.tmp.0b.npz"
    mine = tmp_path / "z.tmp.999999999.pt"  # what a user may call a C
    for path in (old, new, mine):
        path.touch()
    hours_ago = time.time() - 7 * 3600
    for path in (old, mine):
        os.utime(path, (hours_ago, hours_ago))
    artifacts.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, mine]


def test_writers_with_equal_process_numbers_do_not_meet(tmp_path):
    path = tmp_path / "x.json"
    with artifacts.atomic_path(path) as one, artifacts.atomic_path(path) as other:
        one.write_text("one")
        other.write_text("other")
        artifacts.sweep(tmp_path)
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_that_somebody_removed_ends_in_a_sentence(tmp_path):
    def write():
        with artifacts.atomic_path(tmp_path / "x.json") as temporary:
            temporary.write_text("half")
            temporary.unlink()

    with pytest.raises(UserError, match=r"x\.json was removed while .*run the same command again"):
        write()


def test_hidden_and_half_written_files_are_not_listed(tmp_path):
    for name in ("b.npz", "a.npz", "._a.npz", ".b.tmp.0a.npz", "b.tmp.123.npz", "a.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in artifacts.files(tmp_path)] == ["a.npz", "b.npz"]
