"""What a checkpoint's config.json says, checked and typed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from livestar.errors import InvalidCheckpoint
from livestar.model.adapter import beside_or_base
from livestar.model.efficientnet import DOWNSCALING, VARIANTS, scaled_stages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T = TypeVar("T", int, float, str, bool)

MAX_LAYERS = 1000
"""Layers that a model may have; more is a damaged file, and would take long to lay out before it is found out."""

NUM_VISUAL_TOKENS = 16
"""Tokens per frame after merging, where config.json has no `num_tome_tokens` (the released code hard-codes it)."""


INTERN_VIT, EFFICIENTNET_LITE = "intern_vit_6b", "efficientnet_lite"
"""What `model_type` of `vision_config` may be; the first is the published one's, and the default."""

EFFICIENTNET_IMAGE_SIZE = 256
"""Side of an EfficientNet-Lite's input where config.json gives none, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternViTConfig:
    """InternViT: a plain pre-norm vision transformer with layer scale."""

    hidden_size: int
    """Width of the map that comes out."""
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    """Side of the square input, in pixels."""
    patch_size: int
    layer_norm_eps: float
    qkv_bias: bool

    @property
    def grid(self) -> int:
        """Side of the map that comes out, in patches."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientNetLiteConfig:
    """EfficientNet-Lite: a small convolutional trunk, frozen."""

    variant: str
    """lite0 to lite4."""
    image_size: int
    """Side of the square input, in pixels."""

    @property
    def hidden_size(self) -> int:
        """Width of the map that comes out."""
        return scaled_stages(self.variant)[-1].width

    @property
    def grid(self) -> int:
        """Side of the map that comes out."""
        return self.image_size // DOWNSCALING


