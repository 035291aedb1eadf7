"""Every fault that we could think of, caused for real, and what came of it.

    python tests/faults                         about half an hour on two busy cores
    python tests/faults --json FILE             the same counts as data
    python tests/faults --quick                 a few of each, in a minute or two
    python tests/faults --soak-minutes 40       instead: stage 05 at full load, see soak.py

The stages run as the user runs them, as processes in folders of their own, on small settings; the
kills, the full disk and the hostile files are real. A fault is survived if nothing is lost: the
stage says in one sentence what is wrong, or goes on, and in the end its files equal those of a run
that nothing disturbed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project

from utils.runtime.start import run

import torch

from faults import soak
from faults.campaign import QUICK, THOROUGH
from faults.table import run_campaign
from utils.storage.artifacts import save_json
from utils.storage.outputs import prepare
from utils.storage.provenance import provenance


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the counts as data")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the damage")
    parser.add_argument("--quick", action="store_true", help="a few of each fault")
    soak.add_flags(parser)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    if chosen.json:
        prepare({Path(chosen.json): "faults"})
    if chosen.soak_minutes:
        sys.exit(soak.main(chosen))
    found = run_campaign(QUICK if chosen.quick else THOROUGH, chosen.seed)
    if chosen.json:
        contents = {"kind": "faults", "quick": chosen.quick, "seed": chosen.seed, **found}
        save_json(chosen.json, {**contents, "provenance": provenance()})
    sys.exit(1 if found["lost"] or found["tracebacks"] or found["resets_gone_wrong"] else 0)


if __name__ == "__main__":
    run(main)
