"""Finds a smaller scenario that still fails: fewer faults, fewer UEs, fewer operations and moves.

Something is left out, and stays out if what is left fails by the same rule; until nothing more can go.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from outrider.sim.whole.planted import planted
from outrider.sim.whole.play import play
from outrider.sim.whole.scenario import Plan
from outrider.sim.whole.world import Result

T = TypeVar("T")


class Shrunk(msgspec.Struct, frozen=True):
    """The smallest that was found, what it came to, and how many runs that took."""

    plan: Plan
    result: Result
    runs: int


def shrink(
    plan: Plan, fault: str | None = None, *, runs: int = 200, on_smaller: Callable[[Plan], None] = lambda _: None
) -> Shrunk | None:
    """A smaller plan that fails by the same rule; None if this one does not fail."""
    with planted(fault):
        result = play(plan, story=True)
        if not result.violations:
            return None
        rule, done = result.violations[0].rule, 1
        smaller = True
        while smaller:
            smaller = False
            for candidate in _smaller(plan):
                if done >= runs:
                    return Shrunk(plan, result, done)
                tried = play(candidate, story=True)
                done += 1
                if tried.violations and tried.violations[0].rule == rule:
                    plan, result, smaller = candidate, tried, True
                    on_smaller(plan)
                    break
        return Shrunk(plan, result, done)


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with a part left out, the largest parts first."""
    change = msgspec.structs.replace
    for i in range(len(plan.ues)):
        if len(plan.ues) > 1:
            yield change(plan, ues=_without(plan.ues, i))
    for i in range(len(plan.faults)):
        yield change(plan, faults=_without(plan.faults, i))
    if len(plan.acts) > 1:
        yield change(plan, acts=plan.acts[:-1])
    for i, ue in enumerate(plan.ues):
        if ue.operations > 1:
            less = change(ue, operations=ue.operations // 2)
            yield change(plan, ues=[*plan.ues[:i], less, *plan.ues[i + 1 :]])
        for j in range(len(ue.moves)):
            stays = change(ue, moves=_without(ue.moves, j))
            yield change(plan, ues=[*plan.ues[:i], stays, *plan.ues[i + 1 :]])


def _without(items: list[T], i: int) -> list[T]:
    return [*items[:i], *items[i + 1 :]]
