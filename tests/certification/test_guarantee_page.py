"""The numbers on the page about the guarantee are those of the stored results."""

import json
from pathlib import Path

from tersor.certification.ledger import attempt_alpha
from tersor.certification.planner import samples_needed

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "guarantee.md").read_text().split())
RESULTS = json.loads((ROOT / "bench" / "results" / "certification.json").read_text())


def test_the_rates_of_false_certificates_are_those_measured_and_within_the_level():
    for row in RESULTS["searches"]:
        assert row["false"] <= RESULTS["alpha"] + 3 * row["false_se"]
        assert row["naive_false"] > 10 * RESULTS["alpha"]
        assert f"| {row['false']:.1%} ± {row['false_se']:.1%} |" in PAGE


def test_size_and_power_are_those_enumerated():
    sizes = [row["exact"] for row in RESULTS["size"]]
    assert max(sizes) <= 0.05
    assert f"between {min(sizes):.4f} and {max(sizes):.4f}" in PAGE
    assert f"{max(row['tango'] for row in RESULTS['size']):.4f}" in PAGE
    cost = max(row["tango"] - row["exact"] for row in RESULTS["power"])
    assert cost < 0.01
    assert f"at most {cost:.4f} of power" in PAGE


def test_sample_sizes_and_levels_are_those_of_the_code():
    for margin, q in ((0.02, 0.03), (0.01, 0.03), (0.01, 0.05), (0.005, 0.03)):
        assert f"| {samples_needed(margin, q):,} | {samples_needed(margin, q, drop=margin / 3):,} |" in PAGE
    assert ", ".join(f"{attempt_alpha(0.05, j):.3f}" for j in (1, 2, 3)) in PAGE
