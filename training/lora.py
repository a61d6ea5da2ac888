"""LoRA through peft, on the language model's linear layers.

peft is imported where it is used: it takes longer than all else that a run without adapters needs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from livestar.errors import InvalidConfig
from livestar.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX

if TYPE_CHECKING:
    from pathlib import Path

    from peft import LoraConfig as PeftConfig
    from torch import Tensor, nn

    from livestar.model.livestar import LiveStarModel
    from training.config import LoraConfig


def add_lora(model: LiveStarModel, config: LoraConfig) -> None:
    """Puts adapters beside the layers that the config names; everything else of the model is frozen.

    Raises `InvalidConfig` for a layer that the language model does not have.
    """
    from peft import inject_adapter_in_model

    layers = {name.rpartition(".")[2] for name, _ in model.language_model.named_modules()}
    missing = [target for target in config.targets if target not in layers]
    if missing:
        raise InvalidConfig(
            f"lora.targets names {missing[0]!r}, which the language model does not have; it has wqkv, wo, w1, w2, w3"
        )
    model.requires_grad_(False)
    inject_adapter_in_model(peft_config(config, base="", is_trained=True), model)


def peft_config(config: LoraConfig, *, base: str, is_trained: bool = False) -> PeftConfig:
    """The same settings as peft writes them; adapters that are not trained are frozen."""
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft says int, and divides it
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        modules_to_save=list(config.also_train) or None,
        base_model_name_or_path=base,
        inference_mode=not is_trained,
    )


def save_adapter(model: nn.Module, config: LoraConfig, folder: Path, *, base: str) -> None:
    """Writes the adapters of a model in peft's format; `base` is the checkpoint that they belong to."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if ".default." in name:
            tensors[PREFIX + name.replace(".default.", ".").replace(".modules_to_save.", ".")] = parameter.detach().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_WEIGHTS).chmod(0o644)  # the library makes files that only their owner can read
    settings = peft_config(config, base=base).to_dict()  # type: ignore[no-untyped-call]
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2, default=str))
