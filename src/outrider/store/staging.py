"""The staging file: a bulk-load copy beside the live store, which becomes the live one (PROTOCOL.md §7).

It has no journal and is not synced, so it takes records several times as fast as the live file; a crash discards it.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import apsw

from outrider.core.record import HeadRow, LogEntry, Record
from outrider.store.bulk import Bulk
from outrider.store.content import Content
from outrider.store.faults import fault
from outrider.store.files import staging_file, sync
from outrider.store.overlay import following
from outrider.store.port import Followed, PartitionSum, StagingBroken
from outrider.store.schema import CONTENT, PAGE_BYTES, STANDING, begin_file, connect, state_of

_CACHE_KIB = 4 * 1024
"""Pages are written once, in order; a larger cache only falls out of the processor's."""

_SYNC_BYTES = 64 * 1024 * 1024
"""So much is given to the disk while more is loaded; left to the end, a gigabyte takes it seconds."""

_CARRIED = f"""
CREATE TEMP TABLE carried AS
SELECT here.k FROM live.head AS here LEFT JOIN main.head AS staged ON staged.k = here.k
WHERE staged.k IS NULL OR (here.epoch, here.n) >= (staged.epoch, staged.n)
   OR {state_of("here.k", "live.")} <> 'foreign'
"""
"""Keys whose live copy stays: all that this network owns or has granted, and what is newer than the staged copy."""

_MERGE = """
DELETE FROM main.rec WHERE k IN (SELECT k FROM carried);
DELETE FROM main.head WHERE k IN (SELECT k FROM carried);
INSERT INTO main.rec SELECT * FROM live.rec WHERE k IN (SELECT k FROM carried);
INSERT INTO main.head SELECT * FROM live.head WHERE k IN (SELECT k FROM carried);
INSERT INTO main.store SELECT * FROM live.store;
INSERT INTO main.row SELECT * FROM live.row;
INSERT INTO main.log SELECT * FROM live.log;
INSERT INTO main.ident SELECT * FROM live.ident;
INSERT INTO main.val SELECT * FROM live.val;
"""

T = TypeVar("T")


class StagingFile:
    """One staging file, used by one thread at a time; after `StagingBroken` only `discard` is left."""

    def __init__(self, live: Path, name: str, digest_key: bytes, *, begun: bool = False) -> None:
        """Begin the file, or open the one that another process has begun."""
        self.path = staging_file(live, name)
        self._live = live
        self._digest_key = digest_key
        self._broken = False
        self._db = self._run("opening a staging file", lambda: self._open(begin=not begun))
        self._many = Bulk(self._rows)
        self._unsynced_bytes = 0
        self._syncing: threading.Thread | None = None

    def load(self, heads: Sequence[HeadRow], records: Sequence[Record]) -> list[bytes]:
        """See `port.Staging.load`."""
        unproved = Content(self._db, self._digest_key).unproved(heads, records)
        if unproved:
            return unproved
        self._run("loading", lambda: self._load(heads, records))
        self._unsynced_bytes += sum(len(r.body) for r in records)
        if self._unsynced_bytes >= _SYNC_BYTES and (self._syncing is None or not self._syncing.is_alive()):
            self._unsynced_bytes = 0
            self._syncing = threading.Thread(target=self._sync, name="staging sync", daemon=True)
            self._syncing.start()
        return []

    def flush(self) -> None:
        """Give what is loaded to the disk; that everything is there only `seal` makes sure of."""
        if self._syncing is not None:
            self._syncing.join()
        self._sync()

    def _sync(self) -> None:
        """Let the disk begin; only the sync in `seal` counts, which then finds little left to do."""
        with contextlib.suppress(OSError):
            sync(self.path)

    def follow(self, entries: Sequence[LogEntry]) -> Followed:
        """See `port.Staging.follow`."""
        return self._run("following the log", lambda: self._in_transaction(lambda: self._follow(entries)))

    def partition_sum(self, start: bytes, stop: bytes, without: Iterable[bytes] = ()) -> PartitionSum:
        """See `port.Staging.partition_sum`."""
        return self._run("reading", lambda: self._many.partition_sum(start, stop, without))

    def release(self) -> None:
        """See `port.Staging.release`."""
        self._db.close()

    def regain(self) -> None:
        """See `port.Staging.regain`."""
        self._db = self._run("opening a staging file", lambda: self._open(begin=False))

    def discard(self) -> None:
        """See `port.Staging.discard`."""
        self._db.close()
        self.path.unlink(missing_ok=True)

    def seal(self) -> None:
        """Carry over what the live file has, and make the whole durable: the file is a store from then on."""
        self._run("carrying the live store over", self._carry_over)

    def _open(self, *, begin: bool) -> apsw.Connection:
        db = connect(self.path, create=begin, cache_kib=_CACHE_KIB)
        if begin:
            db.pragma("page_size", PAGE_BYTES)
        db.pragma("journal_mode", "off", schema="main")
        db.pragma("locking_mode", "exclusive", schema="main")
        db.pragma("synchronous", "off", schema="main")
        if begin:
            begin_file(db, CONTENT)
        return db

    def _load(self, heads: Sequence[HeadRow], records: Sequence[Record]) -> None:
        keys = set(map(itemgetter(0), heads))
        content = Content(self._db, self._digest_key)

        def write() -> None:
            if keys and self._rows("SELECT 1 FROM head WHERE k BETWEEN ? AND ? LIMIT 1", (min(keys), max(keys))):
                content.remove(keys)
            content.add(heads, records)

        self._in_transaction(write)

    def _follow(self, entries: Sequence[LogEntry]) -> Followed:
        overlay = following(self._db, self._digest_key, entries)
        followed = overlay.follow(entries, lambda entry: True)
        overlay.write()
        return followed

    def _carry_over(self) -> None:
        self._db.execute("ATTACH ? AS live", (str(self._live),))
        self._in_transaction(lambda: self._db.execute(STANDING + _CARRIED + ";" + _MERGE))
        self._db.close()
        sync(self.path)

    def _rows(self, sql: str, bindings: Sequence[Any]) -> list[Any]:
        return self._db.execute(sql, bindings).fetchall()

    def _in_transaction(self, work: Callable[[], T]) -> T:
        self._db.execute("BEGIN")
        result = work()
        self._db.execute("COMMIT")
        return result

    def _run(self, doing: str, work: Callable[[], T]) -> T:
        """Run this; whatever goes wrong breaks the file, for without a journal nothing can be taken back."""
        if self._broken:
            raise StagingBroken(f"{self.path}: the staging file is broken since an earlier failure. Discard it.")
        try:
            return work()
        except (apsw.Error, OSError, ValueError, TypeError, OverflowError) as error:
            self._broken = True
            raise StagingBroken(
                f"{fault(self.path, doing, error)} The live store is untouched; discard this."
            ) from error
