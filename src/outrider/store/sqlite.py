"""The context store on SQLite: one file in write-ahead mode, one writer, readers beside it.

What is durable: `commit` returns after the write-ahead log has been synced (`synchronous=FULL`). What keeps a process
out that hung while its successor took over: the incarnation, which grows at each opening and is compared inside each
transaction. What happens after a fault: nothing more is written, ever, by this object.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from outrider.core.record import HeadRow, LogEntry, Record
from outrider.protocol.ownership import Ownership, Row
from outrider.store.check import check
from outrider.store.checkpoint import Checkpointer
from outrider.store.faults import fault
from outrider.store.files import opening, remove_staging, staging_file, sync
from outrider.store.mark import mark_of
from outrider.store.operations import Impossible, Operations
from outrider.store.port import (
    Chunk,
    Context,
    Durability,
    Failed,
    Operation,
    Outcome,
    PartitionSum,
    RowCount,
    Staging,
    StoreFault,
    StoreIdentity,
    StoreMark,
)
from outrider.store.reader import Reader
from outrider.store.recent import Recent
from outrider.store.schema import (
    CONTENT,
    PAGE_BYTES,
    STANDING,
    UE_START,
    UE_STOP,
    begin_file,
    check_length,
    connect,
    connect_writer,
    is_ours,
)
from outrider.store.staging import StagingFile

DIGEST_KEY_BYTES = 32

_UNDONE = (Impossible, apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, OverflowError, TypeError, ValueError)
"""Errors that concern one operation: it is undone, the others are not touched."""

T = TypeVar("T")


class SqliteStore:
    """See `port.ContextStore`, of which this is the embedded implementation."""

    identity: StoreIdentity

    def __init__(self, path: Path, durability: Durability, identity: StoreIdentity) -> None:
        """Use `open`."""
        self.identity = identity
        self.path = self._path = path
        self._durability = durability
        self._fault: StoreFault | None = None
        self._closed = False
        self._trimmed_lsn = 0
        """Trimmed by this object; what an earlier one trimmed is trimmed again, once."""
        self._recent = Recent()
        self._reader = Reader(path, self._faulted, self._recent)
        try:
            self._lsn = self._reader.last_lsn()
            self._begin_writing()
            self._decisions = int(self._writer.execute("SELECT decisions FROM store").get)
        except BaseException:
            self._reader.close()
            raise

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        durability: Durability = Durability.FULL,
        digest_key: bytes | None = None,
        admit: Callable[[StoreMark | None], None] = lambda _: None,
    ) -> "SqliteStore":
        """Open the store in this file, or create it; from then on no earlier opener can commit.

        `digest_key` is the key of the record hashes, which networks that compare digests share; given for a store
        that has another one, it raises `StoreFault`. `admit` is shown what the file holds (None: no store) before
        anything is changed; what it raises leaves the file as it was.
        """
        path = Path(path).absolute()
        with opening(path):
            try:
                check_length(path)
                admit(mark_of(path))
                identity = _enter(path, digest_key)
                remove_staging(path)
                return cls(path, durability, identity)
            except (apsw.Error, OSError) as error:
                raise fault(path, "opening the store", error) from error

    # --------------------------------------------------------------------------------------- writing

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """See `port.ContextStore.commit`."""
        if not operations:
            return []
        self._recent.begin(operations)
        try:
            outcomes = self._transaction("committing", lambda: self._run_all(operations))
        except _UNDONE:
            # One of them is impossible. Savepoints cost a fifth of the throughput, so only now is there one for each.
            outcomes = self._transaction("committing", lambda: self._run_each(operations))
        self._reader.committed(operations, outcomes, self._committed_units)
        return outcomes

    def trim_log(self, through_lsn: int) -> None:
        """See `port.ContextStore.trim_log`."""
        self._refuse_after_fault()
        through = min(through_lsn, self._lsn)
        if through <= self._trimmed_lsn:
            return

        def trim() -> None:
            self._writer.execute("DELETE FROM log WHERE lsn <= ?", (through,))
            self._writer.execute("UPDATE store SET trimmed_lsn = max(trimmed_lsn, ?)", (through,))

        self._transaction("trimming the log", trim)
        self._trimmed_lsn = through

    def _run_all(self, operations: Sequence[Operation]) -> list[Outcome]:
        run = Operations(self._writer, self.identity.digest_key, self._lsn, self._recent)
        outcomes = run.run(operations)
        self._ran(run)
        return outcomes

    def _ran(self, run: Operations) -> None:
        self._committed_lsn, self._committed_units = run.lsn, run.units
        if run.decisions:
            self._committed_decisions = self._decisions + run.decisions
            self._writer.execute("UPDATE store SET decisions = ?", (self._committed_decisions,))

    def _run_each(self, operations: Sequence[Operation]) -> list[Outcome]:
        run = Operations(self._writer, self.identity.digest_key, self._lsn)
        outcomes: list[Outcome] = []
        for operation in operations:
            lsn, units = run.lsn, len(run.units)
            self._writer.execute("SAVEPOINT operation")
            try:
                outcomes += run.run([operation])
            except _UNDONE as error:
                self._writer.execute("ROLLBACK TO operation")
                run.lsn = lsn
                del run.units[units:]
                outcomes.append(Failed(str(error)))
            self._writer.execute("RELEASE operation")
        self._ran(run)
        return outcomes

    def _transaction(self, doing: str, work: Callable[[], T]) -> T:
        """Run this as one durable transaction of this incarnation."""
        self._refuse_after_fault()
        try:
            self._checkpointer.before_commit(self._writer)
            self._committed_lsn, self._committed_decisions = self._lsn, self._decisions
            self._check_place()
            self._writer.execute("BEGIN IMMEDIATE")
            self._check_incarnation()
            result = work()
            self._writer.execute("COMMIT")
        except _UNDONE:
            self._roll_back()
            raise
        except apsw.Error as error:
            raised = fault(self._path, doing, error)
            self._faulted(raised)
            self._roll_back()
            raise raised from error
        except BaseException as error:  # a fault found by ourselves, or a bug: either way nothing may be half done
            self._faulted(error if isinstance(error, StoreFault) else StoreFault(f"{self._path}: {doing}: {error!r}"))
            self._roll_back()
            raise
        self._lsn, self._decisions = self._committed_lsn, self._committed_decisions
        return result

    def _roll_back(self) -> None:
        # If this fails, a fault is on its way already, and a transaction that is not committed is not there.
        with contextlib.suppress(apsw.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _check_place(self) -> None:
        """What is written to a file that has another one in its place, or no name any more, is in no store."""
        if self.replaced():
            raise StoreFault(
                f"{self._path}: the file was deleted, or another one is in its place. Nothing was written; put the "
                "newest one back, with its -wal file, and start again."
            )

    def replaced(self) -> bool:
        """Whether the file that is open here is no longer the one at its path."""
        try:
            found = os.stat(self._path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._place

    @property
    def mark(self) -> StoreMark:
        """How far this store is."""
        return StoreMark(self.identity.store_id, self.identity.incarnation, self._lsn + self._decisions)

    def _check_incarnation(self) -> None:
        for store_id, incarnation in self._writer.execute("SELECT store_id, incarnation FROM store"):
            if (store_id, incarnation) == (self.identity.store_id, self.identity.incarnation):
                return
            raise StoreFault(
                f"{self._path}: another process has opened this store since (incarnation {incarnation}, "
                f"this is {self.identity.incarnation}). Nothing was written; this process must end."
            )

    def _refuse_after_fault(self) -> None:
        if self._fault is not None:
            raise StoreFault(f"{self._fault} The store takes no more commits since then; end this process.")

    def _faulted(self, raised: StoreFault) -> None:
        self._fault = self._fault or raised

    def _begin_writing(self) -> None:
        self._writer = connect_writer(self._path, self._durability)
        self._writer.pragma("journal_mode", "wal")
        here = os.stat(self._path)
        self._place = (here.st_dev, here.st_ino)
        self._checkpointer = Checkpointer(self._path, self._durability, self._faulted)
        self._writer.set_wal_hook(self._grown)

    def _grown(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._checkpointer.grown(pages)
        return apsw.SQLITE_OK

    # --------------------------------------------------------------------------------------- staging

    def stage(self, name: str) -> Staging:
        """See `port.ContextStore.stage`."""
        self._refuse_after_fault()
        if self._reader.has_copy_without_row(UE_START, UE_STOP):
            raise ValueError("the store has copies of UEs that follow their partition; erase or adopt them first")
        staging_file(self._path, name).unlink(missing_ok=True)
        return StagingFile(self._path, name, self.identity.digest_key)

    def adopt(self, staging: Staging) -> None:
        """See `port.ContextStore.adopt`."""
        if not isinstance(staging, StagingFile):
            raise TypeError("a staging file of this store is adopted")
        with opening(self._path):
            self._transaction("adopting the staging file", lambda: None)  # this is still the newest incarnation
            staging.seal()
            with self._reader.pause():
                try:
                    self._exchange(staging.path)
                except (apsw.Error, OSError) as error:
                    raised = fault(self._path, "adopting the staging file", error)
                    self._faulted(raised)
                    raise raised from error

    def _exchange(self, sealed: Path) -> None:
        self._stop_writing()
        if self._wal().exists():
            # The last connection removes it. A log of the old file beside the new one would destroy the new one.
            raise apsw.BusyError("the write-ahead log is in use")
        sealed.replace(self._path)
        sync(self._path.parent)
        self._begin_writing()

    def _wal(self) -> Path:
        return Path(f"{self._path}-wal")

    def _stop_writing(self) -> None:
        self._checkpointer.stop()
        self._writer.close()

    # --------------------------------------------------------------------------------------- reading

    def row(self, key: bytes) -> Row:
        """See `port.ContextStore.row`."""
        return self._reader.row(key)

    def own_rows(self, start: bytes, stop: bytes) -> dict[bytes, Row]:
        """See `port.ContextStore.own_rows`."""
        return self._reader.own_rows(start, stop)

    def rows_in(self, state: Ownership) -> dict[bytes, Row]:
        """See `port.ContextStore.rows_in`."""
        return self._reader.rows_in(state)

    def row_counts(self) -> list[RowCount]:
        """See `port.ContextStore.row_counts`."""
        return self._reader.row_counts()

    def copy_count(self, start: bytes, stop: bytes) -> int:
        """See `port.ContextStore.copy_count`."""
        return self._reader.copy_count(start, stop)

    def context(self, key: bytes) -> Context:
        """See `port.ContextStore.context`."""
        return self._reader.context(key)

    def key_of(self, identity: str) -> bytes | None:
        """See `port.ContextStore.key_of`."""
        return self._reader.key_of(identity)

    def identity_of(self, key: bytes) -> str | None:
        """See `port.ContextStore.identity_of`."""
        return self._reader.identity_of(key)

    def chunk(self, start: bytes, stop: bytes, limit: int) -> Chunk:
        """See `port.ContextStore.chunk`."""
        return self._reader.chunk(start, stop, limit)

    def log(self, after_lsn: int, limit: int) -> list[LogEntry]:
        """See `port.ContextStore.log`."""
        return self._reader.log(after_lsn, limit)

    def last_lsn(self) -> int:
        """See `port.ContextStore.last_lsn`."""
        return self._reader.last_lsn()

    def partition_sum(self, start: bytes, stop: bytes, without: Iterable[bytes] = ()) -> PartitionSum:
        """See `port.ContextStore.partition_sum`."""
        return self._reader.partition_sum(start, stop, without)

    def heads(self, start: bytes, stop: bytes) -> list[HeadRow]:
        """See `port.ContextStore.heads`."""
        return self._reader.heads(start, stop)

    def due_timers(self, through_ms: int, limit: int) -> list[Record]:
        """See `port.ContextStore.due_timers`."""
        return self._reader.due_timers(through_ms, limit)

    def next_due_ms(self) -> int | None:
        """See `port.ContextStore.next_due_ms`."""
        return self._reader.next_due_ms()

    def outbox_keys(self) -> list[bytes]:
        """See `port.ContextStore.outbox_keys`."""
        return self._reader.outbox_keys()

    def outbox(self, key: bytes, limit: int) -> list[Record]:
        """See `port.ContextStore.outbox`."""
        return self._reader.outbox(key, limit)

    def value(self, name: str) -> bytes | None:
        """See `port.ContextStore.value`."""
        return self._reader.value(name)

    def values(self, prefix: str) -> dict[str, bytes]:
        """See `port.ContextStore.values`."""
        return self._reader.values(prefix)

    def check(self) -> list[str]:
        """See `port.ContextStore.check`."""
        return check(self._path)

    def close(self) -> None:
        """See `port.ContextStore.close`."""
        if self._closed:
            return
        self._closed = True
        self._reader.close()
        if self._fault is not None:  # leave the write-ahead log as it is, for the next opener to recover
            with contextlib.suppress(apsw.ConnectionClosedError):
                self._writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._stop_writing()


def _enter(path: Path, digest_key: bytes | None) -> StoreIdentity:
    """Create the store if there is none, and durably begin a new incarnation of it."""
    db = connect(path, create=True)
    try:
        db.pragma("page_size", PAGE_BYTES)  # of a file that is still empty
        new = not is_ours(db, path)
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "full")
        db.execute("BEGIN IMMEDIATE")
        if new:
            begin_file(db, CONTENT + STANDING)
            key = digest_key or secrets.token_bytes(DIGEST_KEY_BYTES)
            db.execute("INSERT INTO store VALUES (1, ?, 0, ?, 0, 0)", (secrets.token_hex(16), key))
        entered: list[Any] = db.execute(
            "UPDATE store SET incarnation = incarnation + 1 RETURNING store_id, incarnation, digest_key"
        ).fetchall()
        store_id, incarnation, key = entered[0]
        if digest_key is not None and key != digest_key:
            raise StoreFault(
                f"{path}: the store has another digest key than the one given, so its digests would equal nobody's. "
                "Nothing was changed; give the key it was created with, or a fresh file."
            )
        db.execute("COMMIT")
        if new:
            sync(path.parent)
        return StoreIdentity(store_id, incarnation, key)
    finally:
        db.close()
