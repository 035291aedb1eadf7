"""What the frames of the films show."""

import numpy as np
import pytest

from utils.pictures import film
from utils.pictures.film import dream_frame, race_frame, replay_frame

FORWARD = np.array([0.0, 0.5, 0.0], np.float32)


def plain(colour, height=64, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def a_race_frame(**changed):
    settings = {
        "race": plain((100, 200, 100), 400, 600),
        "seen": plain((250, 0, 0)),
        "reconstruction": plain((0, 250, 0)),
        "expected": plain((0, 0, 250)),
        "action": FORWARD,
        "score": 12.5,
        "frame_number": 10,
        "tiles": 7,
        "total_tiles": 300,
    }
    return race_frame(**(settings | changed))


def changed_box(before, after):
    """Left, right, top and bottom of what differs."""
    rows, columns = np.nonzero((before != after).any(axis=2))
    return columns.min(), columns.max(), rows.min(), rows.max()


# Files


def test_a_race_frame_shows_the_race_and_three_thumbnails():
    frame = a_race_frame()
    assert frame.shape == (720, 1280, 3)
    assert frame.dtype == np.uint8
    assert (frame[320, 500] == (100, 200, 100)).all()
    x = 1160
    assert (frame[150, x] == (250, 0, 0)).all()
    assert (frame[375, x] == (0, 250, 0)).all()
    assert (frame[600, x] == (0, 0, 250)).all()


def test_the_races_own_bar_is_cut_off():
    race = plain((100, 200, 100), 400, 600)
    race[350:] = (255, 0, 255)
    frame = a_race_frame(race=race)
    assert not (frame == (255, 0, 255)).all(axis=2).any()


def test_steering_moves_its_bar_to_its_side():
    straight = a_race_frame()
    left, right = (
        a_race_frame(action=np.array([steer, 0.5, 0.0], np.float32)) for steer in (-0.8, 0.8)
    )
    bar = slice(674, 694)  # below the written numbers
    middle = 657
    from_x, to_x, *_ = changed_box(straight[bar], left[bar])
    assert from_x < middle - 60
    assert to_x <= middle + 8
    from_x, to_x, *_ = changed_box(straight[bar], right[bar])
    assert from_x >= middle - 8
    assert to_x > middle + 60


def test_gas_and_brake_move_their_own_bars():
    idle, gas, brake = (
        a_race_frame(action=np.array(action, np.float32))
        for action in ((0, 0, 0), (0, 1, 0), (0, 0, 1))
    )
    left, right, top, _ = changed_box(idle, gas)
    assert left > 770
    assert right < 905
    assert top > 616
    left, right, top, _ = changed_box(idle, brake)
    assert left > 910
    assert right < 1045
    assert top > 616


def test_a_longer_bar_for_a_stronger_action():
    def green(gas):
        frame = a_race_frame(action=np.array([0, gas, 0], np.float32))[674:694]
        return (frame.astype(int) @ (-1, 2, -1) > 100).sum()

    assert 0 == green(0.0) < green(0.25) < green(0.5) < green(1.0)


def test_actions_out_of_range_are_drawn_as_the_limit():
    beyond, limit = (
        a_race_frame(action=np.array(action, np.float32)) for action in ((-3, 7, -1), (-1, 1, 0))
    )
    assert (beyond == limit).all()


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        ({"score": -3.0}, (24, 160)),
        ({"frame_number": 999}, (160, 410)),
        ({"tiles": 123}, (410, 560)),
        ({"total_tiles": 251}, (410, 560)),
    ],
)
def test_each_number_has_its_place(change, columns):
    left, right, top, _ = changed_box(a_race_frame(), a_race_frame(**change))
    assert columns[0] <= left
    assert right < columns[1]
    assert top > 616


def test_the_longest_numbers_fit():
    wide = a_race_frame(score=-1000.0, frame_number=1000, tiles=366, total_tiles=366)
    assert (wide[660:700, 542:560] == wide[2, 2]).all()
    time_over = a_race_frame(score=-1000.0)
    assert (time_over[660:700, 152:160] == wide[2, 2]).all()


