"""Judges a world when it has come to rest: histories of consumers, timers, messages, notifications, stores.

The order of a UE's operations is known: its book names them in the order in which they were committed, and each
answer tells how long the book was. So a history is linearizable if and only if the book explains it: no operation
that was answered is missing, none is there twice, none that was refused is there, each answer is what the book says
at its place, and what was answered before another began stands before it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from outrider.core.ids import key_text
from outrider.demo.chain import judge_transactions
from outrider.demo.histories import FinalSession, Transaction
from outrider.sim.whole.consumer import Operation
from outrider.sim.whole.service import Book, Heard
from outrider.sim.whole.sink import Notified
from outrider.sim.whole.trace import Violation


class _Place(NamedTuple):
    """Where an answered operation stands: a write at its number, a read behind it."""

    at: float
    operation: Operation


def judge_history(ue: str, history: Sequence[Operation], book: Book) -> list[Violation]:
    """Everything that the consumer was told agrees with one order of what was committed, and with time."""
    found: list[Violation] = []
    orders = {o.order.seq: o for o in history}
    place = {seq: i for i, seq in enumerate(book.seqs, 1)}
    found += [
        Violation("I6", f"operation {seq} of {ue} was committed {count} times")
        for seq, count in Counter(book.seqs).items()
        if count > 1
    ]
    found += [
        Violation("I7", f"operation {seq} of {ue} is committed and was never asked") for seq in place.keys() - orders
    ]
    registers = _registers(book, orders)
    places: list[_Place] = []
    for seq, operation in orders.items():
        at = place.get(seq)
        if operation.order.kind == "read":
            found += _read(operation, book, registers)
            if operation.said is not None:
                places.append(_Place(operation.said.n + 0.5, operation))
        elif operation.outcome == "ok":
            found += _written(operation, at, registers)
        elif operation.outcome == "failed" and at is not None:
            found.append(
                Violation("I8", f"{_named(operation)} was answered {operation.status} (no effect) and is committed")
            )
        if operation.order.kind != "read" and at is not None:
            places.append(_Place(at, operation))
    return found + _against_time(places)


def _named(operation: Operation) -> str:
    return f"{operation.order.kind} {operation.order.seq} of {operation.ue}"


def _registers(book: Book, orders: dict[int, Operation]) -> list[int]:
    """What the register held after each number of committed operations."""
    registers = [0]
    for seq in book.seqs:
        operation = orders.get(seq)
        puts = operation is not None and operation.order.kind == "put"
        registers.append(operation.order.value if operation is not None and puts else registers[-1])
    return registers


def _written(operation: Operation, at: int | None, registers: list[int]) -> list[Violation]:
    said = operation.said
    if said is None or at is None:
        return [Violation("I3", f"{_named(operation)} was answered {operation.status} and is lost")]
    if said.n != at or said.register != registers[at]:
        told = f"{_named(operation)} was answered count {said.n}, register {said.register}; in the book it is "
        return [Violation("I7", f"{told}count {at}, register {registers[at]}")]
    return []


def _read(operation: Operation, book: Book, registers: list[int]) -> list[Violation]:
    said = operation.said
    if said is None:
        return []
    last = book.seqs[said.n - 1] if 0 < said.n <= len(book.seqs) else None
    if said.n > len(book.seqs) or said.register != registers[said.n] or said.previous != last:
        told = f"{_named(operation)} was answered count {said.n}, register {said.register}, after {said.previous}"
        return [Violation("I7", f"{told}: never so in the book")]
    return []


def _against_time(places: Iterable[_Place]) -> list[Violation]:
    """Operations that stand before others which were answered when they were sent."""
    found = []
    by_sent = sorted(places, key=lambda p: p.operation.invoked_s)
    by_end = sorted(by_sent, key=lambda p: p.operation.ended_s)
    reached: _Place | None = None
    ended = 0
    for place in by_sent:
        while ended < len(by_end) and by_end[ended].operation.ended_s <= place.operation.invoked_s:
            if reached is None or by_end[ended].at > reached.at:
                reached = by_end[ended]
            ended += 1
        if reached is not None and place.at < reached.at:
            told = f"{_named(place.operation)} was sent when {_named(reached.operation)} had been answered"
            found.append(Violation("I7", f"{told}, and took effect before it"))
    return found


def judge_chain(ue: str, history: Sequence[Operation], book: Book) -> list[Violation]:
    """The same counts, judged by the demo's checker, which knows clients' histories only."""
    transactions = [
        Transaction(
            ue, o.order.seq, f"{ue}-{o.order.seq}", o.network, o.invoked_s, o.invoked_s, o.ended_s, o.outcome,
            o.attempts, o.status, o.said.n if o.said else None, o.order.seq, o.said.previous if o.said else None,
            chained=o.said is not None, served_by=o.served_by or None,
        )
        for o in history
        if o.order.kind != "read"
    ]  # fmt: skip
    last = book.seqs[-1] if book.seqs else None
    final = FinalSession(count=len(book.seqs), last_seq=last, recent_seqs=book.seqs[-5:], served_by="")
    return [Violation(f"chain: {v.kind}", v.sentence) for v in judge_transactions(ue, transactions, final)]


def judge_timer(ue: str, book: Book) -> list[Violation]:
    """Each generation fired once, and each that was armed and not armed anew has fired."""
    ticks = book.ticks
    found = [
        Violation("I6", f"timer {name} of {ue} fired {count} times")
        for name, count in Counter(ticks.fired).items()
        if count > 1
    ]
    if ticks.wrong:
        found.append(Violation("I6", f"{', '.join(ticks.wrong)} of {ue} fired though it had been armed anew"))
    if len(ticks.fired) != ticks.armed:
        found.append(
            Violation("I6", f"the timer of {ue} was armed {ticks.armed} times and fired {len(ticks.fired)} times")
        )
    return found


def judge_notifications(key: bytes, book: Book, received: Iterable[Notified]) -> list[Violation]:
    """After dropping what was seen before: in order, without a gap, to the end."""
    seen = 0
    by: dict[int, str] = {}
    for n in (n for n in received if n.ue == key_text(key)):
        if n.seq > seen + 1:
            return [Violation("I6", f"notification {n.seq} of {key_text(key)} came after {seen}")]
        if by.setdefault(n.seq, n.by) != n.by:
            return [Violation("I6", f"notification {n.seq} of {key_text(key)} came as two different ones")]
        seen = max(seen, n.seq)
    if seen != book.noted:
        return [Violation("I6", f"{key_text(key)} has sent {book.noted} notifications, and {seen} came")]
    return []


def judge_messages(key: bytes, book: Book, group: dict[str, Heard]) -> list[Violation]:
    """What the group has applied of this member: everything, once, in order."""
    heard = group.get(key_text(key), Heard())
    if heard.wrong or heard.count != book.told:
        told = f"{key_text(key)} has sent {book.told} messages; the group has applied {heard.count}"
        return [Violation("I6", f"{told}, out of order: {heard.wrong}")]
    return []
