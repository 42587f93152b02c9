"""Work with networks of attention, whose weights `bench/bases/README.md` says how to train."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.bases import weights
from bench.peers.piece import Samples, Work
from tersor.loading.build import build_task
from tersor.loading.split import Shares
from tersor.loading.task import Split


def minilm(seed: int, folder: Path) -> Work:
    """MiniLM-L6 on the sentences of SST-2; no sentence is in two parts."""
    del seed, folder
    from examples.text.sst2 import build, splits

    model = build()
    model.load_state_dict(load_file(weights("minilm")))
    # Its answer is not asked for; no file holds it, but Torch-Pruning would leave it with its old width.
    model.encoder.pooler = None
    task = build_task(model, splits(), shares=Shares(leave_out_copies=True), seed=0).task
    search = gathered(task.search)
    return Work(
        name="minilm-sst2",
        model=model.eval(),
        train=without(gathered(task.train), search),
        search=search,
        sealed=gathered(task.certification),
        margin=0.02,
        budget_s=900.0,
        attention=True,
        lr=5e-5,
        about="Sentences are padded to 48 tokens; training and search leave out those with a copy in a later part.",
    )


def gathered(split: Split) -> Samples:
    """Return all samples of a split."""
    (batch,) = split.batches(len(split))
    assert isinstance(batch.inputs, dict)
    assert batch.target is not None
    return Samples(tuple(tensor.numpy() for tensor in batch.inputs.values()), batch.target.numpy())


def without(samples: Samples, others: Samples) -> Samples:
    """Return the samples whose inputs are not among the others'."""
    rows = lambda part: [tuple(np.concatenate(row).tolist()) for row in zip(*part.inputs, strict=True)]
    known = set(rows(others))
    return samples[np.array([row not in known for row in rows(samples)])]


def vit(seed: int, folder: Path) -> Work:
    """The small vision transformer of the bases on CIFAR-10."""
    del seed, folder
    from bench.bases.vit import build
    from examples.cifar10.data import splits

    model = build()
    model.load_state_dict(load_file(weights("vit")))
    parts = {name: Samples((images,), labels) for name, (images, labels) in splits().items()}
    return Work(
        name="cifar-vit",
        model=model.eval(),
        train=parts["train"],
        search=parts["search"],
        sealed=parts["certification"],
        margin=0.01,
        budget_s=900.0,
        attention=True,
        lr=5e-4,
    )


class NextCharacter(nn.Module):
    """Tells the character that follows a text: a classifier with 65 classes."""

    def __init__(self, gpt: nn.Module) -> None:
        super().__init__()
        self.gpt = gpt

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (texts, 65) of what follows the last of (texts, characters)."""
        return self.gpt(tokens)[:, -1]


def chargpt(seed: int, folder: Path) -> Work:
    """The character GPT of the bases: what follows 64 characters of Shakespeare."""
    del seed, folder
    from bench.bases.chargpt import BLOCK, build, text

    gpt = build()
    gpt.load_state_dict(load_file(weights("chargpt")))
    known, held_out = text()
    pieces = held_out.unfold(0, BLOCK + 1, BLOCK + 1)
    border = len(pieces) // 3
    work = Work(
        name="chargpt",
        model=NextCharacter(gpt).eval(),
        train=followed(known.unfold(0, BLOCK + 1, BLOCK // 2)),
        search=followed(pieces[:border]),
        sealed=followed(pieces[border:]),
        margin=0.02,
        budget_s=600.0,
        attention=True,
        lr=1e-3,
        about="Accuracy of the character after a context of 64, one to each piece of 65: pieces share no character, "
        "those to choose with are the first third of the held-out tenth of the text and the sealed ones the rest. "
        "A call reads the whole context; keys and values are not kept from call to call.",
    )
    # The text in its order would calibrate on the first scenes alone.
    return replace(work, train=work.train[np.random.default_rng(0).permutation(len(work.train))])


def followed(pieces: Tensor) -> Samples:
    """Return pieces of text as contexts and the character after each."""
    codes = pieces.contiguous().to(torch.int64).numpy()
    return Samples((np.ascontiguousarray(codes[:, :-1]),), codes[:, -1].copy())
