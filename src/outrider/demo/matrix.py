"""Which faults are tried: every place and every process in every phase, and a small selection for each change."""

from outrider.demo.injection import Fault, Phase
from outrider.host.failpoints import PLACES

NEVER: dict[str, tuple[str, ...]] = {"A": ("chunk-loaded", "staging-adopted"), "B": ("chunk-sent",)}
"""Places that a network cannot reach between two networks: home sends the copy, and comes back by grants alone."""

_ONCE = ("chunk-sent", "chunk-loaded", "staging-adopted")
_WORK = ("unit-before-commit", "unit-durable", "timer-fired", "notification-sent")
PHASES: tuple[Phase, ...] = ("COPYING", "RELOCATING", "RETURNING")


def _place(place: str, where: str, action: str = "kill") -> Fault:
    """A fail-point; a step of a relocation is the second UE's, so that one has passed it before."""
    count = 1 if place in _ONCE else 3 if place in _WORK else 2
    phase: Phase = "RELOCATING" if place in _WORK and where == "A" else "START"
    return Fault("fail-point", where, f"{place}:{action}:{count}", phase)


def full() -> list[list[Fault]]:
    """One fault at a time."""
    runs = [[_place(p, where)] for where in ("A", "B") for p in PLACES if p not in NEVER[where]]
    runs += [[_place("grant-durable", where, "stop")] for where in ("A", "B")]
    for phase in PHASES:
        runs += [[Fault("kill", w, p, phase)] for p in ("worker", "keeper", "node") for w in ("A", "B")]
        runs += [[Fault("cut", "link", direction, phase)] for direction in ("forward", "backward", "both")]
    runs += [[Fault("disk", w, "full", "RELOCATING")] for w in ("A", "B")]
    runs += [[Fault("sink", "receiver", order, "RELOCATING")] for order in ("refuse", "close")]
    return runs


def pairwise() -> list[list[Fault]]:
    """Two faults in a run, so that together they meet every kind of fault, every phase and both networks."""
    return [
        [_place("grant-durable", "A"), _place("grant-durable", "B")],
        [_place("accept-durable", "B"), _place("accept-before-commit", "A")],
        [_place("grant-durable", "A", "stop"), Fault("kill", "B", "keeper", "RETURNING")],
        [_place("chunk-loaded", "B"), Fault("kill", "A", "worker", "RELOCATING")],
        [Fault("kill", "A", "keeper", "COPYING"), Fault("cut", "link", "forward", "RELOCATING")],
        [Fault("kill", "B", "node", "RELOCATING"), Fault("cut", "link", "both", "RETURNING")],
        [Fault("sink", "receiver", "close", "RELOCATING"), _place("notification-sent", "B")],
        [Fault("kill", "A", "node", "RELOCATING"), _place("unit-durable", "B")],
        [Fault("disk", "B", "full", "RELOCATING"), Fault("disk", "A", "full", "RETURNING")],
    ]
