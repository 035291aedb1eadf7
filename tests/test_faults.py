"""The campaign of faults in short: `python tests/faults` is the long form."""

import sys

import pytest
import torch
from faults import campaign, files, flags, main_process, table, workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A campaign with a few faults of each kind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield campaign.Campaign(tmp_path_factory.mktemp("faults"), campaign.QUICK, seed=1)
    torch.set_num_threads(threads)


def assert_nothing_lost(result, at_least):
    assert result.losses == ()
    assert result.survived == result.caused >= at_least
    assert result.tracebacks == 0


@pytest.mark.parametrize(
    "cause",
    [workers.workers_killed, main_process.main_killed_while_writing, main_process.interrupted],
)
def test_a_stage_that_is_harmed_leaves_what_an_undisturbed_one_leaves(short, cause):
    assert_nothing_lost(short.each((3,), lambda number: cause(short, number)), at_least=1)


def test_damaged_and_hostile_files_are_refused_or_made_anew(short):
    assert_nothing_lost(files.damaged_files(short), at_least=9)


def test_whole_files_that_do_not_fit_are_refused(short):
    assert_nothing_lost(files.unfit_files(short), at_least=4)


def test_nonsense_is_refused_before_any_work(short):
    assert_nothing_lost(flags.nonsense(short), at_least=50)


def test_a_loss_is_counted_and_shown_and_resets_are_no_faults(capsys):
    lost = campaign.outcome(2, "", "a file is gone", said="Traceback ...")
    rows = [
        campaign.Row("hostile files", campaign.outcome(3), "refused"),
        campaign.Row("kills", campaign.total([lost, campaign.outcome(1)]), "seen"),
        campaign.Row("resets", campaign.outcome(5000), "1 MB", counted_as="resets"),
    ]
    found = table.counts(rows)
    assert {name: found[name] for name in ("caused", "survived", "lost")} == {
        "caused": 6, "survived": 4, "lost": 2
    }  # fmt: skip
    assert (found["hostile_files"], found["tracebacks"]) == (3, 1)
    assert (found["resets"], found["resets_gone_wrong"]) == (5000, 0)  # no faults, counted apart
    table.line(rows[1])
    assert "lost: a file is gone" in capsys.readouterr().out
