"""The noun that `optimize` returns: a Result, which saves itself as a folder that stands on its own."""

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from tersor._extras import require
from tersor.certification.certificate import Certificate
from tersor.certification.certify import Certification
from tersor.certification.store import LEDGER, OUTCOMES, save_certification
from tersor.exporting.artefact import Artefact
from tersor.exporting.files import main_file
from tersor.exporting.keras_file import back_to_keras
from tersor.measurement.result import Comparison
from tersor.reporting.folder import write_folder
from tersor.reporting.record import Record
from tersor.reporting.report import render_html
from tersor.search.candidate import Candidate
from tersor.search.changed import changed_answers
from tersor.search.describe import Story, describe, sentence
from tersor.search.insight import Insight, look
from tersor.search.interim import SEARCH
from tersor.search.log import LOG
from tersor.search.outcome import Fate, Outcome
from tersor.search.run import Run


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        run: the task, the request and the base.
        tried: every candidate, in the order in which they were made.
        best: the certified candidate that is returned; None when the original is.
        certification: the attempt on the sealed data; None if no finalist was good enough for one.
        outcome: how the search ended; its value is the advice.
        notes: how the data was bound and split, the metric and the loss, in words.
        work: temporary files that live as long as the result.
        log: what was tried and why, in words.
    """

    run: Run = field(repr=False)
    tried: tuple[Candidate, ...] = field(repr=False)
    best: Candidate | None
    certification: Certification | None = field(repr=False)
    outcome: Outcome
    notes: tuple[str, ...] = field(default=(), repr=False)
    work: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)
    log: Path | None = field(default=None, repr=False)

    @property
    def answer(self) -> Candidate:
        """The candidate that is shipped: the best, or the original."""
        return self.best or self.run.base

    @property
    def model(self) -> nn.Module:
        """The torch module that is shipped, called as the original is."""
        assert self.answer.model is not None
        return self.answer.model

    @property
    def artefact(self) -> Artefact:
        """The file that is shipped."""
        assert self.answer.artefact is not None
        return self.answer.artefact

    @property
    def speed(self) -> Comparison | None:
        """How the shipped file runs against the best free baseline; None when the original is shipped."""
        return self.answer.speed

    @property
    def certificate(self) -> Certificate | None:
        """The claim about the shipped file; None when the original is shipped."""
        return None if self.best is None else self.best.certificate

    @property
    def front(self) -> tuple[Candidate, ...]:
        """The certified candidates, in the order in which they were made."""
        return tuple(candidate for candidate in self.tried if candidate.fate is Fate.CERTIFIED)

    @property
    def _story(self) -> Story:
        return Story(self.run, self.tried, self.best, self.outcome, self.notes)

    @cached_property
    def _insight(self) -> Insight:
        """What the report tells beyond the search, measured when it is first asked for."""
        return look(self.run, self.answer, self.log)

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        return sentence(self._story)

    def record(self, command: str = "", config: str = "", examples: int = 0) -> Record:
        """Return everything about the run as plain data for reports; with `examples`, samples whose answer changed."""
        plain = describe(self._story, command, config, self._insight)
        return replace(plain, changed=changed_answers(self.run, self.answer, examples)) if examples else plain

    def report(self, path: str | Path) -> Path:
        """Write the report alone, one page that needs no network and runs no script."""
        path = Path(path)
        path.write_text(render_html(self.record()), encoding="utf-8")
        return path

    def to_pandas(self) -> Any:
        """Return one row for every candidate, as a pandas DataFrame.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        pandas = require("pandas", extra="table", purpose="A table of candidates")
        return pandas.DataFrame([_row(candidate) for candidate in (self.run.base, *self.tried)])

    def save(self, folder: str | Path, *, command: str = "", config: str = "", examples: int = 0) -> Path:
        """Write the artefact folder: model, certificate, reports, model card and `run.py`.

        The folder appears as a whole or not at all, and only replaces one that tersor wrote.

        Args:
            folder: where to.
            command: the command that reproduces the run, for the report.
            config: its words in full, as TOML for `--config`.
            examples: samples whose answer changed to show; none unless asked for, because they are your data.

        Returns:
            The folder, as an absolute path.

        Raises:
            FolderError: if the folder holds something that tersor did not write, or cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="tersor-save-") as staging:
            files, certificate = self._stage(Path(staging))
            return write_folder(
                folder,
                self.record(command, config, examples),
                files=files,
                certificate=certificate,
                config=self.run.request.as_config(),
                options=self.artefact.options,
                kept=(SEARCH,) if self.run.journal.folder == Path(folder).absolute() / SEARCH else (),
            )

    def _stage(self, staging: Path) -> tuple[dict[str, Path], str | None]:
        """Gather the files to ship, and the certificate that names their hashes."""
        main = main_file(self.artefact.runtime)
        files = {main: staging / main}
        files[main].write_bytes(self.artefact.path.read_bytes())
        closest = self._closest()
        if closest is not None and closest.artefact is not None:
            files[f"closest/{main}"] = closest.artefact.path
        certificate = None
        if self.best is not None and self.certification is not None:
            certificate = self._certified(staging, self._position, main)
            files[OUTCOMES] = staging / OUTCOMES
        files |= self._further_targets(staging) | back_to_keras(self.answer.model, staging)
        if self.log is not None:
            files[LOG] = self.log
        if self.certification is not None:
            files[LEDGER] = self.certification.seal.ledger.path
        (staging / "plan.json").write_text(self.answer.plan.to_json() + "\n", encoding="utf-8")
        return files | {"plan.json": staging / "plan.json"}, certificate

    @property
    def _position(self) -> int:
        """Place of the shipped file in the frozen sequence."""
        assert self.certificate is not None
        return self.certificate.position

    def _certified(self, folder: Path, position: int, name: str) -> str:
        """Write the certificate of the file at `position` beside it, and return it."""
        return save_certification(self._shipped_claim(), folder, [name], index=position).to_json()

    def _further_targets(self, staging: Path) -> dict[str, Path]:
        """Gather a folder for each further target: the model, and a certificate that stands on its own."""
        files: dict[str, Path] = {}
        for place, file in enumerate(self.answer.others, start=1):
            folder = staging / file.runtime
            folder.mkdir()
            name = f"model{file.path.suffix}"
            shutil.copyfile(file.path, folder / name)
            if self.best is not None:
                self._certified(folder, self._position + place, name)
            files |= {f"{folder.name}/{path.name}": path for path in folder.iterdir()}
        return files

    def _shipped_claim(self) -> Certification:
        """Return the certification with the final measurement beside the claim."""
        assert self.certification is not None
        assert self.certificate is not None
        certificates = list(self.certification.certificates)
        certificates[self.certificate.position] = self.certificate
        return replace(self.certification, certificates=tuple(certificates))

    def _closest(self) -> Candidate | None:
        """Return the candidate nearest to the limit, when none holds it."""
        missed = [c for c in self.tried if c.fate in (Fate.MISSED, Fate.REFUSED) and c.quality is not None]
        if self.best is not None or not missed:
            return None
        return min(missed, key=self.run.drop)


def _row(candidate: Candidate) -> dict[str, object]:
    speed = candidate.speed
    return {
        "name": candidate.name,
        "quality": None if candidate.quality is None else candidate.quality.value,
        "speedup": None if speed is None else speed.ratio,
        "speedup_low": None if speed is None else speed.low,
        "median_s": None if speed is None else speed.candidate.median_s,
        "size_bytes": None if candidate.artefact is None else candidate.artefact.size_bytes,
        "parameters": candidate.parameters,
        "macs": candidate.macs,
        "fate": candidate.fate.name.lower(),
        "reason": candidate.reason,
    }
