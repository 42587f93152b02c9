"""Learn for each weight whether to round it up or down."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tersor.quantization.algorithms.registry import refinement
from tersor.quantization.grid import decode, spread
from tersor.quantization.layers import Layer, parameter, write

#: The sigmoid is stretched to [-0.1, 1.1] and clipped, so that it reaches 0 and 1.
LOW, HIGH = -0.1, 1.1


@refinement("adaround")
@dataclass(frozen=True, slots=True)
class AdaRound:
    """Minimize the error of each layer's output over roundings, layer by layer, on rounded inputs.

    `min_V ||f(x_hat, s clamp(floor(W/s) + h(V))) - f(x, W)||^2 + lambda sum (1 - |2 h(V) - 1|^beta)` with the
    rectified sigmoid `h(V) = clamp(1.2 sigmoid(V) - 0.1, 0, 1)`; beta falls from 20 to 2, after a warm-up without
    the second term. The weight ends on its grid, so that training and export see nothing special; a layer whose
    output did not come closer keeps rounding to nearest.

    Attributes:
        iterations: steps a layer.
        batch: samples a step.
        lr: step size of V.
        push: lambda.
        warm_up: fraction of the steps without the push.
        seed: seed of the draws.

    Source: Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020, equations 22 to 25.
    """

    iterations: int = 200
    batch: int = 32
    lr: float = 2e-2
    push: float = 2e-3
    warm_up: float = 0.2
    seed: int = 0

    def __call__(self, layer: Layer, root: nn.Module, x: Tensor, y: Tensor) -> bool:
        """Round the layer's weight; return whether its output came closer than rounding to nearest."""
        weight, bias = parameter(root, layer.weight), parameter(root, layer.bias)
        assert weight is not None
        step, zero = (tensor.detach() for tensor in layer.quantizer.grid())
        spec = layer.quantizer.spec
        scaled = weight / spread(step, weight, spec)
        base = torch.floor(scaled) + spread(zero, weight, spec)
        logits = _inverse(scaled - torch.floor(scaled)).requires_grad_()
        soft = lambda h: decode((base + h).clamp(spec.qmin, spec.qmax), step, zero, spec)
        self._learn(logits, lambda h, i: layer.run(x[i], soft(h), bias) - y[i], y, len(x))
        rounded = soft((logits.detach() > 0).to(weight.dtype))
        nearest = layer.quantizer(weight).detach()
        with torch.no_grad():
            error = lambda w: (layer.run(x, w, bias) - y).square().sum()
            better = bool(error(rounded) < error(nearest))
        write(root, layer.weight, rounded if better else nearest)
        return better

    def _learn(self, logits: Tensor, residual, y: Tensor, samples: int) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        optimizer, power = torch.optim.Adam([logits], lr=self.lr), y.square().mean().clamp(min=1e-12)
        with torch.enable_grad():
            for iteration in range(self.iterations):
                pick = torch.randint(0, samples, (min(self.batch, samples),), generator=generator).to(
                    y.device
                )
                h = _rectified(logits)
                loss = residual(h, pick).square().mean() / power * logits.numel() ** 0.5
                loss = loss + self._pushes(iteration / self.iterations, h)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _pushes(self, progress: float, h: Tensor) -> Tensor | float:
        if progress < self.warm_up:
            return 0.0
        beta = 20.0 - 18.0 * (progress - self.warm_up) / (1.0 - self.warm_up)
        return self.push * (1.0 - (2.0 * h - 1.0).abs().pow(beta)).sum()


def _rectified(logits: Tensor) -> Tensor:
    return (torch.sigmoid(logits) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


def _inverse(h: Tensor) -> Tensor:
    """Return the logits at which the rectified sigmoid is `h`."""
    inside = (h.clamp(0.01, 0.99) - LOW) / (HIGH - LOW)
    return torch.log(inside / (1.0 - inside)).detach().clone()
