"""Perplexity and token accuracy of the truth's captions, teacher-forced in the model's own layout.

For every event its canonical caption is scored once, behind the event's last frame, end-of-turn token included.  The context is
what the gate would have if the model had said exactly the truth: all frames so far, and the captions of earlier events where
the gate keeps captions.  That is the released `streaming_evaluate` with the mask of inference instead of a plain causal dialogue.
When the context is full its oldest frames go.  Means are over a video's events, then over videos.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from livestar.cache.kv_cache import KVCache
from livestar.config import RetentionConfig, StreamConfig
from livestar.engine.admission import make_prompt, plan_stream
from livestar.engine.context import StreamContext
from livestar.evaluation.runs import EPSILON_S
from livestar.model.attention.ragged import RaggedBatch
from livestar.model.attention.sdpa import SdpaAttention
from livestar.retention.base import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from livestar.annotations.types import Event
    from livestar.engine.admission import StreamPlan
    from livestar.evaluation.footage import Footage
    from livestar.model.livestar import LiveStarModel
    from livestar.model.prompt import CaptionRows, Rows
    from livestar.session import Checkpoint
    from livestar.types import Frame

BLOCK_SIZE = 16
NUM_SLOTS = 16
"""Frames whose visual tokens wait to be fed together."""
MAX_MEAN_NLL = 709.0
"""exp of more overflows."""


class CaptionScore(NamedTuple):
    """One caption of the truth."""

    perplexity: float
    token_accuracy: float
    """Share of its tokens that the model finds likeliest."""


def score_likelihood(checkpoint: Checkpoint, footage: Footage, stream: StreamConfig | None = None) -> dict[str, float | None]:
    """`perplexity` and `token_accuracy`; None where no event was seen.  Raises `SourceError` and `InvalidConfig`."""
    by_video = []
    for index in range(len(footage.videos)):
        scores = score_captions(checkpoint, footage, index, stream)
        if scores:
            by_video.append(CaptionScore(*(fmean(column) for column in zip(*scores, strict=True))))
    return {
        "perplexity": fmean(score.perplexity for score in by_video) if by_video else None,
        "token_accuracy": fmean(score.token_accuracy for score in by_video) if by_video else None,
    }


@torch.inference_mode()
def score_captions(
    checkpoint: Checkpoint, footage: Footage, index: int, stream: StreamConfig | None = None
) -> list[CaptionScore]:
    """Scores of the captions of one video's events, in order; events without a frame are left out."""
    video = footage.videos[index]
    stream = StreamConfig() if stream is None else stream
    prompt = make_prompt(checkpoint.model.config, checkpoint.tokenizer)
    longest = max((len(prompt.caption(event.caption).targets) for event in video.events), default=1)
    stream = replace(
        stream,
        retention=RetentionConfig(name="window", kv_tokens=stream.retention.kv_tokens),
        sampling=replace(stream.sampling, max_new_tokens=max(longest, 1)),
    )
    teacher = _Teacher(checkpoint.model, plan_stream(checkpoint.model.config, checkpoint.tokenizer, stream))
    scores = []
    told: CaptionRows | None = None
    begun: Event | None = None
    for frame, following in _with_next(footage.frames(index)):
        event = next((event for event in video.events if _is_in(frame, event)), None)
        if event is not begun and event is not None:
            if told is not None:
                teacher.close_clip(told)
                told = None
            begun = event
        teacher.watch(frame)
        if event is not None and (following is None or not _is_in(following, event)):
            told = prompt.caption(event.caption)
            scores.append(teacher.score(told))
    return scores


