"""What a user can mend: one type of error, and which of the system's errors are of that kind."""

import errno

_SYSTEM_TROUBLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO, errno.EMFILE,
}  # fmt: skip
_SHORTAGE = {errno.ENOMEM, errno.EAGAIN}  # no memory, no further process
_SHORTAGE_IN_WORDS = (  # Python's, PyTorch's, the loader's of a library
    "can't start new thread", "can't allocate memory", "failed to map segment",
)  # fmt: skip
_OURS = ("models", "utils")  # a module of these that is missing is a fault of the program
INSTALL = "pip install -r requirements.txt"


class UserError(Exception):
    """Something the user can mend: one sentence that names what is wrong and what mends it."""


def for_the_user(error: BaseException) -> str:
    """What an error that the user can mend has to say; "" for a fault of the program."""
    return str(error) if isinstance(error, UserError) else system_trouble(error) or _missing(error)


def system_trouble(error: BaseException) -> str:
    """One sentence on what only the user can mend, such as a full disk; "" for any other error."""
    number = error.errno if isinstance(error, OSError) else None
    in_words = isinstance(error, RuntimeError | ImportError)
    wordy = in_words and any(words in str(error) for words in _SHORTAGE_IN_WORDS)
    if isinstance(error, MemoryError) or wordy or number in _SHORTAGE:
        return (
            "the system gives no more memory, processes or threads "
            f"({str(error) or type(error).__name__}); close other programs or use fewer workers "
            "(--workers), and run the same command again."
        )
    if not isinstance(error, OSError) or number not in _SYSTEM_TROUBLE:
        return ""
    path = error.filename2 or error.filename  # the second one is where a file was to go
    where = f" at {path}" if path else ""
    return f"{error.strerror}{where}; mend that and run the same command again."


def first_cause(error: BaseException) -> BaseException:
    """The error that all the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _missing(error: BaseException) -> str:
    """One sentence on a library that is not there or does not load; "" for any other error."""
    error = first_cause(error)  # Gymnasium and NumPy wrap it in pages of advice
    library = (getattr(error, "name", None) or "").split(".")[0]
    if not isinstance(error, ImportError) or library in _OURS:
        return ""
    without_desktop = " (without a desktop: opencv-python-headless)" if library == "cv2" else ""
    return f"a library is missing: {error}; {INSTALL}{without_desktop}."
