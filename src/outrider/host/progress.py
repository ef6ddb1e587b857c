"""How far a host's migrations are: what the LMSF decides on, at once; numbers for people, when somebody asks.

Whoever changes a row says `rows_changed`, whoever changes a migration or a copy says `news`; both cost next to nothing.
Rows are counted by SQLite, beside the event loop, only while somebody wants to know, and a tenth of the time at most.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from outrider.core import limits
from outrider.core.ids import PARTITIONS, SHARED_STAR, key_text, partition_range
from outrider.host.migrations import HostMigration
from outrider.protocol.ownership import Ownership
from outrider.store.port import ContextStore, RowCount

if TYPE_CHECKING:
    from outrider.host.host import Host

_SHARE = 10
"""Counting takes at most one part in so many of the time."""

_DOUBTS = 100
"""Keys in doubt that are named; all are counted."""


class _Standing(NamedTuple):
    """What the LMSF decides on, as a word that is another one when it has changed; and whether rows can change it."""

    version: str
    rows_matter: bool


def _copies(store: ContextStore) -> dict[int, int]:
    """How many UEs each partition has a copy of."""
    return {p: store.copy_count(*partition_range(p)) for p in range(PARTITIONS)}


def _away(rows: list[RowCount]) -> dict[str, int]:
    """Rows of keys that are at another network, or were given to it, by network."""
    away = Counter[str]()
    for counted in rows:
        if counted.state is not Ownership.OWNED and counted.peer is not None:
            away[counted.peer] += counted.rows
    return dict(away)


def _held(rows: list[RowCount]) -> str:
    """Whether a host owns everything, or nothing, and where the rest is: what a way back waits for."""
    if all(counted.state is Ownership.OWNED for counted in rows):
        return "whole"
    some = "empty" if all(counted.state is Ownership.FOREIGN for counted in rows) else "some"
    return "-".join([some, *sorted(_away(rows))])


class Progress:
    """What the LMSF is told of this host and its migrations."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._waiting: dict[asyncio.Future[None], bool] = {}
        """Who waits for something new, and whether a changed row is something."""
        self._counting = asyncio.Lock()
        self._rows: list[RowCount] = []
        self._rows_stale = True
        self._rows_due_s = 0.0
        self._copies: dict[int, int] = {}
        self._copies_due_s = 0.0

    def news(self) -> None:
        """A migration is otherwise than before, or a copy is durable."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def rows_changed(self) -> None:
        """A row of ownership is otherwise than before."""
        self._rows_stale = True
        if any(self._waiting.values()):
            self.news()

    # -------------------------------------------------------------------------------------- what is told

    async def ownership(self, after: str | None, wait_ms: float) -> dict[str, object]:
        """What this host owns, has granted and knows to be elsewhere; `*p` and a key with a row of its own count one.
        And of how many UEs it has a context.

        Waits while the version is `after`, but not longer than that.
        """
        await self._other_than(after, wait_ms, self._holding)
        counts, rows = await self._counted_rows(), Counter[Ownership]()
        for counted in counts:
            rows[counted.state] += counted.rows
        return {
            "version": self._version(_held(counts)),
            "rows": {state.value: rows[state] for state in Ownership},
            "away": _away(counts),
            "ues": sum((await self._counted_copies()).values()),
        }

    async def migration(self, migration_id: str, after: str | None, wait_ms: float) -> dict[str, object] | None:
        """A migration as it stands; waits while the version is `after`, but not longer than that. None: unknown."""
        if self._host.migrations.get(migration_id) is None:
            return None
        await self._other_than(after, wait_ms, lambda: self._standing(migration_id))
        host, rows, copies = self._host, await self._counted_rows(), await self._counted_copies()
        m = self._known(migration_id)
        doubts = sum(c.rows for c in rows if c.state is Ownership.GRANTED and c.mig == m.migration_id)
        return {
            "version": self._version_of(m, rows),
            "migrationId": m.migration_id,
            "role": m.role,
            "peer": m.peer,
            "state": self._state(m, rows),
            **host.followers.progress(m.migration_id),
            "ues": sum(copies.values()),
            **self._numbers(m, rows, copies),
            "inDoubt": self._doubts(m) if doubts else [],
            "inDoubtCount": doubts,
            "waitingFor": self._waiting_for(m, doubts),
            "waits": host.waits.summary(),
            "cause": m.aborted,
            "storeLost": host.lost.why(m),
        }

    def _known(self, migration_id: str) -> HostMigration:
        m = self._host.migrations.get(migration_id)
        assert m is not None  # a host forgets none
        return m

    def _doubts(self, m: HostMigration) -> list[str]:
        granted = self._host.store.rows_in(Ownership.GRANTED)
        return [key_text(k) for k, row in granted.items() if row.mig == m.migration_id][:_DOUBTS]

    def _version(self, held: str) -> str:
        return f"{self._host.hello.incarnation}.{held}"

    def _version_of(self, m: HostMigration, rows: list[RowCount]) -> str:
        return self._version(self._state(m, rows) + ("-store-lost" if self._host.lost.why(m) else ""))

    def _state(self, m: HostMigration, rows: list[RowCount]) -> str:
        if m.aborted is not None:
            in_doubt = any(c.state is Ownership.GRANTED and c.mig == m.migration_id for c in rows)
            return "aborting" if in_doubt else "aborted"
        if m.finished:
            return "done"
        if m.settled:
            return "settled"
        if m.role != "home" and not self._host.followers.durable(m.migration_id):
            return "copying"
        return "relocating" if m.relocating else "following"

    def _waiting_for(self, m: HostMigration, doubts: int) -> str:
        """What has to happen next, in one sentence."""
        if m.aborted is not None:
            return f"{m.peer}'s answer for {doubts} contexts in doubt" if doubts else "nothing; it is aborted"
        if m.finished:
            return "nothing; it is over"
        if m.role == "target":
            return f"grants of {m.peer}"
        match self._state(m, []):
            case "settled":
                return "nothing; all in scope have moved"
            case "copying":
                return "the copy to become durable at the target"
            case "following":
                return "the LMSF to begin the relocation"
        return "UEs to arrive at the target" if m.sweep == "arrived" else "the sweep to end"

    @staticmethod
    def _numbers(m: HostMigration, rows: list[RowCount], copies: dict[int, int]) -> dict[str, int]:
        """How many UEs are served here, at the peer, or in doubt. A UE without a row of its own follows its `*p`."""
        apart = Counter[int]()
        for c in rows:
            if c.part[:1] == b"u":
                apart[c.part[1]] += c.rows
        own = moved = doubt = 0
        for c in rows:
            if c.part[:1] == b"u":
                ues = c.rows
            elif c.part[:1] == b"p" and c.part != SHARED_STAR:
                ues = max(0, copies.get(c.part[1], 0) - apart[c.part[1]])
            else:
                continue
            if c.state is Ownership.OWNED:
                own += ues
            elif c.state is Ownership.GRANTED:
                doubt += ues
            elif c.peer == m.peer:
                moved += ues
        if m.role == "target":
            own, moved = moved, own  # the peer's are still to come, the own have come
        return {"remainingUes": own, "movedUes": moved, "doubtUes": doubt}

    # ------------------------------------------------------------------------------------------ waiting

    async def _holding(self) -> _Standing:
        return _Standing(self._version(_held(await self._counted_rows(when_due=True))), rows_matter=True)

    async def _standing(self, migration_id: str) -> _Standing:
        """The state; only where doubts decide about it do rows have to be counted."""
        doubts = self._known(migration_id).aborted is not None
        rows = await self._counted_rows(when_due=True) if doubts else []
        return _Standing(self._version_of(self._known(migration_id), rows), rows_matter=doubts)

    async def _other_than(self, after: str | None, wait_ms: float, now: Callable[[], Awaitable[_Standing]]) -> None:
        """Wait until the version is another one, or the time is over."""
        until_s = self._host.now_s() + min(wait_ms, limits.KEEPER_WAIT_MS) / 1000
        while True:
            standing = await now()
            if standing.version != after or self._host.now_s() >= until_s:
                return
            await self._something_new(until_s, rows=standing.rows_matter)

    async def _something_new(self, until_s: float, *, rows: bool) -> None:
        """Wait for news, but not longer than that; where rows matter, until they may be counted (again), too."""
        if not (rows and self._rows_stale):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = rows
            try:
                async with asyncio.timeout_at(until_s):
                    await waiter
            except TimeoutError:
                return
            finally:
                del self._waiting[waiter]
        if rows and self._rows_stale:
            await asyncio.sleep(max(0.0, min(self._rows_due_s, until_s) - self._host.now_s()))

    # ----------------------------------------------------------------------------------------- counting

    async def _counted_rows(self, *, when_due: bool = False) -> list[RowCount]:
        """The rows as they are now; or, `when_due`, as they were counted last if it is too early to count again."""
        async with self._counting:
            if self._rows_stale and not (when_due and self._host.now_s() < self._rows_due_s):
                self._rows_stale = False
                begun_s = self._host.now_s()
                self._rows = await self._host.reading(lambda store: store.row_counts())
                pause_s = max(limits.KEEPER_COUNT_MS / 1000, _SHARE * (self._host.now_s() - begun_s))
                self._rows_due_s = self._host.now_s() + pause_s
        return self._rows

    async def _counted_copies(self) -> dict[int, int]:
        """How many copies there are, as of a moment ago: a million take a while."""
        async with self._counting:
            if self._host.now_s() >= self._copies_due_s:
                begun_s = self._host.now_s()
                self._copies = await self._host.reading(_copies)
                pause_s = max(limits.KEEPER_WAIT_MS / 1000, _SHARE * (self._host.now_s() - begun_s))
                self._copies_due_s = self._host.now_s() + pause_s
        return self._copies
