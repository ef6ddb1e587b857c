"""Which timers are due at keys that this store owns, without looking again and again at those of others.

A target holds a copy of a million timers before it owns one of them, and home's shadow of them becomes overdue when
the link is down. So time goes over each timer once: a cursor in due time. What it passes while its key is not owned
here comes back when the key becomes owned, because the commit that makes it so leaves a note.
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from heapq import nsmallest

from outrider.core.ids import SHARED_STAR, partition_range
from outrider.core.record import Record
from outrider.protocol.ownership import Ownership
from outrider.store.port import Done, Operation, Outcome, SetRow, Take, Work
from outrider.store.schema import REC_COLUMNS, state_of
from outrider.store.wide import Run

_OWNED = f"{state_of('rec.k')} = 'owned'"
_PASSED = (
    "SELECT k, nf, id, due_ms FROM rec INDEXED BY timer "
    f"WHERE due_ms IS NOT NULL AND due_ms > ? AND due_ms <= ? AND {_OWNED}"
)
_IN_RANGE = (
    "SELECT k, nf, id, due_ms FROM rec INDEXED BY timer_of "
    f"WHERE due_ms IS NOT NULL AND k >= ? AND k < ? AND due_ms <= ? AND {_OWNED}"
)
_STILL = f"SELECT {REC_COLUMNS} FROM rec WHERE k = ? AND kind = 2 AND nf = ? AND id = ? AND due_ms = ? AND {_OWNED}"
_NEXT = "SELECT due_ms FROM rec INDEXED BY timer WHERE due_ms IS NOT NULL AND due_ms > ? ORDER BY due_ms LIMIT 1"

_BEGINNING = -(1 << 62)

Range = tuple[bytes, bytes]


class DueTimers:
    """The due timers of one store, in memory; lost when the store is closed, and found again by the first look."""

    def __init__(self, rows: Run) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._passed_ms = _BEGINNING
        """Set *before* the timers up to it are read: a commit that compares with it afterwards leaves a note, or is
        seen by that reading."""
        self._due: dict[tuple[bytes, str, str], int] = {}
        self._notes: deque[Range] = deque()

    def committed(self, operations: Iterable[Operation], outcomes: Iterable[Outcome]) -> None:
        """Leave notes of what a durable commit may have made due; called by the writer."""
        for operation, outcome in zip(operations, outcomes, strict=True):
            if not isinstance(outcome, Done):
                continue
            if isinstance(operation, Work):
                for change in operation.changes:
                    if change.due_ms is not None and change.due_ms <= self._passed_ms:
                        self._notes.append(_range_of(operation.key))
            elif isinstance(operation, Take) or (isinstance(operation, SetRow) and _owns(operation)):
                self._notes.append(_range_of(operation.key))

    def due(self, through_ms: int, limit: int) -> list[Record]:
        """See `ContextStore.due_timers`."""
        with self._lock:
            passed_ms = self._passed_ms
            if through_ms > passed_ms:
                self._passed_ms = through_ms
                self._add(self._rows(_PASSED, (passed_ms, through_ms)))
            self._follow_notes()
            found: list[Record] = []
            for name, due_ms in nsmallest(limit, self._due.items(), key=lambda item: item[1]):
                if due_ms > through_ms:
                    break
                still = self._rows(_STILL, (*name, due_ms))
                if still:
                    found.append(Record._make(still[0]))
                else:
                    del self._due[name]
            return found

    def next_ms(self) -> int | None:
        """See `ContextStore.next_due_ms`."""
        with self._lock:
            self._follow_notes()
            if self._due:
                return min(self._due.values())
            rows = self._rows(_NEXT, (self._passed_ms,))
            return rows[0][0] if rows else None

    def _follow_notes(self) -> None:
        while self._notes:
            self._add(self._rows(_IN_RANGE, (*self._notes.popleft(), self._passed_ms)))

    def _add(self, rows: Sequence[tuple[bytes, str, str, int]]) -> None:
        for key, nf, name, due_ms in rows:
            self._due[key, nf, name] = due_ms


def _owns(operation: SetRow) -> bool:
    return operation.row.state is Ownership.OWNED or any(
        row.state is Ownership.OWNED for row in operation.keep.values()
    )


def _range_of(key: bytes) -> Range:
    """The keys whose ownership goes with this one's row."""
    if key == SHARED_STAR:
        return b"s", b"t"
    return partition_range(key[1]) if key[:1] == b"p" else (key, key + b"\0")
