"""An LMSF's journal on a simulated disk: production's, but for when a write happens and what a crash leaves of it.

Writes are made one after the other, each one sync after its turn has come, and told a moment later. A crash leaves the
first few of those that wait, or none: each is a transaction of SQLite, which a torn write-ahead log takes away whole.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw

from outrider.functions.lmsf.journal import Journal, Kind, Logged
from outrider.sim.whole.disk import Disk

Kept = Callable[[Kind, str, bytes | None], None]
"""Is told what is durable from now on: kind, name and content of a document; None where it was dropped."""


class _Write(NamedTuple):
    do: Callable[[], object]
    kind: Kind
    name: str
    body: bytes | None
    done: "asyncio.Future[None]"


class VirtualJournal(Journal):
    """See the module."""

    def __init__(self, path: Path, disk: Disk, kept: Kept, reached: Callable[[], None]) -> None:
        """`reached` is told of each write that is durable, before whoever waits for it is."""
        super().__init__(path)
        self._loop = asyncio.get_running_loop()
        self._disk = disk
        self._kept = kept
        self._reached = reached
        self._line: deque[_Write] = deque()

    async def put(self, kind: Kind, name: str, body: bytes, *, event: tuple[str, Logged] | None = None) -> None:
        """Keep a document, and the event that changed it, in one transaction."""
        await self._write(lambda: self._put(kind, name, body, event), kind, name, body)

    async def drop(self, kind: Kind, name: str) -> None:
        """Forget a document."""
        statement = "DELETE FROM document WHERE kind = ? AND name = ?"
        await self._write(lambda: self._db.execute(statement, (kind, name)), kind, name, None)

    async def _write(self, do: Callable[[], object], kind: Kind, name: str, body: bytes | None) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self._line.append(_Write(do, kind, name, body, done))
        if len(self._line) == 1:
            self._loop.call_later(self._disk.sync_s(), self._synced)
        await done

    def _synced(self) -> None:
        write = self._line[0]
        if self._disk.full:
            self._loop.call_soon_threadsafe(_fail, write.done)
        else:
            self._make(write)
            self._reached()
            self._loop.call_soon_threadsafe(_finish, write.done)
        self._line.popleft()
        if self._line:
            self._loop.call_later(self._disk.sync_s(), self._synced)

    def _make(self, write: _Write) -> None:
        write.do()
        self._kept(write.kind, write.name, write.body)

    def crash(self) -> str:
        """The machine goes down; what became of the writes under way."""
        waiting = len(self._line)
        kept = 0 if self._disk.full else self._disk.chance.randint(0, waiting)
        for write in list(self._line)[:kept]:
            self._make(write)
        self.close()
        return f"{kept} of {waiting} writes kept" if waiting else "no write was under way"


def _finish(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_exception(apsw.FullError("database or disk is full"))