VisionConfig = InternViTConfig | EfficientNetLiteConfig
"""The vision side.  What others need of either is `image_size`, and `grid` and `hidden_size` of the map that comes out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """InternLM2: a Llama-like decoder with grouped-query attention and a fused wqkv."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    """Longest context, in tokens.  Dynamic RoPE scaling starts beyond it, so contexts stay below."""
    bias: bool

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The whole model, and what its author chose for watching with it."""

    vision: VisionConfig
    language: LanguageConfig
    num_visual_tokens: int
    """Tokens that one frame becomes."""
    watch: Mapping[str, object]
    """The `livestar` section of config.json: defaults for gate, threshold, prompt.  Empty in the released checkpoint."""
    fps: float | None = None
    """Of that section: frames per second that the model was made for."""
    max_new_tokens: int | None = None
    """Of that section: longest caption to let it write, in tokens."""
    raw: Mapping[str, object]
    """config.json as read, for writing it back."""

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one token occupies in the KV cache, all layers, keys and values."""
        return 2 * self.language.num_layers * self.language.num_kv_heads * self.language.head_dim


class _Section:
    """One object of config.json, read key by key with errors that name the key."""

    def __init__(self, values: object, path: str) -> None:
        if not isinstance(values, dict):
            raise InvalidCheckpoint(f"{path}: expected an object, got {type(values).__name__}")
        self.values = values
        self.path = path

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of `key`; an int is accepted for a float.  Raises `InvalidCheckpoint`."""
        value = self.values.get(key, default)
        if value is None:
            raise InvalidCheckpoint(f"{self.path} has no {key!r}; it is not the config.json of a LiveStar checkpoint")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return kind(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidCheckpoint(f"{self.path}: {key} is {value!r}; expected {kind.__name__}")
        if kind is int and value < 1:
            raise InvalidCheckpoint(f"{self.path}: {key} is {value!r}; expected at least 1")
        return value

    def require(self, key: str, expected: object, default: object) -> None:
        """Refuses a checkpoint that needs what this code does not do, instead of running it wrongly."""
        value = self.values.get(key, default)
        if value != expected:
            raise InvalidCheckpoint(f"{self.path}: {key} is {value!r}; only {expected!r} is supported")

    def section(self, key: str) -> _Section:
        return _Section(self.values.get(key), f"{self.path}: {key}")


def _check_depth(section: _Section, num_layers: int) -> None:
    if num_layers > MAX_LAYERS:
        raise InvalidCheckpoint(f"{section.path}: num_hidden_layers is {num_layers}; expected at most {MAX_LAYERS}")


def _vision_config(root: _Section) -> VisionConfig:
    section = root.section("vision_config")
    kind = section.get("model_type", str, INTERN_VIT)
    if kind not in (INTERN_VIT, EFFICIENTNET_LITE):
        raise InvalidCheckpoint(
            f"{section.path}: model_type is {kind!r}; only {INTERN_VIT!r} and {EFFICIENTNET_LITE!r} are supported"
        )
    section.require("num_channels", 3, 3)
    config = _intern_vit_config(section) if kind == INTERN_VIT else _efficientnet_config(section)
    root.require("force_image_size", config.image_size, config.image_size)
    return config


def _efficientnet_config(section: _Section) -> EfficientNetLiteConfig:
    variant = section.get("variant", str)
    if variant not in VARIANTS:
        raise InvalidCheckpoint(f"{section.path}: variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    image_size = section.get("image_size", int, EFFICIENTNET_IMAGE_SIZE)
    if image_size % (2 * DOWNSCALING):
        raise InvalidCheckpoint(f"{section.path}: image_size {image_size} is not a multiple of {2 * DOWNSCALING}")
    return EfficientNetLiteConfig(variant=variant, image_size=image_size)


def _intern_vit_config(section: _Section) -> InternViTConfig:
    section.require("hidden_act", "gelu", "gelu")
    section.require("norm_type", "layer_norm", "layer_norm")
    section.require("qk_normalization", False, False)
    image_size = section.get("image_size", int)
    config = InternViTConfig(
        hidden_size=section.get("hidden_size", int),
        intermediate_size=section.get("intermediate_size", int),
        num_layers=section.get("num_hidden_layers", int),
        num_heads=section.get("num_attention_heads", int),
        image_size=image_size,
        patch_size=section.get("patch_size", int),
        layer_norm_eps=section.get("layer_norm_eps", float, 1e-6),
        qkv_bias=section.get("qkv_bias", bool, True),
    )
    _check_depth(section, config.num_layers)
    if config.hidden_size % config.num_heads:
        raise InvalidCheckpoint(f"{section.path}: hidden_size {config.hidden_size} is not a multiple of {config.num_heads} heads")
    if image_size % (2 * config.patch_size):
        raise InvalidCheckpoint(
            f"{section.path}: image_size {image_size} is not a multiple of two patches of {config.patch_size}"
        )
    return config


def _language_config(root: _Section) -> LanguageConfig:
    section = root.section("llm_config")
    section.require("hidden_act", "silu", "silu")
    section.require("tie_word_embeddings", False, False)
    scaling = section.values.get("rope_scaling")
    if scaling is not None and _Section(scaling, f"{section.path}: rope_scaling").get("type", str) != "dynamic":
        raise InvalidCheckpoint(f"{section.path}: rope_scaling is {scaling!r}; only none and 'dynamic' are supported")
    config = LanguageConfig(
        hidden_size=section.get("hidden_size", int),
        intermediate_size=section.get("intermediate_size", int),
        num_layers=section.get("num_hidden_layers", int),
        num_heads=section.get("num_attention_heads", int),
        num_kv_heads=section.get("num_key_value_heads", int),
        vocab_size=section.get("vocab_size", int),
        rms_norm_eps=section.get("rms_norm_eps", float, 1e-6),
        rope_theta=section.get("rope_theta", float, 10000.0),
        max_position_embeddings=section.get("max_position_embeddings", int),
        bias=section.get("bias", bool, False),
    )
    _check_depth(section, config.num_layers)
    if config.hidden_size % config.num_heads or config.num_heads % config.num_kv_heads or config.head_dim % 2:
        raise InvalidCheckpoint(
            f"{section.path}: hidden_size {config.hidden_size}, {config.num_heads} heads and {config.num_kv_heads} KV heads "
            "do not divide"
        )
    return config


def load_config(directory: Path) -> ModelConfig:
    """Reads `directory`/config.json, or that of its base for an adapter without one.

    Raises `InvalidCheckpoint`, which names the file, the key and what was expected.
    """
    path = beside_or_base(directory, "config.json") / "config.json"
    try:
        if path.exists() and not path.is_file():
            raise InvalidCheckpoint(f"{path} is not a file; copy it again from the checkpoint's source")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        what = "has no config.json" if directory.is_dir() else "is not a directory" if directory.exists() else "does not exist"
        raise InvalidCheckpoint(f"{directory} {what}; give the directory of a LiveStar checkpoint") from None
    except OSError as error:
        raise InvalidCheckpoint(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"{path} is not JSON ({error}); copy it again from the checkpoint's source") from error
    return parse_config(values, str(path))


def parse_config(values: object, name: str = "config.json") -> ModelConfig:
    """Checks and types the contents of a config.json; `name` is what errors call it."""
    root = _Section(values, name)
    root.require("downsample_ratio", 0.5, 0.5)
    root.require("select_layer", -1, -1)
    root.require("ps_version", "v2", "v2")
    vision, language = _vision_config(root), _language_config(root)
    num_visual_tokens = root.get("num_tome_tokens", int, NUM_VISUAL_TOKENS)
    num_shuffled = (vision.grid // 2) ** 2
    if num_shuffled < num_visual_tokens:
        raise InvalidCheckpoint(f"{name}: a frame has {num_shuffled} tokens before merging, fewer than {num_visual_tokens} after")
    if (4 * vision.hidden_size) % language.num_heads:
        raise InvalidCheckpoint(
            f"{name}: merging splits the {4 * vision.hidden_size} values of a visual token over {language.num_heads} heads, "
            "which does not divide"
        )
    watch = root.section("livestar") if "livestar" in root.values else _Section({}, name)
    fps = watch.get("fps", float) if "fps" in watch.values else None
    if fps is not None and not 0.001 <= fps <= 240:
        raise InvalidCheckpoint(f"{watch.path}: fps is {fps!r}; expected frames per second, 0.001 to 240")
    return ModelConfig(
        vision=vision,
        language=language,
        num_visual_tokens=num_visual_tokens,
        watch=watch.values,
        fps=fps,
        max_new_tokens=watch.get("max_new_tokens", int) if "max_new_tokens" in watch.values else None,
        raw=root.values,
    )
