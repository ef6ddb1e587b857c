"""What each operation of the port does inside a transaction.

Each checks its condition first and writes after, so one whose condition does not hold has had no effect. `Impossible`
is for an operation that no state of the store could make possible; the caller undoes what it wrote.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import apsw
import msgspec

from outrider.core import limits
from outrider.core.ids import key_text, partition_range, star_of
from outrider.core.record import NO_HEAD, Answered, Change, Head, Kind, LogEntry, sum_digests
from outrider.protocol.ownership import Ownership, Row
from outrider.store.content import Content
from outrider.store.port import (
    AnsweredBefore,
    BindIdentity,
    DoesNotFit,
    Done,
    Erase,
    Follow,
    Misused,
    NotTheOwner,
    Operation,
    Outcome,
    Replace,
    RowChanged,
    SetRow,
    SetValue,
    Take,
    Work,
)
from outrider.store.schema import ROW_COLUMNS, effective, row_columns, row_of

_STANDING = (
    f"SELECT 0, {ROW_COLUMNS} FROM row WHERE k = ?1 UNION ALL SELECT 1, {ROW_COLUMNS} FROM row WHERE k = ?2 "
    "UNION ALL SELECT 2, epoch, n, digest, NULL, NULL, NULL FROM head WHERE k = ?1 "
    "UNION ALL SELECT 3, body, NULL, NULL, NULL, NULL, NULL FROM rec "
    "WHERE k = ?1 AND kind = 1 AND nf = '' AND id = ?3 AND ?3 IS NOT NULL"
)
"""All that a unit of work depends on, in one statement: own row, row that is followed, head, answer given before."""

_PUT_ROW = (
    "INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, "
    "epoch = excluded.epoch, peer = excluded.peer, refused = excluded.refused, fenced = excluded.fenced, "
    "mig = excluded.mig"
)

_encode = msgspec.msgpack.Encoder().encode
_answered = msgspec.msgpack.Decoder(Answered)


class Impossible(Exception):
    """The operation makes no sense, whatever the store holds; says why."""


class Operations:
    """Runs operations in the open transaction of one connection; `lsn` is that of the last own commit."""

    def __init__(self, db: apsw.Connection, digest_key: bytes, lsn: int) -> None:
        self._db = db
        self._content = Content(db, digest_key)
        self.lsn = lsn

    def run(self, operation: Operation) -> Outcome:
        """Run one operation; `Impossible` and errors of SQLite's types mean that it must be undone."""
        match operation:
            case Work():
                return self._work(operation)
            case SetRow():
                return self._set_row(operation)
            case Take():
                return self._take(operation)
            case Follow():
                return self._content.follow(operation.entries, self._may_follow)
            case Replace():
                return self._replace(operation)
            case SetValue():
                return self._set_value(operation)
            case BindIdentity():
                self._db.execute(
                    "INSERT INTO ident (identity, k) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (operation.identity, operation.key),
                )
                return Done(key=self._bound(operation.identity))
            case Erase():
                return self._erase(operation)

    # ------------------------------------------------------------------------------------------ looking

    def _standing(self, key: bytes, answer_id: str | None = None) -> tuple[Row, Head, Answered | None]:
        own = star = answer = None
        head = NO_HEAD
        for what, *columns in self._db.execute(_STANDING, (key, star_of(key), answer_id)):
            if what == 2:
                head = Head._make(columns[:3])
            elif what == 1:
                star = row_of(*columns)
            elif what == 0:
                own = row_of(*columns)
            else:
                answer = _answered.decode(columns[0])
        return effective(own, star), head, answer

    def _row(self, key: bytes) -> Row:
        return self._standing(key)[0]

    def _own_rows(self, start: bytes, stop: bytes) -> dict[bytes, Row]:
        rows = self._db.execute(f"SELECT k, {ROW_COLUMNS} FROM row WHERE k >= ? AND k < ?", (start, stop))
        return {key: row_of(*columns) for key, *columns in rows}

    def _bound(self, identity: str) -> bytes | None:
        for (key,) in self._db.execute("SELECT k FROM ident WHERE identity = ?", (identity,)):
            return bytes(key)
        return None

    # ------------------------------------------------------------------------------------------ the owner

    def _work(self, op: Work) -> Outcome:
        row, head, before = self._standing(op.key, op.answer_id)
        if row.state is not Ownership.OWNED or row.epoch != op.epoch:
            return NotTheOwner(row)
        if before is not None:
            same = op.answer is None or before.request_digest == op.answer.request_digest
            return AnsweredBefore(before) if same else Misused()
        answer = None
        if op.answer_id is not None and op.answer is not None:
            answer = Change(Kind.IDEMPOTENCY, "", op.answer_id, _encode(op.answer))
        elif op.answer is not None:
            raise Impossible("an answer is kept under an idempotency key, and none is given")
        if op.identity is not None:
            bound = self._bound(op.identity)
            if bound is None:
                self._bind(op.identity, op.key)
            elif bound != op.key:
                raise Impossible(f"the identity of {key_text(op.key)} is bound to {key_text(bound)} already")
        new = self._commit(op.key, head, op.epoch, op.changes, answer)
        return Done(new, self.lsn)

    def _commit(
        self, key: bytes, prev: Head, epoch: int, changes: Iterable[Change], answer: Change | None = None
    ) -> Head:
        """One own commit: apply the changes, and the answer that is not there yet, and append them to the log."""
        if key[:1] not in (b"u", b"s"):
            raise Impossible(f"{key_text(key)} has no context of its own")
        changes = list(changes) if answer is None else [*changes, answer]
        for c in changes:
            if c.body is not None and len(c.body) > limits.RECORD_BYTES:
                raise Impossible(f"record {c.nf}/{c.id} has {len(c.body)} bytes; {limits.RECORD_BYTES} are allowed")
        head = self._content.change(key, prev, epoch, changes, new=answer)
        assert head is not None
        self.lsn += 1
        self._db.execute("INSERT INTO log VALUES (?, ?, ?)", (self.lsn, key, _encode((prev, head, changes))))
        return head

    def _bind(self, identity: str, key: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO ident (identity, k) VALUES (?, ?)", (identity, key))

    # ------------------------------------------------------------------------------------------ rows

    def _set_row(self, op: SetRow) -> Outcome:
        row = self._row(op.key)
        if row != op.expect:
            return RowChanged(row)
        if op.drop or op.keep:
            rows = self._partition_rows(op.key, (*op.drop, *op.keep))
            if op.drop and op.row.state is not Ownership.GRANTED:
                raise Impossible("rows of UEs fold only into a grant of their partition")
            for key in op.drop & rows.keys():
                if rows[key].state is not Ownership.OWNED or rows[key].epoch >= op.row.epoch:
                    return RowChanged(rows[key])
            for key in op.keep.keys() & rows.keys():
                return RowChanged(rows[key])
            self._drop_rows(op.drop)
            self._put_rows(op.keep)
        self._put_row(op.key, op.row)
        return Done()

    def _partition_rows(self, star: bytes, named: Iterable[bytes]) -> dict[bytes, Row]:
        if star[:1] != b"p" or len(star) != 2:
            raise Impossible(f"{key_text(star)} is not a partition, so no other rows change with it")
        for key in named:
            if star_of(key) != star:
                raise Impossible(f"{key_text(key)} is not in partition {key_text(star)}")
        return self._own_rows(*partition_range(star[1]))

    def _put_row(self, key: bytes, row: Row) -> None:
        self._db.execute(_PUT_ROW, (key, *row_columns(row)))

    def _put_rows(self, rows: Mapping[bytes, Row]) -> None:
        for key, row in rows.items():
            self._put_row(key, row)

    def _drop_rows(self, keys: Iterable[bytes]) -> None:
        rows = [(key,) for key in keys]
        if rows:
            self._db.executemany("DELETE FROM row WHERE k = ?", rows)

    # ------------------------------------------------------------------------------------------ grants

    def _take(self, op: Take) -> Outcome:
        row = self._row(op.key)
        if row != op.expect:
            return RowChanged(row)
        if op.row.state is not Ownership.OWNED:
            raise Impossible("what is taken is owned")
        if op.key[:1] == b"p":
            return self._take_partition(op)
        if op.drop or op.keep:
            raise Impossible(f"{key_text(op.key)} is not a partition, so no other rows change with it")
        if op.head.epoch > op.row.epoch:
            raise Impossible(f"the head is of epoch {op.head.epoch}, which is after the grant's {op.row.epoch}")
        if not self._take_content(op):
            return DoesNotFit(full=op.records is not None)
        self._put_row(op.key, op.row)
        if op.identity is not None:
            self._bind(op.identity, op.key)
        if op.arrival:
            return Done(self._commit(op.key, op.head, op.row.epoch, op.arrival), self.lsn)
        return Done(op.head)

    def _take_content(self, op: Take) -> bool:
        if op.records is not None:
            fits = self._content.fits(op.key, op.head, op.records)
            if fits:
                self._content.install(op.key, op.head, op.records)
            return fits
        after = self._content.after(op.key, op.entries or ())
        if after is None or after[0] != op.head or not self._content.fits(op.key, *after):
            return False
        if op.entries:
            self._content.install(op.key, *after)
        return True

    def _take_partition(self, op: Take) -> Outcome:
        if op.records is not None or op.entries is not None or op.arrival or op.identity is not None:
            raise Impossible(f"a grant of {key_text(op.key)} carries no content")
        rows = self._partition_rows(op.key, (*op.drop, *op.keep))
        for key in op.drop & rows.keys():
            if rows[key].state is Ownership.OWNED or rows[key].epoch >= op.row.epoch:
                return RowChanged(rows[key])
        for key in op.keep.keys() & rows.keys():
            return RowChanged(rows[key])
        stay = (rows.keys() - op.drop) | op.keep.keys()
        copies = self._db.execute("SELECT k, digest FROM head WHERE k >= ? AND k < ?", partition_range(op.key[1]))
        digests: list[Any] = [digest for key, digest in copies.fetchall() if key not in stay]
        if len(digests) != op.head.n or sum_digests(digests) != op.head.digest:
            return DoesNotFit(full=False)
        self._drop_rows(op.drop)
        self._put_rows(op.keep)
        self._put_row(op.key, op.row)
        return Done()

    # ------------------------------------------------------------------------------------------ copies

    def _may_follow(self, entry: LogEntry) -> bool:
        """Not to a key that is owned; to one that is granted only if the entry proves that it was taken."""
        row = self._row(entry.key)
        if row.state is Ownership.GRANTED:
            return entry.head.epoch >= row.epoch
        return row.state is not Ownership.OWNED and entry.key[:1] in (b"u", b"s")

    def _replace(self, op: Replace) -> Outcome:
        for key, *_ in op.heads:
            if not op.start <= key < op.stop:
                raise Impossible(f"{key_text(key)} is outside the range to be replaced")
        if self._content.unproved(op.heads, op.records):
            return DoesNotFit(full=True)
        here: list[Any] = self._db.execute("SELECT k FROM head WHERE k >= ? AND k < ?", (op.start, op.stop)).fetchall()
        own = self._own_rows(op.start, op.stop)
        stars: dict[bytes | None, Row] = {}

        def stays(key: bytes) -> bool:
            row = own.get(key)
            if row is None:
                star = star_of(key)
                if star not in stars:
                    stars[star] = self._row(key)
                row = stars[star]
            return row.state is not Ownership.FOREIGN

        self._content.remove(key for (key,) in here if not stays(key))
        kept = {key for key, *_ in op.heads if stays(key)}
        if kept:
            self._content.add([h for h in op.heads if h[0] not in kept], [r for r in op.records if r.key not in kept])
        else:
            self._content.add(op.heads, op.records)
        return Done()

    def _erase(self, op: Erase) -> Outcome:
        for key in op.keys:
            row = self._row(key)
            if row.state is not Ownership.FOREIGN:
                return RowChanged(row)
        self._content.remove(op.keys)
        self._db.executemany("DELETE FROM ident WHERE k = ?", [(key,) for key in op.keys])
        return Done()

    def _set_value(self, op: SetValue) -> Outcome:
        if op.value is None:
            self._db.execute("DELETE FROM val WHERE name = ?", (op.name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO val VALUES (?, ?)", (op.name, op.value))
        return Done()
