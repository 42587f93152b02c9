"""What each site costs when it alone runs in integers, and the plan that leaves the worst in floating point."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx, nn

from tersor._check import positive
from tersor.errors import ArgumentError
from tersor.loading.inputs import Inputs, as_inputs
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.calibrate import check_calibration
from tersor.quantization.choose import outputs
from tersor.quantization.fake_quantize import FakeQuantize
from tersor.quantization.insert import quantizer_calls, table_calls
from tersor.quantization.layers import layers
from tersor.quantization.model import QuantizedModel
from tersor.quantization.placement import OPENVINO_CPU, makers
from tersor.quantization.quantize import quantize_module
from tersor.quantization.tables import site_of_table


@dataclass(frozen=True, slots=True)
class Cost:
    """What rounding one site alone does to the outputs.

    Attributes:
        site: name of the site.
        noise: energy of the change of the outputs over the energy of the outputs.
    """

    site: str
    noise: float

    @property
    def sqnr_db(self) -> float:
        """The same in decibels: `-10 log10(noise)`."""
        return float("inf") if self.noise == 0 else float(-10.0 * np.log10(self.noise))


def sensitivity(quantized: QuantizedModel, batches: Sequence[Inputs]) -> tuple[Cost, ...]:
    """Return the cost of each site of `quantized`, dearest first: its weight and its input rounded, nothing else.

    Where attention multiplies in integers, what a site gives to the product is rounded with it. One pass over
    `batches` a site. The model is left as it was.

    Example:
        >>> import torch
        >>> from tersor.quantization.quantize import quantize
        >>> model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(64, 4)
        >>> small = quantize(model, (x[:2],), [(x,)], scheme="static")
        >>> sorted(cost.site for cost in sensitivity(small, [(x,)]))
        ['0', '2']
    """
    with quantized.rounding(lambda _: False):
        expected = outputs(quantized, batches)
    energy = max(float(np.square(expected, dtype=np.float64).sum()), 1e-30)
    costs = []
    for site, own in _quantizers_by_site(quantized).items():
        with quantized.rounding(lambda quantizer, own=own: id(quantizer) in own):
            change = outputs(quantized, batches) - expected
        costs.append(Cost(site, float(np.square(change, dtype=np.float64).sum()) / energy))
    return tuple(sorted(costs, key=lambda cost: -cost.noise))


def _quantizers_by_site(quantized: QuantizedModel) -> dict[str, set[int]]:
    modules = dict(quantizer_calls(quantized.graph_module))
    found: dict[str, set[int]] = {}
    made = _by_maker(modules)
    for layer in layers(quantized.graph_module):
        site = layer.weight.rpartition(".")[0] or layer.node.name
        own = {id(modules[node]) for node in layer.node.all_input_nodes if node in modules}
        found.setdefault(site, set()).update(own | made.get(layer.node, set()))
    for lookup, table in table_calls(quantized.graph_module):
        found.setdefault(site_of_table(lookup), set()).add(id(table))
    return found


def _by_maker(modules: Mapping[fx.Node, FakeQuantize]) -> dict[fx.Node, set[int]]:
    """Return, for each layer, what rounds the sides of products of activations that it makes."""
    found: dict[fx.Node, set[int]] = {}
    for call, quantizer in modules.items():
        if all(reader.target in OPENVINO_CPU.scores for reader in call.users):
            for layer in makers(call):
                found.setdefault(layer, set()).add(id(quantizer))
    return found


def quantize_within(
    model: nn.Module,
    inputs: Inputs,
    calibration: Iterable[Inputs],
    *,
    least_db: float,
    rounds: int = 6,
    **options: Any,
) -> QuantizedModel:
    """Return `quantize(model, ...)` with as few sites in floating point as reach `least_db` on the calibration data.

    Costs of single sites add up to a good guess of the whole; the dearest sites leave until the guess fits, the rest
    is quantized and measured, and the guess is scaled by what was found.

    Args:
        model: the trained model; not changed.
        inputs: example inputs.
        calibration: batches of inputs.
        least_db: signal to quantization noise ratio of the outputs to reach, in decibels.
        rounds: most models to build.
        options: `scheme`, `recipe` and `budget_s`, as for `quantize`.

    Returns:
        The model; `floats` gives each site left out, with its cost.

    Raises:
        ArgumentError: if no site can run in integers within `least_db`.

    Example:
        >>> import torch
        >>> model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(64, 4)
        >>> quantize_within(model, (x[:2],), [(x,)], least_db=20.0, scheme="static").integers
        ('0', '2')

    Source: additive noise model as in Dong et al., HAWQ-V2, NeurIPS 2020, with the noise measured.
    """
    positive("budget_s", options.get("budget_s", 1.0))
    inputs = as_inputs(inputs)
    batches = check_calibration(calibration, inputs)
    whole = quantize_module(model, inputs, batches, **options)
    costs, allowed = sensitivity(whole, batches), 10.0 ** (-least_db / 10.0)
    best = whole
    excess = max(_noise(whole, batches) / max(sum(cost.noise for cost in costs), 1e-30), 1.0)
    for _ in range(rounds):
        if _noise(best, batches) <= allowed:
            return best
        kept = _cheapest(costs, allowed / excess)
        if not kept:
            break
        plan = Plan(tuple(Quantize(cost.site) for cost in costs if cost in kept))
        best = quantize_module(model, inputs, batches, plan=plan, **options)
        best.floats |= {c.site: f"rounded alone it leaves {c.sqnr_db:.1f} dB" for c in costs if c not in kept}
        excess *= max(_noise(best, batches) / allowed, 1.05)
    raise ArgumentError(
        f"No set of sites reaches {least_db:g} dB; the cheapest site alone leaves {costs[-1].sqnr_db:.1f} dB. Lower "
        "`least_db`, train the quantized model, or use weights alone (scheme='int8')."
    )


def _cheapest(costs: Sequence[Cost], allowed: float) -> set[Cost]:
    kept, total = set[Cost](), 0.0
    for cost in reversed(costs):
        total += cost.noise
        if total <= allowed:
            kept.add(cost)
    return kept


def _noise(quantized: QuantizedModel, batches: Sequence[Inputs]) -> float:
    """Return the energy of all rounding together over the energy of the outputs."""
    have = outputs(quantized, batches)
    with quantized.rounding(lambda _: False):
        expected = outputs(quantized, batches)
    error = np.square(have - expected, dtype=np.float64).sum()
    return float(error / max(float(np.square(expected, dtype=np.float64).sum()), 1e-30))
