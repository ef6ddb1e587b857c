"""Reading a store while it is written: each answer is one snapshot, of all that has been committed by then.

Two connections: one for what a request needs, and one for bulk reads, so that no request waits for a chunk.
"""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw

from outrider.core.ids import star_of
from outrider.core.record import NO_HEAD, Head, HeadRow, LogEntry, Record
from outrider.protocol.ownership import Ownership, Row
from outrider.store.bulk import Bulk
from outrider.store.faults import OnFault, fault
from outrider.store.packed import HeadColumns, RecordColumns
from outrider.store.port import Chunk, Context, Operation, Outcome, PartitionSum, RowCount
from outrider.store.recent import Recent, Units
from outrider.store.schema import REC_COLUMNS, ROW_COLUMNS, connect, effective, row_of, star_in_sql, state_of
from outrider.store.timers import DueTimers

_HELD = f"""
SELECT 0, {ROW_COLUMNS} FROM it CROSS JOIN row USING (k)
UNION ALL SELECT 1, {ROW_COLUMNS} FROM it CROSS JOIN row ON row.k = it.star
UNION ALL SELECT 2, epoch, n, digest, NULL, NULL, NULL FROM it CROSS JOIN head USING (k)
UNION ALL SELECT 3, kind, nf, id, body, version, due_ms FROM it CROSS JOIN rec USING (k)"""
_CONTEXT = f"WITH it (k, star) AS (VALUES (?1, ?2)) {_HELD}"
_IF_OWNED = f"{_HELD} WHERE {state_of('it.k')} = 'owned'"
_BY_KEY = f"WITH it (k, star) AS (VALUES (?1, ?2)) {_IF_OWNED}"
_BY_IDENTITY = f"""
WITH it (k, star) AS MATERIALIZED (SELECT k, {star_in_sql("k")} FROM ident WHERE identity = ?1)
SELECT 4, k, NULL, NULL, NULL, NULL, NULL FROM it UNION ALL {_IF_OWNED}"""
_OWNED = f"{state_of('rec.k')} = 'owned'"
_LAST_LSN = "SELECT coalesce((SELECT max(lsn) FROM log), (SELECT trimmed_lsn FROM store))"


