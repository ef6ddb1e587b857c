"""The bars of the design's section 12, judged by the median of the runs; what must not happen at all, by every run."""

from collections.abc import Callable

from outrider.bench.figures import SETTLED, Bar, Measured, Peer, Size, Spread
from outrider.bench.workloads import WORKLOADS

WAIT_P99_MS, WAIT_MAX_MS = 5.0, 25.0
WIRE_SHARE = 0.25
P99_RATIO = 1.5
FLAT, FLAT_OVER = 1.3, 100
PEER_RATIO = 0.7
BACK_SHARE = 0.05
FIRST_SHARE = 0.999
TYPED_S = 1.0
PEER_CONTEXTS = 1_000_000
"""The size at which the time is judged; at others the ratio is shown."""

HELD_RATE = 0.98
"""The share of the scheduled writes that must have been served before the migration for the load to count as held."""

_UNSETTLED = "a run did not settle"


def bars(sizes: list[Measured], no_peer: str | None = None) -> list[Bar]:
    """The rows that this benchmark can judge, and by name those that it cannot. `no_peer`: why there is no peer."""
    largest = max(sizes, key=lambda s: s.contexts)
    smallest = min(sizes, key=lambda s: s.contexts)
    return [
        _whole(sizes),
        _waits(largest),
        _time(largest, no_peer),
        _wire(sizes),
        _copying(largest),
        _flat(smallest, largest),
        _back(largest),
        _first(largest),
        _typed(largest),
        *(
            Bar(kpi, "", f"see {where}", "NOT MEASURED")
            for kpi, where in (
                ("the same under any single fault", "make faults"),
                ("basic part during everything", "outrider demo"),
            )
        ),
    ]


def ratios(measured: Measured) -> list[float]:
    """Our time divided by the peer's, of every round in which both came to their end."""
    theirs = {peer.round: peer.total_s for peer in measured.peers}
    pairs = [(run.total_s, theirs.get(run.round)) for run in measured.runs]
    return [ours / peer for ours, peer in pairs if ours and peer]


def _whole(sizes: list[Measured]) -> Bar:
    runs = [run for size in sizes for run in size.runs]
    lost, doubled, unread = (sum(run.sample.get(name, 0) for run in runs) for name in ("lost", "doubled", "unread"))
    read = sum(run.sample.get("read", 0) for run in runs)
    settled = [run for run in runs if run.ended == SETTLED]
    torn = sum(run.sample.get("torn", 0) for run in runs)
    elsewhere = sum(r.sample.get("read", 0) - r.sample.get("served", 0) for r in settled if r.arrived is None)
    judged = [run.judged for run in runs if run.judged is not None]
    two_owners, reordered = sum(j.two_owners for j in judged), sum(j.reordered for j in judged)
    phases = ("during", "after")
    refused = sum(run.seen.refused[phase] for run in runs for phase in phases)
    unanswered = sum(run.seen.unanswered[phase] for run in runs for phase in phases)
    said = (
        f"{lost} lost, {doubled} doubled, {elsewhere} not where they belong of {read} UEs read; "
        f"{refused} requests refused, {unanswered} unanswered; "
        f"{reordered} reordered and {two_owners} by two owners of {sum(j.answers for j in judged)} answers"
    )
    if groups := [run.arrived for run in runs if run.arrived is not None]:
        of_groups = [sum(g.refused for g in groups), sum(g.unanswered for g in groups)]
        said += f"; of those who arrived {of_groups[0]} refused, {of_groups[1]} unanswered"
        refused, unanswered = refused + of_groups[0], unanswered + of_groups[1]
    if torn:
        said += f"; {torn} UEs whose NF services differ"
    if unread:
        said += f"; {unread} UEs could not be read"
    if len(settled) < len(runs):
        said += f"; {len(runs) - len(settled)} of {len(runs)} runs did not settle"
    bad = lost or doubled or unread or elsewhere or torn or two_owners or reordered
    if all(run.recovery_s is None for run in runs):  # nobody can answer while the keeper is dead
        bad = bad or refused or unanswered
    good = not bad and len(settled) == len(runs)
    return _bar("requests lost, duplicated; two owners", "0", said, good)


