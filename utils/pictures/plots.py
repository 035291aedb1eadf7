"""Pictures for the README and for the eye: each function draws one PNG, whole or not at all.

Figures are made without pyplot, so that nothing global changes and no display is needed, and in
matplotlib's own style, so that they look alike on every machine.
"""

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

# A notebook's backend that is not installed here, or settings not in UTF-8, would end the import.
os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.pictures.left_out import leave_out
from utils.storage.files import atomic_path

BLUE = "#2f6fde"
ORANGE = "#e8743b"
GREY = "#8b95a3"
INK = "#1f2630"
ROAD = "#c9d0d9"

ROAD_HALF_WIDTH = 6.67  # units, CarRacing's own
HIGHEST = 960  # score on a learning curve; no driver gets there
WORST = 5  # laps on one map
FRAMES_SHOWN = 12  # frames of a race on a contact sheet
GAP = 4  # pixels between two frames
LEAST_CHANCE = 1e-5  # of the end in a frame that a picture shows

# Whatever the machine's matplotlibrc asks for.
OUR_STYLE = rc_context(rcParamsDefault | {
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#d5dae1",
    "axes.grid": True, "grid.color": "#edf0f4", "axes.axisbelow": True,
    "xtick.color": GREY, "xtick.labelsize": 8, "xtick.major.size": 0, "xtick.minor.size": 0,
    "ytick.color": GREY, "ytick.labelsize": 8, "ytick.major.size": 0, "ytick.minor.size": 0,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "legend.frameon": False,
})  # fmt: skip

# Generation, frames and mean score of the search distribution's mean, from the figure of "World
# Models" (Ha and Schmidhuber, 2018): 64 candidates x 16 races x about 950 frames a generation.
PAPER = (
    (25, 2.5e7, 823.0),
    (50, 5e7, 868.0),
    (200, 2e8, 880.0),
    (625, 6.25e8, 895.0),
    (1800, 1.7e9, 900.5),
)


# Who learnt CarRacing from little real driving. DreamerV3 (NaturalDreamer's, on v3, means of ten
# episodes of training): frames, score. Dropout's Dream Land (Wellmer & Kwok, 2021; 5,120 episodes
# of another driver): the C with the best dream, and the best of 23 that were tried on the track.
DREAMER = ((2.4e5, 800.0), (4.9e5, 904.0))
DREAM_LAND = (
    (625.0, "Dropout's Dream Land, chosen in the dream"),
    (789.0, "Dropout's Dream Land, best of 23 on the track"),
)


@OUR_STYLE
def reconstructions(path: str | Path, frames: np.ndarray, decoded: np.ndarray) -> None:
    """Real frames over what V makes of them.

    Args:
        frames, decoded: (N, H, W, 3) uint8; 10 to 16 look best.
    """
    frames, decoded = np.asarray(frames), np.asarray(decoded)
    if frames.shape != decoded.shape or frames.ndim != 4 or not len(frames):
        raise ValueError(f"frames {frames.shape} and decoded {decoded.shape} do not pair up")
    if frames.dtype != np.uint8 or decoded.dtype != np.uint8:
        raise ValueError(f"images must be uint8, not {frames.dtype} and {decoded.dtype}")
    figure = Figure(figsize=(0.9 * len(frames) + 0.9, 1.95), layout="constrained")
    axes = _mosaic(figure, [frames, decoded])
    height = frames.shape[1]
    axes.set_yticks([height / 2, height * 1.5 + GAP], ["seen", "redrawn"], color=INK, size=10)
    _save(figure, path)


@OUR_STYLE
def contact_sheet(path: str | Path, samples: Sequence[np.ndarray]) -> None:
    """Moments of several races: a row for each, from its start to its end.

    Args:
        samples: the frames of each race, (T, H, W, 3) uint8; T may differ.
    """
    if not len(samples) or not all(len(frames) for frames in samples):
        raise ValueError("a contact sheet needs races, and every race a frame")
    rows = [frames[np.linspace(0, len(frames) - 1, FRAMES_SHOWN).astype(int)] for frames in samples]
    figure = Figure(figsize=(0.9 * FRAMES_SHOWN, 0.92 * len(rows)), layout="constrained")
    _mosaic(figure, rows)
    _save(figure, path)


