"""Made-up results of measurements."""

from tersor.measurement.result import Comparison, Measurement, verdict_of


def taking(seconds):
    return Measurement(seconds, seconds, seconds, 1 / seconds, 10_000, 0.1, 100, 1, 1, "onnxruntime", 100)


def compared(ratio, low, high):
    return Comparison(
        ratio=ratio,
        low=low,
        high=high,
        blocks=20,
        dropped=0,
        launches=3,
        base=taking(1.0),
        candidate=taking(1 / ratio),
        verdict=verdict_of(low, high),
        contention=0.0,
    )
