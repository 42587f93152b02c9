"""A realistic record, as a run on handwritten digits fills it in."""

import math
import random

import pytest

from tersor.reporting.details import ChangedAnswer, Operator, Phase, Roofline, RooflinePoint, Slice
from tersor.reporting.record import (  # fmt: skip
    Aim,
    Claim,
    Curve,
    Estimate,
    Latency,
    Layer,
    Record,
    Row,
    Split,
    Standing,
    Verdict,
)

HOLDS, MISSES = Standing.HOLDS, Standing.MISSES


#: A black PNG of one pixel.
DOT = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def times(median_s: float, seed: int, calls: int = 800) -> Latency:
    draw = random.Random(seed)
    values = sorted(
        median_s * math.exp(draw.gauss(0, 0.035)) * (1.25 if draw.random() < 0.06 else 1.0)
        for _ in range(calls)
    )
    middle, p90, p99 = (values[int(q * calls)] for q in (0.5, 0.9, 0.99))
    return Latency(
        median_s=middle, p90_s=p90, p99_s=p99, throughput_per_s=1 / middle, samples_s=tuple(values)
    )


def row(name: str, quality: float, median_s: float, megabytes: float, **more) -> Row:
    """A candidate of the digits run; `recipe` is written as one string with `;` between the steps."""
    more["recipe"] = tuple(step.strip() for step in more.pop("recipe", "").split(";") if step)
    return Row(
        name=name,
        runtime="onnxruntime",
        quality=Estimate(quality, quality - 0.011, quality + 0.008),
        speedup=Estimate(0.000412 / median_s, 0.96 * 0.000412 / median_s, 1.03 * 0.000412 / median_s),
        latency=times(median_s, hash(name) % 97),
        size_bytes=int(megabytes * 1e6),
        **more,
    )


def candidates() -> tuple[Row, ...]:
    return (
        row("int8 weights", 0.9861, 0.000334, 0.44, recipe="weights to 8 bits", standing=HOLDS, macs=4_200_000,
            methods=("min-max",), tried_because="smallest change that shrinks the file",
            dropped_because="slower than static int8 at the same quality"),
        row("int8 static", 0.9833, 0.000201, 0.45, recipe="weights and activations to 8 bits", standing=HOLDS,
            methods=("min-max", "bias correction"), tried_because="the runtime has int8 kernels for every convolution",
            dropped_because="three candidates were both faster and within the limit"),
        row("prune 50 %, distil", 0.9806, 0.000188, 0.52, recipe="half of the channels removed; recovered 6 epochs",
            standing=HOLDS, tried_because="latency model: 41 % of the time is in conv3 and conv4",
            dropped_because="its int8 version is faster"),
        row("prune 50 %, distil, int8", 0.9806, 0.000119, 0.16, standing=HOLDS, parameters=128_000, macs=1_050_000,
            recipe="half of the channels removed; recovered 6 epochs by distillation from the original; "
            "weights and activations to 8 bits", methods=("Taylor", "KD with standardized logits", "min-max"),
            certified=Estimate(0.9806, 0.9604, 0.9921), drop=Estimate(0.0028, -0.0041, 0.0086), peak_bytes=21_400_000,
            tried_because="the two best steps together"),
        row("prune 70 %, distil, int8", 0.9639, 0.000097, 0.09, standing=MISSES,
            recipe="70 % of the channels removed; recovered 6 epochs; int8",
            tried_because="the next step of the front",
            dropped_because="accuracy 0.9639 is under the floor of 0.9761; the budget ended recovery at epoch 6"),
        row("rank 8 head", 0.9778, 0.000350, 1.02, standing=HOLDS, recipe="last layer as a product of rank 8",
            dropped_because="not faster: the head is 2 % of the time"),
        row("int4 weights", 0.9528, 0.000340, 0.27, recipe="weights to 4 bits", standing=MISSES,
            dropped_because="accuracy 0.9528 is under the floor of 0.9761"),
        row("prune 30 %", 0.9722, 0.000287, 0.90, recipe="30 % of the channels removed",
            dropped_because="not certified: a faster candidate was already certified"),
    )  # fmt: skip


