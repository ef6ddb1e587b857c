"""What each operation of the port does inside a transaction.

Each checks its condition first and writes after, so one whose condition does not hold has had no effect. `Impossible`
is for an operation that no state of the store could make possible; the caller undoes what it wrote.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import apsw
import msgspec

from outrider.core import limits
from outrider.core.ids import key_text, partition_range, star_of
from outrider.core.record import Answered, Change, Kind, LogEntry
from outrider.protocol.ownership import Ownership, Row
from outrider.store import wide
from outrider.store.bulk import Bulk
from outrider.store.content import Content
from outrider.store.overlay import Overlay, following
from outrider.store.port import (
    AnsweredBefore,
    BindIdentity,
    DoesNotFit,
    Done,
    Erase,
    Failed,
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
from outrider.store.recent import Recent, Units
from outrider.store.schema import ROW_COLUMNS, effective, row_columns, row_of

_ROWS = (
    "WITH want (i, k) AS (VALUES {rows}) SELECT json_group_array(json_array(i, "
    + ROW_COLUMNS
    + ")) FROM want CROSS JOIN row USING (k)"
)
_PUT_ROW = (
    "INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, "
    "epoch = excluded.epoch, peer = excluded.peer, refused = excluded.refused, fenced = excluded.fenced, "
    "mig = excluded.mig"
)

_LOG = "INSERT INTO log SELECT * FROM (VALUES {rows}) WHERE column1 NOT NULL"

_encode = msgspec.msgpack.Encoder().encode
_answered = msgspec.msgpack.Decoder(Answered)
_rows = msgspec.json.Decoder(list[tuple[int, str, int, str | None, int, int, str | None]])


class Impossible(Exception):
    """The operation makes no sense, whatever the store holds; says why."""


class Operations:
    """Runs operations in the open transaction of one connection; `lsn` is that of the last own commit.

    What `recent` holds need not be read: until this transaction has changed something, it is what the file says.
    """

    def __init__(self, db: apsw.Connection, digest_key: bytes, lsn: int, recent: Recent | None = None) -> None:
        self._db = db
        self._recent = recent
        self._digest_key = digest_key
        self._run_sql = wide.runner(db)
        self._many = Bulk(self._run_sql)
        self._content = Content(db, digest_key)
        self.lsn = lsn
        self.decisions = 0
        """Rows and values that were changed: what is durable and is in no log."""
        self.units: list[Units] = []
        """What units have changed, in order."""

    def run(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Run operations in order; `Impossible` and errors of SQLite's types mean that all must be undone."""
        outcomes: list[Outcome] = []
        for are_work, group in groupby(operations, lambda operation: isinstance(operation, Work)):
            if are_work:
                outcomes += self._work([operation for operation in group if isinstance(operation, Work)])
            else:
                outcomes += map(self._run_one, group)
            self._recent = None
        return outcomes

    def _run_one(self, operation: Operation) -> Outcome:
        match operation:
            case Work():
                return self._work([operation])[0]
            case SetRow():
                return self._set_row(operation)
            case Take():
                return self._take(operation)
            case Follow():
                return self._follow(operation)
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

    def _rows(self, keys: Iterable[bytes]) -> dict[bytes, Row]:
        """The effective rows of these keys."""
        effective_of = {key: star_of(key) for key in keys}
        found: dict[bytes | None, Row] = {}
        want = {*effective_of, *effective_of.values()} - {None}
        for part, (rows,) in wide.read(self._run_sql, _ROWS, [(key,) for key in want]):
            for columns in _rows.decode(rows):
                found[part[columns[0]][0]] = row_of(*columns[1:])
        return {key: effective(found.get(key), found.get(star)) for key, star in effective_of.items()}

    def _row(self, key: bytes) -> Row:
        return self._rows([key])[key]

    def _bound(self, identity: str) -> bytes | None:
        for (key,) in self._db.execute("SELECT k FROM ident WHERE identity = ?", (identity,)):
            return bytes(key)
        return None

    # ------------------------------------------------------------------------------------------ the owner

    def _work(self, works: Sequence[Work]) -> list[Outcome]:
        """Units of the owner, one after the other in memory, with one set of statements before and one after."""
        units = [(op, _changes_of(op)) for op in works]
        names = [(op.key, c.kind, c.nf, c.id) for op, changes in units for c in changes]
        names += [(op.key, Kind.IDEMPOTENCY, "", op.answer_id) for op in works if op.answer_id is not None]
        keys = {op.key for op in works}
        known = {} if self._recent is None else self._recent.contexts(keys)
        rows = {key: context.row for key, context in known.items()}
        if len(known) < len(keys):
            rows.update(self._rows(keys - known.keys()))
        overlay = Overlay(self._db, self._digest_key, keys, names, known)
        log: list[tuple[int, bytes, bytes]] = []
        outcomes = [self._unit(op, changes, rows[op.key], overlay, log) for op, changes in units]
        overlay.write()
        wide.write(self._db, _LOG, log)
        self.units.append(overlay.units())
        return outcomes

    def _unit(
        self, op: Work, changes: Sequence[Change], row: Row, overlay: Overlay, log: list[tuple[int, bytes, bytes]]
    ) -> Outcome:
        if row.state is not Ownership.OWNED or row.epoch != op.epoch:
            return NotTheOwner(row)
        if op.answer_id is not None:
            before = overlay.record((op.key, Kind.IDEMPOTENCY, "", op.answer_id))
            if before is not None:
                answer = _answered.decode(before.body)
                same = op.answer is None or answer.request_digest == op.answer.request_digest
                return AnsweredBefore(answer) if same else Misused()
        bound = None if op.identity is None else self._bound(op.identity)
        impossible = _why_impossible(op, bound)
        if impossible is not None:
            return Failed(impossible)
        if op.identity is not None and bound is None:
            self._bind(op.identity, op.key)
        prev = overlay.head(op.key)
        head = overlay.change(op.key, op.epoch, changes)
        self.lsn += 1
        log.append((self.lsn, op.key, _encode((prev, head, changes))))
        return Done(head, self.lsn)

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
        self.decisions += 1
        return Done()

    def _partition_rows(self, star: bytes, named: Iterable[bytes]) -> dict[bytes, Row]:
        if star[:1] != b"p" or len(star) != 2:
            raise Impossible(f"{key_text(star)} is not a partition, so no other rows change with it")
        for key in named:
            if star_of(key) != star:
                raise Impossible(f"{key_text(key)} is not in partition {key_text(star)}")
        return self._many.own_rows(*partition_range(star[1]))

    def _put_row(self, key: bytes, row: Row) -> None:
        self._db.execute(_PUT_ROW, (key, *row_columns(row)))

    def _put_rows(self, rows: Mapping[bytes, Row]) -> None:
        for key, row in rows.items():
            self._put_row(key, row)

    def _drop_rows(self, keys: Iterable[bytes]) -> None:
        wide.write(self._db, "DELETE FROM row WHERE k IN (VALUES {rows})", [(key,) for key in keys])

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
        self.decisions += 1
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
        if op.records is not None or op.entries is not None or op.identity is not None:
            raise Impossible(f"a grant of {key_text(op.key)} carries no content")
        rows = self._partition_rows(op.key, (*op.drop, *op.keep))
        for key in op.drop & rows.keys():
            if rows[key].state is Ownership.OWNED or rows[key].epoch >= op.row.epoch:
                return RowChanged(rows[key])
        for key in op.keep.keys() & rows.keys():
            return RowChanged(rows[key])
        stay = (rows.keys() - op.drop) | op.keep.keys()
        if self._many.partition_sum(*partition_range(op.key[1]), stay) != (op.head.n, op.head.digest):
            return DoesNotFit(full=False)
        self._drop_rows(op.drop)
        self._put_rows(op.keep)
        self._put_row(op.key, op.row)
        self.decisions += 1
        return Done()

    # ------------------------------------------------------------------------------------------ copies

    def _follow(self, op: Follow) -> Outcome:
        rows = self._rows({e.key for e in op.entries})

        def may_apply(entry: LogEntry) -> bool:
            """Not to a key that is owned; to one that is granted only if the entry proves that it was taken."""
            row = rows[entry.key]
            if row.state is Ownership.GRANTED:
                return entry.head.epoch >= row.epoch
            return row.state is Ownership.FOREIGN and entry.key[:1] in (b"u", b"s")

        overlay = following(self._db, self._digest_key, op.entries)
        followed = overlay.follow(op.entries, may_apply)
        overlay.write()
        return followed

    def _replace(self, op: Replace) -> Outcome:
        for key, *_ in op.heads:
            if not op.start <= key < op.stop:
                raise Impossible(f"{key_text(key)} is outside the range to be replaced")
        if self._content.unproved(op.heads, op.records):
            return DoesNotFit(full=True)
        here = self._many.heads(op.start, op.stop)
        own = self._many.own_rows(op.start, op.stop)
        stars: dict[bytes | None, Row] = {}

        def stays(key: bytes) -> bool:
            row = own.get(key)
            if row is None:
                star = star_of(key)
                if star not in stars:
                    stars[star] = self._row(key)
                row = stars[star]
            return row.state is not Ownership.FOREIGN

        self._content.remove(key for key, *_ in here if not stays(key))
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
        wide.write(self._db, "DELETE FROM ident WHERE k IN (VALUES {rows})", [(key,) for key in op.keys])
        return Done()

    def _set_value(self, op: SetValue) -> Outcome:
        if op.value is None:
            self._db.execute("DELETE FROM val WHERE name = ?", (op.name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO val VALUES (?, ?)", (op.name, op.value))
        self.decisions += 1
        return Done()


def _changes_of(op: Work) -> list[Change]:
    """What a unit changes: what was proposed, and the answer that is kept."""
    if op.answer is None or op.answer_id is None:
        return list(op.changes)
    return [*op.changes, Change(Kind.IDEMPOTENCY, "", op.answer_id, _encode(op.answer))]


def _why_impossible(op: Work, bound: bytes | None) -> str | None:
    """Why a unit cannot be, found before anything of it is done; `bound` is the key that its identity is bound to."""
    if op.key[:1] not in (b"u", b"s"):
        return f"{key_text(op.key)} has no context of its own"
    if op.answer is not None and op.answer_id is None:
        return "an answer is kept under an idempotency key, and none is given"
    for c in op.changes:
        if c.body is not None and len(c.body) > limits.RECORD_BYTES:
            return f"record {c.nf}/{c.id} has {len(c.body)} bytes; {limits.RECORD_BYTES} are allowed"
    if bound not in (None, op.key):
        return f"the identity of {key_text(op.key)} is bound to {key_text(bound or b'')} already"
    return None