def test_frames_do_not_share_their_pixels():
    full = np.array([1, 1, 1], np.float32)
    for first, second in (
        (lambda: a_race_frame(), lambda: a_race_frame(score=900.0, action=full)),
        (
            lambda: replay_frame(plain(9), plain(9), 1, FORWARD, 50, "2 s", (1.5, 2.5)),
            lambda: replay_frame(plain(90), plain(90), 99, full, 50, "2 s", (3.5, 4.5)),
        ),
    ):
        frame = first()
        before = frame.copy()
        second()
        assert (frame == before).all()
        assert (first() == before).all()


def test_a_replay_watches_then_dreams():
    real, dream = plain((200, 100, 0)), plain((0, 100, 200))
    watching = replay_frame(real, dream, 49, FORWARD, 50, "2 s", (1.5, 2.5))
    dreaming = replay_frame(real, dream, 50, FORWARD, 50, "2 s", (1.5, 2.5))
    assert watching.shape == dreaming.shape == (640, 960, 3)
    assert (watching[300, 240] == (200, 100, 0)).all()
    assert (watching[300, 720] == (0, 100, 200)).all()
    left, *_ = changed_box(watching[:60], dreaming[:60])
    assert left >= 490
    still = replay_frame(real, dream, 48, FORWARD, 50, "2 s", (1.5, 2.5))
    assert (watching[:60] == still[:60]).all()
    assert (watching[560:] != still[560:]).any()


def a_dream_frame(**changed):
    settings = {
        "dream": plain((200, 100, 0), 400, 600),
        "real": plain((0, 100, 200), 400, 600),
        "dreamt": [1.0] * 40,
        "driven": [2.0] * 40,
        "end_probability": 0.01,
        "temperature": 1.0,
    }
    return dream_frame(**(settings | changed))


def test_the_dream_stands_beside_the_race():
    frame = a_dream_frame()
    assert frame.shape == (720, 1280, 3)
    assert (frame[240, 320] == (200, 100, 0)).all()
    assert (frame[240, 960] == (0, 100, 200)).all()


@pytest.mark.parametrize(
    ("change", "columns", "rows"),
    [
        ({"end_probability": 0.999}, (400, 524), (446, 490)),
        ({"temperature": 0.25}, (520, 640), (446, 490)),
        ({"dreamt": [1.0] * 39 + [1.5]}, (20, 1260), (446, 704)),
        ({"driven": [2.0] * 39 + [2.5]}, (20, 1260), (446, 704)),
        ({"dreamt": [3.0] * 1000, "driven": [3.0] * 1000}, (20, 1260), (446, 704)),
        ({"dreamt": [-9.0] * 1000}, (20, 1260), (446, 704)),
    ],
)
def test_what_m_expects_has_its_place_below(change, columns, rows):
    left, right, top, bottom = changed_box(a_dream_frame(), a_dream_frame(**change))
    assert columns[0] <= left <= right < columns[1]
    assert rows[0] <= top <= bottom < rows[1]


def test_more_reward_is_a_higher_curve():
    def height(rewards):
        violet = (a_dream_frame(dreamt=rewards)[530:, 652:] == film.VIOLET).all(2)
        return np.nonzero(violet)[0].min()

    assert height([3.0] * 300) < height([2.0] * 300) < height([1.0] * 300)


def test_without_tiles_none_are_counted():
    dreamt, raced = a_race_frame(tiles=0, total_tiles=0), a_race_frame(tiles=0)
    left, right, *_ = changed_box(dreamt, raced)
    assert 410 <= left <= right < 560


def test_images_that_are_none_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        a_race_frame(seen=np.zeros((64, 64, 3), np.float32))
    with pytest.raises(ValueError, match="race"):
        a_race_frame(race=np.zeros((400, 600), np.uint8))
