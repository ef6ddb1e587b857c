"""An LMSF's journal on a simulated disk: production's, but for when a write happens and what a crash leaves of it.

Writes are made one after the other, each one sync after its turn has come, and told a moment later. A crash leaves the
first few of those that wait, or none: each is a transaction of SQLite, which a torn write-ahead log takes away whole.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import apsw

from outrider.core.audit import Entry
from outrider.core.refusal import Refused
from outrider.functions.lmsf.journal import Journal, Kind, Logged, unwritable
from outrider.functions.lmsf.ports import Clock
from outrider.sim.whole.disk import Disk

T = TypeVar("T")

Kept = Callable[[Kind, str, bytes | None], None]
"""Is told what is durable from now on: kind, name and content of a document; None where it was dropped."""


Changed = tuple[Kind, str, bytes | None]


class _Write(NamedTuple):
    do: Callable[[], Any]
    changed: Changed | None
    """The document that it keeps or drops."""
    done: "asyncio.Future[Any]"


class VirtualJournal(Journal):
    """See the module."""

    def __init__(
        self, path: Path, network: str, clock: Clock, *, disk: Disk, kept: Kept, reached: Callable[[], None]
    ) -> None:
        """`reached` is told of each write that is durable, before whoever waits for it is."""
        super().__init__(path, network, clock)
        self._loop = asyncio.get_running_loop()
        self._disk = disk
        self._kept = kept
        self._reached = reached
        self._changes: Changed | None = None
        self._line: deque[_Write] = deque()

    async def put(
        self,
        kind: Kind,
        name: str,
        body: bytes,
        *,
        event: tuple[str, Logged] | None = None,
        audit: Sequence[Entry] = (),
    ) -> None:
        """See `Journal.put`."""
        self._changes = kind, name, body
        await super().put(kind, name, body, event=event, audit=audit)

    async def drop(self, kind: Kind, name: str, *, audit: Sequence[Entry] = ()) -> None:
        """See `Journal.drop`."""
        self._changes = kind, name, None
        await super().drop(kind, name, audit=audit)

    async def _write(self, do: Callable[[], T]) -> T:
        changed, self._changes = self._changes, None  # set by this very call: nothing else has run since
        done: asyncio.Future[T] = self._loop.create_future()
        self._line.append(_Write(do, changed, done))
        if len(self._line) == 1:
            self._loop.call_later(self._disk.sync_s(), self._synced)
        return await done

    def _synced(self) -> None:
        write = self._line[0]
        if self._disk.full:
            full = apsw.FullError("database or disk is full")
            self._loop.call_soon_threadsafe(_fail, write.done, Refused(unwritable(self.path, full)))
        else:
            made = self._make(write)
            self._reached()
            self._loop.call_soon_threadsafe(_finish, write.done, made)
        self._line.popleft()
        if self._line:
            self._loop.call_later(self._disk.sync_s(), self._synced)

    def _make(self, write: _Write) -> Any:
        made = self._transaction(write.do)
        if write.changed is not None:
            self._kept(*write.changed)
        return made

    def crash(self) -> str:
        """The machine goes down; what became of the writes under way."""
        waiting = len(self._line)
        kept = 0 if self._disk.full else self._disk.chance.randint(0, waiting)
        for write in list(self._line)[:kept]:
            self._make(write)
        self.close()
        return f"{kept} of {waiting} writes kept" if waiting else "no write was under way"


def _finish(done: "asyncio.Future[Any]", made: Any) -> None:
    if not done.done():
        done.set_result(made)


def _fail(done: "asyncio.Future[Any]", why: Refused) -> None:
    if not done.done():
        done.set_exception(why)
