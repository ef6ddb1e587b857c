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


@dataclass(frozen=True, slots=True)
class Unfold:
    """What the commit that accepts `*p` does with the taker's own rows: delete `dropped`, write out `kept`.

    `kept` are the excepted UEs that had no row of their own here: the row that was effective for them stays so. Without
    it a UE that the giver never owned would become this network's with the rest.
    """

    dropped: frozenset[bytes]
    kept: Mapping[bytes, Row]


def unfold(x: int, star: Row, rows: Mapping[bytes, Row], excepted: Collection[bytes]) -> Unfold | bytes:
    """How the taker's rows change when it takes `*p` at epoch x; or one key that shows that the grant cannot be right.

    `star` is the taker's `*p` before. Every row deleted must be below x and not OWNED. Another row means that this
    network owns or decides about a key that the giver believes to be its own: refuse and alarm. GRANTED(w) below x is
    deleted like FOREIGN: the giver could not have the key in its `*p` if w had not been taken, its answer was lost.
    """
    keep = frozenset(excepted)
    dropped = frozenset(rows) - keep
    for k in dropped:
        if rows[k].state is Ownership.OWNED or rows[k].epoch >= x:
            return k
    return Unfold(dropped, set_apart(star, rows, keep))


def set_apart(star: Row, rows: Mapping[bytes, Row], excepted: Collection[bytes]) -> dict[bytes, Row]:
    """The rows that a network writes out in *every* commit that decides about a `*p` epoch: take, refuse and recall.

    `excepted` are the UEs that the giver's message does not speak of, `star` is `*p` before. A UE without a row follows
    `*p`; when `*p` moves on without it, the row that was effective for it must stay, also when `*p` is refused: with
    the refused epoch as its own, a later grant of that UE alone would look old, be answered ACCEPTED, and be lost.
    A GRANTED `*p` is written out as FOREIGN, because a newer epoch from elsewhere proves that it was taken.
    """
    was = star if star.state is Ownership.FOREIGN else Row(Ownership.FOREIGN, star.epoch, star.peer, mig=star.mig)
    return {k: was for k in excepted if k not in rows}


def effective(key_row: Row | None, star: Row) -> Row:
    """The row that holds for a UE: its own, else a copy of its partition's."""
    return star if key_row is None else key_row