class _Teacher:
    """One stream's context, fed with the truth."""

    def __init__(self, model: LiveStarModel, plan: StreamPlan) -> None:
        config = model.config.language
        self._model = model
        self._plan = plan
        self._cache = KVCache(
            config,
            num_blocks=-(-plan.capacity // BLOCK_SIZE),
            block_size=BLOCK_SIZE,
            max_sequences=1,
            dtype=model.dtype,
            device=model.device,
        )
        self._num_groups = config.num_heads // config.num_kv_heads
        self._context = StreamContext(self._cache, plan.capacity)
        self._context.commit(Unit("opening", len(plan.opening)), plan.opening)
        self._visual: dict[int, Tensor] = {}
        self._num_frames = 0
        self._clip = 1

    def watch(self, frame: Frame) -> None:
        """Adds a frame to the context."""
        evicted = self._plan.retention.select(self._context.units, self._plan.budget)
        if evicted:
            self._context.evict(evicted)
        if len(self._visual) == NUM_SLOTS:
            self._feed((), 0)
        slot = self._num_frames % NUM_SLOTS
        self._visual[slot] = self._model.encode_frames(torch.from_numpy(frame.image).unsqueeze(0))[0]
        is_first = self._num_frames == 0
        rows = self._plan.layout.frame(self._plan.prompt.frame_line(frame.index, slot), is_first=is_first)
        staying = self._plan.layout.first_turn_end() if is_first else ()
        rows = rows[: len(rows) - len(staying)]
        self._context.commit(Unit("frame", len(rows), self._clip, frame.index), rows)
        if staying:
            self._context.commit(Unit("opening", len(staying)), staying)
        self._num_frames += 1

    def close_clip(self, caption: CaptionRows) -> None:
        """Leaves a caption behind its clip, where the gate keeps captions."""
        rows = self._plan.layout.closing(caption)
        if rows:
            self._context.commit(Unit("caption", len(rows), self._clip, self._num_frames), rows)
        self._clip += 1

    def score(self, caption: CaptionRows) -> CaptionScore:
        """Scores a caption as the answer to all that was seen."""
        header = self._plan.prompt.assistant_header
        before = self._plan.layout.answer()[: -len(header)]
        targets = torch.tensor(caption.targets, device=self._model.device)
        hidden = self._feed(before + caption.rows, len(targets))
        logits = self._model.language_model.logits(hidden).float()
        nll = float(F.cross_entropy(logits, targets))
        return CaptionScore(math.exp(min(nll, MAX_MEAN_NLL)), float((logits.argmax(-1) == targets).float().mean()))

    def _feed(self, fork: Rows, num_wanted: int) -> Tensor:
        """Feeds what waits, and a fork behind it; hidden states of the last `num_wanted` rows."""
        rows = self._context.branch(fork, num_wanted)
        sequence = self._context.sequence
        self._cache.append(sequence, len(rows))
        batch = RaggedBatch.of(self._cache, [sequence], [len(rows)])
        attention = SdpaAttention(self._cache, batch, self._num_groups)
        hidden: Tensor = self._model.language_model(self._embed(rows), batch.positions, attention)
        self._visual.clear()
        return hidden[len(rows) - num_wanted :]

    def _embed(self, rows: list[int]) -> Tensor:
        """[len(rows), hidden]: token embeddings, and for negative rows the visual tokens they stand for."""
        index = torch.tensor(rows, device=self._model.device)
        embedded = self._model.language_model.embed(index.clamp(min=0))
        if self._visual:
            table = torch.zeros(NUM_SLOTS, *next(iter(self._visual.values())).shape, dtype=embedded.dtype, device=index.device)
            for slot, tokens in self._visual.items():
                table[slot] = tokens
            visual = table.flatten(0, 1).index_select(0, (-1 - index).clamp(min=0))
            embedded = torch.where((index < 0).unsqueeze(-1), visual, embedded)
        return embedded


def _is_in(frame: Frame, event: Event) -> bool:
    return event.begin_s - EPSILON_S <= frame.pts_s < event.end_s - EPSILON_S


def _with_next(frames: Iterator[Frame]) -> Iterator[tuple[Frame, Frame | None]]:
    """Each frame with the one after it."""
    before: Frame | None = None
    for frame in frames:
        if before is not None:
            yield before, frame
        before = frame
    if before is not None:
        yield before, None
