"""What a host needs from a context store, as one port with one contract test (`tests/store/test_contract.py`).

A store belongs to one process. Everything that changes it goes through `commit`: a list of operations in one
transaction, a savepoint each, one fsync. When `commit` returns, what its outcomes say is durable; an operation whose
condition does not hold any more has had no effect and says so, and the others are not touched by it. A fault of the
disk raises `StoreFault`, and the process must exit: nothing of that transaction may be believed. An operation that
no state of the store could make possible (a record too large, a key of the wrong kind) ends in `Failed`.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from outrider.core.record import Answered, Change, Head, HeadRow, Kind, LogEntry, Record
from outrider.protocol.ownership import Ownership, Row


class StoreFault(Exception):
    """The disk failed, is full, or the file is damaged: says which file, what happened, and what to do."""


class StagingBroken(Exception):
    """The staging file is of no use any more (disk full, a chunk that cannot be); the live store is untouched."""


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """Who this store is: random id, how often it was opened (grows at each start), key of its record hashes."""

    store_id: str
    incarnation: int
    digest_key: bytes


class StoreMark(msgspec.Struct, frozen=True, rename="camel"):
    """How far a store was at some moment. It is kept away from the store, so that an older copy of it is known as one.

    Of one store, incarnation and `changes` never fall: `changes` counts units, changed rows of ownership and values.
    """

    store_id: str
    incarnation: int
    changes: int


class Context(msgspec.Struct, frozen=True):
    """All that is stored of one key, in one snapshot. `row` is the effective row; `own`: it is the key's own."""

    key: bytes
    row: Row
    own: bool
    head: Head
    records: list[Record]

    def data(self) -> list[Record]:
        """The records that handlers see."""
        return [r for r in self.records if r.kind == Kind.DATA]


# ------------------------------------------------------------------------------------------- operations


class Work(msgspec.Struct, frozen=True):
    """A unit of work of the owner: commits only if the effective row is OWNED(`epoch`) and `answer_id` is new.

    Outcomes: `Done` · `NotTheOwner` · `AnsweredBefore` · `Misused` (same idempotency key, other request).
    """

    key: bytes
    epoch: int
    changes: Sequence[Change]
    answer_id: str | None = None
    answer: Answered | None = None
    identity: str | None = None
    """Bind this identity (SUPI or GPSI) to the key, in the same commit; `Failed` if it is bound to another key."""


