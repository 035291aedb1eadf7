"""Fixtures of the tests of the stages."""

import shutil
from types import SimpleNamespace

import pytest
import tiny
import torch
from stages import DREAMED, FLAGS


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which every stage has run, and what each of them said. Read only."""
    folder, said = tmp_path_factory.mktemp("project"), {}
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("utils.world_model.replay.DREAMED", DREAMED)
        for number, flags in FLAGS.items():
            if number == 6:
                tiny.save_c(folder / "checkpoints" / "straight_on.pt", tiny.STRAIGHT_ON)
            said[number] = tiny.stage(number, **flags)
    torch.set_num_threads(before)
    return SimpleNamespace(folder=folder, said=said)


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """The current folder is a copy of the finished one, to be changed at will."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("utils.world_model.replay.DREAMED", DREAMED)
    return folder
