"""Finding files, and writing them so that nobody sees half of one."""

import json
import os
import time
from pathlib import Path

import pytest

from utils.runtime.errors import UserError
from utils.storage import artifacts, files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    artifacts.save_json(path, {"kind": "report", "n": "old"})

    def fail():
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert json.loads(path.read_text())["n"] == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_beside_a_folder_bears_its_name_however_the_folder_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in "data/x", "data/x/", Path("data/x"):
        assert files.beside(folder, ".csv") == Path("data/x.csv")
    assert files.beside(".", ".png") == tmp_path.with_name(tmp_path.name + ".png")


def test_sweep_removes_what_is_old_alone(tmp_path):
    old, new = tmp_path / ".x.tmp.0a.npz", tmp_path / ".y.tmp.0b.npz"
    mine = tmp_path / "z.tmp.999999999.pt"  # what a user may call a C
    for path in (old, new, mine):
        path.touch()
    hours_ago = time.time() - 7 * 3600
    for path in (old, mine):
        os.utime(path, (hours_ago, hours_ago))
    files.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, mine]


def test_writers_with_equal_process_numbers_do_not_meet(tmp_path):
    path = tmp_path / "x.json"
    with files.atomic_path(path) as one, files.atomic_path(path) as other:
        one.write_text("one")
        other.write_text("other")
        files.sweep(tmp_path)
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_that_somebody_removed_ends_in_a_sentence(tmp_path):
    def write():
        with files.atomic_path(tmp_path / "x.json") as temporary:
            temporary.write_text("half")
            temporary.unlink()

    with pytest.raises(UserError, match=r"x\.json was removed while .*run the same command again"):
        write()


def test_hidden_and_half_written_files_are_not_listed(tmp_path):
    for name in ("b.npz", "a.npz", "._a.npz", ".b.tmp.0a.npz", "b.tmp.123.npz", "a.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in files.files(tmp_path)] == ["a.npz", "b.npz"]
