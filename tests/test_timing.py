"""What a run costs."""

import time

import pytest

from utils.runtime.timing import Meter
from utils.runtime.workers import OneAtATime, Workers

WORK = 0.3  # seconds of processor time


def work(job):
    end = time.process_time() + WORK
    while time.process_time() < end:
        pass


@pytest.mark.parametrize("count", [0, 1])
def test_processor_time_is_counted_once_wherever_it_is_spent(count):
    with Workers(count, OneAtATime, {"function": work}) as workers:
        workers.run([0])
        meter = Meter(workers)
        workers.run([1, 2])
        spent = meter.processor_seconds
    assert 2 * WORK <= spent < 3 * WORK
    assert meter.core_hours == pytest.approx(meter.processor_seconds / 3600, rel=0.01)
