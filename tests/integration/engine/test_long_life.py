"""Hours in small: many more frames than fit, under every rule."""

from __future__ import annotations

import pytest

from livestar.config import GateName, RetentionConfig, RetentionName
from livestar.types import StreamId
from tests.fakes.pictures import video
from tests.integration.engine.watching import Loaded, steps_of, stream_config

pytestmark = pytest.mark.integration

BUDGET = 640
LONGEST_FRAME = 60
"""More than a frame and the caption of the clip that it ends; room for the next one is made when it comes."""


@pytest.mark.parametrize("gate", ["compat", "scam", "leaf"])
@pytest.mark.parametrize("retention", ["window", "peak-end", "peak-end-code", "peak-end-median", "peak-end-prob"])
def test_three_hundred_frames_stay_within_the_budget(small: Loaded, retention: RetentionName, gate: GateName) -> None:
    engine = small.engine(num_kv_tokens=1024)
    stream_id = StreamId("long")
    rule = RetentionConfig(name=retention, kv_tokens=BUDGET, window_frames=10)
    engine.open(stream_id, stream_config(gate, threshold=1.0, max_new_tokens=4, retention=rule))
    context = engine._streams[stream_id].context
    events, used = [], []
    for frame in video(40, 300, small.image_size):
        engine.push(stream_id, frame)
        while engine.has_work:
            events += engine.step()
            assert context.sequence.num_tokens <= context.capacity
        assert engine.num_context_tokens(stream_id) <= BUDGET + LONGEST_FRAME
        used.append(engine.stats.num_kv_tokens_used)
        assert sum(unit.num_tokens for unit in context.units) == engine.num_context_tokens(stream_id)
    steps = steps_of(events)
    assert [step.frame for step in steps] == list(range(1, 301))
    assert max(used[150:]) <= max(used[:150]) + 64  # level, not growing
    engine.close(stream_id)
    assert engine.stats.num_kv_tokens_used == 0
    assert engine.stats.num_streams == 0
