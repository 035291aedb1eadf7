import os
import subprocess
import sys

import cv2
import matplotlib
import numpy as np
import pytest
import tiny
from matplotlib.figure import Figure

from utils.pictures import plots

RNG = np.random.default_rng(0)
BLUE, ORANGE, ROAD = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (
    plots.BLUE, plots.ORANGE, plots.ROAD,
))  # fmt: skip


def read(path):
    """The picture, (H, W, 3) RGB; nothing but it may lie in its folder."""
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return cv2.imread(str(path))[..., ::-1]


def amount(picture, colour):
    """How many pixels have (nearly) this colour."""
    return (np.abs(picture.astype(int) - colour).max(axis=2) < 12).sum()


def training_rows(count):
    return [
        {
            "epoch": e,
            "loss": 90 / e,
            "kl": 16.0,
            "val_loss": 95 / e,
            "val_kl": 16.5,
            "seconds": 60.0,
        }
        for e in range(1, count + 1)
    ]


def evolution_rows(count, every=5):
    rows = []
    for g in range(1, count + 1):
        row = {
            "generation": g, "frames": 60_000 * g, "mean": 9.0 * g, "best": 9.0 * g + 50,
            "laps": g / count, "sigma": 0.1, "core_hours": 0.03 * g,
        }  # fmt: skip
        if g % every == 0:
            row |= {"select_mean": 9.0 * g + 20, "select_sd": 30.0}
        rows.append(row)
    return rows


def a_lap(seed, score, missed=(0, 7)):
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    track = 150 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return {
        "seed": seed, "score": score, "frames": 1000, "tiles": 40, "total_tiles": 300,
        "track": track, "positions": track[:120] + 2, "missed": missed,
    }  # fmt: skip


# The machine


def test_nothing_on_the_machine_stops_or_changes_a_picture(tmp_path):
    rows = [{"epoch": 1, "loss": 2.0}]
    plots.training_curves(tmp_path / "ours.png", rows, "V")
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    (work / "matplotlibrc").write_text("text.usetex: True\naxes.facecolor: black\n")
    (home / "matplotlibrc").write_bytes(b"font.family: caf\xe9\n")
    draw = f"from utils.pictures import plots; plots.training_curves('theirs.png', {rows}, 'V')"
    machine = {"MPLBACKEND": "module://not_here.backend", "MATPLOTLIBRC": str(home)}
    machine |= {"PYTHONPATH": str(tiny.ROOT)}
    subprocess.run([sys.executable, "-c", draw], cwd=work, check=True, env=os.environ | machine)
    assert (work / "theirs.png").read_bytes() == (tmp_path / "ours.png").read_bytes()


def test_settings_made_before_a_picture_neither_change_it_nor_are_changed(tmp_path):
    plots.worst_laps(tmp_path / "map.png", [a_lap(1, 400.0)])
    ours = read(tmp_path / "map.png")
    theirs = {"text.usetex": True, "figure.dpi": 30, "axes.facecolor": "black"}
    with matplotlib.rc_context(theirs):
        plots.worst_laps(tmp_path / "map.png", [a_lap(1, 400.0)])
        assert theirs.items() <= dict(matplotlib.rcParams).items()
    assert (read(tmp_path / "map.png") == ours).all()


def test_a_picture_that_cannot_be_drawn_costs_one_sentence(tmp_path, monkeypatch, capsys):
    path = tmp_path / "v.png"
    path.write_bytes(b"the old picture")

    def savefig(*_, **__):
        raise RuntimeError("no such\nfont")

    monkeypatch.setattr(Figure, "savefig", savefig)
    plots.training_curves(path, training_rows(3), "V")
    said = capsys.readouterr().out
    assert "v.png is left out (no such font)" in said
    assert said.count("\n") == 1
    assert path.read_bytes() == b"the old picture"


