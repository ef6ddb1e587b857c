"""The verdict, from what the clients and the notification sink wrote down; no keeper is asked.

    python -m outrider.demo.checker --history clients.jsonl --history sink.jsonl --timeline timeline.json

prints the findings as JSON. Exit code: 0 the verdict is PASS, 1 it is FAIL, 2 the histories cannot be judged.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from outrider.demo import histories
from outrider.demo.chain import Violation, judge_transactions
from outrider.demo.effects import judge_notifications, judge_timer
from outrider.demo.histories import (
    Arrived,
    Basic,
    Discovered,
    Final,
    HistoryError,
    Line,
    Notified,
    Opened,
    Subscribed,
    Transaction,
)
from outrider.demo.quantiles import Quantiles, quantiles

TIMER_GRACE_MS = 2_000
"""How late a timer may be at the end without having been missed: longer than any hold and than a clock skew."""

EXAMPLES = 3
"""Violations of a kind that the verdict quotes."""


class Phase(msgspec.Struct, frozen=True, rename="camel"):
    """A stretch of the run, in seconds of the monotonic clock, and the name that its figures have in the findings."""

    name: str
    from_s: float
    to_s: float


PHASES = ("before", "copy", "during", "after")
"""`during` is whenever contexts are copied or change owner, `copy` the part of it in which they are copied."""


class Timeline(msgspec.Struct, frozen=True, rename="camel"):
    """What happened when, as whoever ran the demo noted it, and which network is which.

    A name may stand for several stretches, and an instant may be in several.
    """

    home: str
    target: str
    phases: list[Phase]

    def at(self, at_s: float) -> set[str]:
        """The names of an instant; none between phases."""
        return {p.name for p in self.phases if p.from_s <= at_s < p.to_s}


class Findings(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the histories show. Shares and ratios are None where there is nothing to compute them from."""

    ues: int
    requests_sent: int
    requests_ok: int
    requests_refused: int
    requests_failed: int
    requests_unknown: int
    attempts: int
    requests_lost: int
    requests_duplicated: int
    requests_reordered: int
    requests_phantom: int
    owner_conflicts: int
    latency_ms: dict[str, Quantiles]
    arrivals: int
    served_locally_on_arrival: float | None
    served_locally_on_return: float | None
    timers_fired: int
    timers_missed: int
    timers_doubled: int
    notifications: int
    notifications_lost: int
    notifications_duplicated: int
    notifications_reordered: int
    basic_sent: int
    basic_failed: int
    basic_latency_ms: dict[str, Quantiles]
    basic_p99_ratio: float | None
    discovery_before: int | None
    discovery_during: int | None
    discovery_after: int | None
    verdict: Literal["PASS", "FAIL"]
    reasons: list[str]
    """What did not hold; empty if the verdict is PASS."""


