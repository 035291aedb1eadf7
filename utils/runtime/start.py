"""How a script starts and ends. Every script imports this first, before any heavy library, so that
a missing library, and Ctrl-C while the others load, are told in one line."""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from utils.runtime.errors import for_the_user

OURS = ("models", "utils")  # a module of these that is missing is a fault of the program
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


def _end(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """`sys.excepthook`: leave in one line, unless the fault is the program's."""
    if isinstance(error, KeyboardInterrupt):
        _leave("stopped; what is saved stays, and the same command goes on from there.", 130)
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        sys.exit(READER_GONE)
    if sentence := for_the_user(error) or _missing(error):
        _leave(sentence, 2)
    sys.__excepthook__(kind, error, where)


def _missing(error: BaseException) -> str:
    """One sentence on a library that is not there or cannot be loaded; "" for any other error."""
    while error.__cause__ is not None:  # Gymnasium and NumPy wrap it in pages of advice
        error = error.__cause__
    library = (getattr(error, "name", None) or "").split(".")[0]
    if not isinstance(error, ImportError) or library in OURS:
        return ""
    without_desktop = " (without a desktop: opencv-python-headless)" if library == "cv2" else ""
    return f"a library is missing: {error}; pip install -r requirements.txt{without_desktop}."


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed, as after `| head`; what is left goes nowhere."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            gone = True
    return gone


def _leave(sentence: str, status: int) -> None:
    print(f"{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    sys.exit(status)


sys.excepthook = _end
os.environ.pop("MPLBACKEND", None)  # matplotlib refuses to load with a notebook's; none is needed
