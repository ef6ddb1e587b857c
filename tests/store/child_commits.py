"""Commits units for ever and tells each batch that was answered, until it is killed. `unit` says what is in them.

Used as a program (`child_commits.py FILE`) by the test that kills it, and read by that test to know what must be there.
"""

import os
import random
import sys

from outrider.core.ids import partition_key, ue_key
from outrider.core.record import Answered, Change, Kind
from outrider.protocol.ownership import Ownership, Row
from outrider.store import checkpoint
from outrider.store.port import SetRow, SetValue, Work
from outrider.store.sqlite import SqliteStore

KEYS = [ue_key(bytes([0]) + bytes([n]) * 15) for n in range(20)]


def batch(number):
    """The operations of batch `number`: units of random keys, and a value that counts the batches."""
    chance = random.Random(number)
    units = []
    for i in range(chance.randrange(1, 8)):
        changes = []
        for name in chance.sample("abcd", chance.randrange(1, 4)):
            body = None if chance.random() < 0.2 else f"{number}.{i}.{name}".encode() * chance.randrange(1, 200)
            changes.append(Change(Kind.DATA, "nf", name, body))
        if chance.random() < 0.3:
            changes.append(Change(Kind.TIMER, "nf", "t", b"", number))
        answer = Answered(b"request", 200, [], str(number).encode(), 0)
        units.append(Work(chance.choice(KEYS), 1, changes, f"{number}.{i}", answer))
    return [*units, SetValue("batches", str(number + 1).encode())]


def main(path):
    checkpoint.CHECKPOINT_PAGES = 30  # so that kills hit checkpoints too
    store = SqliteStore.open(path)
    if store.value("batches") is None:
        star, nothing = partition_key(0), Row(Ownership.FOREIGN, 0)
        store.commit([SetRow(star, nothing, Row(Ownership.OWNED, 1)), SetValue("batches", b"0")])
    number = int(store.value("batches"))
    os.write(1, f"{number}\n".encode())
    while True:
        store.commit(batch(number))
        number += 1
        os.write(1, f"{number}\n".encode())
        if number % 50 == 0:
            store.trim_log(store.last_lsn() - 20)


if __name__ == "__main__":
    main(sys.argv[1])
