"""Drives the engine, and a slow twin of it that prefills the whole dialogue again at every step.

The twin builds each gate's dialogue as text, from the definitions, and shares nothing with the engine but the model's layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from livestar.config import EngineConfig, GateConfig, GateName, RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.engine import Engine
from livestar.model.livestar import LiveStarModel
from livestar.model.tokenizer import Tokenizer
from livestar.reference import PlainCache
from livestar.types import CaptionDone, Decision, Frame, StreamEvent, StreamId, Verdict

TOLERANCE = 1e-4
"""Relative; perplexities of float32 on CPU in different orders of summation."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory."""

    model: LiveStarModel
    tokenizer: Tokenizer
    system_message: str
    task: str

    @property
    def image_size(self) -> int:
        return self.model.config.vision.image_size

    def engine(self, *, num_kv_tokens: int = 16384, max_batch_tokens: int = 4096, block_size: int = 16, **more: int) -> Engine:
        config = EngineConfig(num_kv_tokens=num_kv_tokens, max_batch_tokens=max_batch_tokens, block_size=block_size, **more)
        return Engine(self.model, self.tokenizer, config)


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one frame."""

    frame: int
    decision: Decision
    perplexity: float | None
    reference: float | None
    caption: str | None


def stream_config(
    gate: GateName = "compat",
    *,
    threshold: float | None = None,
    keep_captions: bool | None = None,
    max_new_tokens: int = 12,
    retention: RetentionConfig | None = None,
) -> StreamConfig:
    """No retention unless asked for."""
    return StreamConfig(
        gate=GateConfig(name=gate, threshold=threshold, keep_captions=keep_captions),
        retention=retention or RetentionConfig(name="none", kv_tokens=3000),
        sampling=SamplingConfig(max_new_tokens=max_new_tokens),
    )


def watch(engine: Engine, stream_id: StreamId, frames: Sequence[Frame]) -> list[StreamEvent]:
    """Pushes frames one after the other, each when the last is done; stops where the stream ends."""
    events: list[StreamEvent] = []
    for frame in frames:
        engine.push(stream_id, frame)
        while engine.has_work:
            events += engine.step()
        if engine.stats.num_streams == 0:
            break
    return events


def watch_alone(loaded: Loaded, frames: Sequence[Frame], config: StreamConfig, **engine: int) -> list[Step]:
    """One stream in an engine of its own, from open to close."""
    own = loaded.engine(**engine)
    stream_id = StreamId("alone")
    own.open(stream_id, config)
    events = watch(own, stream_id, frames)
    own.close(stream_id)
    assert own.stats.num_kv_tokens_used == 0
    return steps_of(events)


def steps_of(events: Sequence[StreamEvent]) -> list[Step]:
    """The verdicts of one stream, with their captions."""
    captions = {event.frame: event.text for event in events if isinstance(event, CaptionDone)}
    return [
        Step(event.frame, event.decision, event.perplexity, event.reference_perplexity, captions.get(event.frame))
        for event in events
        if isinstance(event, Verdict)
    ]


def assert_same(got: Sequence[Step], wanted: Sequence[Step], tolerance: float = TOLERANCE) -> None:
    """Decisions and captions equal, perplexities within the tolerance."""
    assert [(s.frame, s.decision, s.caption) for s in got] == [(s.frame, s.decision, s.caption) for s in wanted]
    assert numbers(got) == pytest.approx(numbers(wanted), rel=tolerance, nan_ok=True)


def numbers(steps: Sequence[Step]) -> list[float]:
    """Perplexities and references in turn; NaN where there is none."""
    return [math.nan if n is None else n for step in steps for n in (step.perplexity, step.reference)]


def assert_both_decisions(steps: Sequence[Step]) -> None:
    """A run in which one decision never occurs would prove little."""
    assert {step.decision for step in steps[1:]} == {Decision.RESPOND, Decision.SILENT}


END, USER, ASSISTANT = "<|im_end|>\n", "<|im_start|>user\n", "<|im_start|>assistant\n"
Parts = tuple[str | Tensor, ...]
"""Text, and the visual tokens of frames."""


class SlowTwin:
    """A stream of which nothing is kept but its text and pictures."""

    def __init__(
        self,
        loaded: Loaded,
        gate: GateName,
        *,
        threshold: float = 1.03,
        keep_captions: bool | None = None,
        max_new_tokens: int = 12,
        repetition_penalty: float = 1.05,
    ) -> None:
        self.loaded = loaded
        self.gate = gate
        self.threshold = threshold
        self.keeps_captions = gate != "leaf" if keep_captions is None else keep_captions
        self.max_new_tokens = max_new_tokens
        self.repetition_penalty = repetition_penalty
        system = f"<s><|im_start|>system\n{loaded.system_message}{END}"
        self.context: Parts = (f"{system}{USER}{loaded.task}",)
        self.is_first = True
        self.caption: str | None = None
        self.reference: float | None = None

    @torch.inference_mode()
    def watch(self, frame: Frame) -> Step:
        visual = self.loaded.model.encode_frames(torch.from_numpy(frame.image).unsqueeze(0))[0]
        line: Parts = (f"Frame-{frame.index}: <img>", visual, "</img>\n")
        added: Parts = line if self.gate != "leaf" else (*line, END) if self.is_first else (USER, *line, END)
        self.is_first = False
        perplexity = None
        if self.caption is not None and self.reference is not None:
            perplexity = self.score(self.context + self.verification(line, added, self.caption), self.caption)
            if perplexity <= self.reference * self.threshold:
                self.context += added
                return Step(frame.index, Decision.SILENT, perplexity, self.reference, None)
        self.context += self.closing() + added
        self.caption = self.generate()
        self.reference = self.score(self.context + self.again(line, self.caption), self.caption)
        return Step(frame.index, Decision.RESPOND, perplexity, self.reference, self.caption)

    def verification(self, line: Parts, added: Parts, caption: str) -> Parts:
        match self.gate:
            case "compat":
                return (END, ASSISTANT, caption, END, USER, *line, END)
            case "scam":
                return (*line, END)
            case "leaf":
                return added

    def again(self, line: Parts, caption: str) -> Parts:
        match self.gate:
            case "compat":
                return self.verification(line, line, caption)
            case "scam":
                return (END,)
            case "leaf":
                return ()

    def closing(self) -> Parts:
        if self.caption is None or not self.keeps_captions:
            return ()
        if self.gate == "leaf":
            return (ASSISTANT, self.caption, END)
        return (END, ASSISTANT, self.caption, END, USER)

    def score(self, context: Parts, caption: str) -> float:
        """Perplexity of a caption and its end of turn, as the assistant's answer to `context`."""
        encode = self.loaded.tokenizer.encode
        targets = encode(f"{ASSISTANT}{caption}<|im_end|>")[len(encode(ASSISTANT)) :]
        logits = self.logits(self.embed((*context, f"{ASSISTANT}{caption}<|im_end|>")), PlainCache(), len(targets) + 1)
        return float(F.cross_entropy(logits[:-1], torch.tensor(targets)).exp())

    def generate(self) -> str:
        answer = ASSISTANT if self.gate == "leaf" else END + ASSISTANT
        embedded, cache = self.embed((*self.context, answer)), PlainCache()
        ids: list[int] = []
        stop = self.loaded.tokenizer.encode("<|im_end|>")[0]
        while len(ids) < self.max_new_tokens and stop not in ids:
            logits = self.logits(embedded, cache, 1)[0]
            for number in set(ids):
                logits[number] *= self.repetition_penalty if logits[number] < 0 else 1 / self.repetition_penalty
            ids.append(int(logits.argmax()))
            embedded = self.loaded.model.language_model.embed(torch.tensor(ids[-1:]))
        return self.loaded.tokenizer.decode(ids).split("<|im_end|>")[0].strip()

    def embed(self, parts: Parts) -> Tensor:
        """Text between two frames is tokenised in one piece."""
        rows: list[Tensor] = []
        for is_text, run in groupby(parts, key=lambda part: isinstance(part, str)):
            if is_text:
                ids = self.loaded.tokenizer.encode("".join(str(part) for part in run))
                rows.append(self.loaded.model.language_model.embed(torch.tensor(ids)))
            else:
                rows.extend(part for part in run if isinstance(part, Tensor))
        return torch.cat(rows)

    def logits(self, embedded: Tensor, cache: PlainCache, num_rows: int) -> Tensor:
        language = self.loaded.model.language_model
        positions = torch.arange(cache.num_tokens, cache.num_tokens + len(embedded))
        return language.logits(language(embedded, positions, cache)[-num_rows:])
