"""A search rounds where the runtime that its files are for rounds."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter

from tersor.quantization.hardware import detect, scheme_for
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
        (("torch",), "onnxruntime"),
    ],
)
def test_only_a_search_for_openvino_alone_rounds_as_openvino_does(targets, places):
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
