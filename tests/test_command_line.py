"""Constants as flags, and errors as sentences."""

import subprocess
import sys

import pytest

from utils.runtime.command_line import (
    choice,
    film_name,
    folder,
    number,
    settings,
    stage_command,
    whole,
    word,
)
from utils.runtime.errors import UserError

EPOCHS = 3  # times that every frame is seen
RATE = 0.5  # of learning
START = "zeros"  # or imitation
FILM = "none"  # or its name
FOLDER = "data"  # where
NAME = "run"  # of it


def read(*argv: str):
    return settings(
        globals(), list(argv), EPOCHS=whole(1), RATE=number(0, 1), START=choice("zeros", "ones"),
        FILM=film_name(), FOLDER=folder(), NAME=word(),
    )  # fmt: skip


def test_constants_are_the_defaults_and_flags_override_them():
    s = read("--epochs", "7", "--film", "a.mp4")
    assert (s.EPOCHS, s.RATE, s.START, s.FILM) == (7, 0.5, "zeros", "a.mp4")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--epochs", "ten"], "EPOCHS .*whole number of at least 1, not 'ten'"),
        (["--epochs", "0"], "EPOCHS .*whole number of at least 1, not .0."),
        (["--epochs", "1.5"], "EPOCHS"),
        (["--rate", "nan"], "RATE .*from 0 to 1, not .nan."),
        (["--rate", "2"], "RATE"),
        (["--start", "twos"], "START .*one of zeros, ones, not 'twos'"),
        (["--film", "lap.gif"], "FILM .*ends in .mp4, or .none., not 'lap.gif'"),
        (["--film", "../lap.mp4"], "FILM"),
        (["--folder", __file__], "FOLDER .*no file may stand in its place"),
        (["--folder", __file__ + "/below"], "FOLDER"),
        (["--name", "../x"], "NAME .*plain name"),
        (["--name", "x" * 101], "NAME .*at most 100"),
        (["--epoch", "1"], "unrecognized"),
        (["stray"], "unrecognized"),
        (["--epochs"], "expected one argument"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(flags, complaint):
    with pytest.raises(UserError, match=complaint):
        read(*flags)


@pytest.mark.parametrize("value", ["many", 0, 2.5, None])
def test_a_constant_edited_to_nonsense_is_refused_too(value):
    broken = {**globals(), "EPOCHS": value}
    with pytest.raises(UserError, match=rf"^EPOCHS \(--epochs\) must be .*, not '{value}'\.$"):
        settings(broken, [], EPOCHS=whole(1))


def test_a_link_to_nowhere_is_no_folder(tmp_path):
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "not mounted", target_is_directory=True)
    for path in (link, link / "rollouts"):
        with pytest.raises(UserError, match=r"FOLDER .*link to nowhere"):
            read("--folder", str(path))
    (tmp_path / "not mounted").mkdir()
    assert read("--folder", str(link)).FOLDER.endswith("data")


def test_values_have_the_type_of_their_check():
    s = read("--rate", "1")
    assert (type(s.EPOCHS), type(s.RATE), type(s.NAME)) == (int, float, str)


def test_help_gives_the_reasons(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--help")
    assert stop.value.code == 0
    assert "times that every frame is seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("raise UserError('no data; run 01.')", 2, "x.py: no data; run 01.\n"),
        ("raise KeyboardInterrupt", 130, "stopped; "),
        ("raise OSError(errno.ENOSPC, 'No space left on device')", 2, "No space left on device"),
        ("raise ZeroDivisionError", 1, "Traceback"),
    ],
)
def test_run_turns_errors_into_a_sentence_and_a_status(tmp_path, body, status, said):
    script = tmp_path / "x.py"
    script.write_text(
        "from utils.runtime.start import run\nimport errno\n"
        "from utils.runtime.errors import UserError\n"
        f"def main():\n    {body}\nrun(main)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env={"PYTHONPATH": "."}
    )
    assert done.returncode == status
    assert said in done.stderr
    assert ("Traceback" in done.stderr) == (status == 1)


def test_the_next_command_says_what_is_not_as_usual():
    assert stage_command("06_evaluate", checkpoints="checkpoints") == "python 06_evaluate.py"
    said = stage_command(
        "04_train_mdn_rnn", drives="32", own_latents="my latents", checkpoints="a/b"
    )
    flags = "--drives 32 --own-latents 'my latents' --checkpoints a/b"
    assert said == f"python 04_train_mdn_rnn.py {flags}"
