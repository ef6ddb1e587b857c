"""The LMSF's memory: one SQLite file; nothing is acted on before it is in here, durably.

Documents (migrations, deployments, packages, how far stores were) are kept whole, by name; beside them the events
of each migration in their order, which nothing reads but people, and the audit log (`audit_log`). What an audit event
records and the event itself are one transaction. Writes run on one thread, so that an fsync does not stop the node's
loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import apsw

from outrider.core.audit import Entry
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf import audit_log
from outrider.functions.lmsf.audit_log import AuditLog
from outrider.functions.lmsf.ports import Clock
from outrider.store.faults import fault

T = TypeVar("T")

Kind = Literal[
    "migration", "deployment", "package", "software", "permission", "revocation", "store", "anew", "approval"
]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS document (
  kind TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY, migration TEXT NOT NULL, at_ms INTEGER NOT NULL,
  event TEXT NOT NULL, phase TEXT NOT NULL, why TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS decision (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, migration TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS event_of ON event (migration, seq);
"""


class Logged(NamedTuple):
    """One event in the life of a migration."""

    at_ms: int
    event: str
    phase: str
    why: str


class Journal:
    """Documents and events, durable when a call returns.

    What cannot be written raises `Refused` (`AUDIT_UNWRITABLE`, `NODE_STOPPING`): nothing of it was, and it must not be
    done.
    """

    def __init__(self, path: Path, network: str, clock: Clock) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(5_000)
        self._db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON")
        self._db.execute(_SCHEMA)
        self._db.execute(audit_log.SCHEMA)
        self._audit = AuditLog(self._db, network)
        self._clock = clock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lmsf-journal")
        self._closed = False

    async def put(
        self,
        kind: Kind,
        name: str,
        body: bytes,
        *,
        event: tuple[str, Logged] | None = None,
        audit: Sequence[Entry] = (),
    ) -> None:
        """Keep a document, the event that changed it, and what the audit log says of it, in one transaction."""

        def put() -> None:
            self._db.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (kind, name, body))
            if event is not None:
                migration, logged = event
                self._db.execute(
                    "INSERT INTO event (migration, at_ms, event, phase, why) VALUES (?, ?, ?, ?, ?)",
                    (migration, *logged),
                )
            self._audit.append(self._clock.now_ms(), audit)

        await self._write(put)

    async def drop(self, kind: Kind, name: str, *, audit: Sequence[Entry] = ()) -> None:
        """Forget a document."""

        def drop() -> None:
            self._db.execute("DELETE FROM document WHERE kind = ? AND name = ?", (kind, name))
            self._audit.append(self._clock.now_ms(), audit)

        await self._write(drop)

    async def record(self, *entries: Entry) -> None:
        """Add to the audit log what changes no document."""
        await self._write(lambda: self._audit.append(self._clock.now_ms(), entries))

    async def audited(self, do: Callable[[AuditLog], T]) -> T:
        """Read the audit log or write to it, in one transaction."""
        return await self._write(lambda: do(self._audit))

    async def _write(self, do: Callable[[], T]) -> T:
        if self._closed:
            raise Refused(_STOPPING)
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._transaction, do)

    def _transaction(self, do: Callable[[], T]) -> T:
        try:
            with self._db:
                done = do()
        except apsw.Error as error:
            if not self._db.getautocommit():
                self._db.execute("ROLLBACK")
            refusal = unwritable(self.path, error)
        else:
            return done
        # Raised out here, so that it does not hold the error's frames: a statement in one would block each commit.
        raise Refused(refusal)

    def all(self, kind: Kind) -> list[bytes]:
        """Every document of a kind, by name; for the start."""
        return [row[0] for row in self._db.execute("SELECT body FROM document WHERE kind = ? ORDER BY name", (kind,))]

    async def events(self, migration: str) -> Sequence[Logged]:
        """What happened to a migration, in order."""

        def read() -> list[Logged]:
            rows = self._db.execute(
                "SELECT at_ms, event, phase, why FROM event WHERE migration = ? ORDER BY seq", (migration,)
            )
            return [Logged(*row) for row in rows]

        return await asyncio.get_running_loop().run_in_executor(self._writer, read)

    async def decided(self, at_ms: int, migration: str, body: bytes, *, keep: int) -> None:
        """Keep a decision of the policy, and of all decisions the last `keep`."""

        def write() -> None:
            self._db.execute("INSERT INTO decision (at_ms, migration, body) VALUES (?, ?, ?)", (at_ms, migration, body))
            self._db.execute("DELETE FROM decision WHERE seq <= ?", (self._db.last_insert_rowid() - keep,))

        await self._write(write)

    async def decisions(
        self, *, since_ms: int = 0, migration: str = "", after: int = 0, limit: int = 100
    ) -> list[tuple[int, int, str, bytes]]:
        """Kept decisions from a time on, after a number, in their order: number, time, migration, body."""
        statement = "SELECT seq, at_ms, migration, body FROM decision WHERE seq > ? AND at_ms >= ?"
        values: tuple[int | str, ...] = (after, since_ms)
        if migration:
            statement, values = f"{statement} AND migration = ?", (*values, migration)

        def read() -> list[tuple[int, int, str, bytes]]:
            return [*self._db.execute(f"{statement} ORDER BY seq LIMIT ?", (*values, limit))]

        return await asyncio.get_running_loop().run_in_executor(self._writer, read)

    def close(self) -> None:
        """Finish what is being written and close the file; who asks for more is refused."""
        self._closed = True
        self._writer.shutdown(wait=True)
        self._db.close()


_STOPPING = Refusal(
    "NODE_STOPPING",
    "Nothing was done: this node is going down.",
    remedy="It is safe to ask again when the node is back.",
    status=503,
)


def unwritable(path: Path, error: apsw.Error) -> Refusal:
    """Why nothing is done: the disk does not take what would be recorded of it."""
    return Refusal(
        "AUDIT_UNWRITABLE",
        f"Nothing was done, because it cannot be recorded: {fault(path, 'writing', error)}",
        {"file": path.name},
        "It is safe to ask again when that is put right.",
        status=503,
    )
