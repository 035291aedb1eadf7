"""What mends a file follows from its kind."""

from pathlib import Path

import pytest

from utils.runtime.errors import UserError
from utils.storage import artifacts, remedies


def test_a_missing_file_is_said_to_be_looked_for_elsewhere_than_in_the_project(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        artifacts.load_tensors("checkpoints/vae.pt", "V")
    assert f"missing in {tmp_path}" in str(error.value)
    assert f"cd {remedies.ROOT}" in str(error.value)
    monkeypatch.chdir(remedies.ROOT)
    with pytest.raises(UserError, match=r"x\.pt \(the C\) is missing; run .*05.*--name x\.$"):
        artifacts.load_tensors("checkpoints/x.pt", "C")


@pytest.mark.parametrize(("path", "kind", "command"), [
    ("data/rollouts/x.npz", "rollout", "python 01_collect_rollouts.py"),
    ("data/rollouts", "rollout", "python 01_collect_rollouts.py"),
    ("mine/x.npz", "rollout", "python 01_collect_rollouts.py --rollouts mine"),
    ("checkpoints/vae.pt", "V", "python 02_train_vae.py"),
    ("my runs/vae.pt", "V", "python 02_train_vae.py --checkpoints 'my runs'"),
    ("a/b", "latents", "python 03_encode_dataset.py --latents a/b"),
    ("data/latents/x.npz", "latents", "python 03_encode_dataset.py"),
    ("data/latents/mirrored/x.npz", "latents", "python 03_encode_dataset.py"),
    ("data/dream/latents/mirrored", "latents",
     "python 03_encode_dataset.py --latents data/dream/latents --rollouts data/dream/rollouts"),
    ("a/mdn_rnn.pt", "M", "python 04_train_mdn_rnn.py --checkpoints a"),
    ("a/starts.npz", "starts", "python 04_train_mdn_rnn.py --checkpoints a"),
    ("checkpoints/controller.pt", "C", "python 05_train_controller.py"),
    ("checkpoints/controller2.pt", "C", "python 05_train_controller.py --name controller2"),
    ("a/x_evolution.npz", "evolution", "python 05_train_controller.py --name x --checkpoints a"),
    ("data/imitation/x/round_003.npz", "imitation round", "python 05_train_controller.py --name x"),
    ("a/vae_training.pt", "training state", "the same command again"),
])  # fmt: skip
def test_a_missing_file_is_made_by_the_command_that_writes_it_there(path, kind, command):
    assert remedies.remedy(path, kind, missing=True) == f"run {command}"


def test_the_agents_own_drives_are_driven_again_by_the_agent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("data/dream/rollouts")
    folder.mkdir(parents=True)
    for name in ("agent_3.npz", "agent_4.npz"):
        (folder / name).touch()
    again = "delete it and run python 01_collect_rollouts.py --agent-episodes 2"
    assert remedies.remedy(folder / "agent_3.npz", "rollout") == again


def test_latents_of_another_v_are_encoded_by_the_v_at_hand():
    said = remedies.remedy("data/latents", "latents", missing=True, checkpoints="checkpoints/mine")
    assert said == "run python 03_encode_dataset.py --checkpoints checkpoints/mine"


def test_an_unsound_file_is_deleted_first_where_its_stage_would_not_replace_it():
    assert remedies.remedy("a/vae.pt", "V").startswith("run python 02")
    assert remedies.remedy("a/x.npz", "latents").startswith("delete it and run python 03")
    assert remedies.remedy("data/imitation/x/round_003.npz", "imitation round") == "delete it"
