"""How a script starts and ends. Every script imports this first, before any heavy library, so that
a missing library, and Ctrl-C while the others load, are told in one line."""

import importlib.util
import io
import os
import select
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from utils.runtime.errors import INSTALL, first_cause, for_the_user

LIBRARIES = (
    "Box2D", "cma", "cv2", "gymnasium", "imageio_ffmpeg", "matplotlib", "numpy", "pygame", "torch",
    "tqdm",
)  # fmt: skip
AGAIN_SECONDS = 0.05  # by then what was being tidied away is gone
READER_GONE = 128 + 13  # what a shell reports of a program that SIGPIPE has ended


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`: status 2 and one sentence on a user's error, 130 when stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # ± where the output is ASCII
    try:
        main()
    finally:
        sys.stdout.flush()  # here, where it is noticed that the reader has gone
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)  # all is done: there is nothing left to stop


def _end(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """`sys.excepthook`: leave in one line, unless the fault is the program's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
    if isinstance(first_cause(error), KeyboardInterrupt):  # a loading library may wrap it
        _leave("stopped; what is saved stays, and the same command goes on from there.", 130)
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        sys.exit(READER_GONE)
    if sentence := for_the_user(error):
        _leave(sentence, 2)
    sys.__excepthook__(kind, error, where)


def _stop_again(ignored: "sys.UnraisableHookArgs") -> None:
    """`sys.unraisablehook`: a Ctrl-C that came while an object was tidied away is not lost.

    Python ignores whatever is raised then, as in a callback of tqdm's bars when they end.
    """
    if ignored.exc_type is KeyboardInterrupt:
        threading.Timer(AGAIN_SECONDS, interrupt_main).start()
    else:
        sys.__unraisablehook__(ignored)


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed, as after `| head`; what is left goes nowhere."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream, 0)  # to hear of errors alone
    gone = [file for file, _ in poll.poll(0)]
    for file in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file)
    return bool(gone)


def _leave(sentence: str, status: int) -> None:
    print(f"{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    sys.exit(status)


sys.excepthook, sys.unraisablehook = _end, _stop_again
os.environ.pop("MPLBACKEND", None)  # matplotlib refuses to load with a notebook's; none is needed
for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:  # else the first file that is opened would be in its place
        setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open to the end)
if absent := [name for name in LIBRARIES if importlib.util.find_spec(name) is None]:
    _leave(f"libraries are missing ({', '.join(absent)}); {INSTALL}.", 2)
