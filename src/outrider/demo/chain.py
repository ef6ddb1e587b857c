"""Judges one UE's transactions: is there one order in which they were applied, and is it the one that was answered?

Each transaction that is applied raises the UE's `count` by one, and its answer tells the count and which transaction
came before. From the state at the end, the order is followed backwards: the last count belongs to the last
transaction, its answer names the one before, and so on. What is on this *chain* was applied for good.

- **lost**: answered 2xx, and not on the chain.
- **duplicated**: on the chain twice, or the count rose more often than the transactions sent can explain.
- **reordered**: on the chain before another one whose answer had come before it was sent.
- **phantom**: on the chain, though its answer said that it has no effect, or though it was never sent.
- **conflict**: two networks gave the same count, or one gave a count that another had reached before it was asked:
  each then served the UE without knowing of the other.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from outrider.demo.histories import FinalSession, Transaction

Kind = Literal["lost", "duplicated", "reordered", "phantom", "conflict", "unreadable"]


class Violation(NamedTuple):
    """Something that must not happen, happened to a UE."""

    kind: str
    ue: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.ue}: {self.sentence}"


class _Place(NamedTuple):
    """A transaction on the chain, at a count; `ended` is infinite if its answer never came."""

    at: int
    seq: int
    sent: float
    ended: float


@dataclass
class _Chain:
    places: list[_Place] = field(default_factory=list)
    off: list[tuple[Transaction, str]] = field(default_factory=list)
    """Answered transactions that are not on it, and what stands where they should."""
    unanswered: list[tuple[int, int]] = field(default_factory=list)
    """(count, seq) that are known only from the answer that followed, or from the end."""
    holes: int = 0
    """Counts of which nothing is known but that something has them."""


def judge_transactions(ue: str, transactions: Sequence[Transaction], final: FinalSession | None) -> list[Violation]:
    """What is wrong with a UE's history; empty if nothing is."""
    answered = [t for t in transactions if t.outcome == "ok" and t.count is not None]
    found = [
        Violation("unreadable", ue, f"the answer to transaction {t.seq} has no count")
        for t in transactions
        if t.outcome == "ok" and t.count is None
    ]
    chain = _chain(answered, final)
    found += [
        Violation("lost", ue, f"transaction {t.seq} was answered with count {t.count}, but {instead}")
        for t, instead in chain.off
    ]
    found += _unexplained(ue, transactions, chain)
    found += _out_of_order(ue, chain.places)
    found += _conflicts(ue, answered)
    return found


def _chain(answered: Iterable[Transaction], final: FinalSession | None) -> _Chain:
    """Follow the order of application backwards from the end."""
    at: dict[int, list[Transaction]] = defaultdict(list)
    for t in answered:
        at[t.count or 0].append(t)
    top = final.count if final else max(at, default=0)
    known = _known_at_end(final)
    chain = _Chain()
    for count in [c for c in at if c > top or c < 1]:
        chain.off += [(t, f"the count at the end is {top}") for t in at[count]]
    for count in range(top, 0, -1):
        seq = known.get(count)
        here = [t for t in at[count] if seq in (None, t.seq)][:1]
        chain.off += [(t, _instead(count, here, seq)) for t in at[count] if t not in here]
        if here:
            (t,) = here
            chain.places.append(_Place(count, t.seq, t.sent, t.ended))
            if t.chained and t.previous_seq is not None:
                known.setdefault(count - 1, t.previous_seq)
        elif seq is not None:
            chain.unanswered.append((count, seq))
        else:
            chain.holes += 1
    return chain


def _known_at_end(final: FinalSession | None) -> dict[int, int]:
    """Which transactions the state at the end says have which count."""
    if final is None:
        return {}
    seqs = final.recent_seqs or ([] if final.last_seq is None else [final.last_seq])
    return {final.count - i: seq for i, seq in enumerate(reversed(seqs))}


def _instead(count: int, here: list[Transaction], seq: int | None) -> str:
    other = here[0].seq if here else seq
    return f"transaction {other} has count {count}"


def _unexplained(ue: str, transactions: Sequence[Transaction], chain: _Chain) -> list[Violation]:
    """Judge the counts that no answer claims: only a transaction whose outcome is unknown may have them, once."""
    sent = {t.seq: t for t in transactions}
    seen = Counter(place.seq for place in chain.places)
    found: list[Violation] = []
    for count, seq in chain.unanswered:
        t = sent.get(seq)
        seen[seq] += 1
        if t is None:
            found.append(Violation("phantom", ue, f"transaction {seq} has count {count} and was never sent"))
        elif seen[seq] > 1:
            found.append(Violation("duplicated", ue, f"transaction {seq} was applied again, with count {count}"))
        elif t.outcome in ("refused", "failed"):
            said = f"transaction {seq} has count {count}, though its answer ({t.status}) said that it has no effect"
            found.append(Violation("phantom", ue, said))
        chain.places.append(_Place(count, seq, t.sent if t else -math.inf, math.inf))
    maybe = sum(t.outcome == "unknown" and t.seq not in seen for t in transactions)
    for _ in range(chain.holes - maybe):
        found.append(Violation("duplicated", ue, "the count rose once more than the transactions sent can explain"))
    return found


def _out_of_order(ue: str, places: Iterable[_Place]) -> list[Violation]:
    """Transactions applied before another one that had been answered when they were sent."""
    by_sent = sorted(places, key=lambda p: p.sent)
    by_ended = sorted(places, key=lambda p: p.ended)
    found: list[Violation] = []
    last: _Place | None = None
    answered = 0
    for place in by_sent:
        while answered < len(by_ended) and by_ended[answered].ended <= place.sent:
            if last is None or by_ended[answered].at > last.at:
                last = by_ended[answered]
            answered += 1
        if last is not None and place.at < last.at:
            said = f"transaction {place.seq} was sent after {last.seq} was answered, and applied before it"
            found.append(Violation("reordered", ue, said))
    return found


def _conflicts(ue: str, answered: Sequence[Transaction]) -> list[Violation]:
    """Answers by two networks that did not know of each other; one violation for each answer concerned."""
    found: list[Violation] = []
    by_ended = sorted(answered, key=lambda t: t.ended)
    reached: dict[str | None, Transaction] = {}
    gave: dict[int | None, set[str | None]] = defaultdict(set)
    done = 0
    for t in sorted(answered, key=lambda t: t.sent):
        while done < len(by_ended) and by_ended[done].ended <= t.sent:
            a = by_ended[done]
            if a.served_by not in reached or (a.count or 0) > (reached[a.served_by].count or 0):
                reached[a.served_by] = a
            done += 1
        ahead = [a for network, a in reached.items() if network != t.served_by and (a.count or 0) >= (t.count or 0)]
        if ahead:
            said = f"{t.served_by} gave transaction {t.seq} count {t.count} after {ahead[0].served_by} had reached "
            found.append(Violation("conflict", ue, said + str(ahead[0].count)))
        elif gave[t.count] - {t.served_by}:
            both = ", ".join(sorted(str(network) for network in gave[t.count] | {t.served_by}))
            found.append(Violation("conflict", ue, f"count {t.count} was given by two networks: {both}"))
        gave[t.count].add(t.served_by)
    return found
