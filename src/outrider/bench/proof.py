"""How long the proof takes that a copy is equal: digests are kept as records change, so it is only to compare them."""

import time
from pathlib import Path

from outrider.bench.figures import Proof
from outrider.core.ids import PARTITIONS, partition_range
from outrider.store.sqlite import SqliteStore


def proof(path: Path) -> Proof:
    """Time both at the store in this file, which no keeper has open; a store that is not sound is a `RuntimeError`."""
    store = SqliteStore.open(path)
    try:
        started = time.monotonic()
        for partition in range(PARTITIONS):
            store.partition_sum(*partition_range(partition))
        compared = time.monotonic()
        wrong = store.check()
        recomputed = time.monotonic()
    finally:
        store.close()
    if wrong:
        raise RuntimeError(f"the target's store is not sound: {wrong[0]}")
    return Proof(round(compared - started, 3), round(recomputed - compared, 3))
