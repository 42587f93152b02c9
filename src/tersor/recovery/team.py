"""One run on several processes: every batch is divided among them, and they take the same step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tersor._extras import require
from tersor.loading.inputs import batch_size, map_tensors
from tersor.loading.task import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator


class Team:
    """The processes of one `torchrun`, through Accelerate: the loop asks it for its share of the work.

    Gradients are averaged over samples, so the curve of losses is that of one process to rounding (a norm with
    running statistics sees its own share of a batch only, unless it is synchronised). Everything else, such as
    rollbacks, looks and early stops, follows from numbers that all processes share.

    Args:
        accelerator: with the plugin of your choice; None makes a plain one.

    Raises:
        MissingExtraError: if accelerate is not installed.
    """

    def __init__(self, accelerator: "Accelerator | None" = None) -> None:
        if accelerator is None:
            accelerate = require("accelerate", extra="dist", purpose="Training on several processes")
            accelerator = accelerate.Accelerator(cpu=not torch.cuda.is_available())
        self.accelerator: Any = accelerator

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.accelerator.is_main_process

    @property
    def index(self) -> int:
        """Number of this process, from 0."""
        return self.accelerator.process_index

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Return model and optimizer that exchange gradients with the other processes."""
        return self.accelerator.prepare(model, optimizer)

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's samples of `batch`, and the weight that makes the mean over processes right."""
        count, index, samples = (
            self.accelerator.num_processes,
            self.accelerator.process_index,
            batch_size(batch.inputs),
        )
        if samples < count:
            return batch, 1.0
        own = slice(index, None, count)
        inputs = map_tensors(lambda t: t[own], batch.inputs)
        part = Batch(inputs, None if batch.target is None else batch.target[own], batch.ids[own])
        return part, len(part.ids) * count / samples

    def placed(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return masks laid out as the parameters of `model` that they are for."""
        held = dict(model.named_parameters())
        return {name: _like(mask, held[name]) if name in held else mask for name, mask in masks.items()}

    def backward(self, value: Tensor) -> None:
        """Take gradients, averaged over processes."""
        self.accelerator.backward(value)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over processes."""
        return self.accelerator.reduce(value.detach(), reduction="mean")


def is_sharded(model: nn.Module) -> bool:
    """Say whether processes hold parts of the parameters of `model`, as under FSDP2."""
    return any(isinstance(parameter, _sharded()) for parameter in model.parameters())


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of `model` with every tensor whole; all processes call it together."""
    kind = _sharded()
    return {
        name: tensor.full_tensor() if isinstance(tensor, kind) else tensor
        for name, tensor in model.state_dict().items()
    }


def _like(mask: Tensor, parameter: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return mask
    return distribute_tensor(mask.to(parameter.device), parameter.device_mesh, parameter.placements)


def _sharded() -> Any:
    # The class of sharded tensors is loaded with torch.distributed, which a run in one process has no need of.
    from torch.distributed.tensor import DTensor

    return DTensor
