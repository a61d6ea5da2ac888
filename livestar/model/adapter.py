"""LoRA adapters in the file format of the `peft` library, merged into their base while it is loaded.

An adapter is a directory with `adapter_config.json`, which names the base, and `adapter_model.safetensors`.  A config.json or
tokenizer beside them is taken instead of the base's, so that an adapter can bring its own threshold.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from livestar.errors import InvalidCheckpoint
from livestar.model.mini import MINI_NAME, mini_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of the base's modules."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
NUMBER_FORMATS = ("BF16", "F16", "F32")

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_bdlora": (),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": (),
    "target_parameters": (),
    "trainable_token_indices": (),
    "alora_invocation_tokens": (),
    "arrow_config": (),
    "kasa_config": (),
}
"""Settings of peft that change what is merged, and the values that do not; absent and null are fine too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What an adapter does to which tensors of its base."""

    file: Path
    scale: float
    """What B @ A is multiplied by."""
    low_rank: frozenset[str]
    """Weights of the base that B @ A is added to."""
    replaced: frozenset[str]
    """Tensors of the base that the adapter has a whole one for."""

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """Tensor `name` of the base as it is with the adapter; one that is changed comes back in float32."""
        if name in self.replaced:
            return self._read(PREFIX + name).to(torch.float32)
        if name not in self.low_rank:
            return tensor
        module = PREFIX + name.removesuffix(".weight")
        down, up = self._read(module + DOWN).to(torch.float32), self._read(module + UP).to(torch.float32)
        return tensor.to(torch.float32) + self.scale * (up @ down)

    def _read(self, name: str) -> Tensor:
        with safe_open(self.file, framework="pt", device="cpu") as stored:
            tensor: Tensor = stored.get_tensor(name)
        return tensor


def base_directory(directory: Path) -> Path:
    """Where the weights lie that a model directory means: its base for an adapter, itself for everything else.

    Raises `InvalidCheckpoint` where an adapter's base cannot be found, `InvalidConfig` where it is livestar-mini and not here.
    """
    path = directory / ADAPTER_CONFIG
    if not path.exists():
        return directory
    name = _read_config(path).get("base_model_name_or_path") or "."
    if not isinstance(name, str):
        raise InvalidCheckpoint(f"{path}: base_model_name_or_path is {name!r}; expected the path of a model directory")
    base = directory / name
    if not base.is_dir() and name == MINI_NAME:
        base = mini_directory()
    if not (base / "config.json").is_file():
        raise InvalidCheckpoint(
            f"{path}: base_model_name_or_path is {name!r}, and {base} is not the directory of a model; "
            f"write there where the base lies, as seen from the adapter, or {MINI_NAME!r}"
        )
    if base.resolve() != directory.resolve() and (base / ADAPTER_CONFIG).exists():
        raise InvalidCheckpoint(f"{path}: the base {base} is an adapter itself; merge it into its own base first")
    return base


def beside_or_base(directory: Path, *names: str) -> Path:
    """`directory` where it holds one of the files `names`, else where its base lies."""
    return directory if any((directory / name).exists() for name in names) else base_directory(directory)


def open_adapter(directory: Path, shapes: Mapping[str, tuple[int, ...]]) -> Adapter | None:
    """The adapter in a model directory, None where there is none; reads headers only.

    `shapes` are those of the base's tensors.  Raises `InvalidCheckpoint`, which names the file and the key or tensor.
    """
    path = directory / ADAPTER_CONFIG
    if not path.exists():
        return None
    values = _read_config(path)
    for key, allowed in NEUTRAL.items():
        value = values.get(key)
        if value is not None and value not in allowed:
            raise InvalidCheckpoint(f"{path}: {key} is {value!r}, which is not supported; merge the adapter with peft instead")
    rank, alpha = _number(path, values, "r"), _number(path, values, "lora_alpha")
    scale = alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)
    file = directory / ADAPTER_WEIGHTS
    low_rank, replaced = _match(file, _stored_shapes(file), shapes, rank)
    return Adapter(file=file, scale=scale, low_rank=low_rank, replaced=replaced)


def _match(
    file: Path, stored: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], rank: float
) -> tuple[frozenset[str], frozenset[str]]:
    """Which weights of the base get a product, and which tensors are replaced; refuses all that does not fit."""
    low_rank: set[str] = set()
    replaced: set[str] = set()
    for name, shape in stored.items():
        module = name.removeprefix(PREFIX)
        for suffix, other in ((DOWN, UP), (UP, DOWN)):
            if module.endswith(suffix):
                module = module.removesuffix(suffix)
                if PREFIX + module + other not in stored:
                    raise InvalidCheckpoint(f"{file} holds {name}, but no {PREFIX + module + other}; copy it again")
                low_rank.add(f"{module}.weight")
                expected = _low_rank_shape(shapes.get(f"{module}.weight"), suffix, rank)
                break
        else:
            replaced.add(module)
            expected = shapes.get(module)
        if expected is None:
            raise InvalidCheckpoint(f"{file} holds {name}, for which the base has no tensor; the adapter is of another model")
        if shape != expected:
            raise InvalidCheckpoint(
                f"tensor {name} in {file} has shape {list(shape)}; the base and {ADAPTER_CONFIG} ask for {list(expected)}"
            )
    return frozenset(low_rank), frozenset(replaced)


def _low_rank_shape(weight: tuple[int, ...] | None, suffix: str, rank: float) -> tuple[int, ...] | None:
    if weight is None or len(weight) != 2:
        return None
    return (int(rank), weight[1]) if suffix == DOWN else (weight[0], int(rank))


def _stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with file.open("rb"):  # NOTE: safe_open calls every file that it may not read missing
            pass
        with safe_open(file, framework="pt", device="cpu") as stored:
            for name in stored.keys():  # noqa: SIM118
                part = stored.get_slice(name)
                if part.get_dtype() not in NUMBER_FORMATS:
                    raise InvalidCheckpoint(
                        f"tensor {name} in {file} is {part.get_dtype()}; only {', '.join(NUMBER_FORMATS)} can be loaded"
                    )
                shapes[name] = tuple(part.get_shape())
    except OSError as error:
        raise InvalidCheckpoint(f"{file} cannot be read ({error.strerror}); copy it from the adapter's source") from error
    except SafetensorError as error:
        raise InvalidCheckpoint(f"{file} is damaged ({error}); copy it again from the adapter's source") from error
    if not shapes:
        raise InvalidCheckpoint(f"{file} holds no tensors; copy it again from the adapter's source")
    return shapes


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read: {error}; copy it again from the adapter's source") from error
    if not isinstance(values, dict):
        raise InvalidCheckpoint(f"{path} is not a JSON object; copy it again from the adapter's source")
    return values


def _number(path: Path, values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    is_whole = key == "r"
    if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float) or not 0 < value < math.inf:
        raise InvalidCheckpoint(f"{path}: {key} is {value!r}; expected a {'whole ' if is_whole else ''}number above 0")
    return float(value)
