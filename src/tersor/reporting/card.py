"""README.md of an artefact folder: a model card with the YAML front matter that model hubs read."""

import json
import re

from tersor.exporting.files import main_file
from tersor.reporting import tables
from tersor.reporting.clean import clean
from tersor.reporting.record import Record
from tersor.reporting.runner import MODELS
from tersor.reporting.tables import Table

#: Tags of the model hub for the kinds of task that say what goes in; a classifier may take images or text.
_PIPELINES = {
    "tokens": "token-classification",
    "language": "text-generation",
    "segmentation": "image-segmentation",
}

_SPECIAL = re.compile(r"[\\`*_{}\[\]<|~&$@]|:(?=//)|(?<=\bwww)\.|^[-+=>#]", re.IGNORECASE)
_LIST_MARK = re.compile(r"^(\d+)([.)])(?=\s|$)")


def escape_markdown(text: str) -> str:
    r"""Return `text` as one line of Markdown that shows exactly these characters.

    Every mark that CommonMark or its GitHub dialect gives a meaning is escaped, the bare links too.

    Example:
        >>> print(escape_markdown("a|b <i> 0.5"))
        a\|b \<i> 0.5
    """
    return _LIST_MARK.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", " ".join(text.split())))


def render_card(record: Record) -> str:
    """Return the model card as Markdown with YAML front matter.

    Example:
        >>> from tersor.reporting.record import Aim, Row, Standing, Verdict
        >>> aim = Aim(kind="classification", model="lenet", metric="accuracy", higher_is_better=True, limit="none")
        >>> verdict = Verdict(outcome="nothing_faster", standing=Standing.UNTESTED, sentence="Nothing was faster.")
        >>> print(render_card(Record(title="lenet", created="2026-01-31T12:00:00+00:00", tersor_version="0.1.0",
        ...                          aim=aim, verdict=verdict, base=Row(name="original"))).splitlines()[0])
        ---
    """
    record = clean(record)
    parts = [
        _front_matter(record),
        f"# {escape_markdown(record.title)}",
        f"**{escape_markdown(record.verdict.sentence)}**",
    ]
    if record.verdict.advice:
        parts.append(escape_markdown(record.verdict.advice))
    parts += [_table(tables.comparison(record)), "## Use", _use(record.aim.target)]
    if record.claim:
        parts += ["## Certificate", escape_markdown(record.claim.paragraph)]
    if record.warnings:
        parts += [
            "## Read before trusting a number",
            "\n".join(f"- {escape_markdown(w)}" for w in record.warnings),
        ]
    parts += [
        "## How it was made",
        "\n".join(f"1. {escape_markdown(step)}" for step in record.shipped.recipe)
        or "The weights are unchanged.",
        _table(tables.splits(record)),
        f"Limit: {escape_markdown(record.aim.limit)}.",
        escape_markdown(record.conditions),
        escape_markdown(record.aim.target_because),
        _fenced(record.command),
        f"Written by tersor {escape_markdown(record.tersor_version)} on {escape_markdown(record.created)}; "
        "everything else is in `report.html`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_USE = """`run.py` needs only {}:

```
python run.py
python run.py --input x.npy --threads 1
```"""


def _use(target: str) -> str:
    """Return how to run the file for a runtime."""
    packages = MODELS[main_file(target)].split()
    return _USE.format(" and ".join(f"`{name}`" for name in packages))


def _front_matter(record: Record) -> str:
    """Every value is written as JSON, which is YAML; so no value can end the block or add a key."""
    shipped = record.shipped.certified or record.shipped.quality
    metrics = (
        []
        if shipped is None or shipped.value is None
        else [{"type": record.aim.metric, "name": record.aim.metric, "value": round(shipped.value, 6)}]
    )
    pipeline = _PIPELINES.get(record.aim.kind)
    dataset = {"name": "certification split", "type": "private"}
    if record.aim.drawn:
        dataset = {"name": "inputs drawn at random", "type": "random"}
    result = {"task": {"type": pipeline or "other"}, "dataset": dataset, "metrics": metrics}
    values: dict[str, object] = {"library_name": record.aim.target, "tags": ["tersor", "compressed"]}
    if pipeline:
        values["pipeline_tag"] = pipeline
    if re.fullmatch(r"[\w.-]+/[\w.-]+", record.aim.model):  # only a name of the hub can be linked to
        values |= {"base_model": record.aim.model, "base_model_relation": "quantized"}
    values["model-index"] = [{"name": record.title, "results": [result]}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    rule = [" ---: " if index in table.numeric else " --- " for index in range(len(table.columns))]
    lines = [_line(table.columns), f"|{'|'.join(rule)}|", *(_line(row) for row in table.rows)]
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def _fenced(text: str) -> str:
    """A fence one longer than the longest run of backticks inside cannot be closed from inside."""
    if not text:
        return ""
    runs = re.findall(r"`+", text)
    fence = "`" * max(3, 1 + max(map(len, runs), default=0))
    return f"{fence}\n{text}\n{fence}"
