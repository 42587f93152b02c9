"""Data without labels: the original model's own outputs are the targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from tersor.loading.inputs import call, device_of, main_output, map_tensors
from tersor.loading.parts import Part, StreamPart
from tersor.loading.task import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A split whose targets are what the original model answers.

    Attributes:
        split: the samples.
        model: the original, in eval mode.
    """

    split: Part | StreamPart
    model: nn.Module

    @property
    def name(self) -> str:
        """Name of the split."""
        return self.split.name

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches whose target is the original's output; see `Split.batches`."""
        device = device_of(self.model)
        for batch in self.split.batches(size, shuffle=shuffle, limit=limit):
            inputs = map_tensors(lambda t: t.to(device), batch.inputs)
            # Not around the yield: whoever walks the batches may want gradients.
            with torch.no_grad():
                answer = main_output(call(self.model, inputs)).cpu()
            yield replace(batch, target=answer)

    def digest(self) -> str:
        """Return the SHA-256 of the samples' fingerprints."""
        return self.split.digest()
