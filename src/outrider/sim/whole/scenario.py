"""Scenarios: who is there, what the operators do, and what breaks when; drawn from a seed, and data from then on.

Being data, a scenario can be printed, and taken apart to find the part of it that fails (`shrink`).
"""

from random import Random
from typing import Literal

import msgspec

from outrider.host.failpoints import PLACES

HOME, B, C = "999-70", "999-71", "999-72"

Name = Literal["visit", "turn-back", "move-all", "abort", "revoked", "onward", "return-again", "lost"]
SENTENCES: dict[Name, str] = {
    "visit": "UEs arrive at another network, and all come back.",
    "turn-back": "UEs go over and turn back, again and again.",
    "move-all": "Everything is moved, partition by partition, and comes back.",
    "abort": "The migration is aborted at some moment; everything comes home.",
    "revoked": "The permission is revoked at the target for a while.",
    "onward": "From the target on to a third network, and home from both.",
    "return-again": "There and back, twice.",
    "lost": "The target's disk is gone; home's operator declares its store lost.",
}
NAMES: tuple[Name, ...] = tuple(SENTENCES)
_OFTEN = [3 if name == "onward" else 1 if name == "lost" else 2 for name in NAMES]

Deed = Literal["out", "back", "abort", "onward", "lose", "reborn", "declare", "revoke"]
Trouble = Literal[
    "cut", "cut-one-way", "refuse", "no-answers", "slow-link", "slow-copy",
    "kill", "disk-full", "disk-broken", "slow-disk", "pause", "clock-jump",
    "worker-hangs", "worker-dies", "revoke", "kill-at",
    "node-kill", "node-kill-at", "node-pause", "node-disk-full", "node-slow-disk",
]  # fmt: skip


class Move(msgspec.Struct, frozen=True):
    """A UE comes to a network; `heard`: the network's basic part tells the host so before the first request."""

    at_s: float
    network: str
    heard: bool


class UePlan(msgspec.Struct, frozen=True):
    """One UE: how much it does, and where it goes."""

    supi: str
    operations: int
    pace_s: float
    start_s: float
    heavy: bool
    moves: list[Move]


class Act(msgspec.Struct, frozen=True):
    """What operators do. Each begins when the one before it is done, but not before its time."""

    at_s: float
    deed: Deed
    target: str = B
    sweep: Literal["arrived", "all"] = "arrived"
    waits: bool = True
    """It sweeps only when the copy is durable; UEs that arrive change owner before that, too."""
    by: str = HOME
    """Whose operator."""


class Fault(msgspec.Struct, frozen=True):
    """What breaks: where, when, for how long. `other` is the far end of a way.

    With `place` a keeper is killed when it has come there (`host.failpoints`) `times` times since `at_s`; a node that
    is killed at a write of its journal, when so many more are durable.
    """

    at_s: float
    trouble: Trouble
    network: str
    for_s: float
    other: str = HOME
    by: float = 1.0
    place: str = ""
    times: int = 1


class Plan(msgspec.Struct, frozen=True):
    """A scenario."""

    seed: str
    name: Name
    networks: list[str]
    ues: list[UePlan]
    acts: list[Act]
    faults: list[Fault]
    end_s: float
    """From then on nothing breaks any more, and everything comes to its end."""
    lmsfs: bool = False
    """Each network has its LMSF, and operators ask that; without, they ask hosts what an LMSF would ask."""
    permit_s: float = 1e6
    """Permissions end then."""
    unwilling: str = ""
    """A network that permits nothing."""


_TROUBLES: tuple[tuple[Trouble, float], ...] = (
    ("kill", 3), ("kill-at", 6), ("cut", 3), ("cut-one-way", 2), ("refuse", 2), ("no-answers", 3), ("slow-link", 2),
    ("disk-full", 1), ("disk-broken", 1), ("slow-disk", 1), ("pause", 2), ("clock-jump", 1),
    ("worker-hangs", 1), ("worker-dies", 1), ("revoke", 1),
)  # fmt: skip


_NODE_TROUBLES: tuple[tuple[Trouble, float], ...] = (
    ("node-kill", 3), ("node-kill-at", 5), ("node-pause", 1), ("node-disk-full", 1), ("node-slow-disk", 1),
)  # fmt: skip

