import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from tersor.errors import ArgumentError, DataError
from tersor.quantization.grid import QSpec, decode, encode, place, place_dynamic, spread
from tersor.quantization.observer import Observer, Samples
from tersor.quantization.ranges.mse import squared_error
from tersor.quantization.ranges.registry import RANGES, range_rule

SPECS = (QSpec(0, 255), QSpec(-128, 127), QSpec(-127, 127, symmetric=True), QSpec(-7, 7, symmetric=True))
finite = st.floats(-1e4, 1e4, width=32)


def runtime(x, step, zero):
    """QuantizeLinear and DequantizeLinear as ONNX Runtime computes them."""
    code = TensorProto.UINT8 if zero.dtype == np.uint8 else TensorProto.INT8
    value = lambda name, kind, shape: make_tensor_value_info(name, kind, shape)
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [value("x", TensorProto.FLOAT, [None]), value("s", TensorProto.FLOAT, []), value("z", code, [])]
    outs = [value("q", code, [None]), value("y", TensorProto.FLOAT, [None])]
    model = make_model(
        make_graph(nodes, "g", ends, outs), opset_imports=[make_opsetid("", 21)], ir_version=10
    )
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x, "s": step, "z": zero})


@pytest.mark.parametrize(("spec", "dtype"), [(SPECS[0], np.uint8), (SPECS[1], np.int8)])
def test_codes_are_those_of_the_runtime_bit_for_bit(spec, dtype):
    generator = np.random.default_rng(0)
    # A step for which multiplying with its reciprocal rounds dozens of ties the other way.
    step, zero = np.asarray(0.0123, np.float32), np.asarray(17, dtype)
    ties = (np.arange(-600, 600) * np.float32(0.5) * step).astype(np.float32)
    x = np.concatenate([ties, generator.normal(size=4000).astype(np.float32) * 10])
    codes, values = runtime(x, step, zero)
    ours = encode(torch.from_numpy(x), torch.tensor(step), torch.tensor(17.0), spec)
    assert np.array_equal(ours.numpy(), codes.astype(np.float32))
    assert np.array_equal(decode(ours, torch.tensor(step), torch.tensor(17.0), spec).numpy(), values)


@given(st.lists(finite, min_size=1, max_size=50), st.sampled_from(SPECS))
def test_inside_the_range_the_error_is_at_most_one_step_and_zero_is_exact(values, spec):
    x = torch.tensor(values)
    step, zero = place(x.amin(), x.amax(), spec)
    hat = decode(encode(x, step, zero, spec), step, zero, spec)
    # Half a step from rounding, and up to half of one at an end from rounding the zero point.
    assert (hat - x).abs().max() <= step * 1.001
    assert decode(encode(torch.zeros(1), step, zero, spec), step, zero, spec).item() == 0.0


@given(st.lists(finite, min_size=1, max_size=50), st.sampled_from(SPECS))
def test_rounding_twice_is_rounding_once(values, spec):
    x = torch.tensor(values)
    step, zero = place(x.amin(), x.amax(), spec)
    once = decode(encode(x, step, zero, spec), step, zero, spec)
    assert torch.equal(decode(encode(once, step, zero, spec), step, zero, spec), once)


def test_a_rectified_range_puts_its_zero_at_the_smallest_code():
    for spec in (QSpec(0, 255), QSpec(-128, 127)):
        _, zero = place(torch.tensor(0.3), torch.tensor(2.0), spec)
        assert zero == spec.qmin


def test_blocks_share_a_step_with_their_neighbours_only():
    spec = QSpec(-7, 7, axis=1, block=2, symmetric=True)
    steps = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = torch.tensor([[1.0, 1.0, 2.0], [3.0, 3.0, 4.0]])
    assert torch.equal(spread(steps, torch.zeros(2, 3), spec), expected)


