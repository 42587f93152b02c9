"""What a certificate is worth, in numbers.

    python -m bench.certification [--searches 1000]

Writes `bench/results/certification.json` and `.md`.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bench.certification.enumeration import Power, Size, powers, seconds_of_a_p_value, sizes
from bench.certification.searches import ALPHA, ATTEMPTS, CANDIDATES, FINALISTS, SCENES, Rates, rates

RESULTS = Path(__file__).parents[1] / "results"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def searches_table(found: list[Rates]) -> str:
    return table(
        (
            "true drops of the 200 candidates",
            "false certificates",
            "naive rule, false",
            "searches certified",
            "attempts",
        ),
        [
            (
                r.scene,
                f"{r.false:.1%} ± {r.false_se:.1%}",
                f"{r.naive_false:.1%} ± {r.naive_false_se:.1%}",
                f"{r.certified:.1%}",
                f"{r.attempts:.1f}",
            )
            for r in found
        ],
    )


def sizes_table(found: list[Size]) -> str:
    return table(
        ("samples", "margin", "size of the exact test", "size of Tango's test"),
        [(f"{s.samples:,}", f"{s.margin:.3f}", f"{s.exact:.4f}", f"{s.tango:.4f}") for s in found],
    )


def powers_table(found: list[Power]) -> str:
    return table(
        ("samples", "disagreement", "true drop", "power, exact", "power, Tango", "difference"),
        [
            (
                f"{p.samples:,}",
                f"{p.disagreement:.0%}",
                f"{p.drop:.3f}",
                f"{p.exact:.4f}",
                f"{p.tango:.4f}",
                f"{p.exact - p.tango:+.4f}",
            )
            for p in found
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    count, results = options.searches, options.results
    found_sizes, found_powers, time_s = sizes(), powers(), seconds_of_a_p_value()
    found = []
    for scene in SCENES:
        found.append(rates(scene, count))
        print(found[-1], flush=True)
    content = {
        "alpha": ALPHA,
        "searches": [asdict(r) for r in found],
        "size": [asdict(s) for s in found_sizes],
        "power": [asdict(p) for p in found_powers],
        "p_value_10000_cpu_median_s": time_s,
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / "certification.json").write_text(json.dumps(content, indent=1) + "\n")
    gap = min(p.exact - p.tango for p in found_powers)
    text = f"""# Certification

`python -m bench.certification --searches {count}`

## Whole searches, simulated

{count:,} searches for each row. A search has {CANDIDATES} candidates; up to {FINALISTS} that look good on the search
data are frozen, from the safest to the boldest, and tested on the sealed data. As long as nothing is certified, the
user replaces what was refused, becomes more careful, and tries again on the same sealed data, up to {ATTEMPTS} times.
A false certificate is one for a candidate whose true drop is the margin or more, on any attempt. The allowed rate is
{ALPHA:.0%}. The naive rule takes the fastest candidate whose drop on the same search data is within the margin.
± is one standard error. 5,000 search and 5,000 sealed samples and a margin of 1 point unless said otherwise.

{searches_table(found)}

## Size: the largest probability of a false certificate in one test at level {ALPHA}

By enumeration, over all rates at which base and candidate can differ.

{sizes_table(found_sizes)}

## Power at a margin of 1 point, level {ALPHA}

By enumeration. Being exact costs at most {-gap:.4f}.

{powers_table(found_powers)}

## Speed

One exact p-value of 10,000 samples takes {1000 * time_s:.0f} ms of processor time (median).
"""
    (results / "certification.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
