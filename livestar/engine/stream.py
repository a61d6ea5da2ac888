"""One stream in the engine: its state, and what it does with a frame.

`watch_frame` is the whole streaming loop (SVeD) for one frame, written as a generator: it yields what it needs from the model
and is resumed with the answer, so that many streams advance together in one batch.  A frame is a transaction: the context is
changed only at its end, so a stream that is closed or fails in between leaves it whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livestar.engine.work import Generate, Score, Work
from livestar.retention.base import Unit
from livestar.types import CaptionDone, Decision, Frame, Notice, StreamEvent, StreamId, Verdict

if TYPE_CHECKING:
    from collections.abc import Generator

    from livestar.engine.context import StreamContext
    from livestar.engine.sampling import CaptionSampler
    from livestar.gate.layout import Fork, GateLayout
    from livestar.gate.threshold import Threshold
    from livestar.model.prompt import CaptionRows, Prompt, Rows
    from livestar.retention.base import Retention


@dataclass(slots=True, kw_only=True, eq=False)
class StreamState:
    """All mutable state of one stream.  Owned by the engine that opened it."""

    stream_id: StreamId
    prompt: Prompt
    layout: GateLayout
    threshold: Threshold
    retention: Retention
    sampler: CaptionSampler
    context: StreamContext
    budget: int
    """Tokens that the context may hold when a frame begins."""
    waiting: Frame | None = None
    """The next frame, once the current one is done."""
    loop: Generator[Score | Generate, float | list[int], list[StreamEvent]] | None = None
    """The frame under way."""
    work: Work | None = None
    """What that frame is waiting for."""
    caption: CaptionRows | None = None
    reference_perplexity: float | None = None
    clip: int = 0
    num_frames: int = 0
    """Frames watched."""
    last_frame: int = 0
    last_time_s: float = 0.0
    started: int = field(default=0)
    """Tick at which the current work was asked for."""


def watch_frame(
    stream: StreamState, frame: Frame, slot: int
) -> Generator[Score | Generate, float | list[int], list[StreamEvent]]:
    """Watches one frame, whose visual tokens are in feature slot `slot`; returns the events that it caused."""
    line = stream.prompt.frame_line(frame.index, slot)
    rows = stream.layout.frame(line, is_first=stream.num_frames == 0)
    threshold = stream.threshold.at(frame.index)
    perplexity = ratio = None
    responds = True
    if stream.caption is not None and stream.reference_perplexity is not None:
        perplexity = yield from _score(stream.layout.verification(line, stream.caption))
        ratio = perplexity / stream.reference_perplexity
        stream.threshold.observe(ratio)
        responds = perplexity > stream.reference_perplexity * threshold

    events: list[StreamEvent] = []
    decision = Decision.SILENT
    if responds:
        text = yield from _generate(stream, rows)
        if text:
            decision = Decision.RESPOND
            events.append(CaptionDone(stream_id=stream.stream_id, frame=frame.index, time_s=frame.pts_s, text=text))
            yield from _begin_clip(stream, frame, line, rows, text)
        else:
            events.append(_empty_caption(stream, frame))
    if decision is Decision.SILENT:
        _commit_frame(stream, frame, rows, math.inf if perplexity is None else perplexity)
    events.append(
        Verdict(
            stream_id=stream.stream_id,
            frame=frame.index,
            time_s=frame.pts_s,
            decision=decision,
            perplexity=perplexity,
            reference_perplexity=stream.reference_perplexity,
            threshold=threshold,
            ratio=ratio,
        )
    )
    return events


def _score(fork: Fork) -> Generator[Score | Generate, float | list[int], float]:
    """Perplexity of a fork's targets."""
    answer = yield Score(fork)
    assert isinstance(answer, float)
    return answer


def _generate(stream: StreamState, rows: Rows) -> Generator[Score | Generate, float | list[int], str]:
    """A caption behind the finished clip's own, if that is kept, and the new frame."""
    ids = yield Generate(_closing(stream) + rows + stream.layout.answer())
    assert isinstance(ids, list)
    return stream.prompt.caption_text(ids)


def _begin_clip(
    stream: StreamState, frame: Frame, line: Rows, rows: Rows, text: str
) -> Generator[Score | Generate, float | list[int], None]:
    """Takes the new caption's own perplexity as reference, and commits the old caption and the new frame."""
    caption = stream.prompt.caption(text)
    fork = stream.layout.reference(line, caption)
    closing = _closing(stream)
    reference = yield from _score(fork._replace(rows=closing + rows + fork.rows))
    if closing:
        stream.context.commit(Unit("caption", len(closing), stream.clip, frame.index), closing)
    stream.clip += 1
    _commit_frame(stream, frame, rows, reference)
    stream.caption = caption
    stream.reference_perplexity = reference


def _commit_frame(stream: StreamState, frame: Frame, rows: Rows, score: float) -> None:
    staying = stream.layout.first_turn_end() if stream.num_frames == 0 else ()
    rows = rows[: len(rows) - len(staying)]
    stream.context.commit(Unit("frame", len(rows), max(stream.clip, 1), frame.index, score), rows)
    if staying:
        stream.context.commit(Unit("opening", len(staying)), staying)


def _closing(stream: StreamState) -> Rows:
    return () if stream.caption is None else stream.layout.closing(stream.caption)


def _empty_caption(stream: StreamState, frame: Frame) -> Notice:
    return Notice(
        stream_id=stream.stream_id,
        frame=frame.index,
        time_s=frame.pts_s,
        code="empty_caption",
        message=f"the model's caption for frame {frame.index} came out empty, so it counts as silent; check --prompt and --model",
    )
