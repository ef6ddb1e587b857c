"""Whole contexts in one file: reading them, proving them, putting them in place of others (`overlay`: changing them).

Whatever enters is compared with the digest that it claims *before* anything is written; so an operation that answers
"does not fit" has written nothing.
"""

from collections.abc import Iterable, Sequence

import apsw

from outrider.core.record import NO_HEAD, Head, HeadRow, LogEntry, Record, digest_of, sums_by_key
from outrider.store import wide
from outrider.store.overlay import leads

_HEAD = "SELECT epoch, n, digest FROM head WHERE k = ?"
_PUT_HEAD = (
    "INSERT INTO head VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET epoch = excluded.epoch, n = excluded.n, digest = excluded.digest"
)
_ALL = "SELECT k, kind, nf, id, body, version, due_ms FROM rec WHERE k = ? ORDER BY kind, nf, id"
_ADD = "INSERT INTO rec SELECT * FROM (VALUES {rows}) WHERE column1 NOT NULL"
_ADD_HEAD = "INSERT INTO head SELECT * FROM (VALUES {rows}) WHERE column1 NOT NULL"
_DROP_ALL = "DELETE FROM rec WHERE k IN (VALUES {rows})"
_DROP_HEAD = "DELETE FROM head WHERE k IN (VALUES {rows})"


class Content:
    """Records and heads behind one connection, within the transaction that the caller has begun."""

    def __init__(self, db: apsw.Connection, digest_key: bytes) -> None:
        self._db = db
        self._digest_key = digest_key

    def head(self, key: bytes) -> Head:
        """The head of a key; a key that has never been written has `NO_HEAD`."""
        for row in self._db.execute(_HEAD, (key,)):
            return Head._make(row)
        return NO_HEAD

    def records(self, key: bytes) -> list[Record]:
        """All records of a key."""
        return list(map(Record._make, self._db.execute(_ALL, (key,)).fetchall()))

    def fits(self, key: bytes, head: Head, records: Sequence[Record]) -> bool:
        """Whether these records, all of this key and no two with one name, add up to the head's digest."""
        names = {(r.kind, r.nf, r.id) for r in records}
        return (
            len(names) == len(records)
            and all(r.key == key for r in records)
            and digest_of(records, self._digest_key) == head.digest
        )

    def install(self, key: bytes, head: Head, records: Sequence[Record]) -> None:
        """Replace all records of a key by these, which fit."""
        wide.write(self._db, _DROP_ALL, [(key,)])
        wide.write(self._db, _ADD, records)
        self._db.execute(_PUT_HEAD, (key, *head))

    def after(self, key: bytes, entries: Iterable[LogEntry]) -> tuple[Head, list[Record]] | None:
        """Head and records of a key as they are after these entries, nothing written; None if they do not follow.

        Entries that led to the head here are passed over.
        """
        head = self.head(key)
        records = {(r.kind, r.nf, r.id): r for r in self.records(key)}
        for e in entries:
            if e.key == key and e.head.n <= head.n:
                continue
            if e.key != key or e.prev != head or not leads(e):
                return None
            for c in e.changes:
                if c.body is None:
                    records.pop((c.kind, c.nf, c.id), None)
                else:
                    records[c.kind, c.nf, c.id] = Record(key, c.kind, c.nf, c.id, c.body, e.head.n, c.due_ms)
            head = e.head
        return head, list(records.values())

    def add(self, heads: Sequence[HeadRow], records: Sequence[Record]) -> None:
        """Add UEs that are not here."""
        wide.write(self._db, _ADD, records)
        wide.write(self._db, _ADD_HEAD, heads)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Delete records and heads of these keys."""
        rows = [(key,) for key in keys]
        wide.write(self._db, _DROP_ALL, rows)
        wide.write(self._db, _DROP_HEAD, rows)

    def unproved(self, heads: Iterable[HeadRow], records: Iterable[Record]) -> list[bytes]:
        """The keys whose records do not add up to their head, or that are named twice or have no head."""
        sums = sums_by_key(records, self._digest_key)
        wrong = []
        seen = set()
        for key, _, _, digest in heads:
            if key in seen or (sums.pop(key, 0) % (1 << 128)).to_bytes(16, "big") != digest:
                wrong.append(key)
            seen.add(key)
        return wrong + list(sums)
