"""Requests at a fixed rate, open loop and bounded: when one is due is decided before, and none waits to be sent.

A request's latency counts from the time it was due, so a service that stands still for a moment is seen by every
request that was due in that moment. Only so many requests are open at a time; one that falls due while all places
are taken is not sent and not made up for later: it is counted as such, with the time after which a consumer gives up
as its latency. So a service that cannot serve the rate shows it in the figures, and the load ends when it is told to.
"""

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

IN_FLIGHT_S, IN_FLIGHT_MIN = 1.0, 2_000
"""Requests open at a time: those of a second, so that a pause of that length still shows as the wait that it is."""

LIMIT_MS = 5_000
"""How long a consumer waits for an answer."""

STOP_LIMIT_S = 2 * LIMIT_MS / 1000 + 3
"""For the requests still open when the load stops: each may be redirected once, and waits twice then."""

_TICK_S = 0.001


class Fate(IntEnum):
    """What became of a request."""

    UNANSWERED = 0
    SERVED = 1
    REFUSED = 2
    """Answered, but not with what was asked for."""
    NOT_SENT = 3
    """All places were taken when it was due."""


class Answer(NamedTuple):
    """What became of a request, and what its answer said."""

    fate: Fate
    applied: int = 0
    """The UE's requests that were applied, this one included; 0 where that is not said."""
    place: int = 0
    """Who served it: 1 the source, 2 the target; 0 where that is not said."""


class History(msgspec.Struct, frozen=True):
    """Of each request that was due: when, how long it took, and what became of it; in the order of their ends."""

    due_s: "array[float]"
    latency_ms: "array[float]"
    fate: "array[int]"
    ue: "array[int]"
    count: "array[int]"
    place: "array[int]"

    @classmethod
    def empty(cls) -> "History":
        """Of no request yet."""
        return cls(array("d"), array("d"), array("b"), array("I"), array("I"), array("b"))

    def note(self, due_s: float, latency_ms: float, answer: Answer, ue: int = 0) -> None:
        """One request has ended."""
        row = (due_s, latency_ms, answer.fate, ue, answer.applied, answer.place)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def write(self, path: Path) -> None:
        """To a file that `read` reads."""
        with path.open("wb") as file:
            for column in self._columns:
                file.write(len(column).to_bytes(8, "little"))
                column.tofile(file)

    @classmethod
    def read(cls, path: Path) -> "History":
        """From the file that `write` wrote."""
        history = cls.empty()
        with path.open("rb") as file:
            for column in history._columns:
                column.fromfile(file, int.from_bytes(file.read(8), "little"))
        return history

    @property
    def _columns(self) -> "tuple[array[Any], ...]":
        return self.due_s, self.latency_ms, self.fate, self.ue, self.count, self.place


class OpenLoop:
    """Calls `send` with the number of each request and a UE, drawn for it, when it is due, until it is stopped."""

    def __init__(
        self,
        rate_per_s: float,
        send: Callable[[int, int], Awaitable[Answer]],
        draw: Callable[[], int],
        places: int | None = None,
    ) -> None:
        self.history = History.empty()
        self._rate_per_s = rate_per_s
        self._send = send
        self._draw = draw
        self._places = max(IN_FLIGHT_MIN, int(rate_per_s * IN_FLIGHT_S)) if places is None else places
        self._open: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._running: asyncio.Task[None] | None = None

    @property
    def open(self) -> int:
        """Requests without an answer yet."""
        return len(self._open)

    def start(self) -> None:
        """Begin now; at a rate of 0 nothing is ever due."""
        if self._rate_per_s > 0:
            self._running = asyncio.create_task(self._run())

    async def stop(self, limit_s: float = STOP_LIMIT_S) -> None:
        """Begin nothing new, wait for what is open, and give up after the limit what has no answer by then."""
        self._stopping = True
        if self._running is not None:
            await self._running
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=limit_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)

    async def _run(self) -> None:
        start_s, number = time.monotonic(), 0
        while not self._stopping:
            due = int((time.monotonic() - start_s) * self._rate_per_s) + 1
            while number < due:
                due_s = start_s + number / self._rate_per_s
                if len(self._open) < self._places:
                    task = asyncio.create_task(self._one(number, due_s))
                    self._open.add(task)
                    task.add_done_callback(self._open.discard)
                else:
                    self.history.note(due_s, LIMIT_MS, Answer(Fate.NOT_SENT))
                number += 1
            await asyncio.sleep(_TICK_S)

    async def _one(self, number: int, due_s: float) -> None:
        ue, answer = self._draw(), Answer(Fate.UNANSWERED)
        try:
            answer = await self._send(number, ue)
        finally:
            self.history.note(due_s, (time.monotonic() - due_s) * 1000, answer, ue)
