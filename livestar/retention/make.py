"""From config to rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestar.retention.peak_end import Code, Median, PeakEnd, Prob
from livestar.retention.window import KeepAll, Window

if TYPE_CHECKING:
    from livestar.config import RetentionConfig
    from livestar.retention.base import Retention
    from livestar.retention.peak_end import Rule

RELEASED_MAX_FRAMES = 24
"""Frames at which the released code compresses (peak_end_window_len of eval_inference_speed.py)."""


def make_retention(config: RetentionConfig) -> Retention:
    """The rule that the config names."""
    rule: Rule
    max_frames = config.max_frames
    match config.name:
        case "none":
            return KeepAll()
        case "window":
            return Window(config.num_recent_frames)
        case None | "peak-end" | "peak-end-median":
            rule = Median()
        case "peak-end-code":
            rule = Code()
            max_frames = RELEASED_MAX_FRAMES if max_frames is None else max_frames
        case "peak-end-prob":
            rule = Prob(config.window_frames, config.seed)
    return PeakEnd(
        rule,
        num_recent_frames=config.num_recent_frames,
        protect_ends=config.protect_ends,
        max_frames=max_frames,
    )
