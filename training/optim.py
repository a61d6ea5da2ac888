"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import LambdaLR

from livestar.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from training.config import OptimConfig


def choose_trained(model: nn.Module, modules: Sequence[str]) -> int:
    """Freezes all parameters but those whose names begin with one of `modules`; returns how many numbers are trained.

    Raises `InvalidConfig` for a module that the model does not have.
    """
    matched: set[str] = set()
    num_trained = 0
    for name, parameter in model.named_parameters():
        owners = {module for module in modules if name == module or name.startswith(module + ".")}
        matched |= owners
        parameter.requires_grad_(bool(owners))
        num_trained += parameter.numel() if owners else 0
    missing = sorted(set(modules) - matched)
    if missing:
        children = ", ".join(name for name, _ in model.named_children())
        raise InvalidConfig(f"model.train names {missing[0]!r}, which the model does not have; its modules are {children}")
    return num_trained


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what is trained; only matrices decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas)


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, num_steps: int) -> LambdaLR:
    """Warm-up, then a cosine down to 0 at step `num_steps`, counted from 0; every step before has a rate above 0."""
    num_warmup_steps = min(num_steps - 1, round(config.warmup * num_steps))

    def share(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / (num_warmup_steps + 1)
        done = (step - num_warmup_steps) / (num_steps - num_warmup_steps)
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, done))

    return LambdaLR(optimizer, share)
