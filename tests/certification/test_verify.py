"""Verification: what is stored is enough to recompute the claim, and one changed byte is found."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tersor.certification.certificate import Certificate
from tersor.certification.certify import Contender
from tersor.certification.ledger import Ledger
from tersor.certification.store import hash_in, save_certification
from tersor.certification.verify import Verdict, verify
from tersor.errors import CertificateError


@pytest.fixture
def folder(bench, tmp_path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(bytes(range(256)))
    made = bench.contender("model.onnx", 20, 10)
    finalist = Contender(made.name, hash_in(out, "model.onnx"), made.read)
    save_certification(bench.certify([bench.contender("safe", 4, 4), finalist]), out, ["model.onnx"])
    return out


def edit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def test_an_untouched_folder_verifies(folder):
    result = verify(folder)
    assert result.verdict is Verdict.VERIFIED
    assert result.reasons == ()
    assert result.certificate.name == "model.onnx"


@pytest.mark.parametrize("name", ["model.onnx", "outcomes.npz", "ledger.jsonl", "certificate.json"])
@pytest.mark.parametrize("where", [0.0, 0.31, 0.5, 0.77, 1.0])
def test_one_changed_byte_is_found(folder, name, where):
    edit(folder / name, int(where * ((folder / name).stat().st_size - 1)))
    result = verify(folder)
    assert result.verdict is Verdict.BROKEN
    assert any(word in result.words() for word in (name, "ledger", "certificate"))


@pytest.mark.parametrize("name", ["model.onnx", "outcomes.npz", "ledger.jsonl", "certificate.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    result = verify(folder)
    assert result.verdict is Verdict.BROKEN
    assert name.partition(".")[0] in result.words()


def test_every_byte_of_the_ledger_counts(folder):
    original = (folder / "ledger.jsonl").read_bytes()
    for position in range(0, len(original), 37):
        edit(folder / "ledger.jsonl", position)
        assert verify(folder).verdict is Verdict.BROKEN, position
        (folder / "ledger.jsonl").write_bytes(original)


def test_a_ledger_cut_short_is_found(folder):
    lines = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_text("".join(lines[:-1]))
    assert "not the one that the ledger records" in verify(folder).words()


def rewritten(folder: Path, **changes) -> None:
    """Write another certificate and record it properly, as a careful forger would."""
    certificate = Certificate.from_json((folder / "certificate.json").read_text())
    forged = replace(certificate, **changes)
    (folder / "certificate.json").write_text(forged.to_json())
    Ledger(folder / "ledger.jsonl").append("certificate", sha256=forged.sha256, decision=forged.decision.name)


def test_a_smaller_margin_is_not_supported_by_the_outcomes(folder):
    claim = Certificate.from_json((folder / "certificate.json").read_text()).claim
    rewritten(folder, claim=replace(claim, margin=0.006))
    assert "do not support the claim" in verify(folder).words()


def test_a_level_that_the_attempt_did_not_have_is_found(folder):
    certificate = Certificate.from_json((folder / "certificate.json").read_text())
    rewritten(folder, claim=replace(certificate.claim, confidence=0.99))
    assert "was allowed less" in verify(folder).words()
    rewritten(folder, attempt=replace(certificate.attempt, alpha=0.05))
    assert "records no attempt" in verify(folder).words()


def test_other_outcomes_are_found_even_if_their_hash_is_written(folder):
    np.savez(
        folder / "outcomes.npz",
        **{"0.base": np.ones(2000), "0.candidate": np.ones(2000), "0.bounds": np.array([0.0, 1.0])},
    )
    certificate = Certificate.from_json((folder / "certificate.json").read_text())
    rewritten(folder, files={**certificate.files, "outcomes.npz": hash_in(folder, "outcomes.npz")})
    assert "the certificate says" in verify(folder).words()


def test_a_certificate_from_another_machine_says_so(folder):
    certificate = Certificate.from_json((folder / "certificate.json").read_text())
    machine = replace(certificate.machine, features=("amx_int8", "avx512_vnni"), runtime_version="1.0")
    rewritten(folder, machine=machine)
    result = verify(folder)
    assert result.verdict is Verdict.OTHER_MACHINE
    assert "amx_int8" in result.words()
    assert "onnxruntime was 1.0, here it is" in result.words()


def test_equal_scores_carry_the_claim_to_another_machine(folder):
    certificate = Certificate.from_json((folder / "certificate.json").read_text())
    rewritten(folder, machine=replace(certificate.machine, features=("neon",)))
    scores = np.load(folder / "outcomes.npz")["0.candidate"].copy()
    assert verify(folder, scores=scores).verdict is Verdict.VERIFIED
    scores[5] = 1 - scores[5]
    result = verify(folder, scores=scores)
    assert result.verdict is Verdict.BROKEN
    assert "1 of 2000 samples score differently" in result.words()
    assert "1999 scores" in verify(folder, scores=scores[1:]).words()


def test_a_refusal_is_stored_without_outcomes(bench, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    certificate = save_certification(bench.certify([bench.contender("c", 90, 10)]), out)
    assert not (out / "outcomes.npz").exists()
    assert certificate.files == {}
    assert verify(out).verdict is Verdict.NO_CLAIM


def test_another_file_than_the_certified_one_cannot_be_stored(bench, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"another")
    with pytest.raises(CertificateError, match="Copy the exported file unchanged"):
        save_certification(bench.certify([bench.contender("a", 4, 4)]), tmp_path, ["model.onnx"])


def test_a_safer_finalist_that_holds_may_be_stored_instead(bench, tmp_path):
    (tmp_path / "safe.onnx").write_bytes(b"safe")
    made = bench.contender("safe", 4, 4)
    finalists = [
        Contender("safe.onnx", hash_in(tmp_path, "safe.onnx"), made.read),
        bench.contender("bold", 20, 10),
    ]
    save_certification(bench.certify(finalists), tmp_path, ["safe.onnx"], index=0)
    result = verify(tmp_path)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate.evidence.b == 4


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_names_that_lead_out_of_the_folder_are_refused(folder, name):
    with pytest.raises(CertificateError, match="leads out"):
        hash_in(folder, name)


def test_stored_outcomes_are_never_unpickled(folder):
    np.savez(folder / "outcomes.npz", **{"0.base": np.array([{}], dtype=object)})
    certificate = Certificate.from_json((folder / "certificate.json").read_text())
    rewritten(folder, files={**certificate.files, "outcomes.npz": hash_in(folder, "outcomes.npz")})
    assert "does not hold stored outcomes" in verify(folder).words()


def test_the_certificate_is_plain_json(folder):
    content = json.loads((folder / "certificate.json").read_text())
    assert content["decision"] == "HOLDS"
    assert content["evidence"]["b"] == 20