LMSFS = 0.25
"""So many worlds have LMSFs, unless it is said which kind is wanted."""


def draw(seed: str, name: Name | None = None, *, lmsfs: bool | None = None) -> Plan:
    """The scenario of a seed."""
    chance = Random(f"{seed}/plan")
    (drawn,) = chance.choices(NAMES, _OFTEN)
    name = name or drawn
    networks = [HOME, B, C] if name == "onward" else [HOME, B]
    acts = _acts(chance, name)
    end_s = acts[-1].at_s + chance.uniform(1.0, 4.0)
    ues = [_ue(chance, i, name, end_s) for i in range(1, chance.randint(2, 7))]
    count = chance.choice((0, 1, 2, 3, 4, 6, 8))
    faults = [_fault(chance, networks, end_s) for _ in range(count)] + _own_faults(chance, name, acts, end_s)
    faults += _slow_copies(Random(f"{seed}/copies"), acts, end_s)
    plan = Plan(seed, name, networks, ues, acts, sorted(faults, key=lambda f: f.at_s), end_s)
    of_lmsfs = Random(f"{seed}/lmsfs")
    drawn_with = of_lmsfs.random() < LMSFS
    return _with_lmsfs(plan, of_lmsfs) if (drawn_with if lmsfs is None else lmsfs) else plan


def _with_lmsfs(plan: Plan, chance: Random) -> Plan:
    """The same scenario where LMSFs ask the hosts, and operators ask LMSFs: those break, too."""
    acts = [msgspec.structs.replace(act, by=chance.choice((HOME, HOME, B))) for act in plan.acts]
    permit_s = plan.permit_s
    if acts[-1].deed == "back" and plan.name in ("visit", "turn-back", "move-all") and chance.random() < 0.4:
        acts[-1] = msgspec.structs.replace(acts[-1], deed="abort")
    if plan.name == "revoked" and chance.random() < 0.7:
        acts[-1] = Act(acts[-1].at_s, "revoke", B, by=acts[-1].by)
    elif plan.name == "revoked":
        permit_s = chance.uniform(acts[0].at_s, plan.end_s)
    acts = [act for act in acts if act.deed != "reborn"]  # its node starts it again
    unwilling = chance.choice((HOME, plan.networks[-1])) if chance.random() < 0.06 else ""
    faults = [fault for fault in plan.faults if fault.trouble != "revoke"]
    if acts[-1].deed == "abort" and chance.random() < 0.5:  # while UEs are given, and the target hears nothing
        at_s = max(0.1, acts[-1].at_s - chance.random())
        faults.append(Fault(at_s, "cut-one-way", HOME, min(plan.end_s - at_s, chance.uniform(0.5, 3.0)), B))
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        (trouble,) = chance.choices([t for t, _ in _NODE_TROUBLES], [weight for _, weight in _NODE_TROUBLES])
        at_s = chance.uniform(acts[0].at_s, plan.end_s * 0.95)
        for_s = min(plan.end_s - at_s, chance.choice((0.05, 0.3, 1.0, 3.0)) * chance.uniform(0.5, 1.5))
        by, times = chance.uniform(20, 200), chance.randint(1, 25)
        faults.append(Fault(at_s, trouble, chance.choice(plan.networks), for_s, by=by, times=times))
    if chance.random() < 0.5:  # in the middle of what operators do last
        at_s = max(0.1, acts[-1].at_s - chance.random() * 0.1)
        faults.append(Fault(at_s, "node-kill-at", chance.choice(plan.networks), 0.0, times=chance.randint(1, 12)))
    faults.sort(key=lambda f: f.at_s)
    return msgspec.structs.replace(plan, acts=acts, faults=faults, lmsfs=True, permit_s=permit_s, unwilling=unwilling)


