"""Small models of architectures of `transformers` whose sizes depend on one another, set by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.coverage.zoo import Unbuildable, finish, head_of, inputs_of, set_field, shrink

Make = Callable[[], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to make one small model.

    Attributes:
        sizes: fields of the configuration; a mapping under the name of a configuration inside it goes there.
        inputs: by name how to make each input; those of the generic recipe where it is empty.
        parts: configurations given whole, by field.
        head: class of `transformers`; the first that the architecture has if empty.
    """

    sizes: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Make] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    head: str = ""


def image(size: int, height: int = 0) -> dict[str, Make]:
    """Return how to make one image."""
    return {"pixel_values": lambda: torch.randn(1, 3, height or size, size)}


def words(name: str = "input_ids", length: int = 9) -> dict[str, Make]:
    """Return how to make one sentence."""
    return {name: lambda: torch.randint(6, 30, (1, length))}


def boxes(name: str = "bbox", length: int = 9) -> dict[str, Make]:
    """Return how to make one box for each word: left, top, right and bottom."""
    return {
        name: lambda: torch.cat(
            [torch.randint(0, 20, (1, length, 2)), torch.randint(20, 40, (1, length, 2))], 2
        )
    }


def series(length: int = 32, channels: int = 1) -> dict[str, Make]:
    """Return how to make one time series."""
    return {"past_values": lambda: torch.randn(1, length, channels)}


