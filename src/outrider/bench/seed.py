"""Puts many contexts into a store that no keeper has open, as the API would have made each of them.

Every context is one unit of the owner (`Work`), the operation by which a keeper commits a `POST`: the record that the
service's own code makes, as the SDK encodes it, and the identity bound to a random key. So rows, heads, digests and
versions are the store's own work; `tests/bench/test_seed.py` compares the two ways in.

Only two things differ from that many requests: commits are as large as fit, and the log, which nobody follows yet, is
trimmed as the keeper would have done.
"""

import os
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from outrider.bench.shapes import RECORD, SHAPES, Shape, supi
from outrider.core.ids import ue_key
from outrider.core.record import Change, Kind
from outrider.demo.processes import ProcessFailed
from outrider.protocol.ownership import Ownership
from outrider.store.port import Done, Durability, Work
from outrider.store.sqlite import SqliteStore

BATCH = 20_000
"""Units in one commit."""


def seed(
    store: SqliteStore,
    count: int,
    first: int = 1,
    until_s: float | None = None,
    shape: Shape = SHAPES["session"],
) -> int:
    """Put UEs `first` … `first + count - 1` into the store; returns the bytes of their records."""
    keys = sorted(ue_key(os.urandom(16)) for _ in range(count))
    epochs = _epochs(store)
    total = 0

    def works() -> Iterator[Work]:
        nonlocal total
        for number, key in enumerate(keys, first):
            records = shape.records(number)
            total += sum(map(len, records.values()))
            changes = [Change(Kind.DATA, nf, RECORD, record) for nf, record in records.items()]
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


def seed_file(
    path: Path, count: int, limit_s: float | None = None, shape: Shape = SHAPES["session"]
) -> tuple[int, float]:
    """Fill the store in this file; the bytes of the records, and the seconds that it took until they were durable."""
    started = time.monotonic()
    store = SqliteStore.open(path, durability=Durability.OFF)
    try:
        size = seed(store, count, until_s=None if limit_s is None else started + limit_s, shape=shape)
    finally:
        store.close()
    _sync(path)
    return size, time.monotonic() - started


class Seeds:
    """Stores that were filled once, kept for the next run with the same contexts: a copy takes a tenth of the time."""

    def __init__(self, directory: Path) -> None:
        """The directory's files are those of this run of the command: another version's would be of no use."""
        self._directory = directory
        self._sizes: dict[str, int] = {}

    def put(self, path: Path, count: int, limit_s: float, name: str) -> tuple[int, float]:
        """Fill the store in this file, or put a filled one in its place; as `seed_file`."""
        kept = self._directory / f"{name}-{count}.db"
        started = time.monotonic()
        if kept.name in self._sizes:
            shutil.copyfile(kept, path)
            _sync(path)
            return self._sizes[kept.name], time.monotonic() - started
        size, seconds = seed_file(path, count, limit_s, SHAPES[name])
        shutil.copyfile(path, kept)
        self._sizes[kept.name] = size
        return size, seconds


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _epochs(store: SqliteStore) -> list[int]:
    """The epoch at which this store owns each partition."""
    rows = [store.row(b"p" + bytes([partition])) for partition in range(256)]
    if any(row.state is not Ownership.OWNED for row in rows):
        raise RuntimeError("the store does not own every partition, so it is not that of a service at home")
    return [row.epoch for row in rows]
