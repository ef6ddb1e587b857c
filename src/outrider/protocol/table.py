"""What a state machine is made of here: rules in a table, tried in order, the first that fits decides.

A rule names the state it leaves, the event it takes, the condition in words and as a guard, the state it enters,
and the clause it comes from. The words are for people and for the generated diagrams; the guard and `then` are
what runs. Tests remove a rule by its id to show that it is needed (`Table.without`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

R = TypeVar("R")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Step(Generic[R, V]):
    """The outcome of one event: new durable row, new volatile state, commands, and one sentence that says why.

    Where `row` differs from the row that went in, the caller makes it durable before it runs any command.
    """

    row: R
    vol: V
    commands: tuple[Any, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rule(Generic[R, V]):
    """One line of a table. `then` returns the step; `guard` of None always fits."""

    id: str
    at: Enum
    on: type
    to: Enum
    when: str
    clause: str
    then: Callable[[R, V, Any], Step[R, V]]
    guard: Callable[[R, V, Any], bool] | None = None


class Table(Generic[R, V]):
    """Rules by (state, event), in the order given; a pair that no rule fits leaves everything as it is."""

    def __init__(self, rules: Iterable[Rule[R, V]], state_of: Callable[[R], Enum]) -> None:
        self.rules = tuple(rules)
        self._state_of = state_of
        self._by_pair: dict[tuple[Enum, type], list[Rule[R, V]]] = defaultdict(list)
        for rule in self.rules:
            self._by_pair[rule.at, rule.on].append(rule)

    def step(self, row: R, vol: V, event: object) -> Step[R, V]:
        """Apply the first rule that fits the event in this state; without one, nothing changes."""
        rule = self.rule(row, vol, event)
        return Step(row, vol, (), "nothing to do") if rule is None else rule.then(row, vol, event)

    def rule(self, row: R, vol: V, event: object) -> Rule[R, V] | None:
        """The rule that `step` applies; None where nothing changes."""
        for rule in self._by_pair.get((self._state_of(row), type(event)), ()):
            if rule.guard is None or rule.guard(row, vol, event):
                return rule
        return None

    def without(self, rule_id: str, *instead: Rule[R, V]) -> "Table[R, V]":
        """This table with one rule taken out, and others in its place: the twin that a search must catch."""
        kept: list[Rule[R, V]] = []
        found = False
        for rule in self.rules:
            if rule.id == rule_id:
                found = True
                kept.extend(instead)
            else:
                kept.append(rule)
        if not found:
            raise KeyError(rule_id)
        return Table(kept, self._state_of)
