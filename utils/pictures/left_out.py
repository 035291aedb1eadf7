"""A picture that cannot be made costs one printed sentence, never the work that it shows."""

from pathlib import Path

from tqdm import tqdm


def leave_out(path: str | Path, error: Exception) -> None:
    """Say that the picture at `path` is left out, and why."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    tqdm.write(f"{path} is left out ({reason}); the work goes on without it.")