@OUR_STYLE
def latent_distributions(path: str | Path, mu: np.ndarray, logvar: np.ndarray) -> None:
    """How V uses its latent dimensions, and whether they look like the standard normal.

    A dimension that carries something has a mu that varies and a small sigma; one that carries
    nothing has a constant mu and a sigma of 1.

    Args:
        mu, logvar: (N, Z).
    """
    mu, logvar = np.asarray(mu, float), np.asarray(logvar, float)
    if mu.shape != logvar.shape or mu.ndim != 2 or not mu.size:
        raise ValueError(f"mu {mu.shape} and logvar {logvar.shape} must both be (N, Z)")
    spread, sigma = mu.std(axis=0), np.exp(0.5 * logvar).mean(axis=0)
    order = np.argsort(-spread)
    place = np.arange(len(order))
    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    use, shape = figure.subplots(1, 2, width_ratios=(1.8, 1))
    use.bar(place, spread[order], color=BLUE, label="spread of mu")
    use.plot(place, sigma[order], "o", color=ORANGE, ms=4, label="mean sigma")
    use.set_xticks(place, order, fontsize=6)
    use.set_xlabel("latent dimension", fontsize=9)
    use.legend(fontsize=8)
    z = np.linspace(-4, 4, 81)
    shape.hist(mu.ravel(), bins=z, density=True, color=BLUE, alpha=0.5, label="every mu")
    shape.plot(z, np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi), color=GREY, label="standard normal")
    shape.legend(fontsize=8)
    _save(figure, path)


