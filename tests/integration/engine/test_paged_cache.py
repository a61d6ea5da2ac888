"""Rows through the paged cache against rows through one contiguous tensor."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from livestar.cache.eviction import Span
from livestar.cache.kv_cache import KVCache, KVSequence
from livestar.engine.runner import Chunk, Runner
from livestar.reference import PlainCache
from tests.checkpoints import RECIPES
from tests.integration.engine.conftest import LoadRecipe
from tests.integration.engine.watching import TOLERANCE, Loaded

pytestmark = pytest.mark.integration


def make_runner(loaded: Loaded, *, block_size: int, num_tokens: int = 2048) -> Runner:
    language = loaded.model.config.language
    cache = KVCache(
        language, num_blocks=-(-num_tokens // block_size), block_size=block_size, max_sequences=4, dtype=torch.float32
    )
    return Runner(loaded.model, cache, 4)


def random_ids(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(390), k=count)


def score(runner: Runner, sequence: KVSequence, rows: Sequence[int], targets: Sequence[int]) -> float:
    """Summed negative log likelihood of `targets` at the last rows."""
    (result,) = runner.run([Chunk(sequence, rows, targets, None)])
    return result.nll


def contents(runner: Runner, sequence: KVSequence, num_rows: int) -> tuple[Tensor, Tensor]:
    slots = runner.cache.slots(sequence, torch.arange(num_rows))
    return runner.cache.keys[:, slots], runner.cache.values[:, slots]


@torch.inference_mode()
def plain_score(loaded: Loaded, cache: PlainCache, rows: Sequence[int], targets: Sequence[int]) -> float:
    language = loaded.model.language_model
    positions = torch.arange(cache.num_tokens, cache.num_tokens + len(rows))
    hidden = language(language.embed(torch.tensor(rows)), positions, cache)
    logits = language.logits(hidden[len(rows) - len(targets) :])
    return float(F.cross_entropy(logits, torch.tensor(targets, dtype=torch.int64), reduction="sum"))


def stacked(cache: PlainCache) -> tuple[Tensor, Tensor]:
    layers = [cache.layers[number] for number in sorted(cache.layers)]
    return torch.stack([k for k, _ in layers]), torch.stack([v for _, v in layers])


@pytest.mark.parametrize("block_size", [1, 3, 16])
@pytest.mark.parametrize("name", RECIPES)
def test_paged_equals_contiguous(checkpoint: LoadRecipe, name: str, block_size: int) -> None:
    loaded = checkpoint(name)
    runner, plain = make_runner(loaded, block_size=block_size), PlainCache()
    sequence = runner.cache.open()
    for seed, count in enumerate((50, 1, 7, 16, 33)):
        rows, targets = random_ids(count, seed), random_ids(count, seed + 10)
        wanted = plain_score(loaded, plain, rows, targets)
        assert score(runner, sequence, rows, targets) == pytest.approx(wanted, rel=TOLERANCE)
    for got, want in zip(contents(runner, sequence, 107), stacked(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pieces", [[1] * 60, [59, 1], [1, 59], [20, 20, 20], [7, 31, 3, 19]])
def test_append_in_pieces_equals_one_prefill(small: Loaded, pieces: list[int]) -> None:
    rows, targets = random_ids(60, 1), random_ids(60, 2)
    runner = make_runner(small, block_size=16)
    whole, cut = runner.cache.open(), runner.cache.open()
    wanted = score(runner, whole, rows, targets)
    total, start = 0.0, 0
    for count in pieces:
        total += score(runner, cut, rows[start : start + count], targets[start : start + count])
        start += count
    assert total == pytest.approx(wanted, rel=TOLERANCE)
    for got, want in zip(contents(runner, cut, 60), contents(runner, whole, 60), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fork_len", [1, 5, 16, 40])
def test_verified_and_rolled_back_equals_never_verified(small: Loaded, fork_len: int) -> None:
    """To the bit: the rows that stay were computed by the same products."""
    committed, following = random_ids(37, 3), random_ids(20, 4)
    runner = make_runner(small, block_size=8)
    verified, untouched = runner.cache.open(), runner.cache.open()
    score(runner, verified, committed, [])
    before = contents(runner, verified, 37)
    score(runner, verified, random_ids(fork_len, 5), random_ids(fork_len, 6))
    runner.cache.truncate(verified, 37)
    assert all(map(torch.equal, contents(runner, verified, 37), before))
    score(runner, untouched, committed, [])
    assert score(runner, verified, following, following) == score(runner, untouched, following, following)
    assert all(map(torch.equal, contents(runner, verified, 57), contents(runner, untouched, 57)))


def test_a_branch_of_a_shared_context_equals_a_context_of_its_own(small: Loaded) -> None:
    committed, left, right = random_ids(29, 7), random_ids(18, 8), random_ids(18, 9)
    runner = make_runner(small, block_size=4)
    trunk = runner.cache.open()
    score(runner, trunk, committed, [])
    branch = runner.cache.fork(trunk)
    results = runner.run([Chunk(trunk, left, left, None), Chunk(branch, right, right, None)])
    for rows, result in zip((left, right), results, strict=True):
        plain = PlainCache()
        plain_score(small, plain, committed, [])
        assert result.nll == pytest.approx(plain_score(small, plain, rows, rows), rel=TOLERANCE)


@pytest.mark.parametrize("spans", [[(0, 5)], [(10, 34), (40, 41)], [(3, 4), (4, 20), (55, 60)]])
def test_evicted_rows_leave_what_a_gather_with_turned_keys_leaves(small: Loaded, spans: list[tuple[int, int]]) -> None:
    rows, following = random_ids(60, 10), random_ids(15, 11)
    runner, plain = make_runner(small, block_size=16), PlainCache()
    sequence = runner.cache.open()
    score(runner, sequence, rows, [])
    plain_score(small, plain, rows, [])
    runner.cache.evict(sequence, [Span(*span) for span in spans])
    evict_plainly(small, plain, spans)
    for got, want in zip(contents(runner, sequence, plain.num_tokens), stacked(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    wanted = plain_score(small, plain, following, following)
    assert score(runner, sequence, following, following) == pytest.approx(wanted, rel=TOLERANCE)


def evict_plainly(loaded: Loaded, cache: PlainCache, spans: Sequence[tuple[int, int]]) -> None:
    """Gathers the rows that stay, and turns each key to its new place: pairs as complex numbers, in float64."""
    config = loaded.model.config.language
    stay = torch.tensor([r for r in range(cache.num_tokens) if not any(a <= r < b for a, b in spans)])
    back = stay - torch.arange(len(stay))
    half = config.head_dim // 2
    angles = back[:, None].double() * config.rope_theta ** -(torch.arange(half).double() / half)
    turn = torch.polar(torch.ones_like(angles), -angles)[:, None]
    for layer, (keys, values) in cache.layers.items():
        kept = keys[stay].double()
        turned = torch.complex(kept[..., :half], kept[..., half:]) * turn
        cache.layers[layer] = torch.cat([turned.real, turned.imag], -1).float(), values[stay]
