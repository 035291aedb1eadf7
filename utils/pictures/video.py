"""Video files: frames in, an H.264 film and a moving picture out."""

import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-untyped]  # it has no types

from utils.pictures.drawing import as_image
from utils.pictures.left_out import leave_out
from utils.runtime.errors import UserError
from utils.simulator.envs import FPS
from utils.storage.files import atomic_path

# What ffmpeg makes of the frames, by the suffix of the file.
OUTPUT = {
    ".mp4": (
        # High-definition players assume BT.709 colours, ffmpeg by itself writes BT.601.
        "-vf", "scale=ceil(iw/2)*2:ceil(ih/2)*2:out_color_matrix=bt709:out_range=tv",
        "-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p", "-colorspace", "bt709",
        "-color_primaries", "bt709", "-color_trc", "bt709", "-movflags", "+faststart",
    ),
    ".gif": (
        # Below 3 MB: 12.5 seconds, every third frame, half as wide, few colours, no dither.
        "-vf", "trim=end=12.5,fps=50/3,scale=640:-1:flags=area,split[a][b];"
        "[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none:diff_mode=rectangle",
    ),
}  # fmt: skip
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the machine's trouble in ffmpeg's words


class FfmpegError(Exception):
    """ffmpeg is missing or failed; the message says why."""


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], moving: str | Path | None = None
) -> bool:
    """Write frames as an H.264 film that any player shows; the file appears whole or not at all.

    Where ffmpeg is missing or fails, a printed sentence says so and the work goes on.

    Args:
        path: ends in .mp4; an existing film is replaced.
        frames: each (H, W, 3) uint8, all of one size, 50 a second. H.264 wants even sizes: an odd
            one is stretched by a pixel.
        moving: ends in .gif; the same film again, shorter and smaller, for a page to play.

    Returns:
        Whether the film was made.

    Raises:
        ValueError: there are no frames, or one is not an image of the first one's size.
        UserError: the file cannot be written, because the disk is full or the like.
    """
    try:
        with ExitStack() as whole:
            _encode(frames, [whole.enter_context(atomic_path(p)) for p in (path, moving) if p])
    except FfmpegError as error:
        leave_out(path, error)
        return False
    except OSError as error:
        raise UserError(
            f"the film {path} cannot be written ({error.strerror}); mend that and run this again."
        ) from error
    return True


def _encode(frames: Iterable[np.ndarray], paths: list[Path]) -> None:
    """Pipe the frames to ffmpeg, and do not believe in its files before it reports success."""
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("a film needs at least one frame")
    shape = as_image(first, "a frame").shape
    with TemporaryFile() as report:
        ffmpeg = _ffmpeg(shape, paths, report)
        assert ffmpeg.stdin is not None
        try:
            for frame in chain([first], frames):
                if as_image(frame, "a frame").shape != shape:
                    raise ValueError(f"a frame of {frame.shape} in a film of {shape}")
                try:
                    ffmpeg.stdin.write(np.ascontiguousarray(frame).data)
                except BrokenPipeError:
                    break  # its status and its report tell more
        except BaseException:
            ffmpeg.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                ffmpeg.stdin.close()
            ffmpeg.wait()
        if ffmpeg.returncode != 0 or not all(path.exists() for path in paths):
            report.seek(0)
            said = report.read().decode(errors="replace")
            for code in NO_ROOM:
                if os.strerror(code) in said:
                    raise OSError(code, os.strerror(code))
            last = said.splitlines()[-1:] or [f"no film, and status {ffmpeg.returncode}"]
            raise FfmpegError(f"ffmpeg: {last[0]}")


def _ffmpeg(shape: tuple[int, ...], paths: list[Path], report: IO[bytes]) -> Popen[bytes]:
    """Start ffmpeg, which takes frames from its standard input; its errors go to `report`."""
    height, width, _ = shape
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{FPS}")
    try:
        command = [get_ffmpeg_exe(), "-v", "error", "-y", *raw, "-i", "pipe:0"]
        for path in paths:  # "file:", or a colon would name a protocol and a dash an option
            command += [*OUTPUT[path.suffix], f"file:{path}"]
        # With Python's own signals ffmpeg reports a file too large for the system; else it dies.
        return Popen(command, stdin=PIPE, stderr=report, restore_signals=False)
    except (OSError, RuntimeError) as error:
        raise FfmpegError(f"ffmpeg does not start: {error}") from error
