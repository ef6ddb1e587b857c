"""Commits ever more until the disk refuses, then says what was answered, and what a further commit says.

`child_fill.py FILE [BYTES]`: with BYTES no file of this process may grow beyond them.
"""

import json
import resource
import sys

from outrider.core.ids import partition_key, ue_key
from outrider.core.record import Change, Kind
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import SetRow, StoreFault, Work
from outrider.store.sqlite import SqliteStore

STAR = partition_key(0)


def main(path, limit):
    store = SqliteStore.open(path)
    store.commit([SetRow(STAR, Row(Ownership.FOREIGN, 0), Row(Ownership.OWNED, 1))])
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # Python ignores SIGXFSZ, so writes fail
    answered, faults = 0, []
    for _ in range(2):
        try:
            while True:
                key = ue_key(answered.to_bytes(2, "little") * 8)
                key = key[:1] + b"\0" + key[2:]
                store.commit([Work(key, 1, [Change(Kind.DATA, "nf", "large", bytes([answered % 251]) * 50_000)])])
                answered += 1
        except StoreFault as fault:
            faults.append(str(fault))
    still = store.context(key).head.n, store.last_lsn()
    print(json.dumps({"answered": answered, "faults": faults, "readable": still}), flush=True)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
