"""What requests read again and again, in memory: contexts that are owned here, rows, and the keys of identities.

A statement costs a request more than its own time: it gives up Python's lock, and a reader forgets its pages at each
commit. So what was read or committed lately is kept, as long as it is what the file says.

It is, because a store has one writer: whatever changes the file is an operation of `commit`, and those pass through
`committed` before anybody is told their outcome. A unit of the owner takes its context on from head to head; every
other operation forgets the contexts that it may have touched, and another file (`adopt`) forgets all. What is read
beside the writer may be older than a commit that has passed in the meantime, so it is kept only if none has; and what
is read of a key while a transaction changes it is not kept at all, so nobody who has seen the new meets the old again.
A transaction is in the file a moment before it has passed here. So whoever has found nothing here and read the file
looks here once more: another reader may have kept what was there before, which holds for all until then.
"""

import threading
from collections.abc import Iterable
from typing import TypeVar, assert_never

from outrider.core import limits
from outrider.core.ids import star_of
from outrider.core.record import Head, Record
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import (
    BindIdentity,
    Context,
    Done,
    Erase,
    Follow,
    Operation,
    Outcome,
    Replace,
    SetRow,
    SetValue,
    Take,
    Work,
)

T = TypeVar("T")
V = TypeVar("V")

_OVERHEAD_BYTES = 1024
"""What a context takes in memory beside its bodies."""

Changed = dict[tuple[int, str, str], Record | None]
"""Records of one key by kind, NF service and id, as they have become; None for those that are gone."""

Units = dict[bytes, tuple[Head, Head, Changed]]
"""What units of one transaction have changed, by key: the head before, the head after, and records."""


