"""`python -m bench.fuzz.once TARGET SEED EXAMPLES`: one round on one target, in a process of its own.

Prints one line of JSON: how many examples were read and refused, the slowest one, and every unclear error. Valid bytes
are changed, cut and spliced by hypothesis; words are drawn from the grammar of references.
"""

import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from bench.fuzz.targets import TARGETS
from tersor.errors import TersorError
from tersor.loading.data import load_data
from tersor.loading.limit import parse_budget, parse_drop
from tersor.loading.model import load_model

#: What a message may be: one line that a person can read, which says more than a class.
_SHORTEST, _LONGEST = 20, 1500
_PLACE = st.floats(0, 1, exclude_max=True)
_INTERESTING = [
    b"\xff" * 8,
    b"\x00" * 8,
    b"-1",
    b"99999999999",
    b"../",
    b"[]",
    b'"',
    b"null",
    b"\x7f\xff\xff\xff",
]
_EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), _PLACE, st.binary(min_size=1, max_size=1)),
        st.tuples(st.just("set"), _PLACE, st.sampled_from(_INTERESTING)),
        st.tuples(st.just("insert"), _PLACE, st.binary(max_size=8)),
        st.tuples(st.just("cut"), _PLACE, st.just(b"")),
    ),
    max_size=3,
)
_WORDS = [
    "npz:",
    "csv:",
    "hf:",
    "timm:",
    "parquet:",
    "?target=",
    "&drop=",
    "file.py:",
    "x.onnx",
    ".keras",
    "%",
    "../",
    "1h",
    "e9",
]
_TEXT = st.lists(st.one_of(st.sampled_from(_WORDS), st.text(max_size=6)), max_size=5).map("".join)


class Tally:
    """Counts what happened."""

    def __init__(self) -> None:
        self.read = self.refused = 0
        self.slowest_s = 0.0
        self.unclear: dict[str, str] = {}

    def run(self, function: Callable[[], Any], what: str) -> None:
        """Run one example; anything but an answer or a clear refusal is written down."""
        start = time.perf_counter()
        try:
            function()
            self.read += 1
        except TersorError as error:
            self.refused += 1
            message = str(error)
            if "\n" in message or not _SHORTEST <= len(message) <= _LONGEST:
                self.unclear.setdefault(f"message: {message[:80]!r}", what)
        except Exception as error:  # that is what is looked for
            self.unclear.setdefault(f"{type(error).__name__}: {str(error)[:160]}", what)
        self.slowest_s = max(self.slowest_s, time.perf_counter() - start)


def changed(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """Return `content` with pieces put over it or into it, or its end cut off."""
    for kind, place, piece in edits:
        at = int(place * len(content))
        kept = {"set": content[at + len(piece) :], "insert": content[at:], "cut": b""}[kind]
        content = content[:at] + piece + kept
    return content


def fuzz_file(name: str, number: int, examples: int, tally: Tally) -> None:
    """Change a valid file and read it."""
    make, read = TARGETS[name]
    content = make()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "a"
        place.mkdir()

        @seed(number)
        @settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(_EDITS)
        def one(edits: list[tuple[str, float, bytes]]) -> None:
            made = changed(content, edits)
            (place / name).write_bytes(made)
            tally.run(lambda: read(place / name), made[:200].hex())

        one()


def fuzz_words(number: int, examples: int, tally: Tally) -> None:
    """Read texts as references to models and data, drops and budgets."""

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_TEXT)
    def one(text: str) -> None:
        if text.partition(":")[0] in ("hf", "timm"):
            return
        for read in (load_model, load_data, parse_drop, parse_budget):
            tally.run(lambda read=read: read(text), f"{read.__name__}({text!r})")

    one()


def main(name: str, number: int, examples: int) -> None:
    """Run one round and print what happened."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="critical")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    tally = Tally()
    with tempfile.TemporaryDirectory() as here:
        os.chdir(here)
        if name == "words":
            fuzz_words(number, examples, tally)
        else:
            fuzz_file(name, number, examples, tally)
        os.chdir("/")
    print(json.dumps(vars(tally)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
