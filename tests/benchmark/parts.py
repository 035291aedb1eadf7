"""Where each microsecond of the decision loop goes, by two of the benchmark's files, as a picture.

    python tests/benchmark/parts.py BEFORE.json AFTER.json PICTURE.png

Both have to come from the same machine, or the picture compares machines.
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

SUBJECTS = {  # how the names of parts begin: the first that fits
    "simulate: physics": "physics",
    "simulate: draw": "drawing",
    "shrink": "shrinking",
    "simulate": "painting and resets",
    "encode": "V",
    "remember": "M",
    "decide": "C",
    "bookkeeping": "the rest",
}
COLORS = (
    "#2f6fde", "#e8743b", "#f3b391", "#c9d0d9", "#2a9d77", "#8a5fc7", "#d9a514", "#8b95a3"
)  # fmt: skip


def by_subject(parts: dict[str, float]) -> dict[str, float]:
    """Parts of the loop -> microseconds of each subject, in the order of SUBJECTS."""
    found = dict.fromkeys(SUBJECTS.values(), 0.0)
    for name, value in parts.items():
        found[next(what for start, what in SUBJECTS.items() if name.startswith(start))] += value
    return found


def main(argv: list[str]) -> None:
    before, after, picture = argv
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for row, path in ((1, before), (0, after)):
        report = json.loads(Path(path).read_text())
        left = 0.0
        parts = by_subject(report["loop_parts_us"])
        for (what, value), color in zip(parts.items(), COLORS, strict=True):
            axes.barh(row, value, left=left, color=color, label=what if row else None)
            if value > sum(parts.values()) / 30:
                axes.text(left + value / 2, row, f"{value:.0f}", ha="center", va="center")
            left += value
        axes.text(left, row, f"  {left:.0f} µs", va="center", weight="bold")
    axes.set_yticks([1, 0], ["before", "after"])
    axes.set_xlabel("µs a frame of the decision loop, one core")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=8, frameon=False, fontsize=8)
    figure.savefig(picture, dpi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
