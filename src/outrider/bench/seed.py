"""Puts many contexts into a store that no keeper has open, as the API would have made each of them.

Every context is one unit of the owner (`Work`), the operation by which a keeper commits a `POST`: the record that the
service's own code makes, as the SDK encodes it, and the identity bound to a random key. So rows, heads, digests and
versions are the store's own work; `tests/bench/test_seed.py` compares the two ways in.

Only two things differ from that many requests: commits are as large as fit, and the log, which nobody follows yet, is
trimmed as the keeper would have done.
"""

import functools
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from outrider.core.ids import ue_key
from outrider.core.record import Change, Kind
from outrider.demo.access import Nf
from outrider.demo.processes import ProcessFailed
from outrider.protocol.ownership import Ownership
from outrider.store.port import Done, Durability, Work
from outrider.store.sqlite import SqliteStore

SERVICE = Path(__file__).parent / "service"
"""Folder of the service that is moved."""

NF = "nsmf-benchcounter"
SESSION = Nf("SMF", NF, "bench")
ROOT = f"/{NF}/v1/ue-sessions"
HOME_PREFIX = "99970"
BATCH = 20_000
"""Units in one commit."""

_canonical = msgspec.json.Encoder(order="sorted")


def supi(number: int) -> str:
    """The SUPI of a UE of the home PLMN 999-70."""
    return f"imsi-{HOME_PREFIX}{number:010}"


def creation(number: int) -> dict[str, object]:
    """The body of the request that would create the context of a UE."""
    return {"supi": supi(number), "seed": number}


def body(number: int) -> bytes:
    """The record that the service makes for a UE, as the SDK encodes it."""
    return _canonical.encode(_context().make(number))


def seed(store: SqliteStore, count: int, first: int = 1, until_s: float | None = None) -> int:
    """Put UEs `first` … `first + count - 1` into the store; returns the bytes of their records."""
    keys = sorted(ue_key(os.urandom(16)) for _ in range(count))
    epochs = _epochs(store)
    total = 0

    def works() -> Iterator[Work]:
        nonlocal total
        for number, key in enumerate(keys, first):
            record = body(number)
            total += len(record)
            changes = [Change(Kind.DATA, NF, _context().RECORD, record)]
            yield Work(key, epochs[key[1]], changes, identity=supi(number))

    each = works()
    while batch := list(islice(each, BATCH)):
        if until_s is not None and time.monotonic() > until_s:
            raise ProcessFailed(f"putting {count} contexts into the store took longer than its limit")
        outcomes = store.commit(batch)
        wrong = next((o for o in outcomes if not isinstance(o, Done)), None)
        if wrong is not None:
            raise RuntimeError(f"the store did not take a context: {wrong}")
        store.trim_log(store.last_lsn())
    return total


def seed_file(path: Path, count: int, limit_s: float | None = None) -> tuple[int, float]:
    """Fill the store in this file; the bytes of the records, and the seconds that it took until they were durable."""
    started = time.monotonic()
    store = SqliteStore.open(path, durability=Durability.OFF)
    try:
        size = seed(store, count, until_s=None if limit_s is None else started + limit_s)
    finally:
        store.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return size, time.monotonic() - started


def _epochs(store: SqliteStore) -> list[int]:
    """The epoch at which this store owns each partition."""
    rows = [store.row(b"p" + bytes([partition])) for partition in range(256)]
    if any(row.state is not Ownership.OWNED for row in rows):
        raise RuntimeError("the store does not own every partition, so it is not that of a service at home")
    return [row.epoch for row in rows]


@functools.cache
def _context() -> Any:
    """The service's own module; it is not part of this package, because it runs in a worker."""
    if str(SERVICE) not in sys.path:
        sys.path.insert(0, str(SERVICE))
    from bench_counter import context  # type: ignore[import-not-found,unused-ignore]

    return context
