"""Events as JSON lines: the stable schema of docs/events.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from livestar.types import CaptionDone, Notice, StreamEnded, Verdict

if TYPE_CHECKING:
    from livestar.types import StreamEvent


def to_record(event: StreamEvent) -> dict[str, object]:
    """An event as a flat JSON object."""
    record: dict[str, object] = {
        "type": "",
        "stream_id": event.stream_id,
        "frame": event.frame,
        "time_s": round(event.time_s, 6),
    }
    match event:
        case CaptionDone():
            return record | {"type": "caption", "text": event.text}
        case Verdict():
            return record | {
                "type": "verdict",
                "decision": event.decision.value,
                "perplexity": event.perplexity,
                "reference_perplexity": event.reference_perplexity,
                "ratio": event.ratio,
                "threshold": event.threshold,
            }
        case Notice():
            return record | {"type": "notice", "code": event.code, "message": event.message, "count": event.count}
        case StreamEnded():
            return record | {"type": "end", "error": event.error}
    raise TypeError(f"{type(event).__name__} has no record")


def to_line(event: StreamEvent) -> str:
    """An event as one line of JSON, newline included."""
    return json.dumps(to_record(event), ensure_ascii=False, allow_nan=False) + "\n"
