"""Checkpoints: written, read back to the bit, and every way in which one may be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from livestar.errors import InvalidCheckpoint, InvalidConfig
from livestar.model.weights import INDEX_NAME, SINGLE_NAME, load_model, save_model
from tests.checkpoints import RECIPES, Recipe, write_checkpoint, write_shards

pytestmark = pytest.mark.unit

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
WQKV = "language_model.model.layers.0.attention.wqkv.weight"


def stored_tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.fixture
def copy(json_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(json_checkpoint, tmp_path / "copy")


@pytest.mark.parametrize("name", RECIPES)
def test_every_tensor_of_the_released_format_is_loaded_to_the_bit(tmp_path: Path, name: str) -> None:
    directory = write_checkpoint(tmp_path, RECIPES[name])
    model = load_model(directory)
    stored = stored_tensors(directory)
    loaded = model.state_dict()
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[key], stored[key]) and loaded[key].dtype == torch.bfloat16 for key in stored)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_are_converted_on_the_way(json_checkpoint: Path, dtype: torch.dtype) -> None:
    stored = stored_tensors(json_checkpoint)
    for name, tensor in load_model(json_checkpoint, dtype=dtype).state_dict().items():
        assert torch.equal(tensor, stored[name].to(dtype))


@pytest.mark.parametrize(("max_shard_bytes", "num_shards"), [(2**30, 1), (40_000, None), (1, None)])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_what_is_saved_is_loaded_to_the_bit(
    json_checkpoint: Path, tmp_path: Path, dtype: torch.dtype | None, max_shard_bytes: int, num_shards: int | None
) -> None:
    model = load_model(json_checkpoint, dtype=dtype)
    save_model(model, tmp_path / "saved", max_shard_bytes=max_shard_bytes)
    again = load_model(tmp_path / "saved")
    wanted, got = model.state_dict(), again.state_dict()
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) and got[name].dtype == wanted[name].dtype for name in wanted)
    assert again.config == model.config
    shards = sorted((tmp_path / "saved").glob("*.safetensors"))
    assert num_shards is None or len(shards) == num_shards
    for number, path in enumerate(shards, 1):
        assert path.name == f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with safe_open(path, framework="pt") as shard:
            size = sum(shard.get_tensor(name).nbytes for name in shard.keys())  # noqa: SIM118
            assert size <= max_shard_bytes or len(shard.keys()) == 1
    index = json.loads((tmp_path / "saved" / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in wanted.values())
    assert index["weight_map"].keys() == wanted.keys()


def test_what_is_trained_in_full_may_be_stored_in_half(json_checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(json_checkpoint, dtype=torch.float32)
    save_model(model, tmp_path / "half", dtype=torch.float16)
    stored = stored_tensors(tmp_path / "half")
    assert all(torch.equal(stored[name], tensor.to(torch.float16)) for name, tensor in model.state_dict().items())
    index = json.loads((tmp_path / "half" / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in stored.values())
    assert model.dtype == torch.float32


def test_a_weight_that_a_format_cannot_hold_is_refused_and_nothing_written(json_checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(json_checkpoint, dtype=torch.float32)
    model.language_model.output.weight[3, 3] = 1e5
    with pytest.raises(InvalidConfig, match=r"range language_model\.output\.weight exceeds; choose bfloat16"):
        save_model(model, tmp_path / "half", dtype=torch.float16)
    assert not (tmp_path / "half").exists()
    save_model(model, tmp_path / "wide", dtype=torch.bfloat16)


def test_tensors_of_several_formats_become_one(copy: Path) -> None:
    """As where a frozen tower is stored in another format than what was trained."""
    formats = {"vision_model": torch.float16, "mlp1": torch.float32, "language_model": torch.bfloat16}
    rewrite(copy, lambda tensors: tensors.update({n: t.to(formats[n.split(".")[0]]) for n, t in tensors.items()}))
    stored = stored_tensors(copy)
    assert {tensor.dtype for tensor in stored.values()} == set(formats.values())
    for dtype in (torch.float32, torch.bfloat16):
        for name, tensor in load_model(copy, dtype=dtype).state_dict().items():
            assert torch.equal(tensor, stored[name].to(dtype))
    assert len({tensor.dtype for tensor in load_model(copy).state_dict().values()}) == 1


def test_saving_over_the_checkpoint_that_was_loaded_keeps_it(copy: Path) -> None:
    before = stored_tensors(copy)
    model = load_model(copy)
    for _ in range(2):
        save_model(model, copy, max_shard_bytes=40_000)
    after = load_model(copy).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_one_file_without_an_index_is_enough(copy: Path) -> None:
    tensors = stored_tensors(copy)
    for path in (copy / FIRST, copy / SECOND, copy / INDEX_NAME):
        path.unlink()
    save_file(tensors, copy / SINGLE_NAME)
    assert load_model(copy).state_dict().keys() == tensors.keys()


def test_progress_counts_up_to_what_there_is(json_checkpoint: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_model(json_checkpoint, on_progress=lambda done, total: calls.append((done, total)))
    done = [d for d, _ in calls]
    (total,) = {t for _, t in calls}
    assert len(done) == len(stored_tensors(json_checkpoint))
    assert done == sorted(done)
    assert 0.9 * total < done[-1] <= total


# Broken checkpoints


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes the tensors and writes shards and index anew."""
    tensors = stored_tensors(directory)
    change(tensors)
    write_shards(directory, tensors, 2)


