"""The table of rules in the documentation against PROTOCOL.md and against what is searched."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.sim.twins import SAFE_ALONE, TWINS
from outrider.sim.worlds import IN_CI

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "exhaustive-search.md").read_text()
RULES = {
    cells[0]: cells
    for line in PAGE.split("## Rule by rule")[1].split("\n## ")[0].splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0].startswith("§")
}


def _clauses() -> Iterator[str]:
    """The rules of PROTOCOL.md §1-§10: numbered ones by their number; bullets, rows and plain text counted."""
    for section in (ROOT / "PROTOCOL.md").read_text().split("\n## ")[1:11]:
        number = section.split(" ")[0]
        numbered = re.findall(r"^(\d+)\. ", section, re.MULTILINE)
        counted = re.findall(r"^(?:- |\| (?!message \|))", section, re.MULTILINE)
        yield from (f"§{number}.{n}" for n in numbered or range(1, (len(counted) or 1) + 1))


def _names(rule: list[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", rule[2])


def test_every_rule_of_the_protocol_is_in_the_table() -> None:
    assert list(RULES) == list(_clauses())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_names_what_is_searched_or_says_why_nothing_can_be(rule: list[str]) -> None:
    names = _names(rule)
    assert set(names) <= {*TWINS, *SAFE_ALONE, *IN_CI}, "every name is a twin or a world that CI searches"
    if not any(name in TWINS for name in names):
        assert rule[3], f"no twin shows {rule[0]}, and the table does not say why"


def test_every_twin_shows_a_rule() -> None:
    shown = {name for rule in RULES.values() for name in _names(rule)}
    assert shown >= {*TWINS, *SAFE_ALONE}