def test_a_picture_that_finds_no_room_is_the_machines_trouble(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write(b"a picture"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        plots.training_curves(tmp_path / "file" / "v.png", training_rows(3), "V")


# Frames and latents


def test_reconstructions_show_every_pair(tmp_path):
    frames = np.stack(
        [np.full((64, 64, 3), (20 * i, 0, 255 - 20 * i), np.uint8) for i in range(12)]
    )
    plots.reconstructions(tmp_path / "pairs.png", frames, 255 - frames)
    picture = read(tmp_path / "pairs.png")
    assert picture.shape[1] > 3 * picture.shape[0]
    for index in range(12):
        for image in (frames[index], 255 - frames[index]):
            assert amount(picture, image[0, 0]) > 1000


@pytest.mark.parametrize(
    ("frames", "decoded"),
    [
        (np.zeros((3, 64, 64, 3), np.uint8), np.zeros((2, 64, 64, 3), np.uint8)),
        (np.zeros((0, 64, 64, 3), np.uint8), np.zeros((0, 64, 64, 3), np.uint8)),
        (np.zeros((3, 64, 64, 3), np.uint8), np.zeros((3, 64, 64, 3), np.float32)),
    ],
)
def test_frames_that_do_not_pair_up_are_refused(tmp_path, frames, decoded):
    with pytest.raises(ValueError, match=r"frames|images"):
        plots.reconstructions(tmp_path / "pairs.png", frames, decoded)
    assert not list(tmp_path.iterdir())


def test_the_contact_sheet_has_a_row_for_each_race(tmp_path):
    colours = [(240, 20, 20), (20, 240, 20), (20, 20, 240)]
    races = [
        np.full((length, 64, 64, 3), colour, np.uint8)
        for length, colour in zip((40, 3, 200), colours, strict=True)
    ]
    plots.contact_sheet(tmp_path / "races.png", races)
    picture = read(tmp_path / "races.png")
    tops = [np.nonzero((picture == colour).all(axis=2).any(axis=1))[0].min() for colour in colours]
    assert tops == sorted(set(tops))
    shares = [amount(picture, colour) for colour in colours]
    assert max(shares) < 1.1 * min(shares)


def test_the_contact_sheet_goes_from_start_to_end(tmp_path):
    race = np.zeros((50, 64, 64, 3), np.uint8)
    race[0], race[-1] = (240, 20, 20), (20, 20, 240)
    plots.contact_sheet(tmp_path / "race.png", [race])
    picture = read(tmp_path / "race.png")
    assert amount(picture[:, :200], (240, 20, 20)) > 1000
    assert amount(picture[:, -200:], (20, 20, 240)) > 1000


@pytest.mark.parametrize("samples", [[], [np.zeros((0, 64, 64, 3), np.uint8)]])
def test_a_contact_sheet_of_nothing_is_refused(tmp_path, samples):
    with pytest.raises(ValueError, match="races"):
        plots.contact_sheet(tmp_path / "races.png", samples)
    assert not list(tmp_path.iterdir())


def test_latent_dimensions_that_vary_have_tall_bars(tmp_path):
    logvar = np.zeros((500, 32))
    plots.latent_distributions(tmp_path / "z.png", RNG.normal(0, 1, (500, 32)), logvar)
    used = read(tmp_path / "z.png")
    mu = RNG.normal(0, 1, (500, 32)) * (np.arange(32) < 2)
    plots.latent_distributions(tmp_path / "z.png", mu, logvar)
    assert amount(used, BLUE) > 5 * amount(read(tmp_path / "z.png"), BLUE)


@pytest.mark.parametrize("shapes", [((5, 32), (5, 31)), ((0, 32), (0, 32)), ((5,), (5,))])
def test_latents_of_the_wrong_shape_are_refused(tmp_path, shapes):
    with pytest.raises(ValueError, match="mu"):
        plots.latent_distributions(tmp_path / "z.png", *map(np.zeros, shapes))
    assert not list(tmp_path.iterdir())


def test_training_and_validation_share_a_panel(tmp_path):
    plots.training_curves(tmp_path / "v.png", training_rows(8), "V")
    both = read(tmp_path / "v.png")
    assert amount(both, BLUE) > 300
    assert amount(both, ORANGE) > 300
    without = [{k: v for k, v in row.items() if "val" not in k} for row in training_rows(8)]
    plots.training_curves(tmp_path / "v.png", without, "V")
    alone = read(tmp_path / "v.png")
    assert alone.shape == both.shape, "a validation column has no panel of its own"
    assert amount(alone, BLUE) > 300
    assert amount(alone, ORANGE) == 0


def test_more_columns_take_more_panels(tmp_path):
    plots.training_curves(tmp_path / "v.png", training_rows(8), "V")
    two = read(tmp_path / "v.png")
    rows = [row | {"grad": 1.0, "lr": 0.1} for row in training_rows(8)]
    plots.training_curves(tmp_path / "v.png", rows, "V")
    four = read(tmp_path / "v.png")
    assert four.shape[0] > 1.5 * two.shape[0]
    height, width, _ = four.shape
    assert (four[int(0.6 * height) :, int(0.4 * width) :] == 255).all(), "two panels stay empty"


def test_a_single_epoch_is_seen(tmp_path):
    plots.training_curves(tmp_path / "v.png", training_rows(1), "V")
    picture = read(tmp_path / "v.png")
    assert amount(picture, BLUE) > 60


@pytest.mark.parametrize("rows", [[], [{"loss": 1.0}], [{"epoch": 1.0, "seconds": 5.0}]])
def test_a_log_without_its_columns_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="column"):
        plots.training_curves(tmp_path / "v.png", rows, "V")
    assert not list(tmp_path.iterdir())


def test_the_learning_curve_draws_ours(tmp_path):
    path = tmp_path / "curve.png"
    plots.learning_curve(path, evolution_rows(5, every=9))
    few = amount(read(path), BLUE)
    plots.learning_curve(path, evolution_rows(90))
    many = amount(read(path), BLUE)
    assert many > few + 1000


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, instead of files."""
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    return drawn


def test_the_learning_curve_draws_every_column_as_what_it_is(tmp_path, figures):
    rows = evolution_rows(6, every=3)
    plots.learning_curve(tmp_path / "curve.png", rows)
    score, search, sigma = figures[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in score.lines}

    def drawn(axes):
        return axes.lines[0].get_xydata().tolist()

    def points(name):
        return [[row["frames"], row[name]] for row in rows if name in row]

    assert lines["luckiest candidate, on its few tracks"] == points("best")
    assert lines["mean of candidates"] == points("mean")
    assert lines["their centre, on selection tracks (± sd)"] == points("select_mean")
    assert drawn(sigma) == points("sigma")
    assert drawn(search) == [point for point, row in zip(points("laps"), rows, strict=True)
                             if "select_mean" in row]  # fmt: skip


def test_a_score_near_the_end_counts_for_more_than_one_at_the_beginning(tmp_path, figures):
    plots.learning_curve(tmp_path / "curve.png", evolution_rows(90))
    height = figures[0].axes[0].transData.transform
    low, middle, high, highest = (height((1e6, y))[1] for y in (100, 110, 920, 930))
    assert highest - high > 5 * (middle - low) > 0


def test_a_curve_before_the_first_generation(tmp_path):
    row = {"frames": 5e5, "select_mean": 930.0, "select_sd": 7.0, "laps": 1.0, "sigma": 0.002}
    plots.learning_curve(tmp_path / "curve.png", [row])
    assert amount(read(tmp_path / "curve.png"), BLUE) > 20


@pytest.mark.parametrize("gap", [{}, {"select_mean": float("nan"), "select_sd": float("nan")}])
def test_a_curve_without_selection_yet(tmp_path, gap):
    rows = [row | gap for row in evolution_rows(4)]
    plots.learning_curve(tmp_path / "curve.png", rows)
    assert amount(read(tmp_path / "curve.png"), BLUE) > 300


@pytest.mark.parametrize("rows", [[], [{"generation": 1.0, "frames": 100.0}]])
def test_an_evolution_log_without_its_columns_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="column"):
        plots.learning_curve(tmp_path / "curve.png", rows)
    assert not list(tmp_path.iterdir())


def test_the_map_shows_road_trace_and_where_it_was_lost(tmp_path):
    path = tmp_path / "map.png"
    plots.worst_laps(path, [a_lap(1, 400.0)])
    lost = read(path)
    assert amount(lost, ROAD) > 3000
    assert amount(lost, BLUE) > 300
    assert amount(lost, ORANGE) > 100
    plots.worst_laps(path, [a_lap(1, 400.0, missed=())])
    assert amount(read(path), ORANGE) == 0


def test_the_map_keeps_the_five_worst(tmp_path):
    path = tmp_path / "map.png"
    good = [a_lap(seed, 900.0) for seed in range(7)]
    bad = [a_lap(seed, 100.0 + seed, missed=()) for seed in range(5)]
    plots.worst_laps(path, good + bad)
    picture = read(path)
    assert amount(picture, ORANGE) == 0, "only the good laps have a lost spot"
    plots.worst_laps(path, bad)
    assert (read(path) == picture).all()


@pytest.mark.parametrize("laps", [[], [a_lap(1, 1.0) | {"positions": np.zeros((0, 2))}]])
def test_a_map_of_nothing_is_refused(tmp_path, laps):
    with pytest.raises(ValueError, match=r"lap|points"):
        plots.worst_laps(tmp_path / "map.png", laps)
    assert not list(tmp_path.iterdir())
