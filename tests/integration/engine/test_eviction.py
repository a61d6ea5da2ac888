"""Eviction while an engine watches: every number it found, found again on one contiguous cache that loses the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from livestar.cache.eviction import Span
from livestar.cache.kv_cache import KVSequence
from livestar.config import GateName, RetentionConfig, RetentionName
from livestar.engine.runner import Chunk, ChunkResult, Runner
from livestar.reference import PlainCache
from livestar.types import StreamEvent, StreamId
from tests.fakes.pictures import video
from tests.integration.engine.test_paged_cache import evict_plainly
from tests.integration.engine.watching import TOLERANCE, Loaded, steps_of, stream_config

pytestmark = pytest.mark.integration


class PlainTwin:
    """Looks on while an engine of one stream works, and does the same to a `PlainCache`."""

    def __init__(self, loaded: Loaded, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded = loaded
        self.cache = PlainCache()
        self.num_evicted = 0
        self.num_compared = 0
        run, evict = runner.run, runner.cache.evict

        def run_both(chunks: Sequence[Chunk]) -> list[ChunkResult]:
            (chunk,) = chunks
            start = chunk.sequence.num_tokens
            embedded = runner._embed(list(chunk.rows))
            results = run(chunks)
            self.follow(start, embedded, chunk, results[0])
            return results

        def evict_both(sequence: KVSequence, spans: Sequence[Span]) -> None:
            self.truncate(sequence.num_tokens)
            evict_plainly(loaded, self.cache, spans)
            self.num_evicted += sum(stop - start for start, stop in spans)
            evict(sequence, spans)

        monkeypatch.setattr(runner, "run", run_both)
        monkeypatch.setattr(runner.cache, "evict", evict_both)

    def truncate(self, num_tokens: int) -> None:
        self.cache.layers = {n: (k[:num_tokens], v[:num_tokens]) for n, (k, v) in self.cache.layers.items()}

    @torch.inference_mode()
    def follow(self, start: int, embedded: Tensor, chunk: Chunk, result: ChunkResult) -> None:
        language = self.loaded.model.language_model
        self.truncate(start)
        hidden = language(embedded, torch.arange(start, start + len(embedded)), self.cache)
        if chunk.targets:
            logits = language.logits(hidden[-len(chunk.targets) :])
            nll = float(F.cross_entropy(logits, torch.tensor(chunk.targets), reduction="sum"))
            assert result.nll == pytest.approx(nll, rel=TOLERANCE)
            self.num_compared += 1


@pytest.mark.parametrize("gate", ["compat", "scam", "leaf"])
@pytest.mark.parametrize("retention", ["window", "peak-end", "peak-end-code", "peak-end-prob"])
def test_eviction_in_the_engine_equals_a_gather_on_a_contiguous_cache(
    small: Loaded, retention: RetentionName, gate: GateName, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = small.engine(block_size=5)
    twin = PlainTwin(small, engine._runner, monkeypatch)
    stream_id = StreamId("twin")
    rule = RetentionConfig(name=retention, kv_tokens=420, num_recent_frames=2, window_frames=5)
    engine.open(stream_id, stream_config(gate, retention=rule))
    events: list[StreamEvent] = []
    for frame in video(38, 40, small.image_size):
        engine.push(stream_id, frame)
        while engine.has_work:
            events += engine.step()
    assert len(steps_of(events)) == 40
    assert twin.num_evicted > 200
    assert twin.num_compared > 40
