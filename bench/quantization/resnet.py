"""ResNet-20 on CIFAR-10: post-training integers against those of others."""

import numpy as np
import torch
from safetensors.torch import load_file

from bench.quantization.contest import contest, float_file, floating, ours, static_in_openvino, write
from bench.quantization.references import nncf_openvino, onnxruntime_static, torchao_inductor
from examples.cifar10.data import FOLDER, read
from examples.cifar10.model import build

TITLE = """## ResNet-20 on CIFAR-10

Calibrated on the same unlabelled training images by every contender. One thread. Latency: processor time of single
images, every contender once a round, medians over rounds. Drop: accuracy of the floating-point file minus that of the
integer file on the same test images, with the normal 95 per cent interval of paired outcomes. SQNR: logits against
those of the floating-point file. Speed: against the fastest floating-point file."""


def run(options) -> None:
    model = build().eval()
    model.load_state_dict(load_file(FOLDER.parent / "resnet20_cifar10.safetensors"))
    images, labels = read("test.parquet", 0, options.test)
    calibration, _ = read("train.parquet", 0, options.calibration)
    parts = [calibration[i : i + 64] for i in range(0, len(calibration), 64)]
    batches, example = [(torch.from_numpy(part),) for part in parts], (torch.from_numpy(calibration[:2]),)

    def evaluate(session) -> tuple[np.ndarray, np.ndarray]:
        logits = np.concatenate([session([images[i : i + 250]])[0] for i in range(0, len(images), 250)])
        return logits, logits.argmax(1) == labels

    plain, arrays = floating(model, example, "onnxruntime"), [(part,) for part in parts]
    file = float_file("resnet20", plain)
    makers = {
        "floating point": plain,
        "floating point, OpenVINO": floating(model, example, "openvino"),
        "bf16, OpenVINO": floating(model, example, "openvino", precision="bf16"),
        "tersor (quick)": ours(model, example, batches),
        "tersor (auto)": ours(model, example, batches, recipe="auto", budget_s=options.budget),
        "tersor (quick), OpenVINO": ours(model, example, batches, "openvino", scheme=static_in_openvino()),
        **onnxruntime_static(file.path, file.inputs, arrays),
        **nncf_openvino(file.path, file.inputs, arrays, transformer=False),
        **torchao_inductor(model, arrays),
    }
    rows = contest("resnet20", makers, evaluate, [images[:1]], options)
    write("resnet20", TITLE, rows, "points", vars(options))
