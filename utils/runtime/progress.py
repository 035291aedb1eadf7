"""A progress bar over the jobs of some workers: how many are done, how fast, how long it takes."""

from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from utils.runtime.workers import Workers


def run_jobs(
    workers: Workers, jobs: Sequence[Any], title: str, unit: str,
    frames: Callable[[Any], int] | None = None, leave: bool = True,
) -> list[Any]:  # fmt: skip
    """The jobs' results in their order; nothing is shown where there are none.

    Args:
        frames: how many a result stands for; the bar shows them by the second.
        leave: the full bar stays on the screen.
    """
    done = 0
    with tqdm(total=len(jobs), desc=title, unit=unit, leave=leave, disable=not jobs) as bar:

        def note(index: int, result: Any) -> None:
            nonlocal done
            bar.update()
            if frames:
                done += frames(result)
                bar.set_postfix_str(f"{done / bar.format_dict['elapsed']:,.0f} frames/s")

        return workers.run(jobs, on_result=note)
