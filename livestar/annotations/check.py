"""What every annotated video must keep to, whatever format it was read from.  Standard library only."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from livestar.annotations.lines import control_character
from livestar.annotations.types import AnnotatedVideo, Event
from livestar.config import MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.annotations.problems import Problems

MAX_CAPTION_CHARS = 10_000
MAX_CAPTIONS = 1000
"""Paraphrases of one event."""
MAX_EVENTS = 1_000_000
"""Events of one video."""
END_TOLERANCE_S = 1.0
"""How far an event may reach past the end of its video: annotators round, some formats to whole seconds."""

CONTROL_TOKENS = (
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<img>",
    "</img>",
    "<image>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)
"""Words that a prompt is made of, or that the released tokenizer takes for more than text; and all of the form <|...|>."""

INVISIBLE = ("Cf", "Mn", "Me", "Zs", "Zl", "Zp")
"""Unicode categories of characters that show nothing on their own."""
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Others that are drawn empty."""

_CONTROL = re.compile("|".join(map(re.escape, CONTROL_TOKENS)) + r"|<\|[^<>|\s]*\|>|\[UNUSED_TOKEN_\d+\]")


def control_token(text: str) -> str | None:
    """The first control token that is written in `text`, or None."""
    found = _CONTROL.search(text)
    return found.group() if found else None


def is_invisible(text: str) -> bool:
    """Whether a text shows nothing: spaces, joiners, marks without a letter, fillers.  Control codes are another matter."""
    return all(char in FILLERS or unicodedata.category(char) in INVISIBLE for char in text)


def caption_problem(value: object) -> str | None:
    """What is wrong with a caption, or None."""
    if not isinstance(value, str):
        return f"is {_shown(value)}; give a text"
    if not value.strip():
        return "is empty; say what is to be seen, or leave the event out"
    if is_invisible(value):
        code = ord(value.strip()[0])
        return f"holds nothing that can be seen (U+{code:04X}); say what is to be seen, or leave the event out"
    if len(value) > MAX_CAPTION_CHARS:
        return f"has {len(value)} characters, more than {MAX_CAPTION_CHARS}; shorten it"
    token = control_token(value)
    if token is not None:
        return f"contains the control token {token}; take it out"
    odd = control_character(value.strip())
    if odd is not None:
        return f"contains the control character U+{ord(odd):04X}; write it in one line of plain text"
    return None


def read_captions(value: object, line: int, key: str, problems: Problems) -> tuple[str, ...]:
    """A caption, or a pool of paraphrases, stripped and without repetitions; empty where a problem was noted."""
    pool = value if isinstance(value, list) else [value]
    if not pool:
        problems.add(line, key, "is an empty list; give at least one caption")
        return ()
    if len(pool) > MAX_CAPTIONS:
        problems.add(line, key, f"holds {len(pool)} captions, more than {MAX_CAPTIONS}; give fewer")
        return ()
    for place, caption in enumerate(pool):
        problem = caption_problem(caption)
        if problem is not None:
            problems.add(line, f"{key}[{place}]" if isinstance(value, list) else key, problem)
            return ()
    return tuple(dict.fromkeys(str(caption).strip() for caption in pool))


def read_seconds(value: object, line: int, key: str, problems: Problems) -> float | None:
    """A time in seconds from 0; None where a problem was noted."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.add(line, key, f"is {_shown(value)}; give seconds as a number")
        return None
    if not 0 <= value <= MAX_SECONDS:  # also NaN
        problems.add(line, key, f"is {_shown(value)}; give seconds from 0, at most a year")
        return None
    return float(value)


def check_events(events: Sequence[tuple[int, str, Event]], duration_s: float | None, problems: Problems) -> tuple[Event, ...]:
    """Those of the events, each with its line and key, that are in order, do not overlap and lie within the video."""
    good: list[Event] = []
    if len(events) > MAX_EVENTS:
        problems.add(events[0][0], events[0][1], f"is one of {len(events)} events, more than {MAX_EVENTS}; split the video")
        return ()
    for line, key, event in events:
        problem = _event_problem(event, good[-1] if good else None, duration_s)
        if problem is None:
            good.append(event)
        else:
            problems.add(line, f"{key}.{problem[0]}" if key else problem[0], problem[1])
    return tuple(good)


def past_end(video: AnnotatedVideo, duration_s: float) -> tuple[int, Event] | None:
    """Place and value of the first event that reaches past the end of its video, or None."""
    late = (found for found in enumerate(video.events) if _is_past(found[1], duration_s))
    return next(late, None)


def _is_past(event: Event, duration_s: float) -> bool:
    return event.end_s > duration_s + END_TOLERANCE_S or (event.begin_s >= duration_s and event.begin_s > 0)


def _event_problem(event: Event, before: Event | None, duration_s: float | None) -> tuple[str, str] | None:
    if event.end_s < event.begin_s:
        return "end", f"is {event.end_s:g} s, before the begin at {event.begin_s:g} s; exchange or mend them"
    if event.end_s == event.begin_s:
        return "end", f"is {event.end_s:g} s, where the event begins; give it a length, or remove the event"
    if before is not None and event.begin_s < before.begin_s:
        return "begin", f"is {event.begin_s:g} s, but the event before begins at {before.begin_s:g} s; put the events in order"
    if before is not None and event.begin_s < before.end_s:
        return "begin", f"is {event.begin_s:g} s, but the event before ends at {before.end_s:g} s; let them not overlap"
    if duration_s is not None and _is_past(event, duration_s):
        return "end", f"is {event.end_s:g} s, but the video ends at {duration_s:g} s; shorten or remove the event"
    return None


def _shown(value: object) -> str:
    """A value as a message may show it."""
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