def test_ranges_taken_at_run_time_are_those_of_the_runtime():
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    names = ["q", "s", "z"]
    kinds = [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8]
    outs = [
        make_tensor_value_info(n, k, [None] if n == "q" else []) for n, k in zip(names, kinds, strict=True)
    ]
    graph = make_graph(
        [make_node("DynamicQuantizeLinear", ["x"], names)], "g",
        [make_tensor_value_info("x", TensorProto.FLOAT, [None])], outs,
    )  # fmt: skip
    model = make_model(graph, opset_imports=[make_opsetid("", 21)], ir_version=10)
    codes, step, zero = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    spec = QSpec(0, 255, dynamic=True)
    our_step, our_zero = place_dynamic(torch.from_numpy(x), spec)
    assert our_zero.item() == zero
    assert our_step.item() == pytest.approx(float(step), rel=1e-6)
    differ = encode(torch.from_numpy(x), our_step, our_zero, spec).numpy() != codes
    assert differ.mean() <= 0.01


@pytest.mark.parametrize("bad", [(0, 0), (1, 3), (-3, -1)])
def test_codes_without_zero_are_refused(bad):
    with pytest.raises(ArgumentError, match="zero must be exact"):
        QSpec(*bad)


def distributions():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(3, 4000, generator=generator)
    return {
        "normal": normal,
        "rectified": normal.relu(),
        "tailed": normal**3,
        "constant": torch.full((3, 50), 2.5),
    }


@pytest.mark.parametrize("name", sorted(RANGES))
@pytest.mark.parametrize("kind", sorted(distributions()))
@pytest.mark.parametrize(
    "spec", [QSpec(0, 15), QSpec(-7, 7, axis=0, symmetric=True)], ids=["affine", "symmetric"]
)
def test_every_rule_gives_a_usable_range_that_scales_with_the_data(name, kind, spec):
    rows, rule = distributions()[kind], range_rule(name)
    lo, hi = rule(Samples.of(rows), spec)
    assert lo.shape == hi.shape == (3,)
    assert torch.isfinite(lo).all()
    assert torch.isfinite(hi).all()
    assert (hi >= lo).all()
    slack = (rows.amax(1) - rows.amin(1)) / 8 + 1e-5
    if name != "hqq":  # Its zero point moves the range as a whole.
        assert (lo >= rows.amin(1).clamp(max=0) - slack).all()
        assert (hi <= rows.amax(1).clamp(min=0) + slack).all()
    wider = rule(Samples.of(rows * 4.0), spec)
    assert torch.allclose(wider[1], hi * 4.0, rtol=0.15, atol=1e-4)


def test_the_least_squares_range_beats_the_whole_range_where_it_should():
    samples, spec = Samples.of(distributions()["tailed"]), QSpec(-7, 7, axis=0, symmetric=True)
    errors = {name: squared_error(samples, spec, *range_rule(name)(samples, spec)).sum() for name in RANGES}
    assert errors["mse"] == min(errors.values())
    assert errors["mse"] < 0.8 * errors["minmax"]


def test_the_least_squares_range_matches_an_exhaustive_search():
    generator = np.random.default_rng(0)
    x = generator.standard_t(3, 3000)
    lo, hi = range_rule("mse")(Samples.of(torch.tensor(x)[None]), QSpec(-7, 7, axis=0, symmetric=True))
    ours = max(-lo.item(), hi.item())

    def error(reach):
        step = reach / 7
        return np.square(np.clip(np.round(x / step), -7, 7) * step - x).sum()

    best = min(error(reach) for reach in np.linspace(0.05, 1.0, 400) * np.abs(x).max())
    assert error(ours) <= 1.02 * best


def test_an_unknown_rule_is_refused_with_the_names():
    with pytest.raises(ArgumentError, match=r"'entropy'.*Did you mean 'minmax'"):
        range_rule("minimax")


def test_an_observer_without_finite_values_is_refused():
    observer = Observer("conv")
    observer.look(torch.tensor([float("inf")]))
    with pytest.raises(DataError, match="no finite range for 'conv'"):
        observer.start_counting()
