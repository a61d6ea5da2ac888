"""Tiny checkpoints in the released file format: random weights from a seed, a tokenizer made on the spot, no download.

    directory = write_checkpoint(tmp_path / "tiny", Recipe(seed=3))

Everything is written by hand, not by the code under test: names and shapes as the released index lists them.
"""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceTrainer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL_TOKENS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
RESERVED_PIECES = ("<|im_end|>", "<|im_start|>")
"""Control tokens that take over reserved pieces of a SentencePiece model, as in the released checkpoint."""

SYSTEM_MESSAGE = "You watch a street. 你看一条街。"
TASK = "Say what happens, once, when it happens.\n"

TEXT = (
    "A red car turns into the street and stops in front of the house.",
    "The driver gets out, looks around and walks to the door.",
    "Now the camera moves to the left; two people are talking near the tree.",
    "Meanwhile a blue bus passes by, and the light turns from red to green.",
    "Then the woman opens her umbrella, because it has started to rain.",
    "The street is empty. Nothing moves, nobody talks, the light is red again.",
    "system user assistant Frame-1: Frame-2: Frame-34: Frame-567: Frame-890:",
    "It's not the driver's car, is it? They don't know, they've seen nothing!",
    "你看一条街。一辆红车开过来，停在房子前面。",
)
"""What the tokenizers are trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a tiny checkpoint is like."""

    seed: int = 0
    tokenizer: Literal["json", "sentencepiece"] = "json"
    image: int = 112
    patch: int = 7
    num_visual_tokens: int = 16
    vision: tuple[int, int, int, int] = (16, 32, 2, 2)
    """Width, MLP width, heads, layers."""
    language: tuple[int, int, int, int, int] = (32, 64, 4, 2, 2)
    """Width, MLP width, heads, KV heads, layers."""
    max_positions: int = 32768
    num_unused_ids: int = 3
    """Embedding rows beyond the tokenizer."""
    num_shards: int = 2
    gain: float = 1.6
    """Spread of what a random projection gives; more makes perplexities vary more."""
    stop_gain: float = 1.0
    """How much more often than other tokens the one that ends a turn is the likeliest."""
    watch: tuple[tuple[str, object], ...] = (("system_message", SYSTEM_MESSAGE), ("task", TASK))
    """The `livestar` section of config.json."""


RECIPES = {
    "small": Recipe(seed=1),
    "deep": Recipe(seed=2, image=56, language=(48, 96, 6, 3, 4), vision=(24, 40, 3, 3)),
    "no-groups": Recipe(seed=3, tokenizer="sentencepiece", language=(32, 48, 2, 2, 3), stop_gain=1.4),
    "one-kv-head": Recipe(seed=4, image=84, num_visual_tokens=4, language=(64, 80, 8, 1, 2), vision=(32, 48, 4, 1)),
}
"""Different heads, KV heads, layers, widths, pictures and tokenizers."""


