"""What may be replaced, and what stands in the way."""

import os
import time

import numpy as np
import pytest
import torch

from utils.runtime.errors import UserError
from utils.storage import artifacts, files, outputs
from utils.storage.logs import write_log


def test_what_could_not_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("/not/mounted")
    fine = {tmp_path / "y.csv": "log by seed", tmp_path / "new" / "z.csv": "log by seed"}
    outputs.prepare(fine)
    for name, sentence in (
        ("x.csv", r"x\.csv is a folder .*move it away"),
        ("gone", "gone is a link that leads nowhere"),
        ("gone/x.csv", "gone is read-only or no folder"),
        ("file/x.csv", "file is read-only or no folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            outputs.prepare(fine | {tmp_path / name: "log by seed"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "gone", "x.csv"]


def save_of_each_kind(folder):
    """What a file of each kind looks like: name -> kind."""
    artifacts.save_arrays(folder / "a.npz", "rollout", {"a": np.zeros(9)})
    artifacts.save_arrays(folder / "b.npz", "latents", {"a": np.zeros(9)})
    artifacts.save_tensors(folder / "c.pt", "V", {"w": torch.zeros(3)})
    artifacts.save_tensors(folder / "d.pt", "C", {"w": torch.zeros(3)})
    artifacts.save_json(folder / "e.json", {"kind": "report"})
    write_log(folder / "f.csv", ("epoch", "loss"), [])
    write_log(folder / "g.csv", ("seed", "score"), [])
    (folder / "h.png").write_bytes(b"\x89PNG\r\n" + bytes(50))
    (folder / "i.mp4").write_bytes(bytes(4) + b"ftypisom" + bytes(50))
    (folder / "j.gif").write_bytes(b"GIF89a" + bytes(50))
    (folder / "k.html").write_bytes(outputs.MARKS[".html"][2] + b"\n<html>")
    kinds = ["rollout", "latents", "V", "C", "report", "log by epoch", "log by seed", "picture",
             "film", "moving picture", "page"]  # fmt: skip
    return dict(zip(sorted(path.name for path in folder.iterdir()), kinds, strict=True))


def test_only_a_file_of_the_same_kind_is_replaced(tmp_path):
    kinds = save_of_each_kind(tmp_path)
    for name, kind in kinds.items():
        outputs.prepare({tmp_path / name: kind})
        for other in set(kinds.values()) - {kind}:
            with pytest.raises(UserError, match=f"{name} is no {other} file.* move it away"):
                outputs.prepare({tmp_path / name: other})
    folder = tmp_path / "*.npz"
    with pytest.raises(UserError, match=r"a\.npz is no latents file"):
        outputs.prepare({folder: "latents"})
    (tmp_path / "a.npz").rename(tmp_path / "._a.npz")
    outputs.prepare({folder: "latents"})


def test_what_others_made_is_not_replaced_and_what_is_damaged_is(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    torch.save(torch.nn.Linear(1, 1), tmp_path / "whole.pt")  # a pickle that is not read
    torch.save({"weights": 1}, tmp_path / "weights.pt")
    for name in ("x.json", "y.png", "y.gif", "y.mp4", "y.html", "y.csv", "y.npz", "y.pt", "y.json"):
        (tmp_path / name).write_text('{"a": 1}' if name == "x.json" else "notes, of mine")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=f"{path.name} is no V file"):
            outputs.prepare({path: "V"})
    ours = tmp_path / "v.pt"
    artifacts.save_tensors(ours, "M", {"w": torch.zeros(300)})
    for contents in (ours.read_bytes()[:-50], b""):
        ours.write_bytes(contents)
        outputs.prepare({ours: "V"})


def test_a_name_that_differs_in_case_alone_is_refused_on_any_disk(tmp_path):
    artifacts.save_tensors(tmp_path / "controller.pt", "C", {"w": torch.zeros(3)})
    with pytest.raises(UserError, match=r"controller\.pt differs from .*Controller\.pt"):
        outputs.prepare({tmp_path / "Controller.pt": "C"})


def test_what_another_process_removes_meanwhile_stands_in_nobodys_way(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    artifacts.save_arrays(path, "rollout", {"a": np.zeros(9)})
    monkeypatch.setattr(outputs, "files", lambda folder: [path])
    path.unlink()
    outputs.prepare({tmp_path / "*.npz": "latents"})
    assert outputs.kind_of(path) == ""


def test_what_killed_writers_left_of_the_outputs_is_removed(tmp_path):
    long_ago = time.time() - files.OLD - 1
    names = (".c.tmp.0a.pt", ".d.tmp.0a.pt", "r/.any.tmp.0a.npz")
    (tmp_path / "r").mkdir()
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (long_ago, long_ago))
    outputs.prepare({tmp_path / "c.pt": "C", tmp_path / "r" / "*.npz": "rollout"})
    assert [name for name in names if (tmp_path / name).exists()] == [".d.tmp.0a.pt"]
