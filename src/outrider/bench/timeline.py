"""What a load saw, from its history: by phase of the move, and every tenth of a second."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import msgspec

from outrider.bench.openloop import Fate, History
from outrider.demo.quantiles import Quantiles, quantiles

STEP_S = 0.1
LATE_MS = 10.0


class Span(NamedTuple):
    """A part of a run, on the monotonic clock."""

    from_s: float
    to_s: float


class Series(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The run in steps of equal length, by the time at which requests were due: each list has one item a step."""

    step_ms: float
    first_s: float
    """When the first step begins, from the command: before it, so negative."""
    phase: list[str]
    served: list[int]
    refused: list[int]
    unanswered: list[int]
    not_sent: list[int]
    p50_ms: list[float | None]
    max_ms: list[float | None]


class Seen(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Of a whole run, by phase. `latencyMs` counts every request that was due but those that were refused.

    One without an answer counts with the time that it was waited for, one that was not sent with the time after which
    a consumer gives up.
    """

    writes_per_s: float
    served_per_s: dict[str, float]
    latency_ms: dict[str, Quantiles]
    refused: dict[str, int]
    unanswered: dict[str, int]
    not_sent: dict[str, int]
    pause_ms: dict[str, float]
    """The longest time in which no request was served; at a steady rate and without a pause, a few of its intervals."""
    late: dict[str, int]
    """Requests that were answered after more than 10 ms."""
    target_first_s: float | None
    source_last_s: float | None
    """From the command until the target answered for the first time, and the source for the last; None if not said."""
    outcomes: dict[str, int]
    series: Series


def seen(
    history: History, spans: Mapping[str, Span], command_s: float, writes_per_s: float, outcomes: dict[str, int]
) -> Seen:
    """Of the phases named; those that do not overlap make up the series."""
    rows = sorted(zip(history.due_s, history.latency_ms, history.fate, strict=True))
    due = [row[0] for row in rows]
    ends = sorted(at + ms / 1000 for at, ms, fate in rows if fate == Fate.SERVED)
    within = {name: rows[bisect_left(due, s.from_s) : bisect_left(due, s.to_s)] for name, s in spans.items()}

    def count(fate: Fate) -> dict[str, int]:
        return {name: sum(1 for row in part if row[2] == fate) for name, part in within.items()}

    served = count(Fate.SERVED)
    first_s, last_s = _changed(history, spans["during"])
    return Seen(
        writes_per_s=writes_per_s,
        served_per_s={name: round(served[name] / (s.to_s - s.from_s), 1) for name, s in spans.items() if _long(s)},
        latency_ms={
            name: quantiles(ms for _, ms, fate in part if fate != Fate.REFUSED) for name, part in within.items()
        },
        refused=count(Fate.REFUSED),
        unanswered=count(Fate.UNANSWERED),
        not_sent=count(Fate.NOT_SENT),
        pause_ms={name: _pause_ms(ends, s) for name, s in spans.items() if _long(s)} if writes_per_s else {},
        late={name: sum(r[2] == Fate.SERVED and r[1] > LATE_MS for r in part) for name, part in within.items()},
        target_first_s=None if first_s is None else round(first_s - command_s, 3),
        source_last_s=None if last_s is None else round(last_s - command_s, 3),
        outcomes=outcomes,
        series=_series(rows, spans, command_s),
    )


def _changed(history: History, during: Span) -> tuple[float | None, float | None]:
    """When the target answered for the first time, and the source for the last."""
    ends: dict[int, list[float]] = {1: [], 2: []}
    for due_s, latency_ms, place in zip(history.due_s, history.latency_ms, history.place, strict=True):
        if place and during.from_s <= due_s < during.to_s:
            ends[place].append(due_s + latency_ms / 1000)
    return min(ends[2], default=None), max(ends[1], default=None)


def _long(span: Span) -> bool:
    return span.to_s > span.from_s


def _pause_ms(ends: list[float], span: Span) -> float:
    """The longest time without an end; one that began in the span counts whole, also if it ended after it."""
    first, last = bisect_left(ends, span.from_s), bisect_left(ends, span.to_s)
    at = [span.from_s, *ends[first:last], ends[last] if last < len(ends) else span.to_s]
    return round(max(b - a for a, b in pairwise(at)) * 1000, 1)


def _series(rows: list[tuple[float, float, int]], spans: Mapping[str, Span], command_s: float) -> Series:
    from_s, to_s = min(s.from_s for s in spans.values()), max(s.to_s for s in spans.values())
    steps = int((to_s - from_s) / STEP_S)
    counts: dict[int, list[int]] = {fate: [0] * steps for fate in Fate}
    latency_ms: defaultdict[int, list[float]] = defaultdict(list)
    for at, ms, fate in rows:
        step = int((at - from_s) / STEP_S)
        if 0 <= step < steps and at >= from_s:
            counts[fate][step] += 1
            if fate != Fate.REFUSED:
                latency_ms[step].append(ms)
    found = [quantiles(latency_ms[step]) for step in range(steps)]
    return Series(
        step_ms=STEP_S * 1000,
        first_s=round(from_s - command_s, 3),
        phase=[_phase(spans, from_s + (step + 0.5) * STEP_S) for step in range(steps)],
        served=counts[Fate.SERVED],
        refused=counts[Fate.REFUSED],
        unanswered=counts[Fate.UNANSWERED],
        not_sent=counts[Fate.NOT_SENT],
        p50_ms=[q.p50 for q in found],
        max_ms=[q.max for q in found],
    )


def _phase(spans: Mapping[str, Span], at_s: float) -> str:
    """The shortest phase that an instant is in: `copying` rather than `during`."""
    found = [(s.to_s - s.from_s, name) for name, s in spans.items() if s.from_s <= at_s < s.to_s]
    return min(found)[1] if found else ""
