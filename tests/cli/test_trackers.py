"""Trackers get every number that a report has, through their own clients."""

import json

import pytest

from tersor.cli.app import run
from tersor.cli.trackers import numbers, open_tracker, tracking
from tersor.errors import ArgumentError
from tersor.reporting.record import Aim, Curve, Estimate, Latency, Record, Row, Standing, Verdict
from tersor.search.events import Event

AIM = Aim(
    kind="classification", model="net", metric="accuracy", higher_is_better=True, limit="accuracy >= 0.9"
)
RECORD = Record(
    title="net",
    created="2026-01-31T12:00:00+00:00",
    tersor_version="0.1.0",
    aim=AIM,
    verdict=Verdict(outcome="improved", standing=Standing.HOLDS, sentence="small is 2.00x faster."),
    base=Row(name="original", quality=Estimate(0.92), size_bytes=1000),
    candidates=(Row(name="small", quality=Estimate(0.91), size_bytes=500, latency=Latency(median_s=0.002)),),
    chosen=0,
    curves=(Curve(name="small", quantity="distillation loss", steps=(0.0, 1.0), values=(0.5, 0.25)),),
)


def told(place):
    """Hand a short run to the tracker at `place`."""
    tracker = open_tracker(place)
    tracker(Event("candidate", "small: accuracy 0.91"))
    tracker(Event("training", "small", 3, 4))
    tracker.finish(RECORD)
    tracker.close()


def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told(f"tensorboard:{tmp_path}")
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("candidate/size_bytes")] == [(0, 1000.0), (1, 500.0)]
    assert [e.value for e in read.Scalars("distillation loss/small")] == [0.5, 0.25]
    assert read.Scalars("progress/training")[0].value == 0.75
    assert read.Scalars("shipped/median_s")[0].value == pytest.approx(0.002)
    text = read.Tensors("verdict/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "2.00x faster" in text


def test_mlflow_gets_every_number(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = tmp_path.as_uri()
    told(f"mlflow:{place}")
    client = mlflow.MlflowClient(tracking_uri=place)
    (found,) = client.search_runs([client.get_experiment_by_name("tersor").experiment_id])
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "candidate/size_bytes")
    assert [(m.step, m.value) for m in history] == [(0, 1000.0), (1, 500.0)]


def test_wandb_keeps_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    told("wandb:tersor")
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_a_failing_command_still_closes_its_trackers():
    class Sink:
        closed = False

        def number(self, name, value, step): ...

        def text(self, name, text): ...

        def close(self):
            self.closed = True

    sink = Sink()
    from tersor.cli import trackers

    trackers.TRACKERS["test"] = lambda place: sink
    try:
        with pytest.raises(RuntimeError), tracking(["test:x"]):
            raise RuntimeError
    finally:
        del trackers.TRACKERS["test"]
    assert sink.closed
    assert trackers.trackers() == ()


def test_numbers_leave_out_what_was_not_measured():
    assert numbers(RECORD.base) == {"quality": 0.92, "size_bytes": 1000.0}
    assert json.dumps(numbers(RECORD.candidates[0]))


@pytest.mark.parametrize("place", ["tensorbord:runs", "tensorboard", "tensorboard:", "comet:x"])
def test_an_unknown_tracker_is_a_usage_error(place, capsys):
    with pytest.raises(ArgumentError):
        open_tracker(place)
    assert run(["doctor", "--track", place]) == 2
    assert "tensorboard" in capsys.readouterr().err
