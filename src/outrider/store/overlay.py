"""Changes of contexts in memory, between what a transaction reads first and what it writes last.

A batch of units reads all heads and records that it will touch, works on them as plain values, one unit after the
other, and writes the result: a handful of statements, however many units.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import apsw
import msgspec

from outrider.core.record import NO_HEAD, Change, Head, LogEntry, Record, shift_digest
from outrider.store import wide
from outrider.store.port import Context, Followed
from outrider.store.recent import Units

_HEADS = (
    "WITH want (i, k) AS (VALUES {rows}) "
    "SELECT json_group_array(json_array(i, epoch, n, hex(digest))) FROM want CROSS JOIN head USING (k)"
)
_RECORDS = (
    "WITH want (i, k, kind, nf, id) AS (VALUES {rows}) "
    "SELECT json_group_array(json_array(i, version, due_ms, length(body))), CAST(group_concat(body, '') AS BLOB) "
    "FROM want CROSS JOIN rec USING (k, kind, nf, id)"
)
_PUT = (
    "INSERT INTO rec SELECT * FROM (VALUES {rows}) WHERE column1 NOT NULL "
    "ON CONFLICT DO UPDATE SET body = excluded.body, version = excluded.version, due_ms = excluded.due_ms"
)
_DROP = "DELETE FROM rec WHERE (k, kind, nf, id) IN (VALUES {rows})"
_PUT_HEAD = (
    "INSERT INTO head SELECT * FROM (VALUES {rows}) WHERE column1 NOT NULL "
    "ON CONFLICT DO UPDATE SET epoch = excluded.epoch, n = excluded.n, digest = excluded.digest"
)

_heads = msgspec.json.Decoder(list[tuple[int, int, int, str]])
_records = msgspec.json.Decoder(list[tuple[int, int, int | None, int]])

Name = tuple[bytes, int, str, str]
"""Key, kind, NF service and id of a record."""


class Overlay:
    """Heads and records of some keys as they are, and as they become; `write` makes it so."""

    def __init__(
        self,
        db: apsw.Connection,
        digest_key: bytes,
        keys: Iterable[bytes],
        names: Iterable[Name],
        known: Mapping[bytes, Context] = MappingProxyType({}),
    ) -> None:
        """`known` are contexts that need not be read."""
        self._db = db
        self._digest_key = digest_key
        self._heads: dict[bytes, Head] = dict.fromkeys(keys, NO_HEAD)
        self._records: dict[Name, Record | None] = dict.fromkeys(names)
        self._read(known)
        for context in known.values():
            self._heads[context.key] = context.head
            for record in context.records:
                if record[:4] in self._records:
                    self._records[record[:4]] = record
        self._stored = {name for name, record in self._records.items() if record is not None}
        self._before: dict[bytes, Head] = {}
        """The heads that have changed, as they were."""
        self._changed: dict[Name, Record | None] = {}

    def _read(self, known: Mapping[bytes, Context]) -> None:
        run = wide.runner(self._db)
        for part, (found,) in wide.read(run, _HEADS, [(key,) for key in self._heads if key not in known]):
            for i, epoch, n, digest in _heads.decode(found):
                self._heads[part[i][0]] = Head(epoch, n, bytes.fromhex(digest))
        for part, (found, bodies) in wide.read(run, _RECORDS, [n for n in self._records if n[0] not in known]):
            at = 0
            for i, version, due_ms, length in _records.decode(found):
                key, kind, nf, name = part[i]
                body = (bodies or b"")[at : at + length]
                self._records[key, kind, nf, name] = Record(key, kind, nf, name, body, version, due_ms)
                at += length

    def head(self, key: bytes) -> Head:
        """The head of a key, by now."""
        return self._heads[key]

    def record(self, name: Name) -> Record | None:
        """A record, by now."""
        return self._records[name]

    def change(self, key: bytes, epoch: int, changes: Iterable[Change], expect: bytes | None = None) -> Head | None:
        """Apply one unit and return the new head; None, and nothing changed, if its digest is not the one expected."""
        prev = self._heads[key]
        n = prev.n + 1
        become: dict[Name, Record | None] = {}
        for kind, nf, name, body, due_ms in changes:  # of two changes of one record the last one holds
            become[key, kind, nf, name] = None if body is None else Record(key, kind, nf, name, body, n, due_ms)
        gone = [r for named in become if (r := self._records[named]) is not None]
        come = [r for r in become.values() if r is not None]
        digest = shift_digest(prev.digest, gone, come, self._digest_key) if gone or come else prev.digest
        if expect is not None and digest != expect:
            return None
        self._records.update(become)
        self._changed.update(become)
        self._before.setdefault(key, prev)
        head = self._heads[key] = Head(epoch, n, digest)
        return head

    def follow(self, entries: Iterable[LogEntry], may_apply: Callable[[LogEntry], bool]) -> Followed:
        """Apply entries of another network's log: see `port.Follow`. Entries that may not be applied are skipped."""
        applied = skipped = 0
        need: dict[bytes, None] = {}
        for e in entries:
            here = self._heads[e.key]
            if not may_apply(e):
                skipped += 1
            elif here == e.prev and leads(e) and self.change(e.key, e.head.epoch, e.changes, e.head.digest):
                applied += 1
            elif here == e.head or (here.n > e.head.n and here.epoch >= e.head.epoch):
                skipped += 1
            else:
                need[e.key] = None
        return Followed(applied, skipped, list(need))

    def write(self) -> None:
        """Write what has changed."""
        wide.write(self._db, _PUT, [r for r in self._changed.values() if r is not None])
        wide.write(self._db, _DROP, [name for name, r in self._changed.items() if r is None and name in self._stored])
        wide.write(self._db, _PUT_HEAD, [(key, *self._heads[key]) for key in self._before])

    def units(self) -> Units:
        """What has changed, for the memory of what was read."""
        units: Units = {key: (before, self._heads[key], {}) for key, before in self._before.items()}
        for name, record in self._changed.items():
            units[name[0]][2][name[1:]] = record
        return units


def following(db: apsw.Connection, digest_key: bytes, entries: Iterable[LogEntry]) -> Overlay:
    """An overlay over all that these entries touch."""
    names = [(e.key, c.kind, c.nf, c.id) for e in entries for c in e.changes]
    return Overlay(db, digest_key, [e.key for e in entries], names)


def leads(entry: LogEntry) -> bool:
    """Whether an entry goes from one unit to the next, and not back in epochs."""
    return entry.head.n == entry.prev.n + 1 and entry.head.epoch >= entry.prev.epoch
