"""One model over several workers: replicas (DDP) or shards (FSDP2)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from livestar.model.vision import InternViT

if TYPE_CHECKING:
    from torch import nn

    from training.config import TrainConfig
    from training.step import SequenceModel
    from training.world import World


def distribute(model: SequenceModel, config: TrainConfig, world: World) -> nn.Module:
    """Puts the model where the worker computes, sharded or replicated as the config says.

    A frozen vision tower is taken out: its features were computed before, and training never runs it.  Shards travel between
    workers in the weights' own float32, also where bfloat16 is computed in, so that a step is that of a single worker.
    """
    own = model.model
    if not any(parameter.requires_grad for parameter in own.vision_model.parameters()):
        del own.vision_model
    layers = own.language_model.model.layers
    if config.model.gradient_checkpointing:
        tower = getattr(own, "vision_model", None)
        for layer in [*layers, *(tower.encoder.layers if isinstance(tower, InternViT) else [])]:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    if config.run.sharding == "fsdp" and world.size > 1:
        mesh = init_device_mesh(world.device.type, (world.size,))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    model.to(world.device)
    return DistributedDataParallel(model) if world.size > 1 else model


def shard_again(model: nn.Module) -> None:
    """Behind a forward pass without a backward one: gives back what a sharded model put together for it."""
    if isinstance(model, FSDPModule):
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