def write_checkpoint(directory: Path, recipe: Recipe) -> Path:
    """Writes config.json, tokenizer and shards; returns `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    write = {"json": write_json_tokenizer, "sentencepiece": write_sentencepiece_tokenizer}[recipe.tokenizer]
    num_ids = write(directory)
    (directory / "config.json").write_text(json.dumps(config(recipe, num_ids + recipe.num_unused_ids), ensure_ascii=False))
    tensors = {name: draw(name, shape, recipe) for name, shape in shapes(recipe, num_ids + recipe.num_unused_ids).items()}
    tensors["language_model.output.weight"][stop_id(directory)] *= recipe.stop_gain
    write_shards(directory, tensors, recipe.num_shards)
    return directory


def write_shards(directory: Path, tensors: dict[str, torch.Tensor], num_shards: int) -> None:
    """Weights and index as the released checkpoint has them."""
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number in range(num_shards):
        part = names[number * len(names) // num_shards : (number + 1) * len(names) // num_shards]
        file = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        save_file({name: tensors[name].contiguous() for name in part}, str(directory / file), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def config(recipe: Recipe, vocab_size: int) -> dict[str, object]:
    """config.json with every key of the released one that says something about the model."""
    width, mlp, heads, layers = recipe.vision
    hidden, ffn, q_heads, kv_heads, blocks = recipe.language
    return {
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": 0.5,
        "force_image_size": recipe.image,
        "num_tome_tokens": recipe.num_visual_tokens,
        "ps_version": "v2",
        "select_layer": -1,
        "torch_dtype": "bfloat16",
        "livestar": dict(recipe.watch),
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "bias": False,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": ffn,
            "max_position_embeddings": recipe.max_positions,
            "num_attention_heads": q_heads,
            "num_hidden_layers": blocks,
            "num_key_value_heads": kv_heads,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {"factor": 2.0, "type": "dynamic"},
            "rope_theta": 1000000,
            "vocab_size": vocab_size,
        },
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "hidden_act": "gelu",
            "hidden_size": width,
            "image_size": recipe.image,
            "intermediate_size": mlp,
            "layer_norm_eps": 1e-06,
            "norm_type": "layer_norm",
            "num_attention_heads": heads,
            "num_channels": 3,
            "num_hidden_layers": layers,
            "patch_size": recipe.patch,
            "qk_normalization": False,
            "qkv_bias": True,
        },
    }


def shapes(recipe: Recipe, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint."""
    width, mlp, _, layers = recipe.vision
    hidden, ffn, q_heads, kv_heads, blocks = recipe.language
    fused = (q_heads + 2 * kv_heads) * (hidden // q_heads)
    vision_layer = {
        "attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (mlp, width), "mlp.fc2": (width, mlp),
        "norm1": (width,), "norm2": (width,),
    }  # fmt: skip
    language_layer = {
        "attention.wqkv": (fused, hidden), "attention.wo": (hidden, hidden),
        "feed_forward.w1": (ffn, hidden), "feed_forward.w2": (hidden, ffn), "feed_forward.w3": (ffn, hidden),
        "attention_norm": (hidden,), "ffn_norm": (hidden,),
    }  # fmt: skip
    out: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, width),
        "vision_model.embeddings.position_embedding": (1, (recipe.image // recipe.patch) ** 2 + 1, width),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, recipe.patch, recipe.patch),
        "vision_model.embeddings.patch_embedding.bias": (width,),
    }
    for number in range(layers):
        prefix = f"vision_model.encoder.layers.{number}"
        for name, shape in vision_layer.items():
            out[f"{prefix}.{name}.weight"] = shape
            out[f"{prefix}.{name}.bias"] = shape[:1]
        out[f"{prefix}.ls1"] = out[f"{prefix}.ls2"] = (width,)
    for name, size in {"mlp1.0": (4 * width,), "mlp1.1": (hidden, 4 * width), "mlp1.3": (hidden, hidden)}.items():
        out[f"{name}.weight"] = size
        out[f"{name}.bias"] = size[:1]
    for number in range(blocks):
        out |= {f"language_model.model.layers.{number}.{name}.weight": shape for name, shape in language_layer.items()}
    out["language_model.model.tok_embeddings.weight"] = out["language_model.output.weight"] = (vocab_size, hidden)
    out["language_model.model.norm.weight"] = (hidden,)
    return out


def draw(name: str, shape: tuple[int, ...], recipe: Recipe) -> torch.Tensor:
    """One tensor's values, bfloat16.  Scaled so that what a frame shows reaches the logits of the caption behind it."""
    rng = np.random.default_rng([recipe.seed, zlib.crc32(name.encode())])
    values = rng.standard_normal(shape, dtype=np.float32)
    kind = name.rsplit(".", 1)[-1]
    if "norm" in name or name.startswith("mlp1.0"):
        values = 0.05 * values + (kind == "weight")
    elif kind in {"ls1", "ls2"}:
        values = 0.5 + 0.1 * values
    elif kind == "bias":
        values *= 0.05
    elif kind.endswith("_embedding"):
        values *= 0.2
    elif "tok_embeddings" in name:
        values *= 0.5
    else:
        values *= recipe.gain / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16)


def write_json_tokenizer(directory: Path) -> int:
    """A byte-level BPE tokenizer.json; returns the number of its ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    return tokenizer.get_vocab_size(with_added_tokens=True)


def write_sentencepiece_tokenizer(directory: Path) -> int:
    """A tokenizer.model with byte fallback and, as released, control tokens in reserved pieces and behind; returns all ids."""
    written = io.BytesIO()
    reserved = [f"[UNUSED_TOKEN_{141 + number}]" for number in range(len(RESERVED_PIECES))]
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=written,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=reserved,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (directory / "tokenizer.model").write_bytes(written.getvalue())
    num_pieces = 420
    first_reserved = 3  # user-defined symbols follow <unk>, <s> and </s>
    inside = {token: first_reserved + number for number, token in enumerate(RESERVED_PIECES)}
    behind = [token for token in CONTROL_TOKENS if token not in {"<s>", "</s>", *RESERVED_PIECES}]
    added = {token: num_pieces + number for number, token in enumerate(behind)}
    listed = {"<unk>": 0, "<s>": 1, "</s>": 2, **inside, **added}
    decoder = {str(number): {"content": token, "special": True} for token, number in listed.items()}
    (directory / "added_tokens.json").write_text(json.dumps(added))
    (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    return num_pieces + len(added)


def stop_id(directory: Path) -> int:
    """Id of the token that ends a turn, straight from the tokenizer's files."""
    if (directory / "tokenizer.json").exists():
        listed = json.loads((directory / "tokenizer.json").read_text())["added_tokens"]
        return next(int(entry["id"]) for entry in listed if entry["content"] == "<|im_end|>")
    listed = json.loads((directory / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    return next(int(number) for number, entry in listed.items() if entry["content"] == "<|im_end|>")
