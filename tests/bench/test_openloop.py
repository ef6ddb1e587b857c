"""The open loop is bounded, and every request that was due is accounted for."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path

from outrider.bench.openloop import LIMIT_MS, Answer, Fate, History, OpenLoop


async def test_a_request_that_falls_due_while_all_places_are_taken_is_not_sent_and_counts_with_the_limit():
    sent: list[int] = []

    async def never(number: int, ue: int) -> Answer:
        sent.append(number)
        return await asyncio.Future()

    loop = OpenLoop(10_000, never, lambda: 7, places=5)
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

    async def send(_: int, ue: int) -> Answer:
        await standing.wait()
        return Answer(Fate.SERVED)

    loop = OpenLoop(1_000, send, lambda: 7)
    loop.start()
    while loop.open < 20:
        await asyncio.sleep(0.001)
    let_go_s = time.monotonic()
    standing.set()
    await loop.stop()
    stood = sorted(zip(loop.history.due_s, loop.history.latency_ms, strict=True))[:20]
    assert stood[0][0] < let_go_s - 0.015  # the first of them has stood for some requests' time
    assert all(ms >= (let_go_s - due_s) * 1000 for due_s, ms in stood)


async def test_requests_are_due_at_the_rate_whatever_becomes_of_them():
    loop = OpenLoop(500, lambda number, ue: _served(), lambda: 7)
    loop.start()
    while len(loop.history.due_s) < 50:
        await asyncio.sleep(0.001)
    await loop.stop()
    due = sorted(loop.history.due_s)
    assert all(abs(b - a - 0.002) < 1e-6 for a, b in pairwise(due))


async def test_a_history_is_read_as_it_was_written(tmp_path: Path):
    history = History.empty()
    history.note(1.5, 2.25, Answer(Fate.SERVED, applied=3, place=2), ue=9)
    history.note(1.0, LIMIT_MS, Answer(Fate.NOT_SENT))
    history.write(tmp_path / "history.bin")
    assert History.read(tmp_path / "history.bin") == history


async def test_a_request_is_for_the_ue_that_was_drawn_and_its_answer_is_kept():
    ues = iter(range(1, 1_000))

    async def send(number: int, ue: int) -> Answer:
        return Answer(Fate.SERVED, applied=ue * 10, place=1)

    loop = OpenLoop(1_000, send, lambda: next(ues))
    loop.start()
    while len(loop.history.due_s) < 20:
        await asyncio.sleep(0.001)
    await loop.stop()
    assert list(loop.history.ue) == list(range(1, len(loop.history.ue) + 1))
    assert list(loop.history.count) == [ue * 10 for ue in loop.history.ue]


async def test_at_a_rate_of_nothing_nothing_is_due():
    loop = OpenLoop(0, lambda number, ue: _served(), lambda: 7)
    loop.start()
    await asyncio.sleep(0.01)
    await loop.stop()
    assert loop.history == History.empty()


async def _served() -> Answer:
    return Answer(Fate.SERVED)
