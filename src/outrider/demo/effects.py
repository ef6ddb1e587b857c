"""Judges what a service does by itself: timers that fire, and notifications that reach a subscriber."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from outrider.demo.chain import Violation
from outrider.demo.histories import Final, FinalPolicy, Notified, Opened, Subscribed


def judge_timer(ue: str, policy: FinalPolicy, *, grace_ms: int) -> list[Violation]:
    """Renewals that did not happen, and those that happened twice.

    Renewal s is due `validity_ms` × s after the policy was made; `grace_ms` is how late the last one may be. The list
    of firings is bounded: of those before it only the number is known.
    """
    found: list[Violation] = []
    sequences = [firing.sequence for firing in policy.firings]
    listed = set(sequences)
    first = min(listed, default=policy.renewals + 1)
    before = policy.renewals - len(sequences)
    for sequence in sorted(listed):
        for _ in range(sequences.count(sequence) - 1):
            found.append(Violation("timer-doubled", ue, f"renewal {sequence} fired twice"))
    for _ in range(before - (first - 1)):
        found.append(Violation("timer-doubled", ue, f"one renewal before number {first} fired twice"))
    for _ in range(first - 1 - before):
        found.append(Violation("timer-missed", ue, f"one renewal before number {first} did not fire"))
    due = max(0, policy.now_ms - grace_ms - policy.created_ms) // policy.validity_ms
    for sequence in range(first, max(due, max(listed, default=0)) + 1):
        if sequence not in listed:
            found.append(Violation("timer-missed", ue, f"renewal {sequence} did not fire"))
    return found


@dataclass
class _Stream:
    """What one subscriber got about one member: numbers, ids dropped."""

    got: set[int] = field(default_factory=set)
    highest: int = 0


def judge_notifications(
    notified: Iterable[Notified],
    subscribed: Iterable[Subscribed],
    opened: Mapping[str, Opened],
    finals: Iterable[Final],
) -> list[Violation]:
    """Notifications that a subscriber did not get, got twice, or got out of a member's order.

    A repetition under an id that was seen is not counted: that is what the id is for. One that the sink refused was
    not got. A member's numbers are expected from 1, or, where it joined before the subscription, from the first got.
    """
    found: list[Violation] = []
    streams: dict[tuple[str, str], _Stream] = defaultdict(_Stream)
    seen: set[tuple[str, str]] = set()
    for n in notified:
        if n.status >= 300 or (n.subscription, n.id) in seen:
            continue
        seen.add((n.subscription, n.id))
        stream = streams[n.subscription, n.member]
        if n.number in stream.got:
            said = f"notification {n.number} came again under another id"
            found.append(Violation("notification-duplicated", n.member, said))
        elif n.number < stream.highest:
            said = f"notification {n.number} came after {stream.highest}"
            found.append(Violation("notification-reordered", n.member, said))
        stream.got.add(n.number)
        stream.highest = max(stream.highest, n.number)
    members = [(f, f.presence) for f in finals if f.presence is not None]
    for subscription in subscribed:
        for final, presence in members:
            if presence.group != subscription.group:
                continue
            got = streams[subscription.subscription, presence.member].got
            joined = opened.get(final.ue)
            from_start = joined is not None and joined.sent >= subscription.ended
            first = 1 if from_start else min(got, default=presence.events)
            for number in range(first, presence.events + 1):
                if number not in got:
                    said = f"notification {number} of {presence.events} did not come"
                    found.append(Violation("notification-lost", final.ue, said))
            for number in sorted(got):
                if number > presence.events:
                    said = f"notification {number} came, but there were {presence.events} events"
                    found.append(Violation("phantom", final.ue, said))
    return found
