"""Which rows go into the next batch.  A pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Demand(NamedTuple):
    """What a stream has to feed."""

    num_tokens: int
    is_decoding: bool


def schedule(demands: Sequence[Demand], max_batch_tokens: int) -> list[int]:
    """How many rows of each demand the next batch takes; `demands` are in order of arrival, longest waiting first.

    Decoding comes first, since it is one row each and a caption is half spoken.  The rest is served shortest first, as far as
    the batch goes: a long prefill takes what is left over, in chunks, and so never holds up the others; but the one that has
    waited longest is always given something, so that it ends.
    """
    grants = [0] * len(demands)
    room = max_batch_tokens
    waiting = [i for i, demand in enumerate(demands) if demand.num_tokens and not demand.is_decoding]
    oldest = waiting[:1]
    share = max(1, max_batch_tokens // 4) if len(demands) > 1 else max_batch_tokens
    for i in oldest:
        grants[i] = min(demands[i].num_tokens, share)
        room -= grants[i]
    decoding = [i for i, demand in enumerate(demands) if demand.is_decoding]
    for i in decoding + sorted(waiting, key=lambda i: demands[i].num_tokens):
        more = min(demands[i].num_tokens - grants[i], room)
        grants[i] += more
        room -= more
    return grants
