"""ResNet-20 on CIFAR-10 with weights of 4 bits: after training, and trained by distillation from the original."""

from collections.abc import Iterator

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from bench.quantization.contest import contest, exported, floating, write
from bench.quantization.fit import fit
from examples.cifar10.data import FOLDER, read
from examples.cifar10.model import build
from tersor.distillation.kl import KL
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.quantize import quantize, sites
from tersor.quantization.recipe import Recipe

TITLE = """## ResNet-20 on CIFAR-10 with weights of 4 bits

Every layer has weights of 4 bits, a step per output channel, and activations of 8 bits; no labels are used. Trained:
the quantized network learns from the original's outputs (KL, temperature 4) on unlabelled training images, weights and
steps together. Drop, SQNR and speed as above; 4-bit codes are stored in 8 bits here, because no kernel of
convolutions reads fewer."""

STEPS, BATCH = 220, 64


def run(options) -> None:
    model = build().eval()
    model.load_state_dict(load_file(FOLDER.parent / "resnet20_cifar10.safetensors"))
    images, labels = read("test.parquet", 0, options.test)
    training = torch.from_numpy(read("train.parquet", 0, STEPS * BATCH)[0])
    batches, example = list(training[: options.calibration].split(64)), (training[:2],)
    plan = Plan(tuple(Quantize(site, weight_bits=4) for site in sites(model, example)))
    make = lambda recipe: quantize(model, example, [(b,) for b in batches], plan=plan, recipe=recipe)

    def evaluate(session) -> tuple[np.ndarray, np.ndarray]:
        logits = np.concatenate([session([images[i : i + 250]])[0] for i in range(0, len(images), 250)])
        return logits, logits.argmax(1) == labels

    contender = lambda small, path: exported(small, example, [(batches[0],)], path, "onnxruntime", 0.0)
    best = Recipe("mse", after=("gptq", "bias"))
    makers = {
        "floating point": floating(model, example, "onnxruntime"),
        "after training": lambda path: contender(make(Recipe()), path),
        "after training, GPTQ and bias": lambda path: contender(make(best), path),
        "trained": lambda path: contender(trained(make(best), model, training), path),
    }
    rows = contest("four_bits", makers, evaluate, [images[:1]], options)
    write("four_bits", TITLE, rows, "points", {**vars(options), "steps": STEPS, "batch": BATCH})


def trained(small: nn.Module, teacher: nn.Module, images: torch.Tensor) -> nn.Module:
    fit(small, _losses(small, teacher, images), steps=STEPS, optimizer="adam", lr=5e-4)
    return small.eval()


def _losses(small: nn.Module, teacher: nn.Module, images: torch.Tensor) -> Iterator[torch.Tensor]:
    loss, generator = KL(temperature=4.0), torch.Generator().manual_seed(0)
    for step, rows in enumerate(torch.randperm(len(images), generator=generator).split(BATCH)):
        x = images[rows].flip(-1) if step % 2 else images[rows]
        with torch.no_grad():
            target = teacher(x)
        yield loss(small(x), target)