def _waits(size: Measured) -> Bar:
    limit = WAIT_MAX_MS + size.runs[0].link.rtt_ms
    kpi, bar = f"added wait at {size.contexts}", f"p99 ≤ {WAIT_P99_MS:g} ms, max ≤ {limit:g} ms"
    said, good = [], True
    if not any(run.waits[cause]["count"] for run in size.runs for cause in run.waits):
        return Bar(kpi, bar, "no request met a change of owner", "NOT MEASURED")
    for cause in size.runs[0].waits:
        p99, most, count = (_wait(size, cause, figure) for figure in ("p99", "max", "count"))
        said.append(f"{cause}: p99 {p99:.1f} ms, max {most:.1f} ms, {count:.0f} requests")
        good = good and p99 <= WAIT_P99_MS and most <= limit
    if pause := Spread.over(peer.seen.pause_ms.get("during") for peer in size.peers):
        said.append(f"{size.peers[0].name}: no write for {pause.median:.0f} ms")
    if not size.settled:
        return Bar(kpi, bar, "; ".join([_UNSETTLED, *said]), "NOT MEASURED" if good else "MISS")
    return _bar(kpi, bar, "; ".join(said), good)


def _wait(size: Measured, cause: str, figure: str) -> float:
    return _median(size, lambda run: run.waits[cause][figure])


def _time(size: Measured, no_peer: str | None) -> Bar:
    kpi = "1 M contexts of 1 KB, source to target"
    bar = f"≤ {PEER_RATIO} × Valkey's time in the same run"
    total, moving = Spread.over(r.total_s for r in size.runs), Spread.over(r.moving_s for r in size.runs)
    if not size.settled or total is None or moving is None:
        ended = next(run.ended for run in size.runs if run.ended != SETTLED)
        return Bar(kpi, bar, f"{size.contexts}: {ended}", "MISS" if size.contexts >= PEER_CONTEXTS else "NOT MEASURED")
    said = (
        f"{size.contexts}: {total.median:.2f} s from the command, {moving.median:.2f} s of it copy and change of owner"
    )
    ratio, theirs = Spread.over(ratios(size)), Spread.over(peer.total_s for peer in size.peers)
    if ratio is None or theirs is None:
        why = no_peer or "Valkey did not come to its end"
        return Bar(kpi, bar, f"{said}; {why}", "NOT MEASURED")
    said += f"; {size.peers[0].name}: {theirs.median:.2f} s; {ratio.median:.2f} ×"
    held = _held(size.runs) and _held(size.peers)
    if not held:
        said += "; " + "; ".join(_overload(runs) for runs in (size.runs, size.peers) if not _held(runs))
    if size.contexts < PEER_CONTEXTS:
        return Bar(kpi, bar, said, "NOT MEASURED")
    return _bar(kpi, bar, said, held and ratio.median <= PEER_RATIO)


def _held(runs: list[Size] | list[Peer]) -> bool:
    return all(run.seen.served_per_s["before"] >= HELD_RATE * run.seen.writes_per_s for run in runs)


def _overload(runs: list[Size] | list[Peer]) -> str:
    least = min(run.seen.served_per_s["before"] for run in runs)
    return f"only {least:.0f} of {runs[0].seen.writes_per_s:.0f} writes/s were served before"


def _wire(sizes: list[Measured]) -> Bar:
    kpi, bar = "bytes on the wire ÷ state", f"≤ {WIRE_SHARE}"
    if not all(WORKLOADS[run.workload].peers for size in sizes for run in size.runs):
        return Bar(kpi, bar, "not everything moves, or not once", "NOT MEASURED")
    shares = {size.contexts: _median(size, lambda run: run.wire_share) for size in sizes if size.settled}
    if not shares:
        return Bar(kpi, bar, _UNSETTLED, "NOT MEASURED")
    contexts = max(shares, key=lambda c: shares[c])
    said = f"{shares[contexts]:.3f} at {contexts}, the largest"
    return _bar(kpi, bar, said, shares[contexts] <= WIRE_SHARE)


