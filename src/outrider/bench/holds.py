"""The longest that each UE had to wait, and how that is distributed: what a global figure hides."""

import math

import msgspec

from outrider.bench.openloop import Fate, History
from outrider.bench.timeline import Span

_POINTS = 200
"""Of a curve: enough to draw it."""


class Holds(msgspec.Struct, frozen=True, rename="camel"):
    """Of the UEs with a request in the span: the longest of each, as its consumer saw it."""

    ues: int
    p50: float
    p99: float
    p999: float
    max: float
    curve_ms: list[float]
    """Values that divide the UEs into parts of equal size, the smallest first and the largest last."""


def holds(history: History, span: Span) -> Holds | None:
    """None if no UE had a request that was answered, or waited for in vain, within the span."""
    longest: dict[int, float] = {}
    for due_s, latency_ms, fate, ue in zip(history.due_s, history.latency_ms, history.fate, history.ue, strict=True):
        if span.from_s <= due_s < span.to_s and fate in (Fate.SERVED, Fate.UNANSWERED):
            longest[ue] = max(longest.get(ue, 0.0), latency_ms)
    if not longest:
        return None
    ordered = sorted(longest.values())

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2)

    points = min(_POINTS, len(ordered))
    curve = [at(step / points) for step in range(points + 1)]
    return Holds(len(ordered), at(0.5), at(0.99), at(0.999), at(1.0), curve)
