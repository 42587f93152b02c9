"""`python -m bench.distillation [--seeds 0 1 2]`: what a teacher is worth to a student of half its width.

ResNet-20 of the examples teaches a network of half its channels that starts from scratch, on a part of CIFAR-10. All
methods see the same images in the same order with the same augmentation, and differ in their loss alone. Needs the
data and weights of examples/cifar10.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy import stats
from torch import nn
from torch.nn import functional as F

from examples.cifar10.data import FOLDER, read
from examples.cifar10.model import build
from tersor.distillation.combined import WithLabels
from tersor.distillation.kl import KL
from tersor.distillation.zscore import ZScoreKL
from tersor.optimizers.sgd import SGD
from tersor.recovery.cache import TeacherCache, fingerprint
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import fit, train
from tersor.recovery.schedules import Cosine
from tersor.recovery.teacher import imitation, live
from tersor.recovery.views import Views, shift_and_flip
from tersor.search.verbs import prune

RESULTS = Path(__file__).parents[1] / "results"
VIEWS, BATCH, OPTIMIZER = 8, 64, SGD(lr=0.05, weight_decay=5e-4)
#: Weights as in the sources: labels 0.1, the teacher 0.9.
LOSSES = {
    "no teacher": None,
    "KL, T=4": WithLabels(F.cross_entropy, KL(temperature=4.0), alpha=0.1),
    "z-score KL, T=2": WithLabels(F.cross_entropy, ZScoreKL(temperature=2.0), alpha=0.1),
}


def teacher() -> nn.Module:
    """Return the trained ResNet-20."""
    model = build()
    model.load_state_dict(load_file(FOLDER.parent / "resnet20_cifar10.safetensors"), strict=False)
    return model.eval()


def half(model: nn.Module, seed: int) -> nn.Module:
    """Return a network with half the channels everywhere and fresh weights."""
    torch.manual_seed(seed)
    small = prune(model, torch.zeros(2, 3, 32, 32), ratio=0.5, by="uniform").model
    for module in small.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            module.reset_parameters()
    return small


def split(name: str, start: int, count: int) -> InMemory:
    """Return images and labels of some rows."""
    images, labels = read(name, start, start + count)
    return InMemory(torch.from_numpy(images), torch.from_numpy(labels))


@torch.no_grad()
def right(model: nn.Module, test: InMemory) -> np.ndarray:
    """Return for each test image whether the answer is right."""
    return torch.cat([model(b.inputs[0]).argmax(1) == b.target for b in test.batches(250)]).numpy()


def run(seed: int, samples: int, epochs: float, tested: int, known: dict) -> dict:
    """Train one student with each loss that is not known yet; return what each got right and took."""
    guide, test = teacher(), split("test.parquet", 0, tested)
    views = Views(split("train.parquet", samples * seed, samples), shift_and_flip, VIEWS, seed)
    batches, schedule = Epochs(views, BATCH, epochs, seed), Cosine(warmup=0.05)
    student, outcome = half(guide, seed), dict(known)
    with tempfile.TemporaryDirectory() as folder:
        for name, loss in LOSSES.items():
            if name in outcome:
                continue
            key = fingerprint(guide, samples, seed)
            cache = TeacherCache(live(guide), VIEWS * samples, folder=Path(folder), key=key)
            began = time.perf_counter()
            done = (
                train(student, batches, loss=F.cross_entropy, optimizer=OPTIMIZER, schedule=schedule)
                if loss is None
                else fit(
                    student, batches, objective=imitation(cache, loss), optimizer=OPTIMIZER, schedule=schedule
                )
            )
            wall_s = time.perf_counter() - began
            answers = right(done.model, test)
            # One digit for each test image: 1 is right.
            outcome[name] = {"right": "".join(map(str, answers.astype(int))), "wall_s": wall_s}
            print(f"seed {seed} {name}: {answers.mean():.2%} in {wall_s:.0f} s", flush=True)
    return outcome


def interval(differences: list[float]) -> tuple[float, float]:
    """Return the 95% interval of the mean of paired differences (Student's t)."""
    mean = statistics.mean(differences)
    half_width = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences)
    half_width /= math.sqrt(len(differences))
    return mean - half_width, mean + half_width


def table(results: dict) -> str:
    """Return the outcome as Markdown."""
    about, runs = results["about"], results["runs"]
    lines = ["# Half-width ResNet-20 on a part of CIFAR-10: what the teacher is worth", ""]
    lines += [
        f"{about['samples']} training images (others for each seed), {about['epochs']:g} epochs, batch {BATCH}, "
        f"{about['tested']} test images, SGD with Nesterov momentum at {OPTIMIZER.lr}, cosine, shifts and flips in "
        f"{VIEWS} views; labels weigh 0.1, the teacher 0.9. Teacher {about['teacher']:.1%}; "
        "multiply-adds of the student a quarter of the teacher's. One thread.",
        "",
        "| loss | test accuracy by seed | mean |",
        "|---|---|---|",
    ]
    answers = {name: np.array([list(map(int, r[name]["right"])) for r in runs.values()]) for name in LOSSES}
    scores = {name: list(100 * rows.mean(1)) for name, rows in answers.items()}
    for name, values in scores.items():
        lines.append(f"| {name} | {', '.join(f'{v:.2f}' for v in values)} | {statistics.mean(values):.2f}% |")
    lines += ["", "| difference | points | 95% interval over seeds | 95% interval over test images |"]
    lines += ["|---|---|---|---|"]
    names = list(LOSSES)
    for a, b in [(name, names[0]) for name in names[1:]] + [(name, names[1]) for name in names[2:]]:
        by_seed = [x - y for x, y in zip(scores[a], scores[b], strict=True)]
        # The students of all seeds answer the same images.
        by_image = 100 * (answers[a] - answers[b]).mean(0)
        spread = 1.96 * by_image.std(ddof=1) / math.sqrt(len(by_image))
        seeds = "[{:+.2f}, {:+.2f}]".format(*interval(by_seed)) if len(runs) > 1 else "-"
        images = f"[{by_image.mean() - spread:+.2f}, {by_image.mean() + spread:+.2f}]"
        lines.append(f"| {a} - {b} | {statistics.mean(by_seed):+.2f} | {seeds} | {images} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the seeds asked for, and write the table of all seeds run so far with these settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--tested", type=int, default=4000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "distillation.json"
    about = {"samples": arguments.samples, "epochs": arguments.epochs, "tested": arguments.tested}
    stored = json.loads(file.read_text()) if file.exists() else {}
    same = all(stored.get("about", {}).get(name) == value for name, value in about.items())
    results = stored if same else {"about": about, "runs": {}}
    for seed in arguments.seeds:
        known = results["runs"].get(str(seed), {})
        results["runs"][str(seed)] = run(seed, arguments.samples, arguments.epochs, arguments.tested, known)
        results["about"]["teacher"] = float(
            np.mean(right(teacher(), split("test.parquet", 0, arguments.tested)))
        )
        file.write_text(json.dumps(results) + "\n")
        (RESULTS / "distillation.md").write_text(table(results))
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
