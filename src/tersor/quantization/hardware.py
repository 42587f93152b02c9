"""What the processor multiplies, and the integer scheme that follows from it."""

from dataclasses import dataclass, replace

import torch

from tersor._check import one_of
from tersor.errors import ArgumentError
from tersor.quantization.grid import QSpec
from tersor.quantization.placement import STATIC


@dataclass(frozen=True, slots=True)
class Processor:
    """The integer features of one processor.

    Attributes:
        architecture: `x86`, `arm`, `cuda` or `other`.
        features: names of the instruction sets that matter here.
    """

    architecture: str
    features: frozenset[str]

    @property
    def sums_exactly(self) -> bool:
        """Whether products of unsigned and signed codes are summed in 32 bits.

        AVX2 and AVX-512 without VNNI add two products in 16 bits with saturation
        (`vpmaddubsw`): 2 * 255 * 127 = 64770 > 32767.
        """
        return self.architecture != "x86" or bool(
            self.features & {"avx512_vnni", "avx_vnni", "amx_int8", "avx10_1"}
        )


_X86 = ("avx2", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "avx512_bf16", "amx_bf16", "avx10_1")
#: Instructions that multiply bfloat16; without them a processor does so many times slower than float32.
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_ARM = ("dot", "i8mm", "bf16", "sve", "sve2", "sme")


def detect(device: str = "cpu") -> Processor:
    """Return the features of this machine's processor, or of its first CUDA device.

    Example:
        >>> detect("cpu").architecture in ("x86", "arm", "other")
        True
    """
    if one_of("device", device, ("cpu", "cuda")) == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return Processor("cuda", frozenset({f"sm{major}{minor}"}))
    flags = torch.cpu.get_capabilities()
    arm = frozenset(name for name in _ARM if flags.get(name))
    x86 = frozenset(name for name in _X86 if flags.get(name))
    if x86:
        return Processor("x86", x86)
    return Processor("arm" if arm else "other", arm)


@dataclass(frozen=True, slots=True)
class Scheme:
    """Which tensors become integers, and on which codes.

    Attributes:
        kind: `static` (ranges from calibration), `dynamic` (ranges of each tensor at run time) or `weights`
            (memory holds activations in floating point); the last two for linear layers.
        activation: codes of activations; None where they stay in floating point.
        weight: codes of weights.
        reason: why these.
        runtime: whose places of rounding a static scheme takes: `onnxruntime`, or `openvino`, whose convolutions add
            before they round, or `executorch`, whose products round what they give. The file runs in each, and computes
            what the model computes in this one.
        scores: codes of both sides of the products of two activations that the runtime computes in integers, as of
            queries and keys in attention; None where those stay in floating point.
    """

    kind: str
    activation: QSpec | None
    weight: QSpec
    reason: str
    runtime: str = "onnxruntime"
    scores: QSpec | None = None

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ("static", "dynamic", "weights"))
        one_of("runtime", self.runtime, STATIC)

    def weight_codes(self, bits: int) -> QSpec:
        """Return the codes of a weight of `bits` bits, never wider than the kernels allow."""
        if not self.weight.symmetric:
            return replace(self.weight, qmax=min(self.weight.qmax, 2**bits - 1))
        reach = min(self.weight.qmax, 2 ** (bits - 1) - 1)
        return replace(self.weight, qmin=-reach, qmax=reach)


#: Kinds of schemes by the name that a caller uses.
KINDS = ("static", "dynamic", "int8", "int4")


def scheme_for(processor: Processor, kind: str = "static", runtime: str = "onnxruntime") -> Scheme:
    """Return the codes that `processor` multiplies without loss.

    x86: unsigned activations, signed weights per output channel; weights within +-64 where the kernels' 16-bit sums
    saturate (2 * 255 * 64 = 32640 <= 32767), else within +-127. ARM and CUDA: both signed, CUDA symmetric.

    Args:
        processor: what `detect` found.
        kind: `static`, `dynamic`, or `int8` and `int4`: weights alone, with `weight_only`'s defaults.
        runtime: where the file will run, as in `Scheme`; only static schemes differ.

    Returns:
        The scheme, with its reason.

    Raises:
        ArgumentError: if `kind` or `runtime` is none of these.

    Example:
        >>> scheme_for(Processor("x86", frozenset({"avx2"}))).weight.qmax
        64
        >>> scheme_for(Processor("x86", frozenset({"avx2", "avx512_vnni"}))).weight.qmax
        127

    Source: Intel, oneDNN documentation, "Nuances of int8 computations".
    """
    if one_of("scheme", kind, ("auto", *KINDS)) in ("int8", "int4"):
        return weight_only(int(kind.removeprefix("int")))
    reach = 127 if processor.sums_exactly or runtime == "executorch" else 64  # XNNPACK never sums in 16 bits
    weight = QSpec(-reach, reach, axis=0, symmetric=True)
    if kind == "dynamic" or processor.architecture in ("x86", "other"):
        activation = QSpec(0, 255, dynamic=kind == "dynamic")
    else:
        activation = QSpec(-128, 127, symmetric=processor.architecture == "cuda")
    found = ", ".join(sorted(processor.features)) or "no integer features"
    why = (
        "sums products in 32 bits"
        if reach == 127
        else "sums pairs of products in 16 bits, which saturate above 64"
    )
    # Both sides signed, which OpenVINO's kernel wants; with 16-bit sums such products may saturate.
    multiplies = (
        kind == "static" and runtime == "openvino" and processor.architecture == "x86" and reach == 127
    )
    scores = QSpec(-128, 127, symmetric=True) if multiplies else None
    return Scheme(kind, activation, weight, f"{processor.architecture} with {found}: {why}.", runtime, scores)


def weight_only(
    bits: int = 4, *, block: int = 32, symmetric: bool = True, exact_inputs: bool = False
) -> Scheme:
    """Return the scheme that stores the weights of linear layers in `bits` bits, a step for each block.

    Kernels are fastest when they round what they read to 8 bits as well, block by block, inside the product; the
    simulation does the same. Everything else is computed in floating point.

    Args:
        bits: 4 or 8.
        block: neighbours along a row of the weight that share a step: 32, 64 or 128.
        symmetric: whether zero is code 0; otherwise each block has a zero point of its own.
        exact_inputs: whether products read their inputs in floating point; slower, with 8 bits in ONNX Runtime much
            slower than no integers at all.

    Returns:
        The scheme.

    Raises:
        ArgumentError: if no runtime has such blocks.

    Example:
        >>> weight_only(4, block=64).weight.storage_bits
        4
    """
    if bits not in (4, 8) or block not in (32, 64, 128):
        raise ArgumentError(
            f"Kernels exist for 4 and 8 bits in blocks of 32, 64 and 128; got {bits} bits, {block}."
        )
    low, high = (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    weight = QSpec(low, high, axis=1, block=block, symmetric=symmetric, storage_bits=bits)
    inputs = None if exact_inputs else QSpec(-127, 127, axis=-1, block=block, symmetric=True, dynamic=True)
    return Scheme(
        "weights", inputs, weight, f"Weights alone in {bits} bits: memory traffic bounds small batches."
    )
