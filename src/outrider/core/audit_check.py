"""Finds where an audit log was edited, cut, added to, put in another order or written anew.

Theory of operation
-------------------
A log is lines in some order; each has the bytes of an event and the digest that was stated beside them. Three things
are compared: the bytes with the stated digest (an *edit* of one line), each event's `before` and `sequence` with the
event that stands before it (a *cut*, an *insertion*, another *order*), and the events with heads that somebody else
vouches for (a log that was *written anew* from some place on, or cut at its end, is whole in itself: only heads tell).

The walk goes from the first event on and takes the line that follows the one taken last: that says the next sequence
and holds its digest. Where the next line does not follow, it looks for one that does. If there is one, the lines that
it passes are kept aside: they have another place (reordered) or none (inserted). If there is none, the log is broken
here: a later sequence means a cut, the next sequence that the events were replaced. A line whose bytes do not fit their
stated digest was edited; it keeps its place, and either of the two digests may link it to the next, so that one edit is
one finding.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from outrider.core.audit import NOTHING, Event, hash_of, read_event
from outrider.core.canonical import NotCanonical
from outrider.core.refusal import Refusal

FINDINGS = 100
"""Findings that are told; a log of which nothing fits has as many as lines."""


class Line(NamedTuple):
    """One event as it stands in a log: which line, its bytes, and the digest beside it."""

    number: int
    data: bytes
    stated: str


class Vouched(NamedTuple):
    """A head that somebody vouches for with a signature."""

    sequence: int
    hash: str
    by: str
    """Whose signatures, for people."""


class Verdict(msgspec.Struct, frozen=True, rename="camel"):
    """What was found in one log."""

    network: str
    events: int
    sequence: int
    """Of the last event."""
    hash: str
    vouched: int
    """Up to this sequence somebody else's signature holds the log; 0 if none does."""
    findings: list[Refusal] = []


class _Item(NamedTuple):
    number: int
    event: Event | None
    hash: str
    stated: str

    @property
    def edited(self) -> bool:
        return self.event is None or self.hash != self.stated

    def follows(self, last: "_Taken") -> bool:
        return self.event is not None and self.event.sequence == last.sequence + 1 and self.event.before in last.hashes


class _Taken(NamedTuple):
    """The line that was taken last: its place, where it stands, and the digests that the next may hold."""

    sequence: int
    number: int
    hashes: frozenset[str]


def verify(
    network: str, lines: Iterable[Line], heads: Sequence[Vouched] = (), *, end: Vouched | None = None
) -> Verdict:
    """Check one network's log, whole from its first event on; `end` is its own signed word of where it ends."""
    findings: list[Refusal] = []
    items = [_read(line, network, findings) for line in lines]
    chain = _walk(items, findings)
    hashes = {sequence: frozenset({item.hash, item.stated}) for sequence, item in chain}
    last = max(hashes, default=0)
    vouched = _compare(hashes, (h for h in heads if h.sequence <= last), findings)
    _missing(last, heads if end is None else [*heads, end], findings)
    if end is not None:
        _beyond(last, end, findings)
        if end.sequence <= last and not any(f.code == "AUDIT_REWRITTEN" for f in findings):
            _compare(hashes, [end], findings)
    return Verdict(network, len(items), last, chain[-1][1].hash if chain else NOTHING, vouched, findings[:FINDINGS])


def _read(line: Line, network: str, findings: list[Refusal]) -> _Item:
    own = hash_of(line.data)
    try:
        event = read_event(line.data)
    except NotCanonical as error:
        findings.append(
            _found("AUDIT_EDITED", f"Line {line.number} is no event as it is written: {error}.", line=line.number)
        )
        return _Item(line.number, None, own, line.stated)
    if own != line.stated:
        findings.append(
            _found(
                "AUDIT_EDITED",
                f"Event {event.sequence} on line {line.number} does not fit its digest: it was edited.",
                line=line.number,
                sequence=event.sequence,
            )
        )
    elif event.network != network:
        findings.append(
            _found(
                "AUDIT_OF_ANOTHER",
                f"Event {event.sequence} on line {line.number} is of the log of {event.network}, not {network}.",
                line=line.number,
                sequence=event.sequence,
            )
        )
    return _Item(line.number, event, own, line.stated)


