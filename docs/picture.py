"""Draws the picture of the README from the record of a run: `python docs/picture.py RECORD.json PICTURE.svg`."""

import sys
from html import escape
from pathlib import Path

from tersor.reporting import front
from tersor.reporting.record import Record

#: The colours of a report, for readers in light and in dark.
_STYLE = """<style>
:root { --ink: #1c2024; --muted: #5b636b; --rule: #dcdcd8; --rule-strong: #a9a9a4; --paper: #ffffff;
  --c1: #0072b2; --good: #00664f; --bad: #b34700; --accent: #0072b2; --unsure: #5b636b }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --muted: #a2aab2; --rule: #33383d;
  --rule-strong: #5c636a; --paper: #0d1117; --c1: #56b4e9; --good: #4fd1a5; --bad: #ff9d66; --accent: #56b4e9;
  --unsure: #a2aab2 } }
</style>"""


def draw(record: Record) -> str:
    """Return the candidates of a run, speed against quality, as one SVG file."""
    picture = front.pareto(record)
    if picture is None:
        raise SystemExit("This record has no measured candidates to draw.")
    svg = str(picture.wide).replace(' aria-hidden="true"', ' role="img"', 1)
    head, _, body = svg.partition(">")
    title = f"<title>{escape(record.verdict.sentence)}</title>"
    return f"{head}>{title}{_STYLE}{body}\n"


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.write_text(draw(Record.from_json(source.read_bytes())), encoding="utf-8")
