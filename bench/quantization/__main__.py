"""Run with `python -m bench.quantization PART...`: resnet, four_bits, minilm, gpt; all of them by default.

Writes bench/results/quantization.{json,md}, a part at a time. Weights that a part trains first are kept in bench/cache.
"""

import argparse
import importlib

import torch

PARTS = ("resnet", "four_bits", "minilm", "gpt")


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS)
    parser.add_argument("--calibration", type=int, default=256, help="samples")
    parser.add_argument("--test", type=int, default=10_000, help="samples at most")
    parser.add_argument("--rounds", type=int, default=200, help="timed calls of each contender")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for recipe='auto'")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="after which a part adds no contender"
    )
    options = parser.parse_args()
    parts = options.parts
    del options.parts
    torch.set_num_threads(1)
    for part in parts:
        importlib.import_module(f"bench.quantization.{part}").run(options)


if __name__ == "__main__":
    main()
