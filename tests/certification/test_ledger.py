"""The ledger: a chain that shows edits, and a budget that adds up to alpha."""

from itertools import product

import pytest

from tersor.certification.ledger import Continuation, Ledger, attempt_alpha, read_ledger
from tersor.errors import CertificateError


def begin(ledger, number, finalists=3, shown=5, data="d"):
    ledger.append(
        "attempt",
        data_sha256=data,
        number=number,
        transcripts=1,
        alpha=0.01,
        finalists=["x"] * finalists,
        values_shown=shown,
    )


def test_all_attempts_together_spend_at_most_alpha():
    assert 0.0499 < sum(attempt_alpha(0.05, j) for j in range(1, 2000)) < 0.05


def test_all_transcripts_of_all_attempts_together_spend_at_most_alpha():
    spent, answers = 0.0, [4, 6, 3]
    for j in range(1, 4):
        paths = list(product(*[range(t) for t in answers[: j - 1]]))
        spent += sum(attempt_alpha(0.05, j, transcripts=len(paths)) for _ in paths)
    assert spent <= 0.05


def test_a_new_ledger_begins_with_its_rule(tmp_path):
    Ledger(tmp_path / "a" / "l.jsonl", continuation=Continuation.ALWAYS)
    assert Ledger(tmp_path / "a" / "l.jsonl").continuation is Continuation.ALWAYS


def test_failed_attempts_count_and_charge_no_transcript(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    begin(ledger, 1)
    ledger.append("outcome", data_sha256="d", number=1, passed=0)
    attempt = ledger.next_attempt("d", 0.05)
    assert (attempt.number, attempt.transcripts, attempt.open) == (2, 1, True)


def test_a_pass_closes_the_ledger_for_this_data_only(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    begin(ledger, 1)
    ledger.append("outcome", data_sha256="d", number=1, passed=2)
    assert not ledger.next_attempt("d", 0.05).open
    assert ledger.next_attempt("other", 0.05).open
    assert ledger.next_attempt("other", 0.05).number == 1


def test_transcripts_multiply_under_the_open_rule(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", continuation=Continuation.ALWAYS)
    begin(ledger, 1, finalists=3, shown=5)
    begin(ledger, 2, finalists=1, shown=7)
    ledger.append("outcome", data_sha256="d", number=2, passed=1)
    attempt = ledger.next_attempt("d", 0.05)
    assert (attempt.number, attempt.transcripts, attempt.open) == (3, 4 * 5 * 2 * 7, True)


@pytest.mark.parametrize("line", [0, 1, 2])
def test_an_edited_line_is_named(tmp_path, line):
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.append("note", text="one")
    ledger.append("note", text="two")
    lines = ledger.path.read_text().splitlines()
    lines[line] = lines[line].replace("event", "evemt")
    ledger.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CertificateError, match=f"Line {line + 1}"):
        ledger.entries()
    with pytest.raises(CertificateError, match="edited"):
        ledger.append("note", text="three")


@pytest.mark.parametrize(
    "change",
    [lambda t: t.rstrip("\n"), lambda t: t + "\n", lambda t: t.replace(", ", ",", 1), lambda t: t + "{}\n"],
)
def test_changes_of_layout_are_edits_too(tmp_path, change):
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.path.write_text(change(ledger.path.read_text()))
    with pytest.raises(CertificateError, match="edited"):
        ledger.entries()


def test_removed_and_swapped_lines_are_edits(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    for text in "abc":
        ledger.append("note", text=text)
    first, second, third, fourth = ledger.path.read_text().splitlines(keepends=True)
    for lines in ([first, third, fourth], [first, third, second, fourth], [second, third]):
        ledger.path.write_text("".join(lines))
        with pytest.raises(CertificateError, match="edited"):
            ledger.entries()


def test_a_missing_or_empty_ledger_is_said(tmp_path):
    with pytest.raises(CertificateError, match="no ledger"):
        read_ledger(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(CertificateError):
        Ledger(tmp_path / "empty.jsonl")


def test_an_attempt_that_broke_off_is_charged_for_where_it_did(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    begin(ledger, 1, finalists=3)
    assert ledger.next_attempt("d", 0.05).transcripts == 4


def test_data_that_shares_samples_shares_the_budget(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    for name, samples in (("d", ["a", "b"]), ("part of d", ["b", "c"]), ("other", ["x"])):
        ledger.append("hash", data_sha256=name, samples=2, smallest=samples)
    begin(ledger, 1)
    ledger.append("outcome", data_sha256="d", number=1, passed=0)
    assert ledger.next_attempt("part of d", 0.05).number == 2
    assert ledger.next_attempt("other", 0.05).number == 1