@dataclass
class _Run:
    """The lines of a run, sorted by what they are."""

    transactions: dict[str, list[Transaction]] = field(default_factory=lambda: defaultdict(list))
    opened: dict[str, Opened] = field(default_factory=dict)
    subscribed: list[Subscribed] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    basic: list[Basic] = field(default_factory=list)
    discovered: list[Discovered] = field(default_factory=list)
    finals: dict[str, Final] = field(default_factory=dict)
    notified: list[Notified] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Put a line where it belongs."""
        match line:
            case Transaction():
                self.transactions[line.ue].append(line)
            case Opened():
                self.opened[line.ue] = line
            case Subscribed():
                self.subscribed.append(line)
            case Arrived():
                self.arrived.append(line)
            case Basic():
                self.basic.append(line)
            case Discovered():
                self.discovered.append(line)
            case Final():
                self.finals[line.ue] = line
            case Notified():
                self.notified.append(line)


def check(
    lines: Iterable[Line],
    timeline: Timeline,
    *,
    allow_failed: bool = False,
    timer_grace_ms: int = TIMER_GRACE_MS,
) -> Findings:
    """Judge a run. `allow_failed`: faults were injected, so requests without an answer alone are no reason to fail."""
    run = _Run()
    for line in lines:
        run.add(line)
    violations = _violations(run, timer_grace_ms)
    kinds = Counter(v.kind for v in violations)
    outcomes = Counter(t.outcome for ts in run.transactions.values() for t in ts)
    latency = _latency(run, timeline)
    basic_failed = sum(not _good(b.status) for b in run.basic)
    basic_latency = _basic_latency(run, timeline)
    discovery = _discovery(run, timeline)
    local = _served_locally(run, home=timeline.home)
    reasons = _missing(run, outcomes["ok"]) + _quoted(violations)
    if not allow_failed:
        reasons += _unserved(run, basic_failed)
    return Findings(
        ues=len(run.transactions.keys() | run.opened.keys()),
        requests_sent=outcomes.total(),
        requests_ok=outcomes["ok"],
        requests_refused=outcomes["refused"],
        requests_failed=outcomes["failed"] + outcomes["unknown"],
        requests_unknown=outcomes["unknown"],
        attempts=sum(len(t.attempts) for ts in run.transactions.values() for t in ts),
        requests_lost=kinds["lost"],
        requests_duplicated=kinds["duplicated"],
        requests_reordered=kinds["reordered"],
        requests_phantom=kinds["phantom"],
        owner_conflicts=kinds["conflict"],
        latency_ms=latency,
        arrivals=sum(a.network != timeline.home for a in run.arrived),
        served_locally_on_arrival=_share(served for away, served in local if away),
        served_locally_on_return=_share(served for away, served in local if not away),
        timers_fired=sum(f.policy.renewals for f in run.finals.values() if f.policy),
        timers_missed=kinds["timer-missed"],
        timers_doubled=kinds["timer-doubled"],
        notifications=len(run.notified),
        notifications_lost=kinds["notification-lost"],
        notifications_duplicated=kinds["notification-duplicated"],
        notifications_reordered=kinds["notification-reordered"],
        basic_sent=len(run.basic),
        basic_failed=basic_failed,
        basic_latency_ms=basic_latency,
        basic_p99_ratio=_ratio(basic_latency["during"].p99, basic_latency["before"].p99),
        discovery_before=max(discovery["before"], default=None),
        discovery_during=max(discovery["during"], default=None),
        discovery_after=discovery["after"][-1] if discovery["after"] else None,
        verdict="FAIL" if reasons else "PASS",
        reasons=reasons,
    )


def _violations(run: _Run, timer_grace_ms: int) -> list[Violation]:
    found: list[Violation] = []
    for ue in sorted(run.transactions.keys() | run.finals.keys()):
        final = run.finals.get(ue)
        found += judge_transactions(ue, run.transactions.get(ue, []), final.session if final else None)
        if final is not None and final.policy is not None:
            found += judge_timer(ue, final.policy, grace_ms=timer_grace_ms)
    found += judge_notifications(run.notified, run.subscribed, run.opened, run.finals.values())
    return found


def _good(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def _missing(run: _Run, ok: int) -> list[str]:
    """What must be there for a verdict to mean anything."""
    reasons = [] if ok else ["No transaction was answered: there is nothing to judge."]
    opened = {ue for ue, line in run.opened.items() if line.outcome in ("ok", "unknown")} | run.transactions.keys()
    for part in ("session", "policy", "presence"):
        unread = sorted(ue for ue in opened if ue not in run.finals or getattr(run.finals[ue], part) is None)
        if unread:
            reasons.append(f"The {part} of {len(unread)} UEs could not be read at the end: {', '.join(unread[:5])} …")
    return reasons


def _quoted(violations: Sequence[Violation]) -> list[str]:
    """One reason for each kind of violation, with examples."""
    by_kind: dict[str, list[Violation]] = defaultdict(list)
    for violation in violations:
        by_kind[violation.kind].append(violation)
    return [
        f"{len(of_kind)} × {kind}: " + "; ".join(str(v) for v in of_kind[:EXAMPLES]) + "."
        for kind, of_kind in sorted(by_kind.items())
    ]


def _unserved(run: _Run, basic_failed: int) -> list[str]:
    """What was not served at all: in a run without injected faults, nothing."""
    reasons: list[str] = []
    failed = [t for ts in run.transactions.values() for t in ts if t.outcome in ("failed", "unknown")]
    if failed:
        example = (
            f"{failed[0].ue}: transaction {failed[0].seq} ended with {failed[0].status} {failed[0].cause}".rstrip()
        )
        reasons.append(f"{len(failed)} transactions had no answer that says what became of them ({example}).")
    closed = [o for o in run.opened.values() if o.outcome != "ok"]
    if closed:
        example = f"{closed[0].ue}: {closed[0].status} {closed[0].cause}".rstrip()
        reasons.append(f"{len(closed)} sessions could not be opened ({example}).")
    if basic_failed:
        reasons.append(f"{basic_failed} requests to the basic part failed.")
    lost_arrivals = sum(a.registered is None for a in run.arrived)
    if lost_arrivals:
        reasons.append(f"{lost_arrivals} arrivals found no basic part to register with.")
    return reasons


def _latency(run: _Run, timeline: Timeline) -> dict[str, Quantiles]:
    """Of answered transactions, from when each was due to be sent: waiting for an earlier one counts."""
    answered = (t for transactions in run.transactions.values() for t in transactions if t.outcome == "ok")
    return _by_phase(answered, timeline)


def _basic_latency(run: _Run, timeline: Timeline) -> dict[str, Quantiles]:
    return _by_phase((b for b in run.basic if _good(b.status)), timeline)


def _by_phase(lines: Iterable[Transaction | Basic], timeline: Timeline) -> dict[str, Quantiles]:
    samples: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        for name in timeline.at(line.scheduled):
            samples[name].append((line.ended - line.scheduled) * 1000)
    return {name: quantiles(samples[name]) for name in PHASES}


def _discovery(run: _Run, timeline: Timeline) -> dict[str, list[int]]:
    """The instances that the target's NRF named in each phase, in the order of time."""
    found: dict[str, list[int]] = defaultdict(list)
    for d in sorted(run.discovered, key=lambda d: d.at):
        if d.network == timeline.target:
            for name in timeline.at(d.at):
                found[name].append(d.instances)
    return found


