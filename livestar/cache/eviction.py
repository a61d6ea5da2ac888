"""Which rows stay when spans are cut out of the middle of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Span(NamedTuple):
    """Rows [start, stop) of a sequence."""

    start: int
    stop: int


def surviving_rows(spans: Sequence[Span], num_tokens: int) -> tuple[int, list[int]]:
    """The first row removed (`num_tokens` if none), and the rows that survive from there on, in order.

    `spans` are ascending and disjoint, within `num_tokens`.
    """
    end = 0
    for span in spans:
        assert end <= span.start <= span.stop <= num_tokens, (spans, num_tokens)
        end = span.stop
    cut = [span for span in spans if span.stop > span.start]
    if not cut:
        return num_tokens, []
    kept: list[int] = []
    for span, following in zip(cut, [*cut[1:], Span(num_tokens, num_tokens)], strict=True):
        kept.extend(range(span.stop, following.start))
    return cut[0].start, kept