def edit_index(directory: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((directory / INDEX_NAME).read_text())
    change(index["weight_map"])
    (directory / INDEX_NAME).write_text(json.dumps(index))


def refused(directory: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as error:
        load_model(directory)
    return str(error.value)


def test_a_missing_tensor_is_named(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.pop(WQKV))
    assert f"1 missing (first: {WQKV})" in refused(copy)


def test_an_extra_tensor_is_named(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.update({"language_model.extra": torch.zeros(3)}))
    assert "1 extra (first: language_model.extra)" in refused(copy)


def test_missing_and_extra_tensors_are_counted(copy: Path) -> None:
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        for name in sorted(tensors)[:3]:
            tensors[f"other.{name}"] = tensors.pop(name)

    rewrite(copy, swap)
    message = refused(copy)
    assert "3 missing" in message
    assert "3 extra" in message


def test_a_misshapen_tensor_is_named_with_both_shapes(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.update({WQKV: torch.zeros(8, 32)}))
    message = refused(copy)
    assert WQKV in message
    assert "has shape [8, 32]" in message
    assert "asks for [64, 32]" in message


def test_a_config_of_another_size_does_not_fit(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["llm_config"]["intermediate_size"] = 96
    (copy / "config.json").write_text(json.dumps(config))
    assert "feed_forward" in refused(copy)


@pytest.mark.parametrize("file", [FIRST, SECOND])
def test_a_missing_shard_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    assert f"shard {file} is missing" in refused(copy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"}" + data[9:],
        lambda data: b"\0" * len(data),
    ],
)
def test_a_damaged_shard_is_named(copy: Path, damage: Callable[[bytes], bytes]) -> None:
    path = copy / SECOND
    path.write_bytes(damage(path.read_bytes()))
    message = refused(copy)
    assert SECOND in message
    assert "copy it again" in message


@pytest.mark.parametrize("file", ["../outside.safetensors", "/etc/passwd", "sub/shard.safetensors", "..", ".", ""])
def test_an_index_may_name_only_files_beside_it(copy: Path, file: str) -> None:
    edit_index(copy, lambda weight_map: weight_map.update({WQKV: file}))
    message = refused(copy)
    assert INDEX_NAME in message or repr(file) in message or str(copy) in message


def test_a_path_outside_is_refused_even_where_a_shard_lies_there(copy: Path) -> None:
    shutil.copy(copy / FIRST, copy.parent / FIRST)
    edit_index(copy, lambda weight_map: weight_map.update({k: f"../{v}" for k, v in weight_map.items() if v == FIRST}))
    assert "shards must lie beside the index" in refused(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}', b"\xff"])
def test_a_garbled_index_is_named(copy: Path, content: bytes) -> None:
    (copy / INDEX_NAME).write_bytes(content)
    assert INDEX_NAME in refused(copy)


def test_a_tensor_that_is_not_where_the_index_says_is_named(copy: Path) -> None:
    edit_index(copy, lambda weight_map: weight_map.update({WQKV: FIRST if weight_map[WQKV] == SECOND else SECOND}))
    message = refused(copy)
    assert WQKV in message
    assert INDEX_NAME in message


def test_a_tensor_that_the_index_leaves_out_is_named(copy: Path) -> None:
    edit_index(copy, lambda weight_map: weight_map.pop(WQKV))
    assert WQKV in refused(copy)


def test_no_weights_at_all(copy: Path) -> None:
    for path in (copy / FIRST, copy / SECOND, copy / INDEX_NAME):
        path.unlink()
    assert f"neither {INDEX_NAME} nor {SINGLE_NAME}" in refused(copy)


def test_nothing_is_read_of_a_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    """The last tensor of the last shard is wrong; no progress is reported before it is found."""
    directory = write_checkpoint(tmp_path, Recipe(num_shards=4))
    rewrite(directory, lambda tensors: tensors.update({max(tensors): torch.zeros(1)}))
    calls = []
    with pytest.raises(InvalidCheckpoint):
        load_model(directory, on_progress=lambda *numbers: calls.append(numbers))
    assert calls == []
