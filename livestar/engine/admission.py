"""What a stream will need, from its config and the checkpoint's own choices.  Pure functions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from livestar.config import GateConfig, GateName, RetentionConfig, RetentionName, SamplingConfig, StreamConfig
from livestar.errors import InvalidCheckpoint, InvalidConfig
from livestar.gate.layout import make_layout
from livestar.gate.threshold import make_threshold
from livestar.model.prompt import CaptionRows, Prompt
from livestar.retention.make import make_retention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livestar.gate.layout import GateLayout
    from livestar.gate.threshold import Threshold
    from livestar.model.config import ModelConfig
    from livestar.model.prompt import Rows
    from livestar.model.tokenizer import Tokenizer
    from livestar.retention.base import Retention

DEFAULT_GATE: GateName = "compat"
"""The gate that the published weights were shown with."""

DEFAULT_MAX_NEW_TOKENS = 256
"""Longest caption where neither the config nor the checkpoint says; the longest of the public sample has 227 tokens."""

DEFAULT_KV_TOKENS = 8192
"""Context budget where none is given: the published 8 K."""

MAX_RETOKENISED = 3
"""Tokens that one generated token may become when the caption's text is tokenised again: an invalid byte turns into U+FFFD,
which is three bytes."""


class StreamPlan(NamedTuple):
    """Everything about a stream that is settled when it opens."""

    prompt: Prompt
    layout: GateLayout
    threshold: Threshold
    retention: Retention
    sampling: SamplingConfig
    """With the longest caption settled."""
    opening: Rows
    budget: int
    """Most tokens that the context holds when a frame begins; the frame may add itself and the caption that it closes."""
    capacity: int
    """Most tokens that its sequence ever holds: the budget and the longest fork."""


def plan_stream(model: ModelConfig, tokenizer: Tokenizer, config: StreamConfig) -> StreamPlan:
    """Settles a stream.  Raises `InvalidConfig` where its prompt, budget and the model's longest context do not go together."""
    gate = resolve_gate(config.gate, model.watch)
    retention = resolve_retention(config.retention, model.watch)
    longest = config.sampling.max_new_tokens or model.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    sampling = replace(config.sampling, max_new_tokens=longest)
    prompt = make_prompt(model, tokenizer)
    layout = make_layout(gate.name or DEFAULT_GATE, prompt, gate.keep_captions)
    opening = prompt.opening(config.prompt)
    headroom = longest_fork(prompt, layout, longest)
    room = model.language.max_position_embeddings - headroom
    line = prompt.frame_line(10**6, 0)
    per_frame = len(layout.frame(line, is_first=False))
    num_frames = retention.num_recent_frames + 2
    least = len(opening) + num_frames * per_frame
    positions = model.language.max_position_embeddings
    if room < least:
        raise InvalidConfig(
            f"max_new_tokens is {longest}; of {positions} positions that leaves {max(room, 0)} "
            f"for the context, which needs {least}: lower --max-new-tokens or shorten --prompt"
        )
    budget = min(DEFAULT_KV_TOKENS, room) if retention.kv_tokens is None else retention.kv_tokens
    if budget > room:
        raise InvalidConfig(
            f"kv_tokens is {budget}, but the model's {positions} positions leave {room} beside captions of "
            f"{longest} tokens; lower --kv-tokens or --max-new-tokens"
        )
    if budget < least:
        raise InvalidConfig(
            f"kv_tokens is {budget}; the prompt takes {len(opening)} tokens and {num_frames} frames of {per_frame} must fit "
            f"beside it: give at least {least}, or shorten --prompt"
        )
    return StreamPlan(
        prompt, layout, make_threshold(gate), make_retention(retention), sampling, opening, budget, budget + headroom
    )


def make_prompt(model: ModelConfig, tokenizer: Tokenizer) -> Prompt:
    """The checkpoint's prompt: its own system message and task, or the published ones."""
    return Prompt(
        tokenizer,
        num_visual_tokens=model.num_visual_tokens,
        system_message=_text(model.watch, "system_message"),
        task=_text(model.watch, "task"),
    )


def resolve_gate(config: GateConfig, watch: Mapping[str, object]) -> GateConfig:
    """Fills what is not given from the checkpoint's `livestar` section.  A threshold belongs to its gate: another gate than the
    checkpoint's does not take it over."""
    name: GateName | None = _choice(watch, "gate", GateName)
    threshold = _ratio(watch, "threshold")
    keep_captions = _flag(watch, "keep_captions")
    if config.name is None and name is not None:
        config = replace(config, name=name)
    is_its_own = (config.name or DEFAULT_GATE) == (name or DEFAULT_GATE)
    if config.threshold is None and config.response_rate is None and threshold is not None and is_its_own:
        config = replace(config, threshold=threshold)
    if config.keep_captions is None and keep_captions is not None and is_its_own:
        config = replace(config, keep_captions=keep_captions)
    return config


def resolve_retention(config: RetentionConfig, watch: Mapping[str, object]) -> RetentionConfig:
    """Fills what is not given from the checkpoint's `livestar` section."""
    name: RetentionName | None = _choice(watch, "retention", RetentionName)
    kv_tokens = watch.get("kv_tokens")
    if kv_tokens is not None and (type(kv_tokens) is not int or kv_tokens < 1):
        raise InvalidCheckpoint(f"config.json: livestar: kv_tokens is {kv_tokens!r}; expected a number of tokens above 0")
    if config.name is None and name is not None:
        config = replace(config, name=name)
    return replace(config, kv_tokens=kv_tokens) if config.kv_tokens is None and kv_tokens is not None else config


def longest_fork(prompt: Prompt, layout: GateLayout, max_new_tokens: int) -> int:
    """Most rows that a stream ever lays behind its budgeted context, committed ones of the frame under way included."""
    num_tokens = MAX_RETOKENISED * max_new_tokens
    caption = CaptionRows("", prompt.assistant_header + (0,) * num_tokens, (0,) * (num_tokens + 1))
    line = prompt.frame_line(10**6, 0)
    started = len(layout.closing(caption)) + len(layout.frame(line, is_first=False))
    return max(
        len(layout.verification(line, caption).rows),
        started + len(layout.answer()) + max_new_tokens,
        started + len(layout.reference(line, caption).rows),
    )


def _ratio(watch: Mapping[str, object], key: str) -> float | None:
    value = watch.get(key)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    raise InvalidCheckpoint(f"config.json: livestar: {key} is {value!r}; expected a ratio above 0, such as 1.03")


def _text(watch: Mapping[str, object], key: str) -> str | None:
    value = watch.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidCheckpoint(f"config.json: livestar: {key} is {value!r}; expected a text")
    return value


def _flag(watch: Mapping[str, object], key: str) -> bool | None:
    value = watch.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidCheckpoint(f"config.json: livestar: {key} is {value!r}; expected true or false")
    return value


def _choice(watch: Mapping[str, object], key: str, choices: Any) -> Any:
    """One of the names of the literal type `choices`, or None."""
    value = watch.get(key)
    allowed = get_args(choices)
    if value is not None and value not in allowed:
        raise InvalidCheckpoint(f"config.json: livestar: {key} is {value!r}; expected one of {', '.join(allowed)}")
    return value