@OUR_STYLE
def training_curves(
    path: str | Path, rows: Sequence[Mapping[str, float]], title: str, x: str = "epoch"
) -> None:
    """One small panel for each column of a training log, its validation in the same axes.

    Args:
        rows: of the log; every column but `x` and "seconds" is drawn, and "val_loss" belongs to
            "loss". Missing values are left out.
        x: the column along the horizontal axis.
    """
    along = _column(rows, x)
    columns = dict.fromkeys(name for row in rows for name in row)
    names = list(dict.fromkeys(name.removeprefix("val_") for name in columns))
    names = [name for name in names if name not in (x, "seconds")]
    if not names:
        raise ValueError(f"a training log needs columns beside {x!r}")
    wide = min(3, len(names))
    high = -(-len(names) // wide)
    figure = Figure(figsize=(3.9 * wide, 2.6 * high + 0.4), layout="constrained")
    figure.suptitle(title, color=INK, weight="bold")
    panels = figure.subplots(high, wide, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):  # takes no panel once names are out
        for column, label, colour in ((name, "train", BLUE), (f"val_{name}", "validation", ORANGE)):
            if column in columns:
                _line(axes, along, _column(rows, column), colour, label)
        axes.set_title(name.replace("_", " "), loc="left", fontsize=10)
        axes.set_xlabel(x, fontsize=9, color=GREY)
        axes.set_xlim(np.nanmin(along) - 0.5, np.nanmax(along) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
    for axes in list(panels):
        axes.set_axis_off()
    _save(figure, path)


@OUR_STYLE
def learning_curve(path: str | Path, rows: Sequence[Mapping[str, float]]) -> None:
    """The evolution's score over the frames it has driven, beside others'; below, its search.

    The axis of the scores is logarithmic in what is missing to 1000: ten points near the end count
    for more than a hundred at the beginning.

    Args:
        rows: of stage 05's log: generation, frames (so far), mean and best of the population,
            select_mean and select_sd of the distribution's mean on selection tracks (in some rows),
            laps (the share of complete ones) and sigma.
    """
    frames = _column(rows, "frames")
    figure = Figure(figsize=(8.4, 6.6), layout="constrained")
    score, search = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))

    _, paper_frames, paper_scores = zip(*PAPER, strict=True)
    score.plot(
        paper_frames, paper_scores, "s--", color=GREY, ms=5, lw=1.4, label="World Models (2018)"
    )
    for generation, x, y in PAPER:
        score.annotate(
            f"gen {generation}", (x, y), (4, -12), textcoords="offset points",
            fontsize=7.5, color=GREY,
        )  # fmt: skip
    score.plot(*zip(*DREAMER, strict=True), "D", color=GREY, ms=5, label="DreamerV3")
    if any("mean" in row for row in rows):  # none before the first generation
        best, mean = _column(rows, "best"), _column(rows, "mean")
        _line(
            score, frames, best, ORANGE, "luckiest candidate, on its few tracks", lw=0.8, alpha=0.6
        )
        _line(score, frames, mean, BLUE, "mean of candidates", lw=1.0, alpha=0.5)
    if any("select_mean" in row for row in rows):
        chosen, spread = _column(rows, "select_mean"), _column(rows, "select_sd")
        known = np.isfinite(chosen)
        x, y, sd = frames[known], chosen[known], np.nan_to_num(spread[known])
        top = np.minimum(y + sd, HIGHEST)
        score.fill_between(x, y - sd, top, color=BLUE, alpha=0.12, lw=0)
        score.plot(
            x, y, "o-", color=BLUE, ms=3, lw=1.6, label="their centre, on selection tracks (± sd)"
        )
    score.set_xscale("log")
    missing = (lambda y: -np.log(np.maximum(1000 - y, 1)), lambda t: 1000 - np.exp(-t))
    score.set_yscale("function", functions=missing)
    score.set_yticks((0, 300, 500, 700, 800, 850, 900, 925, 950))
    score.set_ylabel("score (stretched towards 1000)")
    score.margins(y=0.08)  # room for the lowest label
    score.set_ylim(top=HIGHEST)
    score.legend(fontsize=9, loc="lower right")

    measured = [row for row in rows if "select_mean" in row] or rows
    laps = _column(measured, "laps")  # the centre's own; its scattered candidates complete few
    search.plot(_column(measured, "frames"), laps, "o-", color=BLUE, ms=3, lw=1.6)
    search.set_ylim(-0.02, 1.05)
    search.set_ylabel("laps complete", color=BLUE)
    search.set_xlabel("frames driven")
    sigma = search.twinx()
    _line(sigma, frames, _column(rows, "sigma"), ORANGE, "sigma")
    sigma.set_ylim(bottom=0)
    sigma.set_ylabel("sigma", color=ORANGE)
    sigma.spines[:].set_visible(False)
    sigma.grid(False)
    _save(figure, path)


@OUR_STYLE
def dream_curve(path: str | Path, rows: Sequence[Mapping[str, float]]) -> None:
    """What the dreams of an evolution came to over the frames it has dreamt; below, its search.

    Args:
        rows: of stage 05's log: dreamt (frames so far), mean and best of the candidates' returns in
            points a dream, and sigma.
    """
    dreamt = _column(rows, "dreamt")
    figure = Figure(figsize=(8.4, 5.4), layout="constrained")
    returns, search = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    _line(returns, dreamt, _column(rows, "best"), ORANGE, "best candidate")
    _line(returns, dreamt, _column(rows, "mean"), BLUE, "mean of candidates")
    returns.set_ylabel("return that M predicts")
    returns.legend(fontsize=9, loc="lower right")
    _line(search, dreamt, _column(rows, "sigma"), ORANGE, "sigma")
    search.set_ylabel("sigma", color=ORANGE)
    search.set_ylim(bottom=0)
    search.set_xlabel("frames dreamt")
    search.xaxis.set_major_formatter("{x:,.0f}")
    _save(figure, path)


