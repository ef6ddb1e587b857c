"""Layout of a context store file, how connections to it are made, and how rows of ownership are written in it.

One table for each part of PROTOCOL.md §1. Keys sort in byte order, so a partition is one range. The page size fits
records of about 1 KB: a row of a clustered table that is longer than a quarter of a page spills to a page of its own.
"""

import os
from pathlib import Path

import apsw

from outrider.core import limits
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import Durability, StoreFault

APPLICATION_ID = 0x4F555452
"""Marks the file as a context store (`OUTR`), for SQLite and for file(1)."""

VERSION = 2
"""Layout of the file; a file with a higher one is not opened."""

PAGE_BYTES = 8 * 1024
"""Half as large spills records of 1 KB; twice as large loads 12 % faster and doubles what each commit has to sync."""

CACHE_KIB = 32 * 1024
STATEMENTS = 200
"""Prepared statements kept: all there are, in all widths (`wide`)."""

WAL_BYTES = 64 * 1024 * 1024
"""The write-ahead log is cut to this when it begins anew after it had grown longer."""

BUSY_MS = 5_000
"""How long a connection waits for another process that is just ending."""

LARGE_READ_BYTES = limits.FRAME_BYTES // 4
"""What one bulk read returns at most (unless one UE is larger), so that it fits a frame with room to spare."""

UE_START, UE_STOP = b"u", b"v"
"""Range of the keys of UEs."""

CONTENT = """
CREATE TABLE rec (
  k BLOB NOT NULL, kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 3), nf TEXT NOT NULL, id TEXT NOT NULL,
  body BLOB NOT NULL, version INTEGER NOT NULL, due_ms INTEGER CHECK (due_ms IS NULL OR kind = 2),
  PRIMARY KEY (k, kind, nf, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE head (
  k BLOB PRIMARY KEY, epoch INTEGER NOT NULL, n INTEGER NOT NULL, digest BLOB NOT NULL CHECK (length(digest) = 16)
) STRICT, WITHOUT ROWID;
CREATE INDEX timer ON rec (due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX timer_of ON rec (k, due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX outbox ON rec (k, id) WHERE kind = 3;
"""
"""The copies: records and heads. A staging file has these from the beginning."""

STANDING = """
CREATE TABLE store (
  one INTEGER PRIMARY KEY CHECK (one = 1), store_id TEXT NOT NULL, incarnation INTEGER NOT NULL,
  digest_key BLOB NOT NULL, trimmed_lsn INTEGER NOT NULL, decisions INTEGER NOT NULL
) STRICT;
CREATE TABLE row (
  k BLOB PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('owned', 'granted', 'foreign')), epoch INTEGER NOT NULL,
  peer TEXT, refused INTEGER NOT NULL, fenced INTEGER NOT NULL, mig TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE log (lsn INTEGER PRIMARY KEY, k BLOB NOT NULL, entry BLOB NOT NULL) STRICT;
CREATE TABLE ident (seq INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, k BLOB NOT NULL) STRICT;
CREATE INDEX ident_k ON ident (k);
CREATE TABLE val (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
"""Who this store is, who owns what, the log, identities and values."""

ROW_COLUMNS = "state, epoch, peer, refused, fenced, mig"
REC_COLUMNS = "k, kind, nf, id, body, version, due_ms"


def star_in_sql(key: str) -> str:
    """SQL for the key whose row a key follows (`core.ids.star_of`)."""
    return (
        f"CASE substr({key}, 1, 1) WHEN x'75' THEN CAST(x'70' || substr({key}, 2, 1) AS BLOB) "
        "WHEN x'73' THEN x'707300' END"
    )


def state_of(key: str, schema: str = "") -> str:
    """SQL for the state of the row that holds for a key: its own, or the one that it follows."""
    own = f"SELECT state FROM {schema}row WHERE row.k = {key}"
    star = f"SELECT state FROM {schema}row WHERE row.k = {star_in_sql(key)}"
    return f"coalesce(({own}), ({star}), 'foreign')"


_STATES = {state.value: state for state in Ownership}
_NOWHERE = Row(Ownership.FOREIGN, 0)


def row_of(state: str, epoch: int, peer: str | None, refused: int, fenced: int, mig: str | None) -> Row:
    """A row as it is kept in the file."""
    return Row(_STATES[state], epoch, peer, bool(refused), bool(fenced), mig)


def row_columns(row: Row) -> tuple[str, int, str | None, int, int, str | None]:
    """The columns of a row after its key."""
    return row.state.value, row.epoch, row.peer, int(row.refused), int(row.fenced), row.mig


def effective(own: Row | None, star: Row | None) -> Row:
    """The row that holds; a key that neither says anything about is FOREIGN(0)."""
    return own or star or _NOWHERE


def connect(path: Path, *, create: bool = False, cache_kib: int = CACHE_KIB) -> apsw.Connection:
    """A connection that waits a bounded time for other processes and keeps no temporary file."""
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    db = apsw.Connection(str(path), flags=flags, statementcachesize=STATEMENTS)
    db.set_busy_timeout(BUSY_MS)
    db.pragma("temp_store", "memory")
    db.pragma("cache_size", -cache_kib)
    db.pragma("journal_size_limit", WAL_BYTES)
    db.wal_autocheckpoint(0)  # checkpoints are the checkpointer's work (checkpoint.py)
    return db


def connect_writer(path: Path, durability: Durability) -> apsw.Connection:
    """The connection that commits."""
    db = connect(path)
    db.pragma("synchronous", "full" if durability is Durability.FULL else "off")
    return db


def begin_file(db: apsw.Connection, tables: str) -> None:
    """Write a layout into an empty file, in the open transaction."""
    db.pragma("application_id", APPLICATION_ID)
    db.pragma("user_version", VERSION)
    db.execute(tables)


def is_ours(db: apsw.Connection, path: Path) -> bool:
    """Whether the file has this layout; False for an empty file, `StoreFault` for anything else."""
    ours, version = db.pragma("application_id"), db.pragma("user_version")
    if ours == APPLICATION_ID:
        if version == VERSION:
            return True
        raise StoreFault(
            f"{path}: the file has layout {version} and this software reads layout {VERSION}. "
            "Nothing was changed; use the version of the software that wrote it."
        )
    if ours == 0 and db.execute("SELECT count(*) FROM sqlite_schema").get == 0:
        return False
    raise StoreFault(f"{path}: the file is an SQLite database but not a context store. Check the path.")


def check_length(path: Path) -> None:
    """Raise `StoreFault` if the file is shorter than its first page says; SQLite would notice only later.

    While a write-ahead log exists the file may rightly be shorter.
    """
    wal = Path(f"{path}-wal")
    if (wal.exists() and wal.stat().st_size) or not path.exists() or path.stat().st_size < 100:
        return
    with path.open("rb") as file:
        first = file.read(32)
        size = os.fstat(file.fileno()).st_size
    if not first.startswith(b"SQLite format 3\0"):
        return  # the connection says so
    page = int.from_bytes(first[16:18], "big")
    need = (65536 if page == 1 else page) * int.from_bytes(first[28:32], "big")
    if size < need:
        raise StoreFault(
            f"{path}: the file is damaged: it has {size} bytes of {need}. Set it aside; a fresh store gets its "
            "contexts from the other network, or from a saved image."
        )
