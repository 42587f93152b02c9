import pytest
import torch
from torch import nn

from tersor.errors import ExportError
from tersor.exporting.compressed_tensors import pack, save_compressed_tensors
from tersor.quantization.hardware import weight_only
from tersor.quantization.quantize import quantize
from tersor.quantization.recipe import Recipe

transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")


def llama(layers=1):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False, use_cache=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


TOKENS = {"input_ids": torch.randint(0, 64, (4, 8), generator=torch.Generator().manual_seed(0))}


def loaded(folder, dequantize):
    settings = transformers.utils.quantization_config.CompressedTensorsConfig(dequantize=dequantize)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.float32
    ).eval()


@pytest.mark.parametrize(
    ("bits", "symmetric", "recipe"), [(4, True, Recipe()), (8, False, Recipe("mse", ("awq",)))]
)
def test_transformers_opens_the_folder_and_computes_the_same(bits, symmetric, recipe, tmp_path):
    model = llama(layers=2)
    scheme = weight_only(bits, symmetric=symmetric, exact_inputs=True)
    small = quantize(model, TOKENS, [TOKENS], scheme=scheme, recipe=recipe)
    assert len(small.integers) == 15
    save_compressed_tensors(small, model, tmp_path)
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    floats = sum(p.numel() for p in model.parameters()) - weights
    stored = 4 * floats + bits / 8 * weights + 5 * weights / 32
    assert (tmp_path / "model.safetensors").stat().st_size < stored + 16_000
    with torch.no_grad():
        expected, original = small(**TOKENS).logits, model(**TOKENS).logits
        actual = loaded(tmp_path, dequantize=True)(**TOKENS).logits
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert (expected - original).abs().max() > 1e-3


def test_a_layer_that_shares_its_weight_is_refused(tmp_path):
    model = llama()
    model.lm_head.weight = model.model.embed_tokens.weight
    small = quantize(model, TOKENS, [TOKENS], scheme="int4", recipe=Recipe("minmax"))
    with pytest.raises(ExportError, match="shared with another layer"):
        save_compressed_tensors(small, model, tmp_path)


def test_integers_in_activations_are_refused(tmp_path):
    x = torch.randn(4, 8)
    small = quantize(nn.Sequential(nn.Linear(8, 4)), (x,), [(x,)], scheme="dynamic")
    with pytest.raises(ExportError, match="dynamic integers"):
        save_compressed_tensors(small, llama(), tmp_path)


def test_rows_that_no_block_divides_are_refused(tmp_path):
    model = llama()
    with pytest.raises(ExportError, match="no multiple of the block of 128"):
        save_compressed_tensors(
            quantize(model, TOKENS, [TOKENS], scheme=weight_only(4, block=128)), model, tmp_path
        )


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_packed_as_the_library_packs_them(bits):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    signed = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 19), dtype=torch.int8)
    assert torch.equal(pack(signed.long() + 2 ** (bits - 1), bits), pack_to_int32(signed, bits))