def _walk(items: list[_Item], findings: list[Refusal]) -> list[tuple[int, _Item]]:
    """The events in their true order, as far as there is one; what stands in its way becomes findings."""
    following: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        if item.event is not None:
            following.setdefault(item.event.before, []).append(index)
    chain: list[tuple[int, _Item]] = []
    free = set(range(len(items)))
    last = _Taken(0, 0, frozenset({NOTHING}))
    index = 0
    while free:
        while index < len(items) and index not in free:
            index += 1
        found = _next(items, free, following, last, index)
        if found is None and index >= len(items):
            break
        if found is None:
            found = index
            if not _place(items[index], last, findings):
                index += 1  # it has no place; it stays free
                continue
        item = items[found]
        sequence = item.event.sequence if item.event is not None and not item.edited else last.sequence + 1
        if chain and item.number < chain[-1][1].number:
            findings.append(_moved(chain[-1], (sequence, item)))
        chain.append((sequence, item))
        free.discard(found)
        last = _Taken(sequence, item.number, frozenset({item.hash, item.stated}))
    for left in sorted(free):
        item = items[left]
        findings.append(
            _found(
                "AUDIT_INSERTED",
                f"Line {item.number} is not of this log: no event goes before or after it here.",
                line=item.number,
                **({"sequence": item.event.sequence} if item.event is not None else {}),
            )
        )
    return chain


def _next(items: list[_Item], free: set[int], following: dict[str, list[int]], last: _Taken, index: int) -> int | None:
    """The line that follows the one taken last; of several, the one that something else follows."""
    fits = [i for h in last.hashes for i in following.get(h, ()) if i in free and items[i].follows(last)]
    fits.sort(key=lambda i: (not ({items[i].hash, items[i].stated} & following.keys()), abs(i - index)))
    return fits[0] if fits else None


def _place(item: _Item, last: _Taken, findings: list[Refusal]) -> bool:
    """Whether a line that does not follow the one before it has its place here all the same; and what is missing."""
    if item.edited:
        return True  # which is a finding already
    assert item.event is not None
    sequence = item.event.sequence
    if sequence <= last.sequence:
        return False
    if sequence == last.sequence + 1:
        findings.append(
            _found(
                "AUDIT_REPLACED",
                f"Event {sequence} on line {item.number} does not follow event {last.sequence} on line {last.number}: "
                "one of them, or everything from there on, was written anew.",
                line=item.number,
                sequence=sequence,
            )
        )
        return True
    findings.append(
        _found(
            "AUDIT_CUT",
            f"{_range(last.sequence + 1, sequence - 1)} missing before line {item.number}.",
            line=item.number,
            sequence=last.sequence + 1,
            until=sequence - 1,
        )
    )
    return True


def _moved(before: tuple[int, _Item], after: tuple[int, _Item]) -> Refusal:
    return _found(
        "AUDIT_REORDERED",
        f"Event {after[0]} stands on line {after[1].number}, before event {before[0]} on line {before[1].number}.",
        line=after[1].number,
        sequence=after[0],
        other=before[1].number,
    )


_Hashes = dict[int, frozenset[str]]
"""By sequence: the digest of the event's bytes, and the one stated beside them, which differ where it was edited."""


def _compare(hashes: _Hashes, heads: Iterable[Vouched], findings: list[Refusal]) -> int:
    """Up to where the heads hold the log; the first that does not fit it says from where on it is another."""
    good = 0
    for head in sorted(heads):
        if head.sequence and head.sequence not in hashes:
            continue  # it was cut, which is a finding already
        if head.sequence and head.hash not in hashes[head.sequence]:
            findings.append(
                _found(
                    "AUDIT_REWRITTEN",
                    f"Event {head.sequence} is not the one that {head.by} signed: the log was written anew somewhere "
                    f"from event {good + 1} to event {head.sequence}.",
                    sequence=good + 1,
                    until=head.sequence,
                )
            )
            break
        good = head.sequence
    return good


def _missing(last: int, heads: Iterable[Vouched], findings: list[Refusal]) -> None:
    """What heads say was in the log beyond its last event."""
    furthest = max((h for h in heads if h.sequence > last), default=None)
    if furthest is not None:
        findings.append(
            _found(
                "AUDIT_CUT",
                f"{_range(last + 1, furthest.sequence)} missing at the end: {furthest.by} signed event "
                f"{furthest.sequence}.",
                sequence=last + 1,
                until=furthest.sequence,
            )
        )


def _beyond(last: int, end: Vouched, findings: list[Refusal]) -> None:
    if last > end.sequence:
        findings.append(
            _found(
                "AUDIT_INSERTED",
                f"{_range(end.sequence + 1, last)} not of this log: {end.by} signed that it ends at {end.sequence}.",
                sequence=end.sequence + 1,
                until=last,
            )
        )


def _range(first: int, last: int) -> str:
    return f"Event {first} is" if first == last else f"Events {first} to {last} are"


def _found(code: str, sentence: str, **facts: int) -> Refusal:
    return Refusal(code, sentence, {name: str(value) for name, value in facts.items()}, status=409)