def _copying(size: Measured) -> Bar:
    kpi, bar = "p99 during copy ÷ before", f"≤ {P99_RATIO}"
    before, copying = (
        Spread.over(q.p99 for run in size.runs if (q := run.seen.latency_ms.get(phase)) is not None)
        for phase in ("before", "copying")
    )
    if before is None or copying is None:
        return Bar(kpi, bar, "no writes in one of them", "NOT MEASURED")
    if not _held(size.runs):
        return Bar(kpi, bar, _overload(size.runs), "NOT MEASURED")
    ratio = copying.median / before.median
    said = f"{ratio:.2f} ({copying.median:.1f} ms after {before.median:.1f} ms) at {size.contexts}"
    return _bar(kpi, bar, said, ratio <= P99_RATIO)


def _flat(smallest: Measured, largest: Measured) -> Bar:
    kpi, bar = "cost per context, smallest → largest", f"flat within {FLAT}×"
    if largest.contexts < FLAT_OVER * smallest.contexts:
        return Bar(kpi, bar, f"no two sizes that differ {FLAT_OVER} times", "NOT MEASURED")
    if not (smallest.settled and largest.settled):
        return Bar(kpi, bar, _UNSETTLED, "NOT MEASURED")
    costs = [_median(size, lambda run: run.moving_s or 0.0) / size.contexts * 1e6 for size in (smallest, largest)]
    ratio = costs[1] / costs[0]
    said = f"{costs[0]:.1f} → {costs[1]:.1f} µs, {ratio:.2f}× ({smallest.contexts} → {largest.contexts})"
    return _bar(kpi, bar, said, ratio <= FLAT)


def _back(size: Measured) -> Bar:
    kpi, bar = "return after 5 % changed", f"≤ {BACK_SHARE} of the bytes of the way out"
    shares = [run.back_share for run in size.runs if run.workload == "visit"]
    if not shares:
        return Bar(kpi, bar, "workload visit", "NOT MEASURED")
    if (share := Spread.over(shares)) is None or share.runs < len(size.runs):
        return Bar(kpi, bar, _UNSETTLED, "MISS")
    trips = [run.back for run in size.runs if run.back is not None]
    whole = Spread.over(trip.whole_s for trip in trips)
    if whole is None or whole.runs < len(trips):
        return Bar(kpi, bar, "not every UE was home when time was up", "MISS")
    order = Spread.over(run.back.bytes / run.wire_bytes for run in size.runs if run.back is not None)
    assert order is not None
    said = (
        f"{share.median:.3f} at {size.contexts}: {order.median:.3f} from the order on, the rest by the shadow's stream "
        f"before it; all home after {whole.median:.2f} s"
    )
    return _bar(kpi, bar, said, share.median <= BACK_SHARE)


def _first(size: Measured) -> Bar:
    kpi, bar = "first request after arrival answered by the target", f"≥ {FIRST_SHARE:.1%}"
    groups = [run.arrived for run in size.runs if run.arrived is not None]
    if not groups:
        return Bar(kpi, bar, "workload storm or train", "NOT MEASURED")
    ues, there = sum(g.ues for g in groups), sum(g.first_by_target for g in groups)
    said = f"{there} of {ues} UEs; {sum(g.refused for g in groups)} requests refused"
    return _bar(kpi, bar, said, there >= FIRST_SHARE * ues)


def _typed(size: Measured) -> Bar:
    kpi, bar = "abort typed", f"within {TYPED_S:g} s"
    trips = [run.back for run in size.runs if run.workload == "abort" and run.back is not None]
    if not trips:
        return Bar(kpi, bar, "workload abort; tests/lmsf", "NOT MEASURED")
    most = max(trip.asked_s for trip in trips)
    return _bar(kpi, bar, f"answered after {most:.2f} s, the largest", most <= TYPED_S)


def _median(size: Measured, figure: Callable[[Size], float]) -> float:
    spread = Spread.over(figure(run) for run in size.runs)
    assert spread is not None
    return spread.median


def _bar(kpi: str, bar: str, measured: str, good: bool) -> Bar:
    return Bar(kpi, bar, measured, "PASS" if good else "MISS")
