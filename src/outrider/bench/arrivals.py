"""A group of UEs that comes to another network, each at its time, and makes its requests there, one after the other.

So a UE registers and sets its session up: a request is sent when the one before is answered. The first is due when the
UE arrives, whether or not its context is there yet; its latency is what arriving costs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import NamedTuple

import msgspec

from outrider.bench.openloop import LIMIT_MS, Answer, Fate, History
from outrider.demo.quantiles import Quantiles, quantiles


class Group(NamedTuple):
    """Who comes, over how many seconds, and how many requests each makes."""

    ues: list[int]
    seconds: float
    requests: int


async def arrive(group: Group, send: Callable[[int, int], Awaitable[Answer]]) -> History:
    """Let the group come; `send` is called with a UE and the number of its request. Ends with the last answer."""
    history, start_s = History.empty(), time.monotonic()

    async def one(number: int, ue: int) -> None:
        due_s = start_s + number * group.seconds / len(group.ues)
        await asyncio.sleep(due_s - time.monotonic())
        for request in range(group.requests):
            answer = Answer(Fate.UNANSWERED)
            try:
                async with asyncio.timeout(2 * LIMIT_MS / 1000):
                    answer = await send(ue, request)
            except TimeoutError:
                pass  # it stands in the history as one without an answer
            now_s = time.monotonic()
            history.note(due_s, (now_s - due_s) * 1000, answer, ue)
            due_s = now_s

    await asyncio.gather(*(one(number, ue) for number, ue in enumerate(group.ues)))
    return history


class Arrived(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the group saw."""

    ues: int
    first_ms: Quantiles
    """Of the first request of each UE, from its arrival."""
    later_ms: Quantiles
    first_by_target: int
    """UEs whose first request was served by the network that they came to."""
    last_by_target: int
    refused: int
    unanswered: int
    out_of_order: int
    """Answers that do not say more than the one before to the same UE."""


def arrived(history: History) -> Arrived:
    """The figures of a group's history."""
    by_ue: dict[int, list[tuple[float, float, int, int, int]]] = {}
    columns = (history.due_s, history.latency_ms, history.fate, history.count, history.place)
    for ue, row in zip(history.ue, zip(*columns, strict=True), strict=True):
        by_ue.setdefault(ue, []).append(row)
    of_ues = [sorted(rows) for rows in by_ue.values()]
    counts = [[count for *_, count, _ in rows if count] for rows in of_ues]
    return Arrived(
        ues=len(of_ues),
        first_ms=quantiles(rows[0][1] for rows in of_ues),
        later_ms=quantiles(row[1] for rows in of_ues for row in rows[1:]),
        first_by_target=sum(rows[0][4] == 2 for rows in of_ues),
        last_by_target=sum(rows[-1][4] == 2 for rows in of_ues),
        refused=sum(fate == Fate.REFUSED for fate in history.fate),
        unanswered=sum(fate == Fate.UNANSWERED for fate in history.fate),
        out_of_order=sum(b <= a for of_ue in counts for a, b in pairwise(of_ue)),
    )
