"""Films come back as they were written, whole or not at all."""

import re
import sys

import imageio.v3 as iio
import numpy as np
import PIL.ImageSequence
import pytest

from utils.pictures import video
from utils.pictures.video import write_video
from utils.runtime.errors import UserError


def plain(colour, height=64, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def moving_square(count, height=96, width=128):
    for index in range(count):
        frame = plain((30, 60, 90), height, width)
        frame[40:72, 4 * index : 4 * index + 32] = (220, 40, 160)
        yield frame


def test_a_film_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "new folder" / "race.mp4"
    write_video(path, moving_square(20))
    film = iio.imread(path)
    assert film.shape == (20, 96, 128, 3)
    for shown, frame in zip(film, moving_square(20), strict=True):
        assert np.abs(shown.astype(int) - frame).mean() < 8
    assert iio.immeta(path)["fps"] == 50
    assert iio.immeta(path)["codec"] == "h264"
    assert "yuv420p" in iio.immeta(path)["pix_fmt"]


def test_colours_survive(tmp_path):
    path = tmp_path / "green.mp4"
    write_video(path, [plain((100, 200, 100), 720, 1280)] * 3)
    np.testing.assert_allclose(iio.imread(path).mean(axis=(0, 1, 2)), (100, 200, 100), atol=4)


def test_odd_sizes_become_even(tmp_path):
    path = tmp_path / "odd.mp4"
    write_video(path, [plain(200, 65, 99)] * 3)
    film = iio.imread(path)
    assert film.shape == (3, 66, 100, 3)
    np.testing.assert_allclose(film, 200, atol=6)


def failing_frames():
    yield from moving_square(5)
    raise RuntimeError("the race broke off")


@pytest.mark.parametrize(
    ("frames", "error", "words"),
    [
        (failing_frames, RuntimeError, "broke off"),
        (lambda: [], ValueError, "at least one"),
        (lambda: [plain(0), plain(0, 32, 32)], ValueError, "in a film of"),
        (lambda: [np.zeros((64, 64, 3))], ValueError, "uint8"),
        (lambda: [np.zeros((64, 64), np.uint8)], ValueError, "uint8"),
    ],
)
def test_a_failed_film_leaves_nothing_and_spares_the_old_one(tmp_path, frames, error, words):
    path = tmp_path / "race.mp4"
    path.write_bytes(b"the old film")
    with pytest.raises(error, match=words):
        write_video(path, frames())
    assert [p.name for p in tmp_path.iterdir()] == ["race.mp4"]
    assert path.read_bytes() == b"the old film"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_film_that_does_not_fit_on_the_disk_is_no_film(tmp_path):
    import resource

    noise = np.random.default_rng(0).integers(0, 256, (20, 96, 128, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"race\.mp4 .*\(File too large\)"):
            write_video(tmp_path / "race.mp4", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"race\.mp4"):
        write_video(tmp_path / "file" / "race.mp4", moving_square(3))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=r"folder\.mp4"):
        write_video(tmp_path / "folder.mp4", moving_square(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]


@pytest.mark.parametrize("folder", ["2024-05-01T12:30:00", "-dash", "file:x", "50%d"])
def test_a_folder_may_have_a_name_that_ffmpeg_would_read_otherwise(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    assert write_video(f"{folder}/-a.mp4", moving_square(3), f"{folder}/-a.gif")
    assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["-a.gif", "-a.mp4"]


def without_program(monkeypatch, tmp_path):
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)

    def get_ffmpeg_exe():
        raise RuntimeError("No ffmpeg exe could be found.\nInstall ffmpeg.")

    monkeypatch.setattr(video, "get_ffmpeg_exe", get_ffmpeg_exe)
    return r"ffmpeg does not start: No ffmpeg exe could be found\. Install ffmpeg"


def points_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    return r"ffmpeg does not start.*No such file .*nowhere"


def fails_in_silence(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    return r"ffmpeg: .*status 1\b"


def is_another_program(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/true")
    return r"ffmpeg: no film"


def lacks_the_encoder(monkeypatch, tmp_path):
    monkeypatch.setitem(video.OUTPUT, ".mp4", ("-c:v", "no_such_encoder"))
    return r"ffmpeg: .*Encoder not found"


@pytest.mark.skipif(sys.platform == "win32", reason="other programs there")
@pytest.mark.parametrize(
    "trouble",
    [without_program, points_nowhere, fails_in_silence, is_another_program, lacks_the_encoder],
)
def test_an_ffmpeg_that_makes_no_film_costs_one_sentence(tmp_path, monkeypatch, capsys, trouble):
    path = tmp_path / "films" / "race.mp4"
    path.parent.mkdir()
    path.write_bytes(b"the old film")
    reason = trouble(monkeypatch, tmp_path)
    assert not write_video(path, moving_square(30), path.with_suffix(".gif"))
    said = capsys.readouterr().out
    assert re.search(rf"race\.mp4 is left out \({reason}", said)
    assert said.count("\n") == 1
    assert "ermission" not in said
    assert "ermitted" not in said
    assert [p.name for p in path.parent.iterdir()] == ["race.mp4"]
    assert path.read_bytes() == b"the old film"


def test_the_moving_picture_is_the_film_at_true_speed_for_ever(tmp_path):
    picture = tmp_path / "pictures" / "race.gif"
    assert write_video(tmp_path / "race.mp4", moving_square(24, 720, 1280), picture)
    assert iio.imread(tmp_path / "race.mp4").shape == (24, 720, 1280, 3)
    shown = iio.imread(picture)
    assert shown.shape == (8, 360, 640, 3)  # every third frame, half as wide
    for small, frame in zip(shown, list(moving_square(24, 720, 1280))[1::3], strict=True):
        assert np.abs(small.astype(int) - frame[::2, ::2]).mean() < 8
    found = iio.immeta(picture)
    assert (found["duration"], found["loop"]) == (60, 0)


def test_the_moving_picture_of_a_long_race_ends_early(tmp_path):
    still = [plain(90, 16, 32)] * 1000
    write_video(tmp_path / "race.mp4", still, tmp_path / "race.gif")
    assert iio.improps(tmp_path / "race.mp4").shape[0] in (1000, float("inf"))
    with PIL.Image.open(tmp_path / "race.gif") as picture:
        lengths = [frame.info["duration"] for frame in PIL.ImageSequence.Iterator(picture)]
    assert 12_000 < sum(lengths) < 13_000


# Composed frames