@dataclass(frozen=True, slots=True)
class SetRow:
    """Change a key's ownership row if the effective row is still `expect`. Outcomes: `Done` · `RowChanged`.

    For `*p`, `drop` are rows of UEs to delete and `keep` rows to write out, in the same commit. Only a grant drops
    rows, and only OWNED ones below its epoch; only UEs without a row get one. Where a UE's row is otherwise by then,
    that row is the `RowChanged`.
    """

    key: bytes
    expect: Row
    row: Row
    drop: frozenset[bytes] = frozenset()
    keep: Mapping[bytes, Row] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Take:
    """Accept a grant: install the content and OWNED(x) in one commit, if the effective row is still `expect`.

    `records` None means SAME (the copy here is equal); with `entries` the body is a DELTA; else FULL. `identity` binds
    it here, also where it was bound to another key. The digest is always computed anew from the records. Entries of a
    DELTA that the copy here has already are passed over.
    For `*p` (always SAME), `drop` are the rows to delete (not OWNED, below `row.epoch`) and `keep` the rows to write
    out; of the UEs that follow `*p` after that, `head.n` is the number and `head.digest` Σ of their heads' digests.
    Outcomes: `Done` · `RowChanged` · `DoesNotFit` (SAME or DELTA, or a wrong digest; `full` tells which).
    """

    key: bytes
    expect: Row
    row: Row
    head: Head
    records: Sequence[Record] | None = None
    entries: Sequence[LogEntry] | None = None
    identity: str | None = None
    drop: frozenset[bytes] = frozenset()
    keep: Mapping[bytes, Row] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Follow:
    """Apply entries of another network's log to the copies here (PROTOCOL.md §7).

    Each is applied if its `prev` is the head here and its changes lead to its digest, skipped if the head here is as
    new. An owned key is skipped, and a granted one unless the entry is of the granted epoch, which proves that it was
    taken. Outcome: `Followed` with the keys that need a FULL.
    """

    entries: Sequence[LogEntry]


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace the copies in a range of keys by those given (a chunk, or a FULL for a shadow).

    Copies in [`start`, `stop`) that no head speaks of are deleted. Keys that are OWNED here stay as they are, and
    GRANTED ones: theirs may be the only content there is.
    Outcomes: `Done` · `DoesNotFit` (records that do not add up to their head; then nothing is replaced).
    """

    start: bytes
    stop: bytes
    heads: Sequence[HeadRow]
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class SetValue:
    """Keep a small value under a name (migrations, cursors, peers' store ids); None deletes it. Outcome: `Done`."""

    name: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class BindIdentity:
    """Bind an identity to a key. Outcome: `Done`, with the key that it is bound to, which may be an older one."""

    identity: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete the copies and identities of these keys; their rows stay, for they tell an old grant from a new one.

    Outcomes: `Done` · `RowChanged` (one of them is OWNED or GRANTED; then nothing is deleted).
    """

    keys: Sequence[bytes]


Operation = Work | SetRow | Take | Follow | Replace | SetValue | BindIdentity | Erase


# --------------------------------------------------------------------------------------------- outcomes


class Done(msgspec.Struct, frozen=True):
    """The operation is durable. `head` and `lsn` for those that have one; `key` for `BindIdentity`."""

    head: Head | None = None
    lsn: int = 0
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class NotTheOwner:
    """Nothing happened: the effective row is this one."""

    row: Row


@dataclass(frozen=True, slots=True)
class AnsweredBefore:
    """Nothing happened: the unit with this idempotency key has run, and this was its answer."""

    answer: Answered


@dataclass(frozen=True, slots=True)
class Misused:
    """Nothing happened: the idempotency key belongs to another request (422)."""


@dataclass(frozen=True, slots=True)
class RowChanged:
    """Nothing happened: the effective row is this one."""

    row: Row


@dataclass(frozen=True, slots=True)
class DoesNotFit:
    """Nothing happened: the body does not lead to the digest. `full`: it was a whole context, so something is wrong."""

    full: bool


@dataclass(frozen=True, slots=True)
class Followed:
    """How many entries were applied and skipped, and which keys need a FULL."""

    applied: int
    skipped: int
    need: list[bytes]


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing happened: the operation itself was impossible (a record too large, a constraint); says what."""

    sentence: str


Outcome = Done | NotTheOwner | AnsweredBefore | Misused | RowChanged | DoesNotFit | Followed | Failed


class Chunk(NamedTuple):
    """Whole UEs of a key range as of `read_lsn`: heads as (key, epoch, n, digest) and records, both in key order."""

    start: bytes
    stop: bytes
    read_lsn: int
    heads: list[HeadRow]
    records: list[Record]


class PartitionSum(NamedTuple):
    """Count and Σdigest of UE copies."""

    ues: int
    digest: bytes


class RowCount(NamedTuple):
    """How many keys that begin with `part` (two bytes, or the whole key of a partition) have a row of their own so."""

    part: bytes
    state: Ownership
    peer: str | None
    mig: str | None
    rows: int


class Durability(enum.Enum):
    """How hard a commit is pushed to the disk."""

    FULL = "full"
    """fsync at each group commit (SQLite `synchronous=FULL`); the only mode that the protocol's guarantees hold in."""
    OFF = "off"
    """No fsync: for measuring what durability costs."""


class Staging(Protocol):
    """A bulk-load file beside the live one: no journal, so a crash discards it and the copy starts again (§7).

    A failure of any kind raises `StagingBroken`, after which only `discard` is left. Used by one thread at a time,
    which need not be the one that commits; or by another process (`release`, `regain`).
    """

    path: Path
    """The file."""

    def load(self, heads: Sequence[HeadRow], records: Sequence[Record]) -> list[bytes]:
        """Add the UEs of a chunk, replacing those already there.

        Nothing is added, and their keys are returned, where records do not add up to the head that they claim.
        """

    def follow(self, entries: Sequence[LogEntry]) -> Followed:
        """As `Follow`, against the copies in this file, which knows no rows."""

    def partition_sum(self, start: bytes, stop: bytes) -> PartitionSum:
        """As `ContextStore.partition_sum`."""

    def release(self) -> None:
        """Close the file, so that another process may load into it."""

    def regain(self) -> None:
        """Open it again, when the other process has closed it."""

    def discard(self) -> None:
        """Close and delete the file."""


class ContextStore(Protocol):
    """One service's contexts at one network.

    `commit`, `trim_log`, `stage` and `adopt` from one thread at a time; reads from any thread, also meanwhile. A read
    sees all that a returned `commit` wrote. Reads for one request (`row`, `context`, …) do not wait for bulk reads
    (`chunk`, `log`, `heads`, `partition_sum`).
    """

    identity: StoreIdentity

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Run the operations in one durable transaction and return one outcome for each; see the module."""

    def row(self, key: bytes) -> Row:
        """The effective row of a key. A key whose partition has no row yet is FOREIGN(0) with no peer."""

    def own_rows(self, start: bytes, stop: bytes) -> dict[bytes, Row]:
        """The rows of their own of the keys in [start, stop)."""

    def rows_in(self, state: Ownership) -> dict[bytes, Row]:
        """The rows that are in a state, in key order; those of partitions too."""

    def row_counts(self) -> list[RowCount]:
        """How many rows there are of each kind."""

    def copy_count(self, start: bytes, stop: bytes) -> int:
        """How many copies there are in [start, stop)."""

    def context(self, key: bytes) -> Context:
        """Row, head and all records of a key, in one snapshot."""

    def key_of(self, identity: str) -> bytes | None:
        """The key bound to an identity here."""

    def identity_of(self, key: bytes) -> str | None:
        """The identity bound to a key here; of several, the one bound first."""

    def chunk(self, start: bytes, stop: bytes, limit: int) -> Chunk:
        """Whole UEs from `start`: at least one, at most `limit` records and a quarter of a frame, unless one UE is
        more; `stop` is where it ended.
        """

    def heads(self, start: bytes, stop: bytes) -> list[HeadRow]:
        """The heads of all copies in [start, stop), in key order, as in a chunk."""

    def log(self, after_lsn: int, limit: int) -> list[LogEntry]:
        """Own commits after an lsn, in order, at most `limit` and about a quarter of a frame.

        An lsn is one more than that before it; where the first is not `after_lsn` + 1, the log has been trimmed.
        """

    def trim_log(self, through_lsn: int) -> None:
        """Forget log entries up to an lsn that every follower has durably."""

    def last_lsn(self) -> int:
        """The lsn of the last own commit; 0 if there was none."""

    def partition_sum(self, start: bytes, stop: bytes, without: Iterable[bytes] = ()) -> PartitionSum:
        """Count and Σ of the heads' digests of the copies in [start, stop), but for some keys."""

    def due_timers(self, through_ms: int, limit: int) -> list[Record]:
        """Armed timers of keys owned here that are due by then, earliest first; again, until they are not any more."""

    def next_due_ms(self) -> int | None:
        """A time before which `due_timers` will not find one more; None if there is none to come."""

    def outbox_keys(self) -> list[bytes]:
        """Keys owned here with an undelivered outbox entry."""

    def outbox(self, key: bytes, limit: int) -> list[Record]:
        """The first undelivered outbox entries of a key, in delivery order."""

    def value(self, name: str) -> bytes | None:
        """A value kept by `SetValue`."""

    def values(self, prefix: str) -> dict[str, bytes]:
        """The values whose names begin so."""

    def stage(self, name: str) -> Staging:
        """Begin a staging file, discarding an older one of that name; only while there is no copy of a UE in the live
        file other than those with a row of their own (early UEs), else `ValueError`."""

    def adopt(self, staging: Staging) -> None:
        """Make the staging file the live one: carry rows, log, values, identities and early UEs over, fsync, rename.

        Atomic: a crash leaves the old live file, or the new one. `StagingBroken` leaves the old one in use. Reads wait
        for the rename.
        """

    def check(self) -> list[str]:
        """Read everything and compare pages, digests, heads and log; sentences about what does not agree."""

    def close(self) -> None:
        """Release the file."""
