import json
from dataclasses import asdict

import pytest

from tersor.analysis.facts import Facts
from tersor.errors import ArgumentError
from tersor.measurement.machine import this_machine, usable_cores
from tersor.measurement.result import Measurement
from tersor.measurement.roofline import Roofline, distance, roofline


def test_a_machine_is_plain_data():
    machine = this_machine()
    assert json.loads(json.dumps(asdict(machine)))["processor"] == machine.processor
    assert machine.memory_bytes > 2**28
    assert 1 <= usable_cores() <= machine.cores
    assert set(machine.versions) >= {"torch", "onnxruntime", "numpy"}


def test_a_quota_of_a_container_limits_the_usable_cores(monkeypatch):
    monkeypatch.setattr(
        "tersor.measurement.machine._read", lambda path: "50000 100000" if "cpu.max" in path else ""
    )
    assert usable_cores() == 1
    assert this_machine().quota == 0.5


def test_the_roofline_is_measured_once_and_its_limits_are_plausible():
    limits = roofline()
    assert roofline() is limits
    assert limits.multiply_adds_per_s > 1e8
    assert limits.int8_multiply_adds_per_s > 1e8
    assert limits.bytes_per_s > 1e8


@pytest.mark.parametrize(("work", "seconds"), [((100, 1), 10.0), ((1, 100), 20.0)])
def test_work_is_bound_by_arithmetic_or_by_memory(work, seconds):
    assert Roofline(10.0, 40.0, 5.0, 1).seconds(*work) == seconds


def call(**changes):
    numbers = {"median_s": 1.0, "p90_s": 1.0, "p99_s": 1.0, "throughput_per_s": 1.0, "peak_bytes": 0}
    numbers |= {
        "load_s": 0.0,
        "size_bytes": 0,
        "threads": 1,
        "batch": 1,
        "runtime": "onnxruntime",
        "calls": 1,
    }
    return Measurement(**(numbers | changes))


COSTS = Facts(parameters=25, parameter_bytes=100, macs=40, bytes=200, sites=())
LIMITS = Roofline(100.0, 400.0, 50.0, threads=1, cache_bytes=10)


def test_a_batch_of_one_is_bound_by_its_weights_and_a_large_one_by_arithmetic():
    assert distance(COSTS, call(median_s=4.0), LIMITS).bound == "memory"
    assert distance(COSTS, call(median_s=4.0), LIMITS).share == 0.5
    large = distance(COSTS, call(median_s=16.0, batch=10), LIMITS)
    assert (large.bound, large.limit_s, large.share, large.macs_per_s) == ("arithmetic", 4.0, 0.25, 25.0)


def test_integers_have_their_own_peak_and_a_quarter_of_the_bytes():
    small = distance(COSTS, call(), LIMITS, integer=True)
    assert (small.limit_s, small.peak_macs_per_s, small.macs_per_byte) == (0.5, 400.0, 0.8)


def test_weights_that_fit_into_the_cache_set_no_limit():
    roomy = Roofline(100.0, 400.0, 50.0, threads=1, cache_bytes=1000)
    assert distance(COSTS, call(), roomy).limit_s == 0.4


def test_limits_of_other_threads_are_refused():
    with pytest.raises(ArgumentError, match="roofline\\(2\\)"):
        distance(COSTS, call(threads=2), LIMITS)