RESNET = {
    "model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
DETR_RESNET = {
    "model_type": "rt_detr_resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
DINO = {
    "model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 64,
    "patch_size": 16, "mlp_ratio": 2, "reshape_hidden_states": False, "apply_layernorm": True,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
SWIN = {
    "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "patch_size": 2, "image_size": 32,
    "hidden_size": 48,
}  # fmt: skip
CONVNEXT = {
    "patch_size": 4, "hidden_sizes": [16, 32], "depths": [2, 2], "num_stages": 2, "image_size": 64,
}  # fmt: skip
LATENT = {
    "head_dim": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 24,
    "n_group": 1, "topk_group": 1, "num_key_value_heads": 4, "first_k_dense_replace": 1, "qk_head_dim": 16,
}  # fmt: skip
DETR = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "num_queries": 6, "use_timm_backbone": False,
}  # fmt: skip
RT_DETR = {
    "encoder_in_channels": [32, 48, 64], "decoder_in_channels": [32, 32, 32], "num_queries": 6, "head_dim": 8,
    "num_denoising": 0, "hidden_dim": 32,
}  # fmt: skip
TIME = {
    "prediction_length": 8,
    "context_length": 16,
    "lags_sequence": [1, 2],
    "num_time_features": 1,
    "feature_size": 5,
}
TIMES: dict[str, Make] = {
    "past_values": lambda: torch.randn(1, 18),
    "past_time_features": lambda: torch.randn(1, 18, 1),
    "past_observed_mask": lambda: torch.ones(1, 18),
    "future_values": lambda: torch.randn(1, 8),
    "future_time_features": lambda: torch.randn(1, 8, 1),
}
TOWERS = {"text_config": {"vocab_size": 99, "hidden_size": 32}, "vision_config": {"hidden_size": 32}}

RECIPES: dict[str, Recipe] = {
    "swin": Recipe(SWIN, image(32)),
    "swinv2": Recipe(SWIN, image(32)),
    "donut-swin": Recipe(SWIN, image(32)),
    "maskformer-swin": Recipe(SWIN, image(32), head="MaskFormerSwinModel"),
    "convnext": Recipe(CONVNEXT, image(64)),
    "convnextv2": Recipe(CONVNEXT, image(64)),
    "deberta": Recipe({"pooler_hidden_size": 32}),
    "deberta-v2": Recipe({"pooler_hidden_size": 32, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "deepseek_v2": Recipe({**LATENT, "num_experts_per_tok": 2}),
    "deepseek_v3": Recipe(LATENT),
    "glm4_moe_lite": Recipe(LATENT),
    "youtu": Recipe(LATENT),
    "longcat_flash": Recipe({**LATENT, "num_layers": 1, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 24,
        "zero_expert_num": 2, "moe_topk": 2}),
    "minicpm3": Recipe(LATENT),
    "detr": Recipe(DETR, image(64), {"backbone_config": RESNET}),
    "conditional_detr": Recipe(DETR, image(64), {"backbone_config": RESNET}),
    "dab-detr": Recipe({**DETR, "hidden_size": 32}, image(64), {"backbone_config": RESNET}),
    "deformable_detr": Recipe(DETR, image(64), {"backbone_config": RESNET}),
    "table-transformer": Recipe(DETR, image(64), {"backbone_config": RESNET}),
    "rt_detr": Recipe(RT_DETR, image(64), {"backbone_config": DETR_RESNET}),
    "rt_detr_v2": Recipe(RT_DETR, image(64), {"backbone_config": DETR_RESNET}),
    "d_fine": Recipe(RT_DETR, image(64), {"backbone_config": DETR_RESNET}),
    "dpt": Recipe({"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [16, 16, 24, 24],
        "fusion_hidden_size": 16}, image(64)),
    "depth_anything": Recipe({"neck_hidden_sizes": [16, 16, 24, 24], "reassemble_hidden_size": 32,
        "fusion_hidden_size": 16, "head_hidden_size": 8, "patch_size": 16}, image(64), {"backbone_config": DINO}),
    "zoedepth": Recipe({"neck_hidden_sizes": [16, 16, 24, 24], "fusion_hidden_size": 16, "bottleneck_features": 16,
        "num_attractors": [4, 2, 2, 1], "bin_embedding_dim": 8, "num_relative_features": 8}, image(64),
        {"backbone_config": DINO}),
    "efficientnet": Recipe({"width_coefficient": 0.35, "depth_coefficient": 0.3, "hidden_dim": 448}, image(64)),
    "esm": Recipe({"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1}, words()),
    "mamba2": Recipe({"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8, "hidden_size": 32, "expand": 2}),
    "bamba": Recipe({"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8,
        "attn_layer_indices": [1], "head_dim": 8}),
    "zamba2": Recipe({"n_mamba_heads": 8, "mamba_headdim": 8, "mamba_d_state": 8, "chunk_size": 8,
        "hybrid_layer_ids": [1], "layers_block_type": ["mamba", "hybrid"], "attention_hidden_size": 64,
        "attention_head_dim": 16, "adapter_rank": 8, "num_key_value_heads": 4, "kv_channels": 8}),
    "qwen2_vl": Recipe({"text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
        "mrope_section": [2, 1, 1]}}}),
    "qwen2_5_vl": Recipe({"text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
        "mrope_section": [2, 1, 1]}}}),
    "wav2vec2-bert": Recipe({"vocab_size": 32, "output_hidden_size": 32, "feature_projection_input_dim": 24},
        {"input_features": lambda: torch.randn(1, 40, 24)}),
    "wav2vec2-conformer": Recipe({"vocab_size": 32, "output_hidden_size": 32, "conv_dim": [16] * 7}),
    "vilt": Recipe({}, {**words(), **image(64)}, head="ViltForQuestionAnswering"),
    "altclip": Recipe({"text_config": {"project_dim": 32}}, {**words(), **image(64)}),
    "owlvit": Recipe({"text_config": {"max_position_embeddings": 9}}, {**words(), **image(64)},
        head="OwlViTForObjectDetection"),
    "owlv2": Recipe({"text_config": {"max_position_embeddings": 9}}, {**words(), **image(64)},
        head="Owlv2ForObjectDetection"),
    "siglip2": Recipe({}, {"pixel_values": lambda: torch.randn(1, 16, 768),
        "pixel_attention_mask": lambda: torch.ones(1, 16),
        "spatial_shapes": lambda: torch.tensor([[4, 4]])}, head="Siglip2ForImageClassification"),
    "layoutlmv3": Recipe({"coordinate_size": 5, "shape_size": 6, "input_size": 64, "max_2d_position_embeddings": 64},
        {**words(), **boxes()}, head="LayoutLMv3ForTokenClassification"),
    "lilt": Recipe({"max_2d_position_embeddings": 64, "hidden_size": 48, "channel_shrink_ratio": 2}, {**words(),
        **boxes()}),
    "udop": Recipe({}, {**words(), "bbox": lambda: torch.rand(1, 9, 4), **words("decoder_input_ids", 5)},
        head="UdopForConditionalGeneration"),
    "patchtst": Recipe({"context_length": 32, "patch_length": 4, "patch_stride": 4, "prediction_length": 8,
        "num_input_channels": 2}, series(32, 2), head="PatchTSTForPrediction"),
    "timesfm": Recipe({"patch_length": 8, "context_length": 16, "horizon_length": 8, "head_dim": 8}, {
        "past_values": lambda: torch.randn(1, 24), "past_values_padding": lambda: torch.zeros(1, 24, dtype=torch.long),
        "freq": lambda: torch.zeros(1, 1, dtype=torch.long)}, head="TimesFmModel"),
    "informer": Recipe(TIME, TIMES, head="InformerForPrediction"),
    "autoformer": Recipe({**TIME, "moving_average": 5}, TIMES, head="AutoformerForPrediction"),
    "time_series_transformer": Recipe(TIME, TIMES, head="TimeSeriesTransformerForPrediction"),
    "perceiver": Recipe({"num_latents": 8, "d_latents": 16, "num_self_attends_per_block": 2, "d_model": 16,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 2}, {"inputs": lambda: torch.randint(6, 90, (1,
        9))},
        head="PerceiverForMaskedLM"),
    "reformer": Recipe({"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"],
        "attention_head_size": 8, "feed_forward_size": 48, "local_attn_chunk_length": 4}, words(length=8)),
    "xlstm": Recipe({"embedding_dim": 32, "num_blocks": 2, "num_heads": 2, "chunk_size": 8, "head_dim": 16},
        words(length=8)),
    "encodec": Recipe({"num_filters": 4, "upsampling_ratios": [4, 2], "codebook_size": 16, "codebook_dim": 32},
        {"input_values": lambda: torch.randn(1, 1, 320)}, head="EncodecModel"),
    "dac": Recipe({"encoder_hidden_size": 8, "decoder_hidden_size": 32, "downsampling_ratios": [2, 2],
        "upsampling_ratios": [2, 2], "codebook_size": 16, "n_codebooks": 2, "hidden_size": 32, "codebook_dim": 4},
        {"input_values": lambda: torch.randn(1, 1, 320)}, head="DacModel"),
    "mimi": Recipe({"num_filters": 4, "codebook_size": 16, "codebook_dim": 16, "num_quantizers": 2,
        "upsample_groups": 32,
        "vector_quantization_hidden_dimension": 16, "num_key_value_heads": 4, "upsampling_ratios": [4, 2]},
        {"input_values": lambda: torch.randn(1, 1, 640)}, head="MimiModel"),
    "vitpose": Recipe({}, image(64), {"backbone_config": {"model_type": "vitpose_backbone", "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": [64, 64], "patch_size": [16, 16],
        "mlp_ratio": 2,
        "out_indices": [2]}}, head="VitPoseForPoseEstimation"),
    "vitmatte": Recipe({"hidden_size": 32, "convstream_hidden_sizes": [8, 8, 8], "fusion_hidden_sizes": [16, 16,
        16, 16]},
        {"pixel_values": lambda: torch.randn(1, 4, 64, 64)}, {"backbone_config": {"model_type": "vitdet",
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 16,
        "num_channels": 4, "out_features": ["stage2"]}}, head="VitMatteForImageMatting"),
    "superpoint": Recipe({"encoder_hidden_sizes": [8, 8, 16, 16], "decoder_hidden_size": 16,
        "descriptor_decoder_dim": 16},
        image(64), head="SuperPointForKeypointDetection"),
    "mgp-str": Recipe({"image_size": [32, 64], "patch_size": 4, "max_token_length": 5, "num_character_labels": 9,
        "num_bpe_labels": 11, "num_wordpiece_labels": 12}, image(64, 32), head="MgpstrForSceneTextRecognition"),
    "xmod": Recipe({"languages": ["en_XX"], "default_language": "en_XX"}),
    "luke": Recipe({"entity_vocab_size": 20, "entity_emb_size": 16}, words(), head="LukeModel"),
    "pix2struct": Recipe({"vision_config": {"patch_embed_hidden_size": 48, "d_kv": 8, "seq_len": 16},
        "text_config": {"num_heads": 4}}, {"flattened_patches": lambda: torch.cat([torch.arange(16.0).reshape(1,
        16, 1) // 4,
        torch.arange(16.0).reshape(1, 16, 1) % 4, torch.randn(1, 16, 48)], 2), **words("decoder_input_ids", 5)},
        head="Pix2StructForConditionalGeneration"),
    "decision_transformer": Recipe({"state_dim": 5, "act_dim": 3}, {"states": lambda: torch.randn(1, 4, 5),
        "actions": lambda: torch.randn(1, 4, 3), "rewards": lambda: torch.randn(1, 4, 1),
        "returns_to_go": lambda: torch.randn(1, 4, 1), "timesteps": lambda: torch.arange(4).reshape(1, 4),
        "attention_mask": lambda: torch.ones(1, 4)}, head="DecisionTransformerModel"),
    "canine": Recipe({}, words(length=16)),
    "nemotron_asr_streaming": Recipe({"_attn_implementation": "sdpa"}),
    "nemotron_asr_streaming_encoder": Recipe({"_attn_implementation": "sdpa"}),
    "nemotron3_5_asr": Recipe({"_attn_implementation": "sdpa"}),
    "ministral": Recipe({"head_dim": 8}),
    "hunyuan_v1_dense": Recipe({"head_dim": 8}),
    "hunyuan_v1_moe": Recipe({"moe_topk": [2, 2], "num_shared_expert": [1, 1], "head_dim": 8}),
    "lfm2_moe": Recipe({"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "musicgen_decoder": Recipe({"num_codebooks": 2, "vocab_size": 31}, {"input_ids": lambda: torch.randint(0, 30,
        (2, 7))},
        head="MusicgenForCausalLM"),
    "xclip_vision_model": Recipe({"num_frames": 2, "mit_hidden_size": 32}, {"pixel_values": lambda: torch.randn(2,
        3, 64, 64)},
        head="XCLIPVisionModel"),
    "vjepa2": Recipe({"crop_size": 64, "frames_per_clip": 2, "pred_hidden_size": 24, "pred_num_attention_heads": 4,
        "pred_num_hidden_layers": 2, "pred_num_mask_tokens": 1, "mlp_ratio": 2},
        {"pixel_values_videos": lambda: torch.randn(1, 2, 3, 64, 64)}, head="VJEPA2ForVideoClassification"),
    "eomt": Recipe({"num_blocks": 1, "num_upscale_blocks": 1, "num_queries": 6}, image(64),
        head="EomtForUniversalSegmentation"),
}  # fmt: skip


def build_by_hand(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return a small random model of an architecture that has a recipe, and inputs for it."""
    import transformers
    from transformers import CONFIG_MAPPING

    torch.manual_seed(0)
    recipe = RECIPES[name]
    config = shrink(CONFIG_MAPPING[name](**{key: _part(value) for key, value in recipe.parts.items()}))
    for key, value in recipe.parts.items():
        setattr(config, key, _part(value))
    _fill(config, recipe.sizes)
    kind = getattr(transformers, recipe.head, None) if recipe.head else head_of(name)
    if kind is None:
        raise Unbuildable(f"transformers has no {recipe.head}")
    model = finish(kind, config)
    torch.manual_seed(0)
    given = {key: make() for key, make in recipe.inputs.items()} or inputs_of(model, config)
    return model, given


def _part(value: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[value["model_type"]](**{k: v for k, v in value.items() if k != "model_type"})


def _fill(config: Any, sizes: dict[str, Any]) -> None:
    """Set fields, and those of the configurations inside."""
    for key, value in sizes.items():
        inner = getattr(config, key, None)
        if isinstance(value, dict) and inner is not None and not isinstance(inner, dict):
            _fill(inner, value)
        else:
            set_field(config, key, value)
