"""Block-wise reconstruction: each block is trained by itself to give what the teacher's block gives."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tersor.loading.task import Batch
from tersor.optimizers.adam import Adam
from tersor.recovery.layers import Kept
from tersor.recovery.norms import reestimate_norms
from tersor.recovery.taps import Tap, execution_order, first_tensor, observe
from tersor.surgery.hold import Holder

#: Containers whose entries are blocks.
_LISTS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """How a block is trained.

    Attributes:
        steps: Adam steps of each block.
        lr: peak learning rate, falling along a cosine.
        mixed: share of samples whose input is the teacher's rather than the student's.
        seed: of the order of samples.
    """

    steps: int = 100
    lr: float = 1e-3
    mixed: float = 0.5
    seed: int = 0


def reconstruct_blocks(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    *,
    kept: Kept | None = None,
    how: Reconstruction | None = None,
    holder: Holder | None = None,
) -> int:
    r"""Train, in place, block after block on its own squared error against the teacher's block.

    $$\min_\theta \; \frac{\mathrm{mean}\,(f_\theta(x) - y_t)^2}{\mathrm{var}\, y_t}, \qquad
      x = x_t \text{ for a share of samples}, \; x_s \text{ for the others}$$

    The student's own input carries the errors of the blocks before, which this block can mend; the teacher's
    keeps it from fitting those errors alone. Blocks are the entries of the outermost lists (`Sequential`,
    `ModuleList`) of the student that have trainable parameters, run once and have a teacher's block of the same name.
    A block whose output differs in shape from the teacher's, or whose training does not lower its error, is left
    as it was. Norm statistics are re-estimated at the end.

    Args:
        student: in eval mode; changed.
        teacher: in eval mode; only run.
        batches: calibration samples.
        kept: teacher's channels (axis 1) of the output of each block that has fewer.
        how: steps, rate, mixture.
        holder: masks that stay in force.

    Returns:
        The number of blocks that came closer.

    Source:
        Li et al., BRECQ, ICLR 2021, section 3.2; mixing of inputs in the manner of QDrop, Wei et al., ICLR 2022.
    """
    how, count = how or Reconstruction(), 0
    names = execution_order(student, batches[0], _blocks(student, teacher))
    for name in names:
        ours = observe(student, batches, [name], stop=True)[name]
        theirs = observe(teacher, batches, [name], stop=True)[name]
        pieces = _pieces(ours, theirs, (kept or {}).get(name))
        if pieces:
            count += _train(student.get_submodule(name), pieces, how, holder)
    reestimate_norms(student, batches)
    return count


@dataclass(frozen=True)
class _Piece:
    """One batch at the door of a block."""

    own: Tensor
    teachers: Tensor | None
    rest: tuple[Any, ...]
    named: dict[str, Any]
    wanted: Tensor


def _blocks(student: nn.Module, teacher: nn.Module) -> list[str]:
    theirs = dict(teacher.named_modules())
    found: list[str] = []
    for name, module in student.named_modules():
        parent = student.get_submodule(name.rpartition(".")[0])
        inside = any(name.startswith(f"{block}.") for block in found)
        trains = any(p.requires_grad for p in module.parameters())
        listed = isinstance(parent, _LISTS) and not isinstance(module, _LISTS)
        if name in theirs and listed and trains and not inside:
            found.append(name)
    return found


def _pieces(ours: Tap, theirs: Tap, keep: Sequence[int] | None) -> list[_Piece]:
    """Match both sides; empty where they do not compare."""
    pieces: list[_Piece] = []
    for (args, named), result, (their_args, _), wanted in zip(
        ours.arguments, ours.results, theirs.arguments, theirs.results, strict=True
    ):
        own, out, goal = first_tensor(args), first_tensor(result), first_tensor(wanted)
        if own is None or out is None or goal is None:
            return []
        goal = goal if keep is None else goal[:, list(keep)]
        if goal.shape != out.shape or not own.is_floating_point():
            return []
        teachers = first_tensor(their_args)
        same = teachers is not None and teachers.shape == own.shape
        pieces.append(_Piece(own, teachers if same else None, tuple(args[1:]), named, goal))
    return pieces


def _train(block: nn.Module, pieces: list[_Piece], how: Reconstruction, holder: Holder | None) -> bool:
    parameters = [p for p in block.parameters() if p.requires_grad]
    before, start = {k: v.clone() for k, v in block.state_dict().items()}, _error(block, pieces)
    optimizer = Adam(lr=how.lr).build(parameters)
    generator = torch.Generator().manual_seed(how.seed)
    for step in range(how.steps):
        piece = pieces[step % len(pieces)]
        for group in optimizer.param_groups:
            group["lr"] = how.lr * 0.5 * (1 + math.cos(math.pi * step / how.steps))
        loss = _distance(block, piece, _mixed(piece, how.mixed, generator))
        optimizer.zero_grad()
        loss.backward()
        if holder:
            holder.mask_gradients()
        optimizer.step()
        if holder:
            holder.mask_weights()
    better = _error(block, pieces) < start
    if not better:
        block.load_state_dict(before)
    optimizer.zero_grad()
    return better


def _mixed(piece: _Piece, share: float, generator: torch.Generator) -> Tensor:
    if piece.teachers is None:
        return piece.own
    theirs = torch.rand(len(piece.own), generator=generator) < share
    return torch.where(
        theirs.view(-1, *[1] * (piece.own.dim() - 1)).to(piece.own.device), piece.teachers, piece.own
    )


def _distance(block: nn.Module, piece: _Piece, x: Tensor) -> Tensor:
    output = first_tensor(block(x, *piece.rest, **piece.named))
    assert output is not None
    return (output - piece.wanted).square().mean() / (piece.wanted.var() + 1e-12)


@torch.no_grad()
def _error(block: nn.Module, pieces: list[_Piece]) -> float:
    return sum(_distance(block, piece, piece.own).item() for piece in pieces) / len(pieces)
