"""Which faults are tried: every place and every process in every phase, and a small selection for each change."""

from outrider.demo.fault import Fault, Leg, Phase
from outrider.host.failpoints import PLACES

NEVER: dict[str, tuple[str, ...]] = {"A": ("chunk-loaded", "staging-adopted"), "B": ("chunk-sent",)}
"""Places that a network cannot reach between two networks: home sends the copy, and comes back by grants alone."""

GIVES = ("hold", "grant-before-commit", "grant-durable", "grant-sent", "settled")
TAKES = ("accept-before-commit", "accept-durable", "accepted-sent")
"""The steps of a relocation at the two that have a part in it."""

_ONCE = ("chunk-sent", "chunk-loaded", "staging-adopted")
_WORK = ("unit-before-commit", "unit-durable", "timer-fired", "notification-sent")
PHASES: tuple[Phase, ...] = ("COPYING", "RELOCATING", "RETURNING")

ONWARD: dict[str, tuple[str, ...]] = {
    "A": (*GIVES, *TAKES),
    "B": ("chunk-sent", *GIVES),
    "C": ("chunk-loaded", "staging-adopted", *TAKES, *GIVES, *_WORK),
}
"""Places that a network passes when the service goes on from B to C: A gives to C too, and takes back from C."""


def _place(place: str, where: str, action: str = "kill", leg: Leg = "there") -> Fault:
    """A fail-point; a step of a relocation is the second UE's, so that one has passed it before."""
    count = 1 if place in _ONCE else 3 if place in _WORK else 2
    phase: Phase = "RELOCATING" if place in _WORK and where == "A" else "START"
    return Fault("fail-point", where, f"{place}:{action}:{count}", phase, leg)


def full() -> list[list[Fault]]:
    """One fault at a time."""
    runs = [[_place(p, where)] for where in ("A", "B") for p in PLACES if p not in NEVER[where]]
    runs += [[_place("grant-durable", where, "stop")] for where in ("A", "B")]
    for phase in PHASES:
        runs += [[Fault("kill", w, p, phase)] for p in ("worker", "keeper", "node") for w in ("A", "B")]
        runs += [[Fault("cut", "A-B", direction, phase)] for direction in ("forward", "backward", "both")]
        runs += [[Fault("slow", "A-B", "", phase)]]
        runs += [[Fault("stop", w, p, phase)] for p in ("keeper", "node") for w in ("A", "B")]
    runs += [[Fault("memory", w, p, "RELOCATING")] for p in ("worker", "keeper") for w in ("A", "B")]
    runs += [[Fault("memory", "A", "bulk", "START")]]
    runs += [[Fault("disk", w, "full", "RELOCATING")] for w in ("A", "B")]
    runs += [[Fault("sink", "receiver", order, "RELOCATING")] for order in ("refuse", "close")]
    return runs


def onward() -> list[list[Fault]]:
    """One fault at a time while a service goes A → B → C → A; what it does from A to B is in `full`."""
    runs = [[_place(place, where, leg="onward")] for where, places in ONWARD.items() for place in places]
    runs += [[_place("grant-durable", where, "stop", "onward")] for where in ("A", "B", "C")]
    for phase in PHASES:
        there = [w for w in ("A", "B", "C") if (w, phase) != ("B", "RETURNING")]  # B has retired by then
        for where in there:
            runs += [[Fault("kill", where, process, phase, "onward")] for process in ("worker", "keeper", "node")]
            runs += [[Fault("stop", where, process, phase, "onward")] for process in ("keeper", "node")]
        for link in ("A-B", "A-C", "B-C"):
            if (link, phase) in (("A-B", "RETURNING"), ("B-C", "RETURNING")):
                continue
            runs += [[Fault("cut", link, way, phase, "onward")] for way in ("forward", "backward", "both")]
            runs += [[Fault("slow", link, "", phase, "onward")]]
    runs += [[Fault("memory", w, p, "RELOCATING", "onward")] for p in ("worker", "keeper") for w in ("A", "B", "C")]
    runs += [[Fault("memory", "B", "bulk", "START", "onward")]]
    runs += [[Fault("disk", w, "full", "RELOCATING", "onward")] for w in ("A", "B", "C")]
    runs += [[Fault("kill", w, p, "RETURNING")] for p in ("keeper", "node") for w in ("A", "B")]
    runs += [[Fault("sink", "receiver", order, "RELOCATING", "onward")] for order in ("refuse", "close")]
    return runs


def pairwise() -> list[list[Fault]]:
    """Two or three faults in a run, so that together they meet every kind of fault, every phase and both networks."""
    return [
        [_place("grant-durable", "A"), _place("grant-durable", "B")],
        [_place("accept-durable", "B"), _place("accept-before-commit", "A")],
        [_place("grant-durable", "A", "stop"), Fault("kill", "B", "keeper", "RETURNING")],
        [_place("chunk-loaded", "B"), Fault("kill", "A", "worker", "RELOCATING")],
        [Fault("kill", "A", "keeper", "COPYING"), Fault("cut", "A-B", "forward", "RELOCATING")],
        [Fault("kill", "B", "node", "RELOCATING"), Fault("cut", "A-B", "both", "RETURNING")],
        [Fault("sink", "receiver", "close", "RELOCATING"), _place("notification-sent", "B")],
        [Fault("kill", "A", "node", "RELOCATING"), _place("unit-durable", "B")],
        [Fault("disk", "B", "full", "RELOCATING"), Fault("disk", "A", "full", "RETURNING")],
        [Fault("memory", "A", "bulk", "START"), Fault("memory", "B", "keeper", "RELOCATING")],
        [
            Fault("stop", "A", "node", "COPYING"),
            Fault("memory", "A", "worker", "RELOCATING"),
            Fault("slow", "A-B", "", "RETURNING"),
        ],
    ]