class Recent:
    """The memory of one store; any thread may look, and what is looked up may be gone at any moment."""

    def __init__(self, *, remembers: bool = True) -> None:
        self._remembers = remembers
        self.commits = 0
        """Grows with each commit; what is read is kept if it is still the same as before reading."""
        self._lock = threading.Lock()
        self._under_way: set[bytes | None] = set()
        self._contexts: dict[bytes, Context] = {}
        self._bytes = 0
        self._rows: dict[bytes, Row] = {}
        """Rows of other keys."""
        self._following: dict[bytes | None, set[bytes]] = {}
        """The keys of both, by the row that they follow unless they have their own."""
        self._keys: dict[str, bytes] = {}

    def context(self, key: bytes) -> Context | None:
        """The context of a key, if it is kept."""
        return self._contexts.get(key)

    def row(self, key: bytes) -> Row | None:
        """The effective row of a key, if it is kept."""
        context = self._contexts.get(key)
        return self._rows.get(key) if context is None else context.row

    def contexts(self, keys: Iterable[bytes]) -> dict[bytes, Context]:
        """Those of these keys that are kept. The writer gets them as the file says: no commit can pass meanwhile."""
        return {key: context for key in keys if (context := self._contexts.get(key)) is not None}

    def key_of(self, identity: str) -> bytes | None:
        """The key of an identity, if it is kept."""
        return self._keys.get(identity)

    def read(self, context: Context, identity: str | None, commits: int) -> None:
        """A row, its context if it is owned, and perhaps its identity, as they were after so many commits."""
        with self._lock:
            under_way = context.key in self._under_way or star_of(context.key) in self._under_way
            if commits != self.commits or under_way or not self._remembers:
                return
            if context.row.state is not Ownership.OWNED or not self._keep(context):
                self._keep_row(context.key, context.row)
            if identity is not None:
                _add(self._keys, identity, context.key)
            self._shrink()

    def begin(self, operations: Iterable[Operation]) -> None:
        """A transaction begins: until `committed`, nobody can say whether what is read of these keys is before it."""
        under_way: set[bytes | None] = {o.key for o in operations if isinstance(o, Work | SetRow | Take)}
        with self._lock:  # a reader that has found nothing under way keeps what it has read before anything is
            self._under_way = under_way

    def committed(self, operations: Iterable[Operation], outcomes: Iterable[Outcome], units: Iterable[Units]) -> None:
        """These operations are durable; `units` is what those that are `Work` have changed. Called by the writer."""
        with self._lock:
            self.commits += 1
            for unit in units:
                for key, (before, head, changed) in unit.items():
                    self._go_on(key, before, head, changed)
            for operation, outcome in zip(operations, outcomes, strict=True):
                self._note(operation, outcome)
            self._shrink()
            self._under_way = set()

    def clear(self) -> None:
        """Another file is the store now."""
        with self._lock:
            self.commits += 1
            self._forget_all()
            self._keys.clear()

    # ------------------------------------------------------------------------------------- with the lock

    def _go_on(self, key: bytes, before: Head, head: Head, changed: Changed) -> None:
        context = self._contexts.get(key)
        if context is None:
            return
        if context.head != before:
            self._forget(key)
            return
        records = [r for r in changed.values() if r is not None]
        for record in records:
            self._bytes += len(record.body)
        for record in context.records:
            if record[1:4] in changed:
                self._bytes -= len(record.body)
            else:
                records.append(record)
        if len(records) > 1:
            records.sort()
        self._contexts[key] = Context(key, context.row, context.own, head, records)

    def _note(self, operation: Operation, outcome: Outcome) -> None:
        match operation:
            case Work():
                if operation.identity is not None and isinstance(outcome, Done):
                    _add(self._keys, operation.identity, operation.key)
            case SetRow(key=key) | Take(key=key):
                for follows in self._following.pop(key, ()):
                    self._forget(follows)
                self._forget(key)
                if isinstance(operation, Take) and operation.identity is not None and isinstance(outcome, Done):
                    _add(self._keys, operation.identity, key)
            case Follow(entries):
                for entry in entries:
                    self._forget_context(entry.key)
            case Replace(start, stop):
                if stop == start + b"\0":
                    self._forget_context(start)
                else:
                    self._forget_all()
            case BindIdentity(identity):
                if isinstance(outcome, Done) and outcome.key is not None:
                    _add(self._keys, identity, outcome.key)
            case Erase():
                self._forget_all()
                self._keys.clear()
            case SetValue():
                pass
            case _:
                assert_never(operation)

    def _keep(self, context: Context) -> bool:
        """Keep a context, unless it is too large."""
        size = _size(context)
        if size > limits.RECENT_CONTEXT_BYTES:
            return False
        self._forget_context(context.key)
        self._contexts[context.key] = context
        self._bytes += size
        self._following.setdefault(star_of(context.key), set()).add(context.key)
        return True

    def _keep_row(self, key: bytes, row: Row) -> None:
        gone = _add(self._rows, key, row)
        if gone is not None and gone not in self._contexts:
            self._unfollow(gone)
        self._following.setdefault(star_of(key), set()).add(key)

    def _shrink(self) -> None:
        while self._bytes > limits.RECENT_BYTES:
            self._forget_context(next(iter(self._contexts)))  # the one read longest ago; it can be read again

    def _forget(self, key: bytes) -> None:
        """Forget a key's context and row."""
        self._rows.pop(key, None)
        self._forget_context(key)
        self._unfollow(key)

    def _forget_context(self, key: bytes) -> None:
        context = self._contexts.pop(key, None)
        if context is not None:
            self._bytes -= _size(context)
            if key not in self._rows:
                self._unfollow(key)

    def _unfollow(self, key: bytes) -> None:
        following = self._following.get(star_of(key))
        if following is not None:
            following.discard(key)

    def _forget_all(self) -> None:
        self._contexts.clear()
        self._rows.clear()
        self._following.clear()
        self._bytes = 0


def _add(kept: dict[T, V], name: T, value: V) -> T | None:
    """Add to what is kept; the oldest makes room, and is returned."""
    kept[name] = value
    if len(kept) <= limits.RECENT_NAMES:
        return None
    oldest = next(iter(kept))
    del kept[oldest]
    return oldest


def _size(context: Context) -> int:
    return _OVERHEAD_BYTES + sum(len(r.body) for r in context.records)
