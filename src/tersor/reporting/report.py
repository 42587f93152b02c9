"""report.html and report.json: everything about one run in one page without scripts."""

from datetime import datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tersor.reporting.clean import clean
from tersor.reporting.record import Record

_TEMPLATES = Path(__file__).parent / "templates"


def render_json(record: Record) -> str:
    """Return the record as JSON, cleaned of control codes, home paths and secrets."""
    return clean(record).to_json() + "\n"


def render_html(record: Record) -> str:
    """Return one page that explains the run: it needs no network, no scripts and no other file.

    The page carries a content security policy that allows styles only; all text is escaped; every picture has a
    table of the same numbers. It follows the reader's light or dark setting, narrow and wide screens, and print.

    Example:
        >>> from tersor.reporting.record import Aim, Row, Standing, Verdict
        >>> aim = Aim(kind="classification", model="lenet", metric="accuracy", higher_is_better=True, limit="none")
        >>> verdict = Verdict(outcome="nothing_faster", standing=Standing.UNTESTED, sentence="1 < 2 candidates.")
        >>> page = render_html(Record(title="lenet", created="2026-01-31T12:00:00+00:00", tersor_version="0.1.0",
        ...                           aim=aim, verdict=verdict, base=Row(name="original")))
        >>> "1 &lt; 2 candidates." in page, "<script" in page
        (True, False)
    """
    from tersor.reporting import pictures, sections  # Altair takes a second to import

    record = clean(record)
    return fill(
        "report.html.j2",
        record=record,
        date=date(record),
        highlights=sections.highlights(record),
        margin=pictures.margin(record),
        sections=sections.sections(record),
    )


def fill(template: str, **values: object) -> str:
    """Return a page of this room's templates, with every value escaped."""
    return _environment().get_template(template).render(css=_css(), **values)


def date(record: Record) -> str:
    """Return when the run ended, in words."""
    moment = datetime.fromisoformat(record.created)
    return f"{moment.day} {moment:%B %Y, %H:%M %Z}".strip()


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _css() -> Markup:
    return Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8"))
