"""Whether the answers that consumers were given can be those of one owner, request after request.

Every served request says how many of its UE were applied with it. So no two may say the same (two owners, or one
request answered for two), and one that was sent after the answer to another must say more (else they were reordered).
What is lost or doubled shows when a UE is read afterwards (`load`).
"""

import heapq
from collections.abc import Iterable
from itertools import groupby

import msgspec

from outrider.bench.openloop import Fate, History


class Judged(msgspec.Struct, frozen=True, rename="camel"):
    """Of all answers that say a count."""

    answers: int
    two_owners: int
    """Answers that say what another has said of the same UE."""
    reordered: int


def judge(histories: Iterable[History]) -> Judged:
    """Judge the requests of all histories together, UE by UE."""
    rows = sorted(
        (ue, due_s, due_s + latency_ms / 1000, count)
        for h in histories
        for due_s, latency_ms, fate, ue, count in zip(h.due_s, h.latency_ms, h.fate, h.ue, h.count, strict=True)
        if fate == Fate.SERVED and count
    )
    two_owners = reordered = 0
    for _, group in groupby(rows, key=lambda row: row[0]):
        of_ue = [(begun_s, ended_s, count) for _, begun_s, ended_s, count in group]
        two_owners += len(of_ue) - len({count for *_, count in of_ue})
        reordered += _reordered(of_ue)
    return Judged(len(rows), two_owners, reordered)


def _reordered(requests: list[tuple[float, float, int]]) -> int:
    """Of one UE, by when they were sent: those that say less than one whose answer had come before."""
    found, answered, most = 0, list[tuple[float, int]](), 0
    for begun_s, ended_s, count in requests:
        while answered and answered[0][0] < begun_s:
            most = max(most, heapq.heappop(answered)[1])
        found += count < most
        heapq.heappush(answered, (ended_s, count))
    return found
