"""The campaign of faults in short: `python tests/faults` is the long form."""

import sys

import pytest
import torch
from faults import campaign, disk, files, flags, main_process, surroundings, table, workers

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


def test_flags_that_would_destroy_are_refused_and_every_file_stays_as_it_was(short):
    assert_nothing_lost(flags.would_destroy(short), at_least=3)


def test_a_link_to_a_disk_that_is_away_is_refused_before_any_work(short):
    assert_nothing_lost(disk.links_away(short), at_least=2)


def test_a_worker_that_is_stopped_in_the_middle_of_a_message_is_replaced(short):
    assert_nothing_lost(workers.stopped_while_sending(short), at_least=1)


def test_ctrl_c_while_libraries_load_is_one_line(short):
    assert_nothing_lost(surroundings.interrupted_at_once(short, 3), at_least=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cause", "number"),
    [
        (files.foreign_files, 3), (disk.shared_disk, 1), (surroundings.reader_leaves, 3),
        (surroundings.ascii_output, 6), (surroundings.little_memory, 1),
        (surroundings.few_processes, 1), (surroundings.no_ffmpeg, 6), (surroundings.notebook, 2),
        (surroundings.own_style, 2),
    ],
)  # fmt: skip
def test_other_peoples_machines_terminals_and_files(short, cause, number):
    assert_nothing_lost(short.each((number,), lambda stage: cause(short, stage)), at_least=0)


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
