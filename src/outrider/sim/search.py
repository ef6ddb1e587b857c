"""Breadth-first search of everything that can happen in a world, and the shortest story of what goes wrong.

    python -m outrider.sim.search                    every world that CI searches
    python -m outrider.sim.search --list             the worlds and the twins
    python -m outrider.sim.search large-star --seconds 600
    python -m outrider.sim.search star --epochs 5 --forget
    python -m outrider.sim.search --twin stale-refused   a rule removed: how the search catches it

Exit code 0: nothing found (or, for a twin, found); 1: otherwise; 3: the budget ended the search before its end.
"""

import argparse
import sys
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import TypeVar

from outrider.sim.space import S, Space
from outrider.sim.twins import TWINS
from outrider.sim.worlds import (
    COPYING,
    EFFECTS,
    IN_CI,
    LARGE,
    REQUESTS,
    SYNC,
    WORLDS,
    AnyBounds,
    open_world,
)

STATES_MAX = 5_000_000
"""About 2 GB of states; a search that needs more should use smaller bounds."""
SECONDS_MAX = 3_600.0

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """How a search ended. `fault` None and `complete`: the predicates hold in every state within the bounds."""

    states: int
    edges: int
    seconds: float
    complete: bool
    fault: str | None = None
    story: list[tuple[str, list[str]]] = field(default_factory=list)
    """What happened, step by step: what was done, and where it left the networks."""

    def __str__(self) -> str:
        end = self.fault or ("nothing found, all states seen" if self.complete else "nothing found, budget used up")
        return f"{self.states:>9,} states {self.edges:>11,} steps {self.seconds:>7.1f} s  {end}"


def search(
    space: Space[S], *, states_max: int = STATES_MAX, seconds_max: float = SECONDS_MAX, liveness: bool = True
) -> Found:
    """Visit the states nearest to the beginning first, so that the story found is a shortest one.

    Without `liveness`, only what is wrong in a state or a step counts, not what would never end.
    """
    begun = time.monotonic()
    order = [space.initial()]
    number = {order[0]: 0}
    came_from = array("q", [-1])
    steps = 0

    def found(fault: str | None, at: int = -1, last: tuple[str, S] | None = None, *, complete: bool = False) -> Found:
        story = _story(space, order, came_from, at)
        if last is not None:
            story.append((last[0], space.text(last[1])))
        return Found(len(order), steps, time.monotonic() - begun, complete, fault, story)

    for here, state in enumerate(order):  # `order` grows while it is read
        for edge in space.next(state):
            steps += 1
            if edge.fault is not None:
                return found(edge.fault, here, (edge.label, edge.state))
            if edge.state in number:
                continue
            number[edge.state] = len(order)
            order.append(edge.state)
            came_from.append(here)
            fault = space.check(edge.state) or (space.settles(edge.state) if liveness else None)
            if fault is not None:
                return found(fault, len(order) - 1)
        if len(order) > states_max or (not here & 255 and time.monotonic() - begun > seconds_max):
            return found(None)
    return found(None, complete=True)


def _story(space: Space[S], order: list[S], came_from: "array[int]", at: int) -> list[tuple[str, list[str]]]:
    path: list[int] = []
    while at >= 0:
        path.append(at)
        at = came_from[at]
    path.reverse()
    story = []
    for before, after in pairwise(path):
        label = next(e.label for e in space.next(order[before]) if e.state == order[after])
        story.append((label, space.text(order[after])))
    return story


def story_text(story: list[tuple[str, list[str]]]) -> str:
    """A story for people; a network is shown where it has changed."""
    lines: list[str] = []
    shown: list[str] = []
    for n, (label, state) in enumerate(story, 1):
        lines.append(f"{n:>3}. {label}")
        lines += [f"       {line}" for line in state if line not in shown]
        shown = state
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m outrider.sim.search", description=__doc__.split("\n")[0])
    parser.add_argument("worlds", nargs="*", help="names of worlds; none: those that CI searches")
    parser.add_argument("--list", action="store_true", help="name the worlds and the twins")
    parser.add_argument("--twin", help="search the world of a twin that lacks a rule")
    parser.add_argument("--states", type=int, default=STATES_MAX, help="end after so many states")
    parser.add_argument("--seconds", type=float, default=SECONDS_MAX, help="end after so many seconds")
    some = next(iter(WORLDS.values()))
    for f in fields(some):
        if isinstance(f.default, bool):
            parser.add_argument(f"--{f.name}", action=argparse.BooleanOptionalAction, help="override this fault")
        else:
            parser.add_argument(f"--{f.name}", type=int, help="override this bound")
    args = parser.parse_args(argv)
    if args.list:
        _list()
        return 0
    if args.twin:
        twin = TWINS[args.twin]
        print(f"{twin.name}: {twin.without}")
        result = search(twin.space(), states_max=args.states, seconds_max=args.seconds, liveness=twin.liveness)
        print(result)
        print(story_text(result.story))
        return 0 if result.fault else 1
    changes = {f.name: v for f in fields(some) if (v := getattr(args, f.name)) is not None}
    code = 0
    for name in args.worlds or IN_CI:
        bounds = {**IN_CI, **LARGE}[name]
        space = open_world(replace(bounds, **{k: v for k, v in changes.items() if hasattr(bounds, k)}))
        result = search(space, states_max=args.states, seconds_max=args.seconds)
        print(f"{name:<16} {result}", flush=True)
        if result.fault:
            print(story_text(result.story))
        code = max(code, 1 if result.fault else 0 if result.complete else 3)
    return code


def _list() -> None:
    kinds: dict[str, Mapping[str, AnyBounds]] = {
        "worlds": WORLDS,
        "sync": SYNC,
        "requests": REQUESTS,
        "effects": EFFECTS,
        "copying": COPYING,
    }
    for title, worlds in (*kinds.items(), ("large", LARGE)):
        print(f"{title}:")
        for name, bounds in worlds.items():
            facts = ", ".join(f"{f.name}={getattr(bounds, f.name)}" for f in fields(bounds))
            print(f"  {name:<18} {facts}")
    print("twins:")
    for twin in TWINS.values():
        print(f"  {twin.name:<26} {twin.without}")


if __name__ == "__main__":
    sys.exit(main())