def _acts(chance: Random, name: Name) -> list[Act]:
    out_s = chance.uniform(0.2, 1.5)
    stay_s = out_s + chance.uniform(2.0, 6.0)
    waits = chance.random() < 0.6
    out = Act(out_s, "out", B, "all" if name == "move-all" or chance.random() < 0.2 else "arrived", waits)
    match name:
        case "abort":
            return [out, Act(out_s + chance.uniform(0.0, 3.0), "abort")]
        case "onward":
            on_s = chance.choice((stay_s, out_s + chance.uniform(0.2, 2.0)))
            return [out, Act(on_s, "onward", C, chance.choice(("arrived", "all")), waits), Act(on_s + 4.0, "back")]
        case "return-again":
            return [out, Act(stay_s, "back"), Act(stay_s + 2.0, "out", B, out.sweep, waits), Act(stay_s + 5.0, "back")]
        case "lost":
            gone_s = chance.uniform(1.0, 3.0)
            reborn = [Act(stay_s + chance.random() * gone_s, "reborn")] if chance.random() < 0.5 else []
            return [out, Act(stay_s, "lose"), *reborn, Act(stay_s + gone_s, "declare")]
        case "turn-back" | "visit" | "move-all" | "revoked":
            ends = [Act(stay_s, "back")] if chance.random() < 0.8 else [Act(stay_s, "abort")]
            return [out, *ends]


def _ue(chance: Random, i: int, name: Name, end_s: float) -> UePlan:
    start_s = chance.uniform(0.0, 1.0) if chance.random() < 0.8 else chance.uniform(0.0, end_s * 0.7)
    places = [HOME, B, C] if name == "onward" else [HOME, B]
    moves = []
    at_s, place = start_s + chance.uniform(0.3, 3.0), HOME
    for _ in range(chance.randint(0, 5 if name == "turn-back" else 3)):
        place = chance.choice([p for p in places if p != place])
        moves.append(Move(at_s, place, chance.random() < 0.6))
        at_s += chance.uniform(0.05, 3.0)
    operations = chance.randint(3, 40)
    return UePlan(f"imsi-{i}", operations, (end_s - start_s) / operations, start_s, chance.random() < 0.3, moves)


def _own_faults(chance: Random, name: Name, acts: list[Act], end_s: float) -> list[Fault]:
    """What a scenario is about, besides what its operators do."""
    if name == "revoked":
        at_s = chance.uniform(acts[0].at_s, acts[1].at_s)
        return [Fault(at_s, "revoke", B, chance.uniform(0.2, end_s - at_s))]
    if name == "onward" and chance.random() < 0.6:  # the first giver does not hear that it may forget
        at_s = acts[0].at_s + chance.uniform(0.1, 1.0)
        for_s = min(chance.uniform(1.0, 6.0), end_s - at_s)
        faults = [Fault(at_s, "cut-one-way", B, for_s, HOME)]
        if chance.random() < 0.5:  # and what it was told last is forgotten
            faults.append(Fault(at_s + chance.uniform(0.3, 1.0) * for_s, "kill", B, chance.uniform(0.05, 0.5)))
        return faults
    return []


def _slow_copies(chance: Random, acts: list[Act], end_s: float) -> list[Fault]:
    """Few UEs are copied in a moment, a million are not: some copies take so long that UEs come meanwhile."""
    giver = {"out": HOME, "onward": B}
    return [
        Fault(act.at_s, "slow-copy", giver[act.deed], min(chance.uniform(0.5, 3.0), end_s - act.at_s), act.target, by)
        for act in acts
        if act.deed in giver and chance.random() < 0.5 and (by := chance.uniform(200, 2_000))
    ]


def _fault(chance: Random, networks: list[str], end_s: float) -> Fault:
    (trouble,) = chance.choices([t for t, _ in _TROUBLES], [weight for _, weight in _TROUBLES])
    network = chance.choice(networks)
    other = chance.choice([n for n in networks if n != network])
    at_s = chance.uniform(0.1, end_s * 0.95)
    for_s = min(end_s - at_s, chance.choice((0.05, 0.3, 1.0, 3.0)) * chance.uniform(0.5, 1.5))
    by = {"clock-jump": chance.uniform(-1_500, 1_500), "slow-link": chance.uniform(3, 60)}.get(
        trouble, chance.uniform(20, 300)
    )
    if trouble == "kill-at":
        return Fault(at_s, trouble, network, for_s, place=chance.choice(PLACES), times=chance.randint(1, 4))
    return Fault(at_s, trouble, network, for_s, other, by)
