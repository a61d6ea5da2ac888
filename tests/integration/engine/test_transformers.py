"""The layers against transformers' implementations of the same architectures, with converted weights, in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import InternVLVisionConfig, InternVLVisionModel, LlamaConfig, LlamaForCausalLM

from livestar.model.config import InternViTConfig
from livestar.model.vision import normalise
from livestar.reference import PlainCache
from tests.checkpoints import RECIPES
from tests.integration.engine.conftest import LoadRecipe
from tests.integration.engine.watching import Loaded

pytestmark = pytest.mark.integration


def converted_llama(loaded: Loaded) -> LlamaForCausalLM:
    """wqkv's rows are, for each KV head, its query heads, its key and its value."""
    config = loaded.model.config.language
    groups = config.num_heads // config.num_kv_heads
    state: dict[str, Tensor] = {}
    for name, tensor in loaded.model.language_model.state_dict().items():
        renamed = (
            name.replace("tok_embeddings", "embed_tokens")
            .replace("attention_norm", "input_layernorm")
            .replace("ffn_norm", "post_attention_layernorm")
            .replace("feed_forward.w1", "mlp.gate_proj")
            .replace("feed_forward.w3", "mlp.up_proj")
            .replace("feed_forward.w2", "mlp.down_proj")
            .replace("attention.wo", "self_attn.o_proj")
        )
        if "wqkv" in name:
            fused = tensor.view(config.num_kv_heads, groups + 2, config.head_dim, config.hidden_size)
            parts = {"q": fused[:, :groups], "k": fused[:, groups], "v": fused[:, groups + 1]}
            for letter, part in parts.items():
                state[name.replace("attention.wqkv", f"self_attn.{letter}_proj")] = part.reshape(-1, config.hidden_size)
        else:
            state["lm_head.weight" if name == "output.weight" else renamed] = tensor
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.rms_norm_eps,
            max_position_embeddings=config.max_position_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            attention_bias=False,
            tie_word_embeddings=False,
        )
    )
    llama.load_state_dict(state, strict=True)
    return llama.eval()


@pytest.mark.parametrize("name", RECIPES)
def test_the_language_model_equals_llama(checkpoint: LoadRecipe, name: str) -> None:
    loaded = checkpoint(name)
    language = loaded.model.language_model
    ids = torch.randint(0, 390, (150,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = converted_llama(loaded)(ids.unsqueeze(0)).logits[0]
        got = language.logits(language(language.embed(ids), torch.arange(150), PlainCache()))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["small", "deep"])
def test_rope_far_out_equals_llamas(checkpoint: LoadRecipe, name: str) -> None:
    loaded = checkpoint(name)
    language = loaded.model.language_model
    ids = torch.randint(0, 390, (20,), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(32700, 32720)
    with torch.inference_mode():
        wanted = converted_llama(loaded)(ids.unsqueeze(0), position_ids=positions.unsqueeze(0)).logits[0]
        got = language.logits(language(language.embed(ids), positions, PlainCache()))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def converted_vision_tower(loaded: Loaded) -> InternVLVisionModel:
    config = loaded.model.config.vision
    assert isinstance(config, InternViTConfig)
    state: dict[str, Tensor] = {}
    for name, tensor in loaded.model.vision_model.state_dict().items():
        renamed = (
            name.replace("class_embedding", "cls_token")
            .replace("position_embedding", "position_embeddings")
            .replace("patch_embedding.", "patch_embeddings.projection.")
            .replace("encoder.layers", "encoder.layer")
            .replace("attn.proj", "attention.projection_layer")
            .replace("norm1", "layernorm_before")
            .replace("norm2", "layernorm_after")
            .replace("ls1", "lambda_1")
            .replace("ls2", "lambda_2")
        )
        if "qkv" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[renamed.replace("attn.qkv", f"attention.{letter}_proj")] = part
        else:
            state[renamed] = tensor
    tower = InternVLVisionModel(
        InternVLVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            image_size=[config.image_size, config.image_size],
            patch_size=[config.patch_size, config.patch_size],
            layer_norm_eps=config.layer_norm_eps,
            attention_bias=config.qkv_bias,
            use_qk_norm=False,
            use_mean_pooling=True,
            hidden_act="gelu",
        )
    )
    tower.load_state_dict(state, strict=True)
    return tower.eval()


@pytest.mark.parametrize("name", RECIPES)
def test_the_vision_tower_equals_internvls(checkpoint: LoadRecipe, name: str) -> None:
    loaded = checkpoint(name)
    size = loaded.image_size
    images = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = normalise(images, torch.float32)
    with torch.inference_mode():
        wanted = converted_vision_tower(loaded)(pixels).last_hidden_state[:, 1:]
        got = loaded.model.vision_model(pixels).flatten(1, 2)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
