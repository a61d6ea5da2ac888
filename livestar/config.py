"""Every setting, one frozen dataclass per component.  Standard library only.

Values are checked where they are made: a bad one raises `InvalidConfig`, which names the field, the value and the remedy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from livestar.errors import InvalidConfig

Pace = Literal["realtime", "fast"]
GateName = Literal["compat", "leaf", "scam"]
RetentionName = Literal["none", "window", "peak-end", "peak-end-code", "peak-end-median", "peak-end-prob"]
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]


MAX_SECONDS = 366 * 86_400
"""Longest position in a source, in seconds."""


def _check(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise InvalidConfig(f"{name} is {value!r}; {remedy}")


def _check_choice(name: str, value: str, choices: object) -> None:
    allowed = get_args(choices)
    _check(value in allowed, name, value, f"choose one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaConfig:
    """How a source becomes frames."""

    fps: float = 1.0
    """Frames per second of media time to sample."""
    pace: Pace = "realtime"
    """`realtime` plays a file at its own speed and drops what comes too late; `fast` waits for the engine instead."""
    max_queued_frames: int = 4
    """Frames that may wait to be encoded; beyond it `realtime` drops the oldest and counts it."""
    start_s: float = 0.0
    """Where to start in a file, in seconds."""
    loop: bool = False
    """Start a file again when it ends."""
    open_timeout_s: float = 10.0
    """Longest wait for a source to open."""
    stall_timeout_s: float = 10.0
    """Longest wait for the next packet of a live source before it counts as stalled."""
    max_reconnects: int = 5
    """Attempts in a row to reopen a live source before giving up; 0 gives up at once."""
    reconnect_backoff_s: float = 0.5
    """Wait before the first attempt; doubles with each one, up to 30 s."""
    max_pixels: int = 8192 * 8192
    """Largest picture to decode, in pixels; a larger one is refused unread."""

    def __post_init__(self) -> None:
        _check(0.001 <= self.fps <= 240, "fps", self.fps, "give frames per second above 0: 0.001 to 240")
        _check_choice("pace", self.pace, Pace)
        _check(self.max_queued_frames >= 1, "max_queued_frames", self.max_queued_frames, "give at least 1")
        _check(0 <= self.start_s <= MAX_SECONDS, "start_s", self.start_s, "give seconds from 0, at most a year")
        _check(0 < self.open_timeout_s <= 86_400, "open_timeout_s", self.open_timeout_s, "give seconds above 0, at most a day")
        _check(0 < self.stall_timeout_s <= 86_400, "stall_timeout_s", self.stall_timeout_s, "give seconds above 0, at most a day")
        _check(self.max_reconnects >= 0, "max_reconnects", self.max_reconnects, "give 0 or more")
        _check(
            0 < self.reconnect_backoff_s <= 86_400,
            "reconnect_backoff_s",
            self.reconnect_backoff_s,
            "give seconds above 0, at most a day",
        )
        _check(self.max_pixels > 0, "max_pixels", self.max_pixels, "give a number of pixels above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """When to speak."""

    name: GateName | None = None
    """Prompt layout of the verification; None takes the checkpoint's own, or `compat`."""
    threshold: float | None = None
    """Ratio of perplexity to reference above which to respond (the paper's alpha); None takes the checkpoint's, or 1.03."""
    response_rate: float | None = None
    """Share of frames to respond to, 0 to 1: calibrates the threshold while watching.  Excludes `threshold`."""
    keep_captions: bool | None = None
    """Whether the last caption of a finished clip stays in the context; None takes the gate's own."""

    def __post_init__(self) -> None:
        if self.name is not None:
            _check_choice("gate", self.name, GateName)
        if self.threshold is not None:
            _check(
                math.isfinite(self.threshold) and self.threshold > 0,
                "threshold",
                self.threshold,
                "give a ratio above 0, such as 1.03",
            )
        if self.response_rate is not None:
            _check(0 < self.response_rate < 1, "response_rate", self.response_rate, "give a share between 0 and 1, such as 0.15")
            _check(self.threshold is None, "threshold", self.threshold, "give either a threshold or a response rate, not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """What stays in a stream's context."""

    name: RetentionName | None = None
    """Which rule; None takes the checkpoint's own, or `peak-end`.

    `peak-end` is `peak-end-median`: it keeps the frames at most at their clip's median perplexity.
    """
    kv_tokens: int | None = None
    """Context budget of one stream, in tokens: prompt, frames and captions.

    None takes the checkpoint's own, or 8192, or what the model allows.
    """
    num_recent_frames: int = 4
    """Newest frames of the current clip that are never evicted."""
    protect_ends: bool = True
    """Whether the first and the last frame of a clip are kept as long as the clip is."""
    max_frames: int | None = None
    """Frames at which peak-end rules compress, whatever the budget.  None: 24 for `peak-end-code` as released, else never."""
    window_frames: int = 40
    """Age in frames before which `peak-end-prob` never deletes (the paper's W)."""
    seed: int = 0
    """Seed of `peak-end-prob`."""

    def __post_init__(self) -> None:
        if self.name is not None:
            _check_choice("retention", self.name, RetentionName)
        _check(self.kv_tokens is None or self.kv_tokens > 0, "kv_tokens", self.kv_tokens, "give a number of tokens above 0")
        _check(self.num_recent_frames >= 1, "num_recent_frames", self.num_recent_frames, "give at least 1")
        _check(self.max_frames is None or self.max_frames > 0, "max_frames", self.max_frames, "give at least 1")
        _check(self.window_frames >= 0, "window_frames", self.window_frames, "give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How caption tokens are chosen."""

    max_new_tokens: int | None = None
    """Longest caption, in tokens; None takes the checkpoint's own, or 256."""
    repetition_penalty: float = 1.05
    """Above 1 makes tokens that the caption already has less likely; 1 is off."""
    temperature: float = 0.0
    """0 is greedy; above it samples."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that hold this share of the probability."""
    seed: int = 0
    """Seed of the sampling, one generator per stream."""

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None:
            _check(1 <= self.max_new_tokens <= 8192, "max_new_tokens", self.max_new_tokens, "give 1 to 8192")
        _check(
            math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0,
            "repetition_penalty",
            self.repetition_penalty,
            "give a number above 0; 1 is off",
        )
        _check(
            math.isfinite(self.temperature) and self.temperature >= 0, "temperature", self.temperature, "give 0 (greedy) or more"
        )
        _check(0 <= self.seed < 2**63, "seed", self.seed, "give a number from 0, below 2^63")
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "give a share above 0, at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How one stream is watched."""

    prompt: str | None = None
    """Task given to the model before the first frame; None takes the checkpoint's, or the published one."""
    gate: GateConfig = field(default_factory=GateConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One set of weights, one KV pool, one batching loop."""

    num_kv_tokens: int
    """Size of the KV pool in tokens, shared by all streams."""
    block_size: int = 16
    """Tokens in a KV block."""
    max_streams: int = 64
    """Streams open at a time; one more is refused."""
    max_batch_tokens: int = 4096
    """Tokens of all streams in one forward pass; what is over waits for the next."""
    max_encode_frames: int = 32
    """Frames of all streams in one pass of the vision tower."""
    max_held_steps: int = 4
    """Steps that new frames may wait, while captions are being decoded, to be encoded and verified together."""
    num_workers: int = 1
    """CPU threads that share out a batch's streams; 1 leaves the cores to torch's own threads."""

    def __post_init__(self) -> None:
        _check(self.num_kv_tokens > 0, "num_kv_tokens", self.num_kv_tokens, "give a number of tokens above 0")
        _check(self.block_size >= 1, "block_size", self.block_size, "give at least 1")
        _check(self.max_streams >= 1, "max_streams", self.max_streams, "give at least 1")
        _check(self.max_batch_tokens >= 1, "max_batch_tokens", self.max_batch_tokens, "give at least 1")
        _check(self.max_encode_frames >= 1, "max_encode_frames", self.max_encode_frames, "give at least 1")
        _check(self.max_held_steps >= 0, "max_held_steps", self.max_held_steps, "give 0 or more")
        _check(self.num_workers >= 1, "num_workers", self.num_workers, "give at least 1")
