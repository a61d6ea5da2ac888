"""EfficientNet-Lite without its classifier: the vision trunk of small models.

Source: `lite/efficientnet_lite_builder.py` of TensorFlow's EfficientNet, and its port on PyPI, `efficientnet-lite-pytorch`.
Lite means: no squeeze-and-excitation, ReLU6, and a stem and a head that no variant scales.  The trunk is frozen, so its batch
norms are folded into the convolutions (see `fold_batch_norm`).  Shapes: B frames, h and w the map's sides, C its width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3
"""Epsilon of the batch norms that are folded."""
STEM_WIDTH = 32
DOWNSCALING = 32
"""How many times smaller than the picture's the sides of the map are: five strides of two."""
WIDTH_STEP = 8
"""Widths are multiples of this."""


class Stage(NamedTuple):
    """Blocks of one kind; the first of them strides and changes the width."""

    num_blocks: int
    kernel_size: int
    stride: int
    expansion: int
    """How many times wider the inside of a block is than its input."""
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""The trunk of lite0; other variants scale widths and numbers of blocks."""

VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2), "lite3": (1.2, 1.4), "lite4": (1.4, 1.8)}
"""What each variant multiplies widths and numbers of blocks by."""


def scaled_stages(variant: str) -> tuple[Stage, ...]:
    """The stages of a variant.  The first and the last keep their number of blocks."""
    width, depth = VARIANTS[variant]
    ends = (0, len(STAGES) - 1)
    return tuple(
        stage._replace(
            width=_scaled_width(stage.width, width),
            num_blocks=stage.num_blocks if index in ends else math.ceil(depth * stage.num_blocks),
        )
        for index, stage in enumerate(STAGES)
    )


def _scaled_width(width: int, factor: float) -> int:
    """`width` times `factor`, rounded to a multiple of `WIDTH_STEP`, but never by more than a tenth downwards."""
    scaled = max(WIDTH_STEP, int(width * factor + WIDTH_STEP / 2) // WIDTH_STEP * WIDTH_STEP)
    return scaled + WIDTH_STEP if scaled < 0.9 * width * factor else scaled


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": what does not divide evenly goes to the right and to the bottom."""

    def __init__(self, in_width: int, out_width: int, kernel_size: int, *, stride: int = 1, groups: int = 1) -> None:
        """With stride 2 the input's sides must be even, which those of a picture whose side is a multiple of 32 are."""
        super().__init__(
            in_width, out_width, kernel_size, stride=stride, groups=groups, padding=kernel_size // 2 if stride == 1 else 0
        )
        before, after = (kernel_size - 2) // 2, (kernel_size - 1) // 2
        self.uneven_padding = None if stride == 1 else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h / stride, w / stride]."""
        return super().forward(x if self.uneven_padding is None else F.pad(x, self.uneven_padding))


class MBConv(nn.Module):
    """Inverted bottleneck: widen, convolve each channel for itself, narrow; added to the input where shapes allow."""

    def __init__(self, in_width: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = in_width * stage.expansion
        self.expand = SameConv(in_width, inner, 1) if stage.expansion > 1 else None
        self.depthwise = SameConv(inner, inner, stage.kernel_size, stride=stride, groups=inner)
        self.project = SameConv(inner, stage.width, 1)
        self.is_residual = stride == 1 and in_width == stage.width

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h / stride, w / stride]."""
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        out: Tensor = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return out + x if self.is_residual else out


class EfficientNetLite(nn.Module):
    """A batch of frames to a map of features each: the last block's output, before the head."""

    PIXEL_MEAN = (127 / 255,) * 3
    PIXEL_STD = (128 / 255,) * 3

    def __init__(self, variant: str) -> None:
        """`variant` is one of `VARIANTS`."""
        super().__init__()
        self.stem = SameConv(3, STEM_WIDTH, 3, stride=2)
        self.blocks = nn.ModuleList()
        width = STEM_WIDTH
        for stage in scaled_stages(variant):
            for number in range(stage.num_blocks):
                self.blocks.append(MBConv(width, stage, stage.stride if number == 0 else 1))
                width = stage.width

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] normalised pixels -> [B, S / 32, S / 32, C]."""
        # Channels last, because depthwise convolutions take half the time that way on a CPU.
        x_BChw = F.relu6(self.stem(pixels.contiguous(memory_format=torch.channels_last)), inplace=True)
        for block in self.blocks:
            x_BChw = block(x_BChw)
        return x_BChw.permute(0, 2, 3, 1)


def fold_batch_norm(weight: Tensor, norm: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what one with `weight` and no bias does with a batch norm behind it.

    `norm` holds the batch norm's `weight`, `bias`, `running_mean` and `running_var`, [C'] each.  Computed in float64.
    """
    scale = norm["weight"].double() / (norm["running_var"].double() + BATCH_NORM_EPS).sqrt()
    bias = norm["bias"].double() - norm["running_mean"].double() * scale
    return (weight.double() * scale.view(-1, 1, 1, 1)).to(torch.float32), bias.to(torch.float32)