class _Reading:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path, on_fault: OnFault) -> None:
        self.lock = threading.RLock()
        self._path = path
        self._on_fault = on_fault
        self._db: apsw.Connection | None = None
        self._closed = False

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """The rows of one statement, which is one snapshot."""
        with self.lock:
            try:
                if self._db is None:
                    if self._closed:
                        raise apsw.ConnectionClosedError("closed")
                    self._db = connect(self._path)
                return self._db.execute(sql, bindings).fetchall()
            except apsw.Error as error:
                raised = fault(self._path, "reading", error)
                self._on_fault(raised)
                raise raised from error

    def let_go(self) -> None:
        """Close the connection; the next statement opens one again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        """Close the connection for good."""
        with self.lock:
            self._closed = True
            self.let_go()


class Reader:
    """The reading half of the port. Any thread may call it; point reads do not wait for bulk reads."""

    def __init__(self, path: Path, on_fault: OnFault = lambda raised: None, recent: Recent | None = None) -> None:
        """`recent` is for the reader beside the writer, which hears of every commit; no other may remember anything."""
        self._recent = recent or Recent(remembers=False)
        self._point = _Reading(path, on_fault)
        self._bulk = _Reading(path, on_fault)
        self._few = Bulk(self._point.rows)
        self._many = Bulk(self._bulk.rows)
        self.timers = DueTimers(self._point.rows)

    def pause(self) -> "_Paused":
        """With both connections closed, and readers waiting, until the block ends: for exchanging the file."""
        return _Paused(self._recent, self._bulk, self._point)

    def committed(self, operations: Sequence[Operation], outcomes: Sequence[Outcome], units: Sequence[Units]) -> None:
        """These operations are durable; called by the writer before anybody else hears of it."""
        self.timers.committed(operations, outcomes)
        self._recent.committed(operations, outcomes, units)

    def close(self) -> None:
        """Close both connections."""
        self._point.close()
        self._bulk.close()

    # ------------------------------------------------------------------------------------ point reads

    def row(self, key: bytes) -> Row:
        """See `ContextStore.row`."""
        kept = self._recent.row(key)
        if kept is not None:
            return kept
        found = self._look(_BY_KEY, (key, star_of(key)), key).row
        return self._recent.row(key) or found  # see `recent`: what is kept by now goes before what the file says

    def key_of(self, identity: str) -> bytes | None:
        """See `ContextStore.key_of`."""
        kept = self._recent.key_of(identity)
        return self._look(_BY_IDENTITY, (identity,), None, identity).key or None if kept is None else kept

    def context(self, key: bytes) -> Context:
        """See `ContextStore.context`."""
        kept = self._recent.context(key)
        if kept is not None:
            return kept
        found = self._read(_CONTEXT, (key, star_of(key)), key)
        return self._recent.context(key) or found

    def _look(self, sql: str, bindings: Sequence[Any], key: bytes | None, identity: str | None = None) -> Context:
        """What a request needs, in one statement: the row and, if it says OWNED, the rest; and remember it.

        `key` is None where the statement finds it. The context has no key if there is none.
        """
        commits = self._recent.commits
        context = self._read(sql, bindings, key)
        if context.key:
            self._recent.read(context, identity, commits)
        return context

    def _read(self, sql: str, bindings: Sequence[Any], key: bytes | None) -> Context:
        own = star = None
        head = NO_HEAD
        records = []
        for what, a, b, c, d, e, f in self._point.rows(sql, bindings):
            if what == 3:
                records.append((a, b, c, d, e, f))
            elif what == 2:
                head = Head(a, b, c)
            elif what == 4:
                key = a
            elif what:
                star = row_of(a, b, c, d, e, f)
            else:
                own = row_of(a, b, c, d, e, f)
        key = key or b""
        return Context(key, effective(own, star), own is not None, head, [Record(key, *r) for r in records])

    def identity_of(self, key: bytes) -> str | None:
        """See `ContextStore.identity_of`."""
        rows = self._point.rows("SELECT identity FROM ident WHERE k = ? ORDER BY seq LIMIT 1", (key,))
        return rows[0][0] if rows else None

    def value(self, name: str) -> bytes | None:
        """See `ContextStore.value`."""
        rows = self._point.rows("SELECT value FROM val WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def values(self, prefix: str) -> dict[str, bytes]:
        """See `ContextStore.values`."""
        sql = "SELECT name, value FROM val WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1 ORDER BY name"
        return dict(self._point.rows(sql, (prefix,)))

    def last_lsn(self) -> int:
        """See `ContextStore.last_lsn`."""
        return int(self._point.rows(_LAST_LSN)[0][0])

    def outbox(self, key: bytes, limit: int) -> list[Record]:
        """See `ContextStore.outbox`."""
        sql = f"SELECT {REC_COLUMNS} FROM rec INDEXED BY outbox WHERE kind = 3 AND k = ? ORDER BY id LIMIT ?"
        return list(map(Record._make, self._point.rows(sql, (key, limit))))

    def own_rows(self, start: bytes, stop: bytes) -> dict[bytes, Row]:
        """See `ContextStore.own_rows`."""
        return self._few.own_rows(start, stop)

    def due_timers(self, through_ms: int, limit: int) -> list[Record]:
        """See `ContextStore.due_timers`."""
        return self.timers.due(through_ms, limit)

    def next_due_ms(self) -> int | None:
        """See `ContextStore.next_due_ms`."""
        return self.timers.next_ms()

    def outbox_keys(self) -> list[bytes]:
        """See `ContextStore.outbox_keys`."""
        sql = f"SELECT DISTINCT k FROM rec INDEXED BY outbox WHERE kind = 3 AND {_OWNED} ORDER BY k"
        return [key for (key,) in self._point.rows(sql)]

    # ------------------------------------------------------------------------------------- bulk reads

    def log(self, after_lsn: int, limit: int) -> list[LogEntry]:
        """See `ContextStore.log`."""
        return self._many.log(after_lsn, limit)

    def chunk(self, start: bytes, stop: bytes, limit: int) -> Chunk:
        """See `ContextStore.chunk`."""
        end, read_lsn, heads, records = self.columns(start, stop, limit)
        return Chunk(start, end, read_lsn, heads.rows(), records.rows())

    def columns(self, start: bytes, stop: bytes, limit: int) -> tuple[bytes, int, HeadColumns, RecordColumns]:
        """A chunk as it travels: where it ends, the lsn that it was read at, heads and records."""
        with self._bulk.lock:
            self._bulk.rows("BEGIN")
            try:
                read_lsn = int(self._bulk.rows(_LAST_LSN)[0][0])
                end, heads, records = self._many.chunk(start, stop, limit)
                return end, read_lsn, heads, records
            finally:
                self._bulk.rows("COMMIT")

    def heads(self, start: bytes, stop: bytes) -> list[HeadRow]:
        """See `ContextStore.heads`."""
        return self._many.heads(start, stop)

    def rows_in(self, state: Ownership) -> dict[bytes, Row]:
        """See `ContextStore.rows_in`."""
        return self._few.rows_in(state)

    def row_counts(self) -> list[RowCount]:
        """See `ContextStore.row_counts`."""
        return self._many.row_counts()

    def copy_count(self, start: bytes, stop: bytes) -> int:
        """See `ContextStore.copy_count`."""
        return self._many.copy_count(start, stop)

    def partition_sum(self, start: bytes, stop: bytes, without: Iterable[bytes] = ()) -> PartitionSum:
        """See `ContextStore.partition_sum`."""
        return self._many.partition_sum(start, stop, without)

    def has_copy_without_row(self, start: bytes, stop: bytes) -> bool:
        """Whether there is a copy whose key has no row of its own."""
        sql = (
            "SELECT 1 FROM head WHERE k >= ? AND k < ? AND NOT EXISTS (SELECT 1 FROM row WHERE row.k = head.k) LIMIT 1"
        )
        return bool(self._bulk.rows(sql, (start, stop)))


class _Paused:
    def __init__(self, recent: Recent, *readings: _Reading) -> None:
        self._recent = recent
        self._readings = readings

    def __enter__(self) -> None:
        for reading in self._readings:
            reading.lock.acquire()
            reading.let_go()
        self._recent.clear()

    def __exit__(self, *_: object) -> None:
        for reading in self._readings:
            reading.lock.release()
