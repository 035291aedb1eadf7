"""How scripts start and end: in one line, whatever is missing and whoever has gone."""

import ast
import errno
import os
import re
import signal
import subprocess
import sys

import pytest
from tiny import ROOT, SCRIPTS

from utils.runtime.errors import UserError, for_the_user

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes are POSIX's")

READER_GONE = 141  # as a shell reports what SIGPIPE has ended


def python(*words, **changes):
    """Run Python; returns its status, what it said and what it complained of."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **changes}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    done = subprocess.run([sys.executable, *map(str, words)], text=True, env=environment, **options)
    return done.returncode, done.stdout, done.stderr


def script(folder, body, preamble=""):
    """A script that starts as all do, with this `main`."""
    path = folder / "x.py"
    path.write_text(
        "from utils.runtime.start import run\nimport os, sys, time\n"
        f"{preamble}\ndef main():\n    {body}\nrun(main)\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def library(tmp_path):
    """A function that puts a library of this name and text in front of the real one."""

    def place(name, text):
        folder = tmp_path / "libraries" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(text, encoding="utf-8")
        return {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder.parent}"}

    return place


# Starting


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_starts_by_the_same_import(name):
    imports = [
        node for node in ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]  # fmt: skip
    assert imports[0].module == "utils.runtime.start"


@pytest.mark.parametrize("name", SCRIPTS)
def test_ctrl_c_while_the_libraries_load_is_one_line(name, library):
    interrupting = library("numpy", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    status, _, complaint = python(ROOT / f"{name}.py", env=interrupting)
    assert status == 130
    assert complaint == (
        f"{name}.py: stopped; what is saved stays, and the same command goes on from there.\n"
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_missing_libraries_are_named_before_anything_else(name):
    status, _, complaint = python("-S", ROOT / f"{name}.py")  # -S: without any package
    assert status == 2
    assert complaint.startswith(f"{name}.py: libraries are missing (Box2D, cma, cv2, gymnasium,")
    assert complaint.endswith("; pip install -r requirements.txt.\n")
    assert complaint.count("\n") == 1


def test_a_library_that_does_not_load_is_told_in_a_sentence(library):
    broken = library("cv2", 'raise ImportError("libGL.so.1: no such file", name="cv2")')
    status, _, complaint = python(ROOT / "03_encode_dataset.py", env=broken)
    assert status == 2
    assert "libGL.so.1" in complaint
    assert "opencv-python-headless" in complaint
    assert complaint.count("\n") == 1


def test_a_module_of_ours_that_is_missing_is_a_fault_of_the_program(tmp_path):
    status, _, complaint = python(script(tmp_path, "pass", "import utils.nowhere"))
    assert status == 1
    assert "Traceback" in complaint


def test_a_notebooks_backend_does_not_keep_matplotlib_from_loading(tmp_path):
    drawing = script(tmp_path, "import matplotlib; print('loaded')")
    status, said, complaint = python(drawing, env={"MPLBACKEND": "module://not.installed"})
    assert (status, said) == (0, "loaded\n"), complaint


# Ending


def test_what_ascii_cannot_say_is_still_said(tmp_path):
    plain = script(tmp_path, "print('934 ± 7 in \\udcff')")
    for encoding, said in (("ascii", "934 \\xb1 7"), ("utf-8", "934 ± 7")):
        status, out, _ = python(plain, env={"PYTHONIOENCODING": encoding}, encoding="utf-8")
        assert status == 0
        assert said in out


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_goes_away_ends_the_script_quietly(tmp_path, stream, flush):
    if stream == "stderr" and not flush:
        pytest.skip("stderr is never held back")
    body = f"[print('a line', flush={flush}, file=sys.{stream}) for _ in range(3)]"
    reading, writing = os.pipe()
    os.close(reading)
    status, *said = python(script(tmp_path, body), **{stream: writing})
    os.close(writing)
    assert status == READER_GONE
    assert not any(said)


def test_a_broken_pipe_of_another_kind_is_a_fault_of_the_program(tmp_path):
    status, _, complaint = python(script(tmp_path, "raise BrokenPipeError('to a helper')"))
    assert status == 1
    assert "Traceback" in complaint


@pytest.mark.parametrize("number", [1, 2])
def test_output_may_be_closed(tmp_path, number):
    body = f"print('out'); print('err', file=sys.stderr); open({str(tmp_path / 'x')!r}, 'w')"
    closed = script(tmp_path, body)
    status, *_ = python(closed, preexec_fn=lambda: os.close(number))
    assert status == 0
    assert (tmp_path / "x").read_text() == ""


def test_sigterm_ends_like_ctrl_c(tmp_path):
    body = f"os.kill(os.getpid(), {int(signal.SIGTERM)}); time.sleep(60)"
    status, _, complaint = python(script(tmp_path, body))
    assert status == 130
    assert complaint.startswith("x.py: stopped; ")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stop_that_comes_while_an_object_is_tidied_away_is_not_lost(tmp_path, number):
    tidying = (
        "import signal\nclass Bar:\n    def __del__(self):\n"
        f"        signal.raise_signal(signal.{number})\n        time.sleep(0)\n"
    )
    body = "Bar(); time.sleep(20); print('went on')"
    status, said, complained = python(script(tmp_path, body, tidying))
    assert (status, said) == (130, "")
    assert complained.count("\n") == 1


def test_a_ctrl_c_that_a_library_wraps_is_still_one(tmp_path):
    wrapped = "raise ImportError('initialization failed') from KeyboardInterrupt()"
    status, _, complaint = python(script(tmp_path, wrapped))
    assert status == 130
    assert complaint.count("\n") == 1


def test_a_second_ctrl_c_adds_nothing(tmp_path):
    again = "import atexit, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    status, _, complaint = python(script(tmp_path, "raise KeyboardInterrupt", again))
    assert status == 130
    assert complaint.count("\n") == 1


# Which errors are the user's


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("no data; run 01."), "no data; run 01."),
        (MemoryError("Unable to allocate 11.7 MiB"), "gives no more memory, .*11.7 MiB"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("can't start new thread"), "fewer workers"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "gives no more memory"),
        (ImportError("cv2.abi3.so: failed to map segment"), "gives no more memory"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "fewer workers"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npz"), "left on device at a.npz"),
        (ModuleNotFoundError("No module named 'pygame'", name="pygame"), "'pygame'; pip install"),
    ],
)
def test_what_the_user_can_mend_is_a_sentence(error, said):
    assert re.search(said, for_the_user(error))
    assert "\n" not in for_the_user(error)


def test_a_library_wrapped_in_anothers_advice_is_still_named():
    error = RuntimeError("pages of advice")
    error.__cause__ = ModuleNotFoundError("No 'Box2D'", name="Box2D")
    assert "No 'Box2D'; pip install" in for_the_user(error)


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("x"), OSError(errno.EBADF, "x")])
def test_a_fault_of_the_program_is_not_the_users(error):
    assert for_the_user(error) == ""