def layers() -> tuple[Layer, ...]:
    def one(name, kind, change, before, after, why, prune, int8, int4):
        return Layer(name=name, kind=kind, change=change, before=before, after=after, reason=why,
                     sensitivity={"prune 50 %": prune, "int8": int8, "int4": int4})  # fmt: skip

    return (
        one("stem.conv", "Conv2d", "int8", "16×1×3×3, float32", "16×1×3×3, int8", "too sensitive to prune",
            0.0410, 0.0006, 0.0283),
        one("block1.conv1", "Conv2d", "16 of 32 kept, int8", "32×16×3×3", "16×16×3×3", "", 0.0083, 0.0003, 0.0111),
        one("block1.conv2", "Conv2d", "16 of 32 kept, int8", "32×32×3×3", "16×16×3×3", "", 0.0056, 0.0000, 0.0083),
        one("block2.conv1", "Conv2d", "30 of 64 kept, int8", "64×32×3×3", "30×16×3×3", "", 0.0028, 0.0003, 0.0056),
        one("block2.conv2", "Conv2d", "30 of 64 kept, int8", "64×64×3×3", "30×30×3×3", "", 0.0019, 0.0000, 0.0042),
        one("head.norm", "BatchNorm2d", "folded into block2.conv2", "64", "", "", None, None, None),
        one("head.fc", "Linear", "", "10×64, float32", "10×30, float32", "last layer stays in floating point",
            0.0, 0.0017, 0.0194),
    )  # fmt: skip


def curves() -> tuple[Curve, ...]:
    steps = tuple(range(0, 1200, 12))

    def falling(start, end, scale, seed):
        draw = random.Random(seed)
        return tuple(
            end + (start - end) * math.exp(-s / scale) * math.exp(draw.gauss(0, 0.05)) for s in steps
        )

    return (
        Curve(name="prune 50 %, distil", quantity="training loss", steps=steps, values=falling(1.9, 0.11, 190, 1)),
        Curve(name="prune 70 %, distil, int8", quantity="training loss", steps=steps,
              values=falling(2.3, 0.24, 260, 2)),
        Curve(name="prune 50 %, distil", quantity="accuracy, search split", unit="epoch", steps=(0, 1, 2, 3, 4, 5, 6),
              values=(0.31, 0.905, 0.951, 0.967, 0.973, 0.979, 0.9806)),
        Curve(name="prune 70 %, distil, int8", quantity="accuracy, search split", unit="epoch",
              steps=(0, 1, 2, 3, 4, 5, 6), values=(0.14, 0.81, 0.902, 0.934, 0.951, 0.960, 0.9639)),
    )  # fmt: skip


def base() -> Row:
    return row("onnxruntime, float32", 0.9861, 0.000412, 1.71, parameters=427_000, macs=4_200_000,
                   peak_bytes=34_900_000,
               certified=Estimate(0.9833, 0.9640, 0.9939))  # fmt: skip


def baselines() -> tuple[Row, ...]:
    return (
        row("torch, eager", 0.9861, 0.000967, 1.71),
        row("torch.compile", 0.9861, 0.000530, 1.71),
        base(),
        row("onnxruntime, channels last", 0.9861, 0.000431, 1.71),
    )


