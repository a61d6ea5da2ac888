"""One model over several workers: replicas (DDP) or shards (FSDP2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch import nn

    from training.config import TrainConfig
    from training.step import SequenceModel
    from training.world import World


def distribute(model: SequenceModel, config: TrainConfig, world: World) -> nn.Module:
    """Puts the model where the worker computes, sharded or replicated as the config says."""
    layers = model.model.language_model.model.layers
    if config.model.gradient_checkpointing:
        for index, layer in enumerate(layers):
            layers[index] = checkpoint_wrapper(layer)
    if config.run.sharding == "fsdp" and world.size > 1:
        mesh = init_device_mesh(world.device.type, (world.size,))
        is_half = config.model.precision == "bfloat16"
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if is_half else MixedPrecisionPolicy()
        for layer in layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        return model
    model.to(world.device)
    return DistributedDataParallel(model) if world.size > 1 else model
