"""Runs one ragged batch through the model.  The only place where tensors of rows are made.

On a CPU a batch may be split between workers, each running its share of the streams on one core: threads that meet once a batch
instead of once an operation.  For small models that is faster, and far less hurt by other work on the machine
(docs/experiments.md).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from livestar.engine.sampling import sample
from livestar.model.attention.ragged import RaggedBatch
from livestar.model.attention.sdpa import SdpaAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from livestar.cache.kv_cache import KVCache, KVSequence
    from livestar.engine.sampling import CaptionSampler
    from livestar.model.livestar import LiveStarModel

NUM_LIVE_FRAMES = 2
"""Frames of a stream whose visual tokens may still have to be fed: the new one, and the one before if it is pending."""


MIN_SPLIT_COST = 2**25
"""Multiplications in a batch below which handing half of it to another worker costs more than it saves; about 1 ms."""

T = TypeVar("T")
R = TypeVar("R")


def share_out(costs: Sequence[int], num_shares: int) -> list[list[int]]:
    """Splits items into at most `num_shares` non-empty shares of about equal cost: indices, the costliest placed first."""
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    totals = [0] * num_shares
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        lightest = totals.index(min(totals))
        shares[lightest].append(i)
        totals[lightest] += costs[i]
    return [share for share in shares if share]


class Chunk(NamedTuple):
    """New rows of one sequence."""

    sequence: KVSequence
    rows: Sequence[int]
    targets: Sequence[int]
    """What the last len(targets) rows are scored against."""
    sampler: CaptionSampler | None
    """Chooses a token after the last row, if one is wanted."""


class ChunkResult(NamedTuple):
    """What came of a chunk."""

    nll: float
    """Sum of the negative log likelihoods of its targets."""
    token: int | None


class Runner:
    """The model, its cache, and the visual tokens that wait to be fed."""

    def __init__(self, model: LiveStarModel, cache: KVCache, max_sequences: int, num_workers: int = 1) -> None:
        self.model = model
        self.cache = cache
        self._num_workers = num_workers
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="engine-worker") if num_workers > 1 else None
        config = model.config
        num_lines = max_sequences * NUM_LIVE_FRAMES * config.num_visual_tokens
        self._visual = torch.zeros(num_lines, config.language.hidden_size, dtype=model.dtype, device=model.device)
        self._row_cost = sum(p.numel() for p in model.language_model.model.layers.parameters())
        self._pair_cost = 2 * config.language.hidden_size * config.language.num_layers
        self._logits_cost = model.language_model.output.weight.numel()
        self._num_groups = config.language.num_heads // config.language.num_kv_heads

    def slot(self, sequence: KVSequence, num_frames: int) -> int:
        """Where the visual tokens of a sequence's next frame go, after `num_frames`.

        NOTE: frames are counted as watched; their own numbers have gaps where some were dropped.
        """
        return sequence.index * NUM_LIVE_FRAMES + num_frames % NUM_LIVE_FRAMES

    def close(self) -> None:
        """Ends the workers."""
        if self._pool is not None:
            self._pool.shutdown()

    def encode(self, slots: Sequence[int], images: Sequence[Tensor]) -> None:
        """Encodes pictures [S, S, 3] uint8 and keeps their visual tokens in `slots` until they are fed."""
        self._on_workers(self._encode, list(zip(slots, images, strict=True)), [1] * len(slots))

    def run(self, chunks: Sequence[Chunk]) -> list[ChunkResult]:
        """Appends each chunk's rows to its sequence and computes what it asks for."""
        for chunk in chunks:
            self.cache.append(chunk.sequence, len(chunk.rows))
        costs = [self._cost(chunk) for chunk in chunks]
        return self._on_workers(self._run, chunks, costs if sum(costs) >= MIN_SPLIT_COST else None)

    def _cost(self, chunk: Chunk) -> int:
        """Multiplications that a chunk takes, about: its rows' weights and attention, and its logits."""
        num_logits = len(chunk.targets) + (chunk.sampler is not None)
        per_row = self._row_cost + chunk.sequence.num_tokens * self._pair_cost
        return len(chunk.rows) * per_row + num_logits * self._logits_cost

    def _on_workers(self, run: Callable[[Sequence[T]], list[R]], items: Sequence[T], costs: Sequence[int] | None) -> list[R]:
        """Runs items in one batch, or in one for each worker, of about equal cost; results in the items' order.

        Items are of different sequences, so that workers write different rows of the cache and of the feature table.
        """
        if self._pool is None or costs is None or len(items) == 1:
            return run(items)
        shares = share_out(costs, self._num_workers)
        futures = [self._pool.submit(run, [items[i] for i in share]) for share in shares]
        wait(futures)  # all of them, before an error of one is raised: nobody writes to the cache any more
        answers = [future.result() for future in futures]
        by_item = {
            i: result for share, results in zip(shares, answers, strict=True) for i, result in zip(share, results, strict=True)
        }
        return [by_item[i] for i in range(len(items))]

    @torch.inference_mode()
    def _encode(self, frames: Sequence[tuple[int, Tensor]]) -> list[None]:
        table = self._visual.unflatten(0, (-1, self.model.config.num_visual_tokens))
        visual_tokens = self.model.encode_frames(torch.stack([image for _, image in frames]))
        table[torch.tensor([slot for slot, _ in frames], device=table.device)] = visual_tokens
        return [None] * len(frames)

    @torch.inference_mode()
    def _run(self, chunks: Sequence[Chunk]) -> list[ChunkResult]:
        batch = RaggedBatch.of(self.cache, [c.sequence for c in chunks], [len(c.rows) for c in chunks])
        attention = SdpaAttention(self.cache, batch, self._num_groups)
        embedded = self._embed([row for chunk in chunks for row in chunk.rows])
        hidden = self.model.language_model(embedded, batch.positions, attention)
        nll = self._score(hidden, chunks)
        tokens = self._sample(hidden, chunks)
        return [ChunkResult(n, t) for n, t in zip(nll, tokens, strict=True)]

    def _embed(self, rows: list[int]) -> Tensor:
        """[T, hidden]: token embeddings, and for negative rows the visual tokens they stand for."""
        index = torch.tensor(rows, device=self.model.device)
        is_visual = index < 0
        embedded = self.model.language_model.embed(index.clamp(min=0))
        if min(rows) < 0:
            visual = self._visual.index_select(0, (-1 - index).clamp(min=0))
            embedded = torch.where(is_visual.unsqueeze(-1), visual, embedded)
        return embedded

    def _score(self, hidden: Tensor, chunks: Sequence[Chunk]) -> list[float]:
        """Each chunk's summed negative log likelihood."""
        rows: list[int] = []
        targets: list[int] = []
        stop = 0
        for chunk in chunks:
            stop += len(chunk.rows)
            rows.extend(range(stop - len(chunk.targets), stop))
            targets.extend(chunk.targets)
        if not rows:
            return [0.0] * len(chunks)
        wanted = hidden.index_select(0, torch.tensor(rows, device=hidden.device))
        expected = torch.tensor(targets, device=hidden.device)
        nll = self.model.language_model.nll(wanted, expected)
        sums: list[float] = torch.stack([part.sum() for part in nll.split([len(c.targets) for c in chunks])]).tolist()
        return sums

    def _sample(self, hidden: Tensor, chunks: Sequence[Chunk]) -> list[int | None]:
        """The next token of each chunk that wants one."""
        last_rows, samplers, stop = [], [], 0
        for chunk in chunks:
            stop += len(chunk.rows)
            if chunk.sampler is not None:
                last_rows.append(stop - 1)
                samplers.append(chunk.sampler)
        if not samplers:
            return [None] * len(chunks)
        logits = self.model.language_model.logits(hidden.index_select(0, torch.tensor(last_rows, device=hidden.device)))
        tokens = iter(sample(logits, samplers))
        return [None if chunk.sampler is None else next(tokens) for chunk in chunks]
