"""What a user can mend: one type of error, and which of the system's errors are of that kind."""

import errno

_SYSTEM_TROUBLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO, errno.EMFILE, errno.ENOMEM,
}  # fmt: skip


class UserError(Exception):
    """Something the user can mend: one sentence that names what is wrong and what mends it."""


def system_trouble(error: OSError) -> str:
    """One sentence on what only the user can mend, such as a full disk; "" for any other error."""
    if error.errno not in _SYSTEM_TROUBLE:
        return ""
    path = error.filename2 or error.filename  # the second one is where a file was to go
    where = f" at {path}" if path else ""
    return f"{error.strerror}{where}; mend that and run the same command again."


def raise_if_of_the_machine(error: Exception) -> None:
    """Raise as an OSError what is the machine's fault, such as a lack of memory, and no file's.

    PyTorch's allocator raises a plain RuntimeError.
    """
    if isinstance(error, OSError) and system_trouble(error):
        raise error
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        raise OSError(errno.ENOMEM, "Memory is short") from error
