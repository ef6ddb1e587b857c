"""Fires the timers of the keys that this host owns, once each (PROTOCOL.md §5).

A firing is a unit with the key (timer, generation), whose commit deletes the timer or arms it anew. Copies of timers
of keys owned elsewhere are inert: they are looked at and left. An overdue timer fires as soon as its key is owned here.
"""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from outrider.core import limits
from outrider.core.record import Record, TimerBody
from outrider.host.failpoints import reach
from outrider.host.jobs import Job
from outrider.protocol.messages import Carried
from outrider.protocol.ownership import Ownership

if TYPE_CHECKING:
    from outrider.host.host import Host

_decode = msgspec.msgpack.Decoder(TimerBody).decode


class Timers:
    """One loop over the store's due times."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._wake = asyncio.Event()
        self._firing: set[tuple[bytes, str, str]] = set()
        self._task: asyncio.Task[None] | None = None
        self.fired_count = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="timers")
        self._task.add_done_callback(self._host.ended)

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look(self) -> None:
        """A timer may have been armed, or a key with timers has come."""
        self._wake.set()

    async def _run(self) -> None:
        host = self._host
        while True:
            self._wake.clear()
            now_ms = host.utc_ms()
            due = host.store.due_timers(now_ms, limits.TIMER_BATCH)
            for record in due:
                self._fire(record)
            upcoming = host.store.next_due_ms()
            delay_ms = float(limits.TIMER_LOOK_MS)
            if upcoming is not None and upcoming > now_ms:
                delay_ms = min(delay_ms, upcoming - now_ms)
            try:
                async with asyncio.timeout(delay_ms / 1000):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _fire(self, record: Record) -> None:
        host = self._host
        name = (record.key, record.nf, record.id)
        if name in self._firing or host.store.row(record.key).state is not Ownership.OWNED:
            return
        self._firing.add(name)
        body = _decode(record.body)
        timer_id = f"t/{record.nf}/{record.id}/{body.generation}"
        carried = Carried(
            method="POST", path="", query="", headers=[], body=body.data, answer_id=timer_id, consumer="",
            kind="timer", name=record.id, nf=record.nf,
        )  # fmt: skip
        now_s = host.now_s()
        job = Job(
            carried, now_s + limits.REQUEST_LIMIT_MS / 1000, asyncio.get_running_loop().create_future(), now_s,
            timer_id=timer_id,
        )  # fmt: skip
        job.reply.add_done_callback(lambda _: self._fired(name))
        host.actor(record.key).submit(job)

    def _fired(self, name: tuple[bytes, str, str]) -> None:
        reach("timer-fired")
        self._firing.discard(name)
        self.fired_count += 1
