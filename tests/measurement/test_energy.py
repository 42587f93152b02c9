import pytest

from tersor.measurement.energy import energy_missing, joules_since, read_energy


@pytest.fixture
def counters(tmp_path):
    """Two packages, one of which has a part, as Linux lays them out."""
    for name, value in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 900_000), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000\n")
    return tmp_path


def test_packages_are_read_and_their_parts_are_not_counted_twice(counters):
    assert read_energy(counters) == {"intel-rapl:0": 5_000_000, "intel-rapl:1": 900_000}
    assert energy_missing(counters) == ""


def test_energy_is_the_sum_over_packages_even_when_a_counter_runs_over(counters):
    before = read_energy(counters)
    (counters / "intel-rapl:0" / "energy_uj").write_text("5500000\n")
    (counters / "intel-rapl:1" / "energy_uj").write_text("100000\n")
    assert joules_since(before, counters) == pytest.approx(0.5 + 0.2)


def test_a_system_without_counters_is_said(tmp_path):
    assert "shows no energy counters" in energy_missing(tmp_path)
    (tmp_path / "intel-rapl:0").mkdir()
    assert "may be read by root only" in energy_missing(tmp_path)
