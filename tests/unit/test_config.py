"""Every setting refuses what it cannot mean, and says what to give instead."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from livestar import config
from livestar.config import EngineConfig, GateConfig, MediaConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.errors import InvalidConfig, InvalidRequest

pytestmark = pytest.mark.unit

NAN, INF = math.nan, math.inf

BAD: list[tuple[type, str, Any, str]] = [
    *[(MediaConfig, "fps", value, "give frames per second") for value in (0.0, -1.0, 240.5, NAN, INF)],
    (MediaConfig, "pace", "slow", "choose one of realtime, fast"),
    *[(MediaConfig, "max_queued_frames", value, "give at least 1") for value in (0, -1)],
    *[(MediaConfig, "start_s", value, "give seconds from 0") for value in (-0.1, NAN, INF)],
    *[(MediaConfig, "open_timeout_s", value, "give seconds above 0") for value in (0.0, -1.0, NAN)],
    *[(MediaConfig, "stall_timeout_s", value, "give seconds above 0") for value in (0.0, -1.0, NAN)],
    (MediaConfig, "max_reconnects", -1, "give 0 or more"),
    *[(MediaConfig, "reconnect_backoff_s", value, "give seconds above 0") for value in (0.0, NAN)],
    *[(MediaConfig, "max_pixels", value, "give a number of pixels") for value in (0, -5)],
    (GateConfig, "name", "siren", "choose one of compat, leaf, scam"),
    *[(GateConfig, "threshold", value, "give a ratio above 0") for value in (0.0, -1.0, NAN, INF)],
    *[(GateConfig, "response_rate", value, "give a share between 0 and 1") for value in (0.0, 1.0, -0.1, 1.5, NAN)],
    (RetentionConfig, "name", "all", "choose one of none, window, peak-end"),
    *[(RetentionConfig, "kv_tokens", value, "give a number of tokens above 0") for value in (0, -1)],
    *[(RetentionConfig, "num_recent_frames", value, "give at least 1") for value in (0, -1)],
    *[(RetentionConfig, "max_frames", value, "give at least 1") for value in (0, -1)],
    (RetentionConfig, "window_frames", -1, "give 0 or more"),
    *[(SamplingConfig, "seed", value, "give a number from 0") for value in (-1, 2**63)],
    (EngineConfig, "max_held_steps", -1, "give 0 or more"),
    *[(SamplingConfig, "max_new_tokens", value, "give 1 to 8192") for value in (0, -1, 8193)],
    *[(SamplingConfig, "repetition_penalty", value, "give a number above 0; 1 is off") for value in (0.0, -1.0, NAN, INF)],
    *[(SamplingConfig, "temperature", value, "give 0 (greedy) or more") for value in (-0.1, NAN, INF)],
    *[(SamplingConfig, "top_p", value, "give a share above 0, at most 1") for value in (0.0, -1.0, 1.1, NAN)],
    *[(EngineConfig, "num_kv_tokens", value, "give a number of tokens above 0") for value in (0, -1)],
    *[
        (EngineConfig, name, value, "give at least 1")
        for name in ("block_size", "max_streams", "max_batch_tokens", "max_encode_frames", "num_workers")
        for value in (0, -3)
    ],
]

NAMES = {(GateConfig, "name"): "gate", (RetentionConfig, "name"): "retention"}
"""What a person calls these."""


def make(kind: type, **values: Any) -> Any:
    return kind(**({"num_kv_tokens": 64} if kind is EngineConfig else {}) | values)


@pytest.mark.parametrize(("kind", "name", "value", "remedy"), BAD, ids=[f"{k.__name__}-{n}-{v}" for k, n, v, _ in BAD])
def test_a_bad_value_is_refused_with_its_name_and_the_remedy(kind: type, name: str, value: Any, remedy: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        make(kind, **{name: value})
    message = str(refused.value)
    assert message.startswith(f"{NAMES.get((kind, name), name)} is {value!r}; ")
    assert remedy in message
    assert isinstance(refused.value, InvalidRequest | ValueError)
    assert not refused.value.retryable


@pytest.mark.parametrize("kind", [MediaConfig, GateConfig, RetentionConfig, SamplingConfig, EngineConfig])
def test_every_checked_field_has_a_case_here(kind: type) -> None:
    covered = {name for other, name, _, _ in BAD if other is kind}
    free = {"keep_captions", "protect_ends", "seed", "loop"}
    assert {field.name for field in dataclasses.fields(kind)} == covered | (free & {f.name for f in dataclasses.fields(kind)})


def test_a_threshold_and_a_response_rate_exclude_each_other() -> None:
    with pytest.raises(InvalidConfig, match="give either a threshold or a response rate, not both"):
        GateConfig(threshold=1.03, response_rate=0.2)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (MediaConfig, {"fps": 240.0, "max_queued_frames": 1, "start_s": 0.0, "max_reconnects": 0, "max_pixels": 1}),
        (GateConfig, {"threshold": 0.01}),
        (GateConfig, {"response_rate": 0.99}),
        (RetentionConfig, {"kv_tokens": 1, "num_recent_frames": 1, "max_frames": 1, "window_frames": 0, "seed": -1}),
        (SamplingConfig, {"max_new_tokens": 8192, "repetition_penalty": 0.1, "temperature": 0.0, "top_p": 1.0}),
        (SamplingConfig, {"max_new_tokens": 1, "top_p": 1e-9}),
        (EngineConfig, {"num_kv_tokens": 1, "block_size": 1, "max_streams": 1, "max_batch_tokens": 1, "max_encode_frames": 1}),
    ],
)
def test_the_extremes_are_allowed(kind: type, values: dict[str, Any]) -> None:
    made = make(kind, **values)
    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize("name", [n for n in vars(config) if n.endswith("Config") and n != "InvalidConfig"])
def test_configs_are_frozen_and_take_names_only(name: str) -> None:
    kind = getattr(config, name)
    with pytest.raises(TypeError):
        kind(1)
    made = make(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(kind)[0].name, None)


def test_a_stream_gets_the_published_defaults() -> None:
    stream = StreamConfig()
    assert (stream.retention.name, stream.sampling.repetition_penalty, stream.sampling.temperature) == (None, 1.05, 0.0)
