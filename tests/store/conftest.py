"""Fixtures of the store's tests: `kit` opens a store of each implementation; `make` builds keys, rows and contents."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from outrider.core.ids import partition_key, ue_key
from outrider.core.record import Answered, Change, Head, Kind, LogEntry, Record, digest_of, shift_digest
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import ContextStore, Done, Operation, Outcome, SetRow
from outrider.store.sqlite import SqliteStore

DIGEST_KEY = b"key of the tests, in all stores."

IMPLEMENTATIONS: dict[str, Callable[[Path], ContextStore]] = {
    "sqlite": lambda directory: SqliteStore.open(directory / "contexts.db", digest_key=DIGEST_KEY),
}
"""How each implementation opens the store that it keeps in a directory. One more line, and the contract is tested."""


class Kit:
    """Opens stores of one implementation, and closes them at the end."""

    def __init__(self, implementation: str, directory: Path) -> None:
        self._open = IMPLEMENTATIONS[implementation]
        self._directory = directory
        self._opened: list[ContextStore] = []

    def open(self, name: str = "a") -> ContextStore:
        """The store of this name; opened again, it is the same store."""
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        store = self._open(directory)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


class Make:
    """Values for tests, short to write."""

    FOREIGN_0 = Row(Ownership.FOREIGN, 0)
    digest_key = DIGEST_KEY

    @staticmethod
    def ue(number: int, partition: int = 0) -> bytes:
        return ue_key(bytes([partition]) + number.to_bytes(15, "big"))

    @staticmethod
    def owned(epoch: int) -> Row:
        return Row(Ownership.OWNED, epoch)

    @staticmethod
    def granted(epoch: int, peer: str = "999-71") -> Row:
        return Row(Ownership.GRANTED, epoch, peer, mig="m")

    @staticmethod
    def foreign(epoch: int, peer: str = "999-71", *, refused: bool = False) -> Row:
        return Row(Ownership.FOREIGN, epoch, peer, refused=refused)

    @staticmethod
    def put(name: str, body: bytes = b"body", nf: str = "nsmf-x") -> Change:
        return Change(Kind.DATA, nf, name, body)

    @staticmethod
    def drop(name: str, nf: str = "nsmf-x") -> Change:
        return Change(Kind.DATA, nf, name, None)

    @staticmethod
    def timer(name: str, due_ms: int) -> Change:
        return Change(Kind.TIMER, "nsmf-x", name, b"timer", due_ms)

    @staticmethod
    def message(name: str, nf: str = "nsmf-x") -> Change:
        return Change(Kind.OUTBOX, nf, name, b"message")

    @staticmethod
    def answer(request: bytes = b"request", body: bytes = b"answer") -> Answered:
        return Answered(request, 200, [("content-type", "text/plain")], body, 1)

    @staticmethod
    def records(key: bytes, version: int, *bodies: bytes) -> list[Record]:
        return [Record(key, Kind.DATA, "nsmf-x", f"r{i}", body, version) for i, body in enumerate(bodies)]

    @staticmethod
    def head(epoch: int, n: int, records: Sequence[Record] = ()) -> Head:
        return Head(epoch, n, digest_of(records, DIGEST_KEY))

    @staticmethod
    def entry(
        key: bytes, prev: Head, here: Sequence[Record], *changes: Change, epoch: int = 1, lsn: int = 1
    ) -> LogEntry:
        """The log entry that a source writes when it changes the records `here`, whose head is `prev`."""
        n = prev.n + 1
        names = {(c.kind, c.nf, c.id) for c in changes}
        gone = [r for r in here if (r.kind, r.nf, r.id) in names]
        come = [Record(key, c.kind, c.nf, c.id, c.body, n, c.due_ms) for c in changes if c.body is not None]
        digest = shift_digest(prev.digest, gone, come, DIGEST_KEY)
        return LogEntry(lsn, key, prev, Head(epoch, n, digest), list(changes))


def one(store: ContextStore, operation: Operation) -> Outcome:
    """Commit one operation."""
    (outcome,) = store.commit([operation])
    return outcome


def own_partition(store: ContextStore, partition: int = 0, epoch: int = 1) -> None:
    """Make the store the owner of a whole partition."""
    star = partition_key(partition)
    assert one(store, SetRow(star, store.row(star), Row(Ownership.OWNED, epoch))) == Done()


@pytest.fixture(params=IMPLEMENTATIONS)
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(request.param, tmp_path)
    yield kit
    kit.close()


@pytest.fixture(params=IMPLEMENTATIONS)
def kit_of(request: pytest.FixtureRequest) -> Callable[[Path], Kit]:
    """Makes a kit for a directory, for tests that need many."""
    return lambda directory: Kit(request.param, directory)


@pytest.fixture
def store(kit: Kit) -> ContextStore:
    """An empty store."""
    return kit.open()


@pytest.fixture
def make() -> type[Make]:
    return Make


@pytest.fixture
def commit() -> Callable[[ContextStore, Operation], Outcome]:
    return one


@pytest.fixture
def home(store: ContextStore) -> ContextStore:
    """A store that owns partitions 0 and 1 at epoch 1."""
    own_partition(store, 0)
    own_partition(store, 1)
    return store
