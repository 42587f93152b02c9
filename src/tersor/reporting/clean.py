"""Make every string of a record safe to show: no control codes, no home paths, no secrets, no endless text.

Escaping for HTML, Markdown or a terminal is the business of each format; this is what all of them share.
"""

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from tersor.reporting.record import Record

#: Longest string that is shown, in characters.
LONGEST = 4000

# Direction overrides can make a text read as another one (CVE-2021-42574); U+FEFF is a byte order mark.
_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0xFEFF}
_LINE_ENDS = {0x85, 0x2028, 0x2029, 0x0B, 0x0C, 0x0D}
_HOMES = re.compile(
    r"(?<![\w.])(?:/home|/Users|[A-Za-z]:\\+Users)[/\\]+[^/\\\s'\":;,]+|(?<![\w./])/root(?![\w.])"
)
_SECRETS = re.compile(
    r"\b(?:hf_|gh[pousr]_|github_pat_|sk-|xox[abprs]-|AKIA)[\w-]{12,}|(?<=://)[^/\s@]+(?=@)|"
    r"(?<=\bBearer )[\w.~+/-]{12,}=*"
)


def clean_text(text: str, home: str | None = None) -> str:
    r"""Return `text` without control codes, home directories, access tokens and excess length.

    Args:
        text: any string, also one that is not valid Unicode.
        home: the home directory, shown as `~`; None takes that of the user.

    Example:
        >>> clean_text("\x1b[31m/home/ada/model.onnx", home="/home/ada")
        '[31m~/model.onnx'
        >>> clean_text("curl https://ada:secret@host/x")
        'curl https://[removed]@host/x'
    """
    text = "".join(_kept(character) for character in text[: LONGEST * 2])
    home = str(Path.home()) if home is None else home
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    text = _SECRETS.sub("[removed]", _HOMES.sub("~", text))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _kept(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or 0x20 <= code < 0x7F:
        return character
    if code in _LINE_ENDS:
        return "\n"
    if unicodedata.category(character) == "Cs" or code & 0xFFFE == 0xFFFE:
        return "\ufffd"
    return "" if unicodedata.category(character) == "Cc" or code in _REORDERING else character


def clean_json(value: object) -> object:
    """Return JSON-like `value` with every string and key cleaned, mappings and sequences walked."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(str(key)): clean_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(entry) for entry in value]
    return value


def clean(record: Record) -> Record:
    """Return `record` with every string cleaned by `clean_text`."""
    adapter = TypeAdapter(Record)
    return adapter.validate_python(clean_json(adapter.dump_python(record, mode="json")))
