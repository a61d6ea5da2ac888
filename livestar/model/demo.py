"""A small checkpoint with random weights, in the released file format, to try the system without a trained model.

It is real in everything but what it knows: the captions are noise, though when they come still depends on the picture.
"""

from __future__ import annotations

from pathlib import Path

import torch

from livestar.model.bpe import train_bpe
from livestar.model.config import parse_config
from livestar.model.livestar import LiveStarModel
from livestar.model.weights import save_model

NOTE = "random weights: the captions are noise"

VOCABULARY = """
a an the this that is are was be in on at of to from with by and or but then now still again while as it its they he she
someone person man woman child people crowd car truck bus bicycle road street house tree grass sky water snow dust hand face
walks runs stands sits drives turns stops starts enters leaves appears disappears moves holds looks talks comes goes passes
left right front back near far up down behind before after inside outside across along around slowly quickly suddenly
red green blue white black grey bright dark small large old new one two three several many few another same other
camera picture scene view frame background foreground light shadow colour corner side middle edge distance moment
Frame user assistant system You will describe the video as it comes and speak only when something changes . , : - ' " ! ?
"""

TASK = "You will describe the video as it comes, and speak only when something changes.\n"


def write_demo_checkpoint(directory: Path, *, seed: int = 0) -> None:
    """Writes the checkpoint, some 2 MB; the same seed gives the same bytes."""
    words = VOCABULARY.split()  # so that noise at least consists of words
    tokenizer = train_bpe([f" {word}" for word in words] * 2 + words, max_ids=1000)
    model = LiveStarModel(parse_config(_config(tokenizer.get_vocab_size())))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.data = _draw(name, parameter.shape, generator)
    save_model(model, directory)
    tokenizer.save(str(directory / "tokenizer.json"))


def _config(vocab_size: int) -> dict[str, object]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "force_image_size": 224,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "bfloat16",
        "livestar": {"note": NOTE, "gate": "compat", "threshold": 1.03, "task": TASK, "system_message": "Watch."},
        "vision_config": {
            "model_type": "intern_vit_6b",
            "hidden_act": "gelu",
            "hidden_size": 64,
            "image_size": 224,
            "intermediate_size": 128,
            "layer_norm_eps": 1e-6,
            "norm_type": "layer_norm",
            "num_attention_heads": 4,
            "num_channels": 3,
            "num_hidden_layers": 2,
            "patch_size": 14,
            "qk_normalization": False,
            "qkv_bias": True,
        },
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "model_type": "internlm2",
            "bias": False,
            "hidden_act": "silu",
            "hidden_size": 128,
            "intermediate_size": 320,
            "max_position_embeddings": 32768,
            "num_attention_heads": 8,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "vocab_size": vocab_size,
        },
    }


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Random values of a scale that keeps activations near one through all layers, so that pictures make a difference."""
    values = torch.randn(shape, generator=generator)
    if "norm" in name or name.startswith("mlp1.0"):
        values = values * 0.05 + (0 if name.endswith("bias") else 1)
    elif name.endswith(("ls1", "ls2")):
        values = values * 0.1 + 0.5
    elif name.endswith("bias"):
        values = values * 0.05
    elif not name.endswith(("class_embedding", "position_embedding", "tok_embeddings.weight")):
        values = values * 1.5 / values[0].numel() ** 0.5
    return values.to(torch.bfloat16)
