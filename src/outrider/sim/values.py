"""The values that the searched world is made of: what a network holds, what a message says, and how to print them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

from outrider.protocol.ownership import Ownership, Row, Vol

T = TypeVar("T")

NAMES = "ABCDE"
HOME = 0
STAR = 0
OUT, BACK = "m", "m-return"

Rows = tuple[Row | None, ...]
Content = tuple[int, ...]
"""Units committed, in order; each is its epoch and its network (`entry`)."""


def entry(epoch: int, i: int) -> int:
    """A unit that network `i` committed in that epoch."""
    return epoch * len(NAMES) + i


def content_text(content: Content) -> str:
    """A content for people: `[1A 3B]` is a unit by A in epoch 1 and one by B in epoch 3."""
    return "[" + " ".join(f"{u // len(NAMES)}{NAMES[u % len(NAMES)]}" for u in content) + "]"


def key_name(k: int) -> str:
    """A key for people."""
    return "*p" if k == STAR else f"u{k}"


@cache
def key_bytes(k: int) -> bytes:
    """A key as `protocol.partition` wants it."""
    return key_name(k).encode()


@dataclass(frozen=True)
class Bounds:
    """How large the world is and which faults it has."""

    networks: int = 2
    ues: int = 1
    star: bool = False
    """UEs begin without a row of their own, and `*p` can be granted with any choice of UEs that stay."""
    epochs: int = 5
    """No grant has a higher epoch."""
    writes: int = 2
    """Units committed, over all keys."""
    units: bool = False
    """Holding, draining, beginning and ending a unit are steps of their own, so that they interleave."""
    stream: bool = False
    aborts: bool = False
    losses: bool = False
    home_losses: bool = False
    """Home loses its disk, serves nothing while it is gone, and may find it again or begin anew."""
    declares: bool = False
    """Home hears that B's disk is another, and its operator declares the old one lost, at any time after that."""
    refusals: bool = True
    recalls: bool = True
    forget: bool = False
    """Drop messages that cannot matter any more (`World.alive`): far fewer states. That they cannot is searched too."""


class Net(NamedTuple):
    """What one network holds. Index 0 is `*p`; a UE's row is None while it follows `*p`."""

    rows: tuple[Row | None, ...]
    copies: tuple[Content, ...]
    vols: tuple[Vol, ...]
    units: tuple[int, ...]
    """Epoch in which the open unit of the key began; 0 if none is open."""
    aborted: bool = False
    store: int = 0
    """How often this network has lost its disk."""
    banned: bool = False
    """B's first disk is declared lost here: nothing of it is heard any more."""
    down: bool = False
    """Home's disk is not there (the rows are those on it, for it may be put back): nothing is done or heard."""
    away: bool = False
    """What home's journal says, which is not on that disk: keys may be elsewhere."""
    aside: tuple[Rows, tuple[Content, ...]] | None = None
    """An older copy of home's disk, for the twin that serves from it."""


class Msg(NamedTuple):
    """A message. `body` is one content, or, for `*p`, one for each UE (None: excepted)."""

    kind: str
    source: int
    target: int
    key: int
    x: int = 0
    body: tuple[Content | None, ...] = ()
    full: bool = False
    excepted: tuple[int, ...] = ()
    now: int = 0
    """ACCEPTED: the epoch that the key has now, for the twin that believes it (nothing else reads it)."""

    def __str__(self) -> str:
        except_ = f" except {' '.join(map(key_name, self.excepted))}" if self.excepted else ""
        whole = " whole" if self.full else ""
        of = "" if self.kind == "ABORT" else f" {key_name(self.key)}@{self.x}"
        return f"{self.kind}{of}{whole}{except_} of {NAMES[self.source]}"


class Change(NamedTuple):
    """What one event does at one network."""

    net: Net
    sent: tuple[Msg, ...]
    label: str
    fault: str | None = None
    decides: tuple[str, int, int] | None = None
    """A grant or an answer decided for the first time: ("grant" or "answer", key, epoch)."""
    commit: tuple[int, Content] | None = None
    """A unit: the key, and the content that it was committed on."""


def put(values: tuple[T, ...], k: int, value: T) -> tuple[T, ...]:
    """The tuple with one element changed."""
    return (*values[:k], value, *values[k + 1 :])


def effective(net: Net, k: int) -> Row:
    """The row that holds for a key: its own, else that of `*p`."""
    row = net.rows[k]
    if row is None:
        row = net.rows[STAR]
    assert row is not None
    return row


def own_rows(net: Net) -> dict[bytes, Row]:
    """The rows of their own of the UEs."""
    return {key_bytes(k): row for k, row in enumerate(net.rows) if k != STAR and row is not None}


def with_rows(net: Net, written: Mapping[bytes, Row], dropped: Collection[bytes] = ()) -> Rows:
    """The rows of a network with some of its UEs' written out and some deleted."""
    names = [key_bytes(k) for k in range(len(net.rows))]
    return tuple(None if k in dropped else written.get(k, row) for k, row in zip(names, net.rows, strict=True))


def row_text(row: Row) -> str:
    """A row for people: `OWNED 3`, `GRANTED 4 → B`, `FOREIGN 4 at B`, `FOREIGN 4 at A refused`."""
    match row.state:
        case Ownership.OWNED:
            return f"OWNED {row.epoch}"
        case Ownership.GRANTED:
            return f"GRANTED {row.epoch} → {row.peer}" + (" fenced" if row.fenced else "")
        case _:
            marks = (" refused" if row.refused else "") + (" fenced" if row.fenced else "")
            return f"FOREIGN {row.epoch} at {row.peer}{marks}"


def net_text(net: Net, keys: Iterable[int]) -> str:
    """A network's state for people."""
    parts = []
    for k in keys:
        row, held = net.rows[k], net.vols[k].held
        if row is None and not net.copies[k] and not net.units[k]:
            continue
        text = f"{key_name(k)} " + ("as *p" if row is None else row_text(row))
        text += f" held for {held.peer}" if held else ""
        text += ", in work" if net.units[k] else ""
        parts.append(text + (f" {content_text(net.copies[k])}" if net.copies[k] else ""))
    return " · ".join(parts) + (" · aborted" if net.aborted else "") + (" · no disk" if net.down else "")