def _served_locally(run: _Run, *, home: str) -> list[tuple[bool, bool]]:
    """For each arrival (away from home?, was the first transaction sent there answered by that network?)."""
    first: list[tuple[bool, bool]] = []
    for arrival in run.arrived:
        if arrival.registered is None:
            continue
        later = (
            t
            for t in run.transactions.get(arrival.ue, [])
            if t.sent >= arrival.registered and t.network == arrival.network and t.outcome != "refused"
        )
        t = min(later, key=lambda t: t.sent, default=None)
        if t is not None:
            first.append((arrival.network != home, t.served_by == arrival.network))
    return first


def _share(served: Iterable[bool]) -> float | None:
    sample = list(served)
    return sum(sample) / len(sample) if sample else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return round(a / b, 3) if a is not None and b else None


def main() -> None:
    """Read histories, print findings, exit with the verdict."""
    parser = argparse.ArgumentParser(prog="outrider.demo.checker", description="Judges a run by its histories.")
    parser.add_argument("--history", action="append", required=True, type=Path, help="of clients, sinks; repeat")
    parser.add_argument("--timeline", required=True, type=Path, help="JSON: home, target, phases")
    parser.add_argument("--allow-failed", action="store_true", help="faults were injected: no answer is no failure")
    parser.add_argument("--timer-grace-ms", type=int, default=TIMER_GRACE_MS)
    options = parser.parse_args()
    try:
        timeline = msgspec.json.decode(options.timeline.read_bytes(), type=Timeline)
        findings = check(
            histories.read(options.history),
            timeline,
            allow_failed=options.allow_failed,
            timer_grace_ms=options.timer_grace_ms,
        )
    except (OSError, HistoryError, msgspec.DecodeError) as e:
        print(f"The run cannot be judged: {e}", file=sys.stderr)
        sys.exit(2)
    print(msgspec.json.format(msgspec.json.encode(findings), indent=2).decode())
    sys.exit(0 if findings.verdict == "PASS" else 1)


if __name__ == "__main__":
    main()
