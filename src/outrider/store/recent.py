"""What requests read again and again, in memory: contexts that are owned here, and the keys of identities.

A statement costs a request more than its own time: it gives up Python's lock, and a reader forgets its pages at each
commit. So what was read or committed lately is kept, as long as it is what the file says.

It is, because a store has one writer: whatever changes the file is an operation of `commit`, and those pass through
`committed` before anybody is told their outcome. A unit of the owner takes its context on from head to head; every
other operation forgets the contexts that it may have touched, and another file (`adopt`) forgets all. What is read
beside the writer may be older than a commit that has passed in the meantime, so it is kept only if none has.
"""

import threading
from collections.abc import Iterable

from outrider.core import limits
from outrider.core.record import Head, Record
from outrider.protocol.ownership import Ownership
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
    Take,
    Work,
)

_OVERHEAD_BYTES = 1024
"""What a context takes in memory beside its bodies."""

Changed = dict[tuple[int, str, str], Record | None]
"""Records of one key by kind, NF service and id, as they have become; None for those that are gone."""

Units = dict[bytes, tuple[Head, Head, Changed]]
"""What units of one transaction have changed, by key: the head before, the head after, and records."""


class Recent:
    """The memory of one store; any thread may look, and what is looked up may be gone at any moment."""

    def __init__(self) -> None:
        self.commits = 0
        """Grows with each commit; what is read is kept if it is still the same as before reading."""
        self._lock = threading.Lock()
        self._contexts: dict[bytes, Context] = {}
        self._bytes = 0
        self._keys: dict[str, bytes] = {}

    def context(self, key: bytes) -> Context | None:
        """The context of a key, if it is kept."""
        return self._contexts.get(key)

    def contexts(self, keys: Iterable[bytes]) -> dict[bytes, Context]:
        """Those of these keys that are kept. The writer gets them as the file says: no commit can pass meanwhile."""
        return {key: context for key in keys if (context := self._contexts.get(key)) is not None}

    def key_of(self, identity: str) -> bytes | None:
        """The key of an identity, if it is kept."""
        return self._keys.get(identity)

    def read(self, context: Context, commits: int) -> None:
        """A context has been read, when there had been so many commits."""
        if context.row.state is Ownership.OWNED:
            with self._lock:
                if commits == self.commits:
                    self._keep(context)
                    self._shrink()

    def found(self, identity: str, key: bytes, commits: int) -> None:
        """The key of an identity has been read, when there had been so many commits."""
        with self._lock:
            if commits == self.commits:
                self._bind(identity, key)

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

    def clear(self) -> None:
        """Another file is the store now."""
        with self._lock:
            self.commits += 1
            self._forget_all()
            self._keys.clear()

    # ------------------------------------------------------------------------------------- with the lock

    def _go_on(self, key: bytes, before: Head, head: Head, changed: Changed) -> None:
        context = self._contexts.get(key)
        if context is None or context.head == head:  # the latter was read after the commit and before this
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
            case Work(identity=None):
                pass
            case Work(key=key, identity=str(identity)):
                if isinstance(outcome, Done):
                    self._bind(identity, key)
            case SetRow(key=key) | Take(key=key):
                if key[:1] == b"p":
                    self._forget_all()  # many follow this row
                self._forget(key)
                if isinstance(operation, Take) and operation.identity is not None and isinstance(outcome, Done):
                    self._bind(operation.identity, key)
            case Follow(entries):
                for entry in entries:
                    self._forget(entry.key)
            case Replace():
                self._forget_all()
            case BindIdentity(identity):
                if isinstance(outcome, Done) and outcome.key is not None:
                    self._bind(identity, outcome.key)
            case Erase():
                self._forget_all()
                self._keys.clear()

    def _keep(self, context: Context) -> None:
        size = _size(context)
        if size > limits.RECENT_CONTEXT_BYTES:
            return
        self._forget(context.key)
        self._contexts[context.key] = context
        self._bytes += size

    def _shrink(self) -> None:
        while self._bytes > limits.RECENT_BYTES:
            self._forget(next(iter(self._contexts)))  # the one that was read longest ago; it can be read again

    def _forget(self, key: bytes) -> None:
        context = self._contexts.pop(key, None)
        if context is not None:
            self._bytes -= _size(context)

    def _forget_all(self) -> None:
        self._contexts.clear()
        self._bytes = 0

    def _bind(self, identity: str, key: bytes) -> None:
        self._keys[identity] = key
        if len(self._keys) > limits.RECENT_IDENTITIES:
            del self._keys[next(iter(self._keys))]


def _size(context: Context) -> int:
    return _OVERHEAD_BYTES + sum(len(r.body) for r in context.records)
