"""The same network quantized by ONNX Runtime's own tool, in the ways its documentation names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Feed calibration images in batches."""

    def __init__(self, name: str, images: np.ndarray, batch: int = 64) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{name: images[i : i + batch]} for i in range(0, len(images), batch)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@dataclass(frozen=True)
class Setting:
    """One call of `quantize_static`."""

    activation: QuantType
    weight: QuantType
    per_channel: bool
    reduce_range: bool


#: Its defaults, then what its documentation advises for x86-64 with and without VNNI.
SETTINGS: dict[str, Setting] = {
    "onnxruntime s8s8 (defaults)": Setting(QuantType.QInt8, QuantType.QInt8, False, False),
    "onnxruntime u8s8 per channel": Setting(QuantType.QUInt8, QuantType.QInt8, True, False),
    "onnxruntime u8s8 per channel, reduce_range": Setting(QuantType.QUInt8, QuantType.QInt8, True, True),
}


def writers(float_file: Path, name: str, images: np.ndarray) -> dict[str, Callable[[Path], None]]:
    """Return one function for each setting that writes a quantized file."""
    prepared = float_file.with_suffix(".prepared.onnx")
    quant_pre_process(float_file, prepared)

    def write(setting: Setting) -> Callable[[Path], None]:
        return lambda path: quantize_static(
            prepared, path, Reader(name, images), quant_format=QuantFormat.QDQ, per_channel=setting.per_channel,
            reduce_range=setting.reduce_range, activation_type=setting.activation, weight_type=setting.weight,
        )  # fmt: skip

    return {label: write(setting) for label, setting in SETTINGS.items()}
