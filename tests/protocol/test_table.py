"""Tables of rules: the first that fits decides, and a rule can be taken out."""

import enum
from typing import Any

import pytest

from outrider.protocol.table import Rule, Step, Table


class Light(enum.Enum):
    RED = "red"
    GREEN = "green"


class Go:
    pass


def _to(light: Light) -> Any:
    return lambda row, vol, event: Step(light, vol, (), light.value)


FIRST: Rule[Light, int] = Rule(
    "first", Light.RED, Go, Light.GREEN, "vol is 1", "", _to(Light.GREEN), lambda r, v, e: v == 1
)
SECOND: Rule[Light, int] = Rule("second", Light.RED, Go, Light.RED, "else", "", _to(Light.RED))
TABLE = Table([FIRST, SECOND], lambda row: row)


def test_the_first_rule_that_fits_decides() -> None:
    assert TABLE.step(Light.RED, 1, Go()).row is Light.GREEN
    assert TABLE.step(Light.RED, 2, Go()).row is Light.RED
    assert TABLE.rule(Light.RED, 2, Go()) is SECOND


def test_a_pair_without_a_rule_changes_nothing() -> None:
    assert TABLE.rule(Light.GREEN, 1, Go()) is None
    assert TABLE.step(Light.GREEN, 1, Go()) == Step(Light.GREEN, 1, (), "nothing to do")


def test_a_rule_that_is_taken_out_leaves_the_next_one() -> None:
    assert TABLE.without("first").step(Light.RED, 1, Go()).row is Light.RED


def test_what_comes_instead_of_a_rule_stands_in_its_place() -> None:
    other: Rule[Light, int] = Rule("other", Light.RED, Go, Light.GREEN, "always", "", _to(Light.GREEN))
    assert TABLE.without("first", other).step(Light.RED, 2, Go()).row is Light.GREEN
    assert [rule.id for rule in TABLE.without("first", other).rules] == ["other", "second"]


def test_only_a_rule_that_exists_can_be_taken_out() -> None:
    with pytest.raises(KeyError):
        TABLE.without("third")
