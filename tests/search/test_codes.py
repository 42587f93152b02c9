"""A search rounds where the runtime that its files are for rounds."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter

from tersor.quantization.hardware import Processor, detect, scheme_for
from tersor.quantization.recipe import Recipe
from tersor.search.request import make_request
from tersor.search.run import codes_for
from tersor.search.stored import Grid


@pytest.mark.parametrize(
    ("targets", "places"),
    [
        (("openvino",), "openvino"),
        (("onnxruntime",), "onnxruntime"),
        (("openvino", "onnxruntime"), "onnxruntime"),
        (("onnxruntime", "executorch"), "executorch"),
        (("executorch",), "executorch"),
        (("torch",), "onnxruntime"),
    ],
)
def test_integers_round_where_every_target_can(targets, places):
    request = replace(make_request("1%", "onnxruntime", "size", None, {}), targets=targets)
    assert codes_for(SimpleNamespace(request=request), "static").runtime == places


def test_a_grid_on_disk_keeps_its_places_and_one_without_has_those_of_onnxruntime():
    stored = TypeAdapter(Grid)
    grid = Grid(scheme_for(detect(), "static", "openvino"), Recipe())
    written = stored.dump_json(grid)
    assert stored.validate_json(written) == grid
    before = stored.dump_python(grid)
    del before["scheme"]["runtime"]
    assert stored.validate_python(before).scheme.runtime == "onnxruntime"


def test_no_kernel_of_any_target_overflows(monkeypatch):
    old = Processor("x86", frozenset({"avx2"}))
    monkeypatch.setattr("tersor.search.run.detect", lambda: old)
    request = replace(
        make_request("1%", "onnxruntime", "size", None, {}), targets=("onnxruntime", "executorch")
    )
    codes = codes_for(SimpleNamespace(request=request), "static")
    assert codes.weight == scheme_for(old, "static").weight
    assert codes.weight.qmax < scheme_for(old, "static", "executorch").weight.qmax