@OUR_STYLE
def own_drives(path: str | Path, drives: Sequence[Mapping[str, Any]]) -> None:
    """What the agent's own drives came to over the real frames that it had driven before.

    Args:
        drives: headers of rollouts in the order in which they were driven, with score, frames, and
            settings: generation, and drawn, which is 0 for a drive of C itself.
    """
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.subplots()
    before = np.cumsum([0, *(drive["frames"] for drive in drives)])
    generation = np.array([drive["settings"]["generation"] for drive in drives])
    drawn = np.array([drive["settings"]["drawn"] for drive in drives])
    score = np.array([drive["score"] for drive in drives])
    for which, colour, name in ((1, ORANGE, "draws around it"), (0, BLUE, "C (± sd)")):
        rounds = [(generation == g) & (drawn == which) for g in np.unique(generation)]
        rounds = [chosen for chosen in rounds if chosen.any()]
        x = [before[chosen.argmax()] for chosen in rounds]
        mean, sd = (np.array([f(score[c]) for c in rounds]) for f in (np.mean, np.std))
        axes.plot(x, mean, "o-", color=colour, ms=4, lw=1.6, label=name)
        if which == 0:
            axes.fill_between(x, mean - sd, np.minimum(mean + sd, HIGHEST), color=BLUE, alpha=0.12)
    for level, name in DREAM_LAND:
        axes.axhline(level, color=GREY, lw=1, ls=":")
        axes.annotate(name, (1, level), (-4, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=7.5, color=GREY)  # fmt: skip
    axes.plot(*zip(*DREAMER, strict=True), "D", color=GREY, ms=5, label="DreamerV3")
    axes.set_xlabel("real frames that the agent has driven")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("score")
    axes.legend(fontsize=9, loc="lower right")
    _save(figure, path)


@OUR_STYLE
def worth_of_m(path: str | Path, report: Mapping[str, Any]) -> None:
    """How far M sees ahead, what its dream promises beside what the track gives, and the end.

    Args:
        report: of `utils.evolution.worth.measure_m`.
    """
    figure = Figure(figsize=(12.6, 4.0), layout="constrained")
    ahead, returns, end = figure.subplots(1, 3)
    frames = [int(count) for count in report["errors"]]
    looks = zip(next(iter(report["errors"].values())), (GREY, BLUE, INK, ORANGE), strict=False)
    for name, colour in looks:
        found = [errors[name]["frame"] for errors in report["errors"].values()]
        spread = [figure["standard_error"] or 0 for figure in found]
        ahead.errorbar(
            frames, [figure["mean"] for figure in found], spread,
            color=colour, marker="o", ms=3, lw=1.4, capsize=2, label=name,
        )  # fmt: skip
    ahead.set_xscale("log")
    ahead.set_xticks(frames, frames)
    ahead.set(xlabel="frames ahead", ylabel="squared error of a pixel")
    ahead.set_ylim(bottom=0)
    ahead.legend(fontsize=8)

    rows = report["returns"]["controllers"]
    for label, colour, chosen in (
        ("C with noise", BLUE, [row for row in rows if row["sigma"]]),
        ("zeros", GREY, [row for row in rows if row["sigma"] is None]),
        ("C", ORANGE, [row for row in rows if row["sigma"] == 0]),
    ):
        (x, xerr), (y, yerr) = (
            zip(*((row[of]["mean"], row[of]["standard_error"] or 0) for row in chosen), strict=True)
            for of in ("real", "dreamt")
        )
        returns.errorbar(x, y, yerr, xerr, "o", ms=4, color=colour, lw=0.8, label=label)
    returns.legend(fontsize=8)
    low, high = (f(*returns.get_xlim(), *returns.get_ylim()) for f in (min, max))
    returns.set(xlim=(low, high), ylim=(low, high))
    _diagonal(returns)
    ahead_for = f"points in {report['returns']['horizon']} real frames"
    returns.set(xlabel=ahead_for, ylabel="points in as many dreamt ones")

    seen = [row for row in report["end"] if row["ends"]]  # a logarithm has no place for none
    end.plot([row["predicted"] for row in seen], [row["ended"] for row in seen], "o", color=BLUE)
    end.set(xscale="log", yscale="log", xlim=(LEAST_CHANCE, 1), ylim=(LEAST_CHANCE, 1))
    _diagonal(end)
    end.set(xlabel="predicted chance of the end", ylabel="how often it came")
    for axes, title in (
        (ahead, "How far M sees ahead"), (returns, "What dreams promise"), (end, "When it ends"),
    ):  # fmt: skip
        axes.set_title(title, loc="left", fontsize=10)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    _save(figure, path)


@OUR_STYLE
def worst_laps(path: str | Path, laps: Sequence[Mapping[str, Any]]) -> None:
    """Maps of the worst laps (up to five), in one scale: the road, the car's trace, its mishap.

    Args:
        laps: each with seed, score, frames, tiles, total_tiles, track (N, 2), positions (T, 2) in
            the track's units, and missed, the tiles that were never touched.
    """
    if not laps:
        raise ValueError("a map of the worst laps needs at least one lap")
    worst = sorted(laps, key=lambda lap: lap["score"])[:WORST]
    figure = Figure(figsize=(3.3 * len(worst), 4.1), layout="constrained")
    maps = figure.subplots(1, len(worst), squeeze=False, sharex=True, sharey=True).flat
    marks: dict[str, Artist] = {}
    for axes, lap in zip(maps, worst, strict=True):
        track, driven = np.asarray(lap["track"], float), np.asarray(lap["positions"], float)
        if track.ndim != 2 or track.shape[1] != 2 or driven.shape[1:] != (2,) or not len(driven):
            raise ValueError(f"track {track.shape} and path {driven.shape} are no lists of points")
        axes.fill(*_road(track).T, color=ROAD, lw=0)
        axes.plot(*driven.T, color=BLUE, lw=1.3)
        start = axes.plot(*driven[0], "o", color=BLUE, ms=5)
        marks["start, counter-clockwise"] = start[0]
        for tile in lap["missed"][:1]:
            missed = axes.plot(*track[tile], "x", color=ORANGE, ms=11, mew=3)
            marks["the first tile that was missed"] = missed[0]
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(f"track {lap['seed']}: {lap['score']:.1f}", fontsize=11)
        axes.text(
            0.5, 0, f"{lap['tiles']} of {lap['total_tiles']} tiles, {lap['frames']} frames",
            transform=axes.transAxes, ha="center", va="top", fontsize=9, color=GREY,
        )  # fmt: skip
    figure.legend(marks.values(), marks, loc="outside lower center", ncols=2, fontsize=10)
    _save(figure, path)


def _mosaic(figure: Figure, rows: Sequence[np.ndarray]) -> Axes:
    """Rows of images (N, H, W, 3) uint8, one size for all, side by side."""
    count, height, width, _ = rows[0].shape
    down, across = height + GAP, width + GAP
    mosaic = np.full((len(rows) * down - GAP, count * across - GAP, 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * down, column * across
            mosaic[top : top + height, left : left + width] = image
    axes = figure.subplots()
    axes.imshow(mosaic, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes


def _column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """One column as floats, NaN where a row has no value."""
    if not any(name in row for row in rows):
        raise ValueError(f"the log has no column {name!r}")
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value in (None, "") else float(value) for value in values])


def _line(
    axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str, lw: float = 1.8, **look: Any
) -> None:
    """A line through the known values; a single one becomes a dot."""
    known = np.isfinite(y)
    marker = "o" if known.sum() == 1 else None
    axes.plot(x[known], y[known], color=colour, label=label, lw=lw, marker=marker, ms=4, **look)


def _road(track: np.ndarray) -> np.ndarray:
    """The outline of the closed road around its centre points (N, 2), as one polygon."""
    along = np.roll(track, -1, axis=0) - np.roll(track, 1, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    aside = ROAD_HALF_WIDTH * np.stack([-along[:, 1], along[:, 0]], axis=1)
    left, right = track + aside, track - aside
    return np.concatenate([left, left[:1], right[:1], right[::-1]])


def _diagonal(axes: Axes) -> None:
    """Where what was expected is what came."""
    axes.axline((1, 1), (2, 2), color=GREY, lw=1, zorder=1)


def _save(figure: Figure, path: str | Path) -> None:
    """Draw the figure and write it; one that cannot be drawn is left out, with a sentence."""
    drawn = BytesIO()
    try:
        figure.savefig(drawn, format="png", dpi=150, facecolor="white")
    except Exception as error:  # matplotlib can raise anything at all: fonts, memory, libraries
        leave_out(path, error)
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(drawn.getbuffer())
