"""The open loop is bounded, and every request that was due is accounted for."""

import asyncio
from itertools import pairwise
from pathlib import Path

from outrider.bench.openloop import LIMIT_MS, Fate, History, OpenLoop


async def test_a_request_that_falls_due_while_all_places_are_taken_is_not_sent_and_counts_with_the_limit():
    sent: list[int] = []

    async def never(number: int) -> Fate:
        sent.append(number)
        return await asyncio.Future()

    loop = OpenLoop(10_000, never, places=5)
    loop.start()
    while Fate.NOT_SENT not in loop.history.fate:
        await asyncio.sleep(0.001)
    await loop.stop(limit_s=0.05)
    fates = list(loop.history.fate)
    assert sent == [0, 1, 2, 3, 4]
    assert fates.count(Fate.UNANSWERED) == 5
    assert loop.open == 0
    of_not_sent = [ms for ms, fate in zip(loop.history.latency_ms, fates, strict=True) if fate == Fate.NOT_SENT]
    assert of_not_sent == [LIMIT_MS] * (len(fates) - 5)


async def test_latency_counts_from_the_time_a_request_was_due():
    standing = asyncio.Event()

    async def send(_: int) -> Fate:
        await standing.wait()
        return Fate.SERVED

    loop = OpenLoop(1_000, send)
    loop.start()
    while loop.open < 20:
        await asyncio.sleep(0.001)
    standing.set()
    await loop.stop()
    stood = sorted(zip(loop.history.due_s, loop.history.latency_ms, strict=True))[:20]
    waits = [ms for _, ms in stood]
    assert waits == sorted(waits, reverse=True)  # who was due first has waited longest
    assert waits[0] - waits[19] > 15  # 19 requests, a millisecond apart


async def test_requests_are_due_at_the_rate_whatever_becomes_of_them():
    loop = OpenLoop(500, lambda number: _served())
    loop.start()
    while len(loop.history.due_s) < 50:
        await asyncio.sleep(0.001)
    await loop.stop()
    due = sorted(loop.history.due_s)
    assert all(abs(b - a - 0.002) < 1e-6 for a, b in pairwise(due))


async def test_a_history_is_read_as_it_was_written(tmp_path: Path):
    history = History.empty()
    history.note(1.5, 2.25, Fate.SERVED)
    history.note(1.0, LIMIT_MS, Fate.NOT_SENT)
    history.write(tmp_path / "history.bin")
    assert History.read(tmp_path / "history.bin") == history


async def _served() -> Fate:
    return Fate.SERVED
