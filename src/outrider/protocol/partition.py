"""`*p`: one row for all UEs of a partition that have no row of their own, and how rows fold into it and out of it.

A grant of `*p` moves thousands of UEs with one message. It must not move a UE that somebody else owns, and it must
not leave an old row behind that says otherwise. So the giver folds its own OWNED rows into `*p` first and names the
keys that keep a row (`excepted`); the taker deletes its rows of all other keys, and refuses if one of them is not a
plain FOREIGN row below the new epoch (PROTOCOL.md §1, folding). Rows vanish in no other way.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from outrider.protocol.ownership import Ownership, Row


@dataclass(frozen=True, slots=True)
class Fold:
    """What the commit that grants `*p` does first.

    `floor` is the highest epoch folded (the grant's x is one more); rows of `dropped` are deleted; `kept` are rows
    written out for UEs that must stay and had none; `excepted` is the grant's list.
    """

    floor: int
    dropped: frozenset[bytes]
    kept: Mapping[bytes, Row]
    excepted: frozenset[bytes]


def fold(star: Row, rows: Mapping[bytes, Row], stay: Collection[bytes] = ()) -> Fold:
    """Fold the OWNED rows of a partition into its `*p`, but for the keys that must stay.

    `rows` are this network's own rows of UEs of the partition, `stay` the UEs that are not to move.
    """
    staying = frozenset(stay)
    dropped = frozenset(k for k, row in rows.items() if row.state is Ownership.OWNED and k not in staying)
    kept = {k: Row(Ownership.OWNED, star.epoch, mig=star.mig) for k in staying if k not in rows}
    floor = max([star.epoch, *(rows[k].epoch for k in dropped)])
    return Fold(floor, dropped, kept, (frozenset(rows) - dropped) | frozenset(kept))


def unfold(x: int, rows: Mapping[bytes, Row], excepted: Collection[bytes]) -> frozenset[bytes] | bytes:
    """The rows that the taker of `*p` at epoch x deletes; or, where the grant cannot be right, one key that shows it.

    Every row deleted must be FOREIGN below x. Another row means that this network owns or has granted a key that the
    giver believes to be its own: refuse and alarm.
    """
    keep = frozenset(excepted)
    dropped = frozenset(rows) - keep
    for k in dropped:
        if rows[k].state is not Ownership.FOREIGN or rows[k].epoch >= x:
            return k
    return dropped


def effective(key_row: Row | None, star: Row) -> Row:
    """The row that holds for a UE: its own, else a copy of its partition's."""
    return star if key_row is None else key_row
