"""config.json: what is read of it, and what is refused instead of run wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livestar.errors import InvalidCheckpoint
from livestar.model.config import EfficientNetLiteConfig, InternViTConfig, load_config, parse_config
from tests.checkpoints import Recipe, config

pytestmark = pytest.mark.unit

Values = dict[str, Any]


def values() -> Values:
    return json.loads(json.dumps(config(Recipe(), 403)))


def test_what_is_written_is_what_is_read() -> None:
    parsed = parse_config(values())
    assert isinstance(parsed.vision, InternViTConfig)
    assert (parsed.vision.hidden_size, parsed.vision.intermediate_size, parsed.vision.num_heads, parsed.vision.num_layers) == (
        16, 32, 2, 2,
    )  # fmt: skip
    assert (parsed.vision.image_size, parsed.vision.patch_size, parsed.vision.grid, parsed.vision.qkv_bias) == (112, 7, 16, True)
    language = parsed.language
    assert (language.hidden_size, language.intermediate_size, language.num_layers) == (32, 64, 2)
    assert (language.num_heads, language.num_kv_heads, language.head_dim, language.vocab_size) == (4, 2, 8, 403)
    assert (language.rope_theta, language.rms_norm_eps, language.max_position_embeddings) == (1e6, 1e-5, 32768)
    assert parsed.num_visual_tokens == 16
    assert parsed.kv_values_per_token == 2 * 2 * 2 * 8
    assert parsed.raw == values()
    assert parsed.watch["task"]


def test_the_released_config_has_no_keys_of_ours() -> None:
    bare = values()
    del bare["num_tome_tokens"], bare["livestar"]
    parsed = parse_config(bare)
    assert parsed.num_visual_tokens == 16
    assert parsed.watch == {}


REQUIRED = [
    *[("vision_config", key) for key in (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")],
    *[("llm_config", key) for key in (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
        "max_position_embeddings")],
]  # fmt: skip


@pytest.mark.parametrize(("section", "key"), REQUIRED)
def test_a_missing_key_is_named(section: str, key: str) -> None:
    bad = values()
    del bad[section][key]
    with pytest.raises(InvalidCheckpoint, match=rf"config\.json: {section} has no '{key}'"):
        parse_config(bad)


@pytest.mark.parametrize(("section", "key"), REQUIRED)
@pytest.mark.parametrize("value", ["8", 0, -4, 8.5, True, [8], None])
def test_a_bad_number_is_named(section: str, key: str, value: object) -> None:
    bad = values()
    bad[section][key] = value
    with pytest.raises(InvalidCheckpoint, match=rf"config\.json: {section}.*'?{key}'?"):
        parse_config(bad)


@pytest.mark.parametrize("section", ["vision_config", "llm_config"])
@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_section_that_is_no_object_is_named(section: str, value: object) -> None:
    bad = values()
    bad[section] = value
    with pytest.raises(InvalidCheckpoint, match=rf"config\.json: {section}: expected an object"):
        parse_config(bad)


def put(*path: str, value: object) -> Callable[[Values], None]:
    def change(bad: Values) -> None:
        for key in path[:-1]:
            bad = bad[key]
        bad[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("downsample_ratio", value=0.25), "downsample_ratio is 0.25; only 0.5 is supported"),
        (put("select_layer", value=-4), "select_layer is -4; only -1 is supported"),
        (put("ps_version", value="v1"), "ps_version is 'v1'; only 'v2' is supported"),
        (put("force_image_size", value=448), "force_image_size is 448; only 112 is supported"),
        (put("vision_config", "hidden_act", value="relu"), "hidden_act is 'relu'; only 'gelu' is supported"),
        (put("vision_config", "norm_type", value="rms_norm"), "norm_type is 'rms_norm'"),
        (put("vision_config", "qk_normalization", value=True), "qk_normalization is True"),
        (put("vision_config", "num_channels", value=4), "num_channels is 4"),
        (put("vision_config", "image_size", value=110), "110"),
        (put("vision_config", "model_type", value="clip"), "only 'intern_vit_6b' and 'efficientnet_lite' are supported"),
        (put("vision_config", "model_type", value=3), "model_type is 3; expected str"),
        (put("vision_config", "num_attention_heads", value=3), "hidden_size 16 is not a multiple of 3 heads"),
        (put("llm_config", "hidden_act", value="gelu"), "hidden_act is 'gelu'; only 'silu' is supported"),
        (put("llm_config", "tie_word_embeddings", value=True), "tie_word_embeddings is True"),
        (put("llm_config", "rope_scaling", value={"type": "linear", "factor": 2}), "only none and 'dynamic' are supported"),
        (put("llm_config", "rope_scaling", value={}), "rope_scaling has no 'type'"),
        (put("llm_config", "num_attention_heads", value=5), "do not divide"),
        (put("llm_config", "num_key_value_heads", value=3), "do not divide"),
        (put("llm_config", "num_attention_heads", value=32), "do not divide"),
        (put("llm_config", "rope_theta", value="big"), "rope_theta is 'big'; expected float"),
        (put("llm_config", "bias", value=1), "bias is 1; expected bool"),
        (put("num_tome_tokens", value=65), "a frame has 64 tokens before merging, fewer than 65 after"),
        (put("num_tome_tokens", value="16"), "num_tome_tokens is '16'; expected int"),
        (put("livestar", value=[]), "livestar: expected an object"),
    ],
)
def test_what_is_not_supported_is_refused_and_named(change: Callable[[Values], None], message: str) -> None:
    bad = values()
    change(bad)
    with pytest.raises(InvalidCheckpoint) as refused:
        parse_config(bad)
    assert message in str(refused.value)
    assert "config.json" in str(refused.value)


def lite(**changes: object) -> Values:
    """A config whose vision side is an EfficientNet-Lite."""
    out = values() | {"vision_config": {"model_type": "efficientnet_lite", "variant": "lite0"} | changes}
    del out["force_image_size"]
    return out


@pytest.mark.parametrize(("variant", "width"), [("lite0", 320), ("lite1", 320), ("lite2", 352), ("lite3", 384), ("lite4", 448)])
def test_the_vision_side_may_be_an_efficientnet(variant: str, width: int) -> None:
    parsed = parse_config(lite(variant=variant))
    assert parsed.vision == EfficientNetLiteConfig(variant=variant, image_size=256)
    assert (parsed.vision.hidden_size, parsed.vision.grid) == (width, 8)
    assert parsed.num_visual_tokens == 16


def test_the_published_model_type_is_internvit() -> None:
    named = values()
    named["vision_config"]["model_type"] = "intern_vit_6b"
    assert parse_config(named).vision == parse_config(values()).vision


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "b0"}, "variant is 'b0'; expected one of lite0, lite1, lite2, lite3, lite4"),
        ({"variant": None}, "vision_config has no 'variant'"),
        ({"image_size": 224}, "image_size 224 is not a multiple of 64"),
        ({"image_size": 192}, "a frame has 9 tokens before merging, fewer than 16 after"),
        ({"num_channels": 1}, "num_channels is 1; only 3 is supported"),
    ],
)
def test_an_efficientnet_that_cannot_be_is_refused(changes: Values, message: str) -> None:
    with pytest.raises(InvalidCheckpoint) as refused:
        parse_config(lite(**changes))
    assert message in str(refused.value)


def test_a_forced_size_must_be_the_efficientnets() -> None:
    with pytest.raises(InvalidCheckpoint, match="force_image_size is 448; only 256 is supported"):
        parse_config(lite() | {"force_image_size": 448})


def test_merging_that_does_not_divide_is_refused() -> None:
    bad = values()
    bad["vision_config"]["hidden_size"] = 6
    bad["llm_config"] |= {"hidden_size": 160, "num_attention_heads": 20, "num_key_value_heads": 20}
    with pytest.raises(InvalidCheckpoint, match="24 values of a visual token over 20 heads"):
        parse_config(bad)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"not json"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"config\.json is not JSON"):
        load_config(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null"])
def test_a_file_that_is_no_object_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"config\.json: expected an object"):
        load_config(tmp_path)


def test_a_directory_without_config_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"has no config\.json; give the directory of a LiveStar checkpoint"):
        load_config(tmp_path)
    with pytest.raises(InvalidCheckpoint, match=r"does not exist"):
        load_config(tmp_path / "nowhere")
