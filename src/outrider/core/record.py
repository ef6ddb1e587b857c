"""Records: what a UE context is made of, and the digest that proves two copies equal.

Everything that must move with a UE is a record of one of four kinds. Idempotency rows, timers and outbox
entries are records too (PROTOCOL.md §1): so they are copied, digested and deleted by the same code, and
only the owner changes them.
"""

import enum
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec


class Kind(enum.IntEnum):
    """What a record is for."""

    DATA = 0
    """State of an NF service, opaque to the keeper."""
    IDEMPOTENCY = 1
    """The answer of a unit that has run (`Answered`), found again by the request's idempotency key."""
    TIMER = 2
    """An armed timer (`TimerBody`); live only at the owner."""
    OUTBOX = 3
    """A message or notification not yet delivered (`OutboxBody`), in the order of its id."""


class Record(NamedTuple):
    """One record; a plain tuple, because a million of them cross a frame at a time.

    `nf` names the NF service that alone may read and write it. `version` is the key's `n` at the commit
    that wrote it. `due_ms` (UTC) is set for armed timers only.
    """

    key: bytes
    kind: int
    nf: str
    id: str
    body: bytes
    version: int
    due_ms: int | None = None


class Head(NamedTuple):
    """Where a key's history stands: the epoch of the last commit, how many units there were, Σ of the records."""

    epoch: int
    n: int
    digest: bytes


HeadRow = tuple[bytes, int, int, bytes]
"""A head and whose it is: key, epoch, n, digest."""


class Change(NamedTuple):
    """One record put (`body` set) or deleted (`body` None); `version` is given by the commit."""

    kind: int
    nf: str
    id: str
    body: bytes | None
    due_ms: int | None = None


class LogEntry(NamedTuple):
    """One unit in the ordered log: what it changed of one key, and the heads around it.

    `changes` carry the version `head.n` when applied.
    """

    lsn: int
    key: bytes
    prev: Head
    head: Head
    changes: list[Change]


EMPTY_DIGEST = bytes(16)
NO_HEAD = Head(0, 0, EMPTY_DIGEST)

_MODULUS = 1 << 128
_LENGTHS = msgspec.msgpack.Encoder()


def record_hash(record: Record, digest_key: bytes) -> int:
    """Keyed 128-bit hash of one record, over key, kind, owner NF service, id, version, body and due time."""
    h = hashlib.blake2b(_LENGTHS.encode(record), digest_size=16, key=digest_key)
    return int.from_bytes(h.digest(), "big")


def sums_by_key(records: Iterable[Record], digest_key: bytes) -> dict[bytes, int]:
    """Σ of the record hashes of each key, not reduced: `record_hash` over many records, without a call for each."""
    sums: defaultdict[bytes, int] = defaultdict(int)
    encode, hashed, integer = _LENGTHS.encode, hashlib.blake2b, int.from_bytes
    for record in records:
        sums[record[0]] += integer(hashed(encode(record), digest_size=16, key=digest_key).digest(), "big")
    return sums


def digest_of(records: Iterable[Record], digest_key: bytes) -> bytes:
    """Σ of the record hashes modulo 2¹²⁸: the same for any order, updated by addition and subtraction."""
    return (sum(record_hash(r, digest_key) for r in records) % _MODULUS).to_bytes(16, "big")


def shift_digest(digest: bytes, gone: Iterable[Record], come: Iterable[Record], digest_key: bytes) -> bytes:
    """The digest after `gone` records left and `come` records entered."""
    total = int.from_bytes(digest, "big")
    for record in gone:
        total -= record_hash(record, digest_key)
    for record in come:
        total += record_hash(record, digest_key)
    return (total % _MODULUS).to_bytes(16, "big")


def sum_digests(digests: Iterable[bytes]) -> bytes:
    """Σ of digests modulo 2¹²⁸: the digest of all the records together."""
    return (sum(int.from_bytes(d, "big") for d in digests) % _MODULUS).to_bytes(16, "big")


class Answered(msgspec.Struct, array_like=True, frozen=True):
    """Body of an idempotency record: the digest of method, path and body, and the one true answer."""

    request_digest: bytes
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    at_ms: int


class TimerBody(msgspec.Struct, array_like=True, frozen=True):
    """Body of a timer record. `generation` grows at each arming, so each (timer, generation) fires once."""

    name: str
    generation: int
    due_ms: int
    data: bytes


class OutboxBody(msgspec.Struct, array_like=True, frozen=True):
    """Body of an outbox record: to another key of this service (`to_key`) or to a consumer's URI (`uri`)."""

    to_key: bytes | None
    nf: str
    name: str
    uri: str | None
    body: bytes


def outbox_id(n: int, i: int) -> str:
    """Id of the i-th outbox entry of the unit that made the key's n-th commit; sorts in delivery order."""
    return f"{n:016x}{i:04x}"