@pytest.fixture(scope="session")
def record() -> Record:
    limit = "accuracy ≥ 0.9761 (baseline 0.9861, absolute drop 0.0100)"
    return Record(
        title="Handwritten digits, small convolutional network",
        created="2026-11-22T10:14:03+00:00",
        tersor_version="0.1.0",
        aim=Aim(kind="classification", model="tersor.demo:DigitsNet", metric="accuracy", higher_is_better=True,
                limit=limit, floor=0.9761, allowed_drop=0.01, splits=(
                    Split(name="train", samples=1077, origin="60 % of the 1,797 images, by a hash of the sample"),
                    Split(name="calibration", samples=256, origin="from train"),
                    Split(name="search", samples=360, origin="20 %, chooses between candidates"),
                    Split(name="certification", samples=360, origin="20 %, sealed until the end"))),
        verdict=Verdict(
            outcome="certified", standing=HOLDS,
            sentence="3.46 times faster (95 % interval 3.33 to 3.57) and 10.7 times smaller than the original in its "
            "best free runtime; the loss of accuracy is at most 0.0086 with 95 % confidence, within the limit.",
            advice="To go further: collect more certification samples; 360 can show losses of 0.008 or more."),
        base=base(),
        candidates=candidates(),
        chosen=3,
        baselines=baselines(),
        layers=layers(),
        slices=tuple(
            Slice(name=f"digit {digit}", samples=36, before=1.0, after=0.9722 if digit in (1, 8) else 1.0)
            for digit in range(10)
        ),
        operators=(Operator(name="Conv", before=6, after=0), Operator(name="QLinearConv", before=0, after=6)),
        changed=(
            ChangedAnswer(sample="17", target="8", before="8", after="3", picture=DOT),
            ChangedAnswer(sample="40", target="1", before="7", after="1", picture=DOT),
        ),
        curves=curves(),
        claim=Claim(
            paragraph="On 360 sealed samples that no step of the search has read, the shipped file and the original "
            "disagreed on whether the answer is right for 7 samples: the original alone was right on 4, the shipped "
            "file alone on 3. If the true loss of accuracy were more than 0.0100, so small a difference would be seen "
            "in at most 5 of 100 such tests. One candidate was tested, in the order fixed before the data were opened.",
            numbers={"samples": "360", "only the original right": "4", "only the shipped file right": "3",
                     "p-value": "0.031", "confidence": "95 %", "data": "sha256 9f2c…e1", "file": "sha256 41aa…07"}),
        roofline=Roofline(macs_per_s=38e9, bytes_per_s=14e9, points=(
            RooflinePoint(name="original", macs_per_byte=2.1, macs_per_s=10.2e9),
            RooflinePoint(name="shipped", macs_per_byte=6.4, macs_per_s=8.8e9, limit_s=2.8e-5, share=0.23,
                          bound="arithmetic"))),
        conditions="Batch 1, 1 thread, each model in a fresh process; original and candidate interleaved in 24 blocks.",
        machine={"processor": "AMD EPYC 7B13, 2 of 128 cores", "instructions": "avx2, fma", "memory": "8.0 GB",
                 "system": "Linux 6.1, Python 3.11.7", "load while measuring": "0.9"},
        versions={"torch": "2.13.0+cpu", "onnxruntime": "1.31.1", "numpy": "2.4.6", "tersor": "0.1.0"},
        seeds={"search": 0, "splits": 20260101},
        command="tersor optimize tersor.demo:digits_net --data tersor.demo:digits --max-drop 0.01 --budget 2m -o out",
        phases=(Phase(name="baselines", seconds=11.2), Phase(name="training", seconds=61.0),
                Phase(name="export and timing", seconds=33.4), Phase(name="certification", seconds=4.1)),
        budget_s=120.0,
        warnings=("The machine was busy while times were taken (load 1.9 on 2 cores); intervals are wide.",),
    )  # fmt: skip


@pytest.fixture(scope="session")
def bare() -> Record:
    """The least that a run can know: nothing was faster, nothing was measured."""
    return Record(
        title="bare", created="2026-11-22T10:14:03+00:00", tersor_version="0.1.0",
        aim=Aim(kind="fidelity", model="m", metric="agreement", higher_is_better=True, limit="agreement ≥ 0.99"),
        verdict=Verdict(outcome="nothing_faster", standing=Standing.UNTESTED, sentence="Nothing was faster.",
                        advice="Allow more."),
        base=Row(name="original"),
    )  # fmt: skip
