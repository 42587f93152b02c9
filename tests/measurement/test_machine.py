import json
from dataclasses import asdict

import pytest

from tersor.measurement.machine import this_machine, usable_cores
from tersor.measurement.roofline import Roofline, roofline


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
