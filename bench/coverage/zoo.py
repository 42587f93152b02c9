"""Small models of many architectures, made offline from the configurations of `transformers`."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

NAMES = Path(__file__).with_name("transformers.txt").read_text().split()

#: What every configuration gets that has the field.
SMALL = {
    32: "hidden_size d_model n_embd dim embed_dim embedding_size emb_dim model_dim word_embed_proj_dim projection_dim "
        "encoder_hidden_dim decoder_hidden_dim num_mel_bins",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
       "num_experts num_local_experts n_routed_experts rotary_dim",
    2: "num_key_value_heads num_kv_heads num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
       "num_encoder_layers num_decoder_layers num_experts_per_tok type_vocab_size mamba_expand",
    48: "intermediate_size ffn_dim n_inner d_ff encoder_ffn_dim decoder_ffn_dim hidden_dim ffn_hidden_size d_inner",
    64: "max_position_embeddings n_positions n_ctx max_source_positions max_target_positions image_size",
    8: "d_kv head_dim state_size",
    99: "vocab_size",
    16: "patch_size",
    3: "num_channels",
    24: "moe_intermediate_size",
    5: "num_labels",
    6: "num_queries",
}  # fmt: skip
FIELDS = {name: value for value, names in SMALL.items() for name in names.split()}
TOKENS = {
    "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1, "decoder_start_token_id": 1, "image_token_id": 5,
    "audio_token_id": 5, "video_token_id": 5,
}  # fmt: skip
HEADS = (
    "IMAGE_CLASSIFICATION", "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "SEQUENCE_CLASSIFICATION", "CTC",
    "AUDIO_CLASSIFICATION", "OBJECT_DETECTION", "SEMANTIC_SEGMENTATION", "DEPTH_ESTIMATION", "MASKED_LM", "",
)  # fmt: skip
LARGEST = 40_000_000


class Unbuildable(Exception):
    """The generic recipe does not make a small model of this architecture."""


def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return a small random model of an architecture, and inputs for it."""
    from transformers import CONFIG_MAPPING

    torch.manual_seed(0)
    config = shrink(CONFIG_MAPPING[name]())
    model = finish(head_of(name), config)
    return model, inputs_of(model, config)


def finish(kind: Any, config: Any) -> nn.Module:
    """Return a model with random numbers in the vectors that start as ones or zeros."""
    model = kind._from_config(config) if "_from_config" in dir(kind) else kind(config)
    return stirred(model)


def stirred(model: nn.Module) -> nn.Module:
    """Add noise to the vectors of a model, which start as ones or zeros; return it."""
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        raise Unbuildable("too large after shrinking")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.dim() < 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.1)
    return model.eval()


def head_of(name: str) -> Any:
    """Return the first class of `transformers` that this architecture has, tasks before bare models."""
    import transformers
    from transformers.models.auto import modeling_auto

    for head in HEADS:
        table = vars(modeling_auto)[f"MODEL_FOR_{head}_MAPPING_NAMES" if head else "MODEL_MAPPING_NAMES"]
        found = table.get(name)
        found = found[0] if isinstance(found, tuple | list) else found
        if found:
            return getattr(transformers, found)
    raise Unbuildable("no class")


def shrink(config: Any, depth: int = 0) -> Any:
    """Set every known size of a configuration, and of those inside it, to a small value."""
    from transformers.configuration_utils import PreTrainedConfig

    held = config.to_dict()
    for key in held:
        if key in FIELDS and type(held[key]) is int:
            set_field(config, key, FIELDS[key])
        inner = getattr(config, key, None)
        if isinstance(inner, PreTrainedConfig) and depth < 3:
            shrink(inner, depth + 1)
    for key, value in TOKENS.items():
        now = getattr(config, key, None)
        if isinstance(now, int) and now >= 99:
            set_field(config, key, value)
    set_field(config, "use_cache", False)
    set_field(config, "_attn_implementation", "eager")
    return config


def set_field(config: Any, key: str, value: Any) -> None:
    """Set a field of a configuration that takes it."""
    try:
        setattr(config, key, value)
    except Exception:  # some configurations compute fields, and refuse to have them set
        return


class Reader:
    """Look settings up in a configuration and in those inside it."""

    def __init__(self, config: Any) -> None:
        parts = ("vision_config", "text_config", "encoder", "audio_config")
        self.configs = [config, *(getattr(config, part, None) for part in parts)]

    def first(self, *names: str, default: Any) -> Any:
        """Return the first value found."""
        found = (getattr(c, name, None) for c in self.configs if c is not None for name in names)
        return next((value for value in found if value is not None), default)


def inputs_of(model: Any, config: Any) -> dict[str, Any]:
    """Return inputs of the kind that the model's forward pass asks for."""
    taken, made = inspect.signature(model.forward).parameters, {}
    main, read = getattr(model, "main_input_name", "input_ids"), Reader(config)
    torch.manual_seed(0)

    def required(name: str) -> bool:
        return name in taken and taken[name].default is inspect.Parameter.empty

    if main in MAKERS:
        made[main] = MAKERS[main](config, read)
    elif required("pixel_values"):
        made["pixel_values"] = MAKERS["pixel_values"](config, read)
    if ("input_ids" in taken and main == "input_ids") or required("input_ids"):
        made["input_ids"] = torch.randint(6, 90, (1, 9))
    if "decoder_input_ids" in taken and getattr(config, "is_encoder_decoder", False):
        made["decoder_input_ids"] = torch.randint(6, 90, (1, 5))
    return made


def _image(config: Any, read: Reader) -> torch.Tensor:
    size, channels = read.first("image_size", default=64), read.first("num_channels", default=3)
    size = size if isinstance(size, int) else size[0] if isinstance(size, list | tuple) else 64
    frames = read.first("num_frames", default=None)
    if frames and config.model_type in ("timesformer", "videomae", "vivit"):
        return torch.randn(1, frames, channels, size, size)
    return torch.randn(1, channels, size, size)


def _waveform(config: Any, read: Reader) -> torch.Tensor:
    if config.model_type == "audio-spectrogram-transformer":
        return torch.randn(1, read.first("max_length", default=1024), read.first("num_mel_bins", default=128))
    return torch.randn(1, 4000)


def _features(config: Any, read: Reader) -> torch.Tensor:
    bins = read.first("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", default=32)
    if config.model_type == "whisper":
        return torch.randn(1, bins, 2 * read.first("max_source_positions", default=32))
    return (
        torch.randn(1, bins, 40) if config.model_type == "moonshine_streaming" else torch.randn(1, 40, bins)
    )


MAKERS: dict[str, Callable[[Any, Reader], torch.Tensor]] = {
    "pixel_values": _image,
    "pixel_values_videos": _image,
    "input_values": _waveform,
    "input_features": _features,
}


def share(part: int, whole: int) -> float:
    """Return a share rounded to three places."""
    return round(part / whole, 3) if whole else math.nan
