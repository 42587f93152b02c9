"""The graph of a network, captured once for all its integer twins."""

from dataclasses import dataclass, field

from torch import fx, nn

from tersor.loading.inputs import Inputs
from tersor.quantization.capture import capture


@dataclass
class Captures:
    """Holds the last captured graph: the twins of a network are made one after another, and none changes the graph.

    Attributes:
        last: the network and its graph; None before the first one, and after a journey to another machine.
    """

    last: tuple[nn.Module, fx.GraphModule] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {"last": None}

    def of(self, model: nn.Module, inputs: Inputs) -> fx.GraphModule:
        """Return the graph of `model`, which is not changed any more.

        Raises:
            ModelError: if `torch.export` does not accept the model.
        """
        if self.last is None or self.last[0] is not model:
            self.last = model, capture(model, inputs)
        return self.last[1]
