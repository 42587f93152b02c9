"""The whole way with real files: exported models, opened in their runtime, certified on sealed samples."""

import pytest
import torch
from torch import nn

from tersor.certification.certificate import Setting
from tersor.certification.certify import Contender, certify_all
from tersor.certification.demand import Demand
from tersor.certification.ledger import Ledger
from tersor.certification.seal import Seal
from tersor.certification.store import save_certification
from tersor.certification.verify import Verdict, verify
from tersor.exporting.export import export, open_artefact
from tersor.loading.metric import Metric

ACCURACY = Metric(
    "accuracy",
    value=lambda o, t: float((o.argmax(1) == t).double().mean()),
    scores=lambda o, t: (o.argmax(1) == t).double(),
)
WHOLE = Metric("accuracy of the set", value=ACCURACY.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_split):
    """Three classifiers as ONNX files (the second rounds its weights, the third is wrong) and labelled samples."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    inputs = torch.randn(900, 6)
    base = nn.Linear(6, 3)
    rounded, wrong = nn.Linear(6, 3), nn.Linear(6, 3)
    rounded.load_state_dict({name: (value * 64).round() / 64 for name, value in base.state_dict().items()})
    split = make_split(inputs, "certification")
    split.target = (base(inputs) + 0.3 * torch.randn(900, 3)).argmax(1)
    models = {"base": base, "rounded": rounded, "wrong": wrong}
    return split, {k: export(m, (inputs[:2],), folder / f"{k}.onnx") for k, m in models.items()}


@pytest.mark.parametrize("metric", [ACCURACY, WHOLE], ids=lambda metric: metric.name)
def test_exported_files_are_certified_stored_and_verified(files, tmp_path, metric):
    split, artefacts = files
    seal = Seal(split, Ledger(tmp_path / "data.jsonl"))
    base, *finalists = (
        Contender(f"{name}.onnx", file.sha256, seal.reader(open_artefact(file, threads=1), metric, batch=50))
        for name, file in artefacts.items()
    )
    setting = Setting("onnxruntime", threads=1, batch=50)
    demands = [Demand(metric, 0.03, draws=1000)]
    result = certify_all(base, finalists, seal=seal, demands=demands, setting=setting)
    assert [certificate.decision.name for certificate in result.certificates] == ["HOLDS", "REFUSED"]
    shipped = tmp_path / "rounded.onnx"
    shipped.write_bytes(artefacts["rounded"].path.read_bytes())
    save_certification(result, tmp_path, ["rounded.onnx"])
    found = verify(tmp_path)
    assert found.verdict is Verdict.VERIFIED, found.words()
    assert found.certificate.machine.runtime_version
    model = bytearray(shipped.read_bytes())
    model[len(model) // 2] ^= 1
    shipped.write_bytes(bytes(model))
    assert verify(tmp_path).reasons == (
        "rounded.onnx is not the file that was certified: its content has changed.",
    )
