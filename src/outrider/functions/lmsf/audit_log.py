"""The operator's audit log: a table of the journal's file that takes events and gives none up.

An event is written in the transaction of what it records, so there is never one without the other: not after a crash
(SQLite takes back a transaction that was torn), and not on a full disk, where neither happens. Heads that were
counter-signed, of this log and of partners', are kept beside it. Triggers refuse to change or delete a row; whoever
goes around them is found by `core.audit_check`.

Everything here runs on the journal's writer thread, inside its transactions, or reads.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from outrider.core import limits
from outrider.core.audit import NOTHING, Entry, Head, follow, hash_of
from outrider.core.audit_check import Line, Verdict, Vouched, verify

SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
  sequence INTEGER PRIMARY KEY, hash TEXT NOT NULL, kind TEXT NOT NULL, migration TEXT NOT NULL,
  once TEXT UNIQUE, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_of ON audit (migration, sequence);
CREATE TABLE IF NOT EXISTS audit_head (
  event INTEGER PRIMARY KEY, network TEXT NOT NULL, given_to TEXT NOT NULL, migration TEXT NOT NULL,
  sequence INTEGER NOT NULL, hash TEXT NOT NULL, envelope BLOB NOT NULL,
  UNIQUE (network, given_to, sequence)
);
CREATE TRIGGER IF NOT EXISTS audit_kept BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_whole BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_head_kept BEFORE UPDATE ON audit_head
  BEGIN SELECT RAISE(ABORT, 'heads are kept'); END;
CREATE TRIGGER IF NOT EXISTS audit_head_whole BEFORE DELETE ON audit_head
  BEGIN SELECT RAISE(ABORT, 'heads are kept'); END;
"""


class Kept(NamedTuple):
    """A head that two networks have signed."""

    event: int
    """The event of the own log that records it."""
    network: str
    """Whose log."""
    given_to: str
    migration: str
    sequence: int
    hash: str
    envelope: bytes


class Recorded(NamedTuple):
    """An event as it is kept."""

    sequence: int
    hash: str
    body: bytes


class AuditLog:
    """The table, on a connection to the journal's file."""

    def __init__(self, db: apsw.Connection, network: str) -> None:
        self._db = db
        self._network = network

    def append(self, at_ms: int, entries: Iterable[Entry]) -> list[Recorded]:
        """Give each entry its place at the end; inside a transaction. One whose `once` is there is not repeated."""
        made = []
        for entry in entries:
            if entry.once is not None and self._one("SELECT 1 FROM audit WHERE once = ?", entry.once):
                continue
            sequence, before = self.last()
            body = follow(self._network, sequence + 1, before, at_ms, entry)
            recorded = Recorded(sequence + 1, hash_of(body), body)
            self._db.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
                (recorded.sequence, recorded.hash, entry.kind, entry.migration, entry.once, body),
            )
            made.append(recorded)
        return made

    def keep(self, at_ms: int, head: Head, envelope: bytes, entry: Entry) -> bytes:
        """Keep a head that both have signed, and the event that says so; the envelope that is kept.

        A head that is kept already stays as it is: its partner's answer was lost, and it asks again.
        """
        known = self.kept(head.network, head.given_to, head.sequence)
        if known is not None:
            return known.envelope
        (event,) = self.append(at_ms, [entry])
        self._db.execute(
            "INSERT INTO audit_head VALUES (?, ?, ?, ?, ?, ?, ?)",
            (event.sequence, head.network, head.given_to, head.migration, head.sequence, head.hash, envelope),
        )
        return envelope

    def last(self) -> tuple[int, str]:
        """Sequence and digest of the last event."""
        row = self._one("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
        return (row[0], row[1]) if row else (0, NOTHING)

    def events(self, after: int = 0, migration: str | None = None, count: int = limits.AUDIT_PAGE) -> list[Recorded]:
        """Events after that sequence, in order; of one migration only, if it is named."""
        if migration is None:
            rows = self._db.execute(
                "SELECT sequence, hash, body FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, count)
            )
        else:
            rows = self._db.execute(
                "SELECT sequence, hash, body FROM audit WHERE migration = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                (migration, after, count),
            )
        return [Recorded(*row) for row in rows]

    def phases(self, migration: str) -> list[Recorded]:
        """The events by which a migration entered its phases, in order: the heads that partners counter-sign."""
        rows = self._db.execute(
            "SELECT sequence, hash, body FROM audit WHERE migration = ? AND kind = 'phase' ORDER BY sequence",
            (migration,),
        )
        return [Recorded(*row) for row in rows]

    def kept(self, network: str, given_to: str, sequence: int) -> Kept | None:
        """One counter-signed head."""
        row = self._one(
            "SELECT * FROM audit_head WHERE network = ? AND given_to = ? AND sequence = ?", network, given_to, sequence
        )
        return Kept(*row) if row else None

    def heads(self, after: int = 0, count: int = limits.AUDIT_PAGE) -> list[Kept]:
        """Counter-signed heads, in the order of the events that record them."""
        rows = self._db.execute("SELECT * FROM audit_head WHERE event > ? ORDER BY event LIMIT ?", (after, count))
        return [Kept(*row) for row in rows]

    def given(self, network: str, migration: str) -> list[Kept]:
        """The heads that a network has given about a migration."""
        rows = self._db.execute(
            "SELECT * FROM audit_head WHERE network = ? AND migration = ? ORDER BY sequence", (network, migration)
        )
        return [Kept(*row) for row in rows]

    def lines(self) -> Iterator[Line]:
        """The whole log, to be checked."""
        for sequence, stated, body in self._db.execute("SELECT sequence, hash, body FROM audit ORDER BY sequence"):
            yield Line(sequence, bytes(body), stated)

    def vouched(self) -> list[Vouched]:
        """What partners have signed of this log."""
        return [
            Vouched(k.sequence, k.hash, k.given_to)
            for k in map(Kept._make, self._db.execute("SELECT * FROM audit_head WHERE network = ?", (self._network,)))
        ]

    def _one(self, statement: str, *values: Any) -> Any:
        rows = list(self._db.execute(statement, values))  # to its end: an open statement would be in a commit's way
        return rows[0] if rows else None


def check(path: Path, network: str) -> Verdict:
    """Check the log in a journal's file, with what partners have signed of it; blocks, on a connection of its own."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        log = AuditLog(db, network)
        return verify(network, log.lines(), log.vouched())
    finally:
        db.close()
