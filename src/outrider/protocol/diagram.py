"""Draws the state tables as documentation: a diagram and tables that cannot differ from what runs.

    python -m outrider.protocol.diagram --write     writes docs/reference/ownership.md and docs/reference/migration.md
    python -m outrider.protocol.diagram --check     exit code 1 where a page is stale

Only the part of a page between the two marks is generated; what stands around it is written by hand and kept.
"""

import argparse
import sys
from collections.abc import Iterable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from outrider.protocol.table import Rule, Table

BEGIN = "<!-- generated from the table by `python -m outrider.protocol.diagram --write`: do not edit by hand -->"
END = "<!-- end of what is generated -->"

DOCS = Path(__file__).parents[3] / "docs" / "reference"


class Page(NamedTuple):
    """One page: its file name without suffix, its title, and where its table is."""

    name: str
    title: str
    module: str
    table: str

    def load(self) -> Table[Any, Any]:
        """The table that the page is about."""
        table = getattr(import_module(self.module), self.table)
        assert isinstance(table, Table)
        return table


PAGES = (
    Page("ownership", "Ownership of a key", "outrider.protocol.ownership", "OWNERSHIP"),
    Page("migration", "Phases of a migration", "outrider.protocol.migration", "MIGRATION"),
)


def states_of(table: Table[Any, Any]) -> list[Enum]:
    """All states of the table's kind, in the order in which they are defined."""
    return list(type(table.rules[0].at))


def events_of(table: Table[Any, Any]) -> list[type]:
    """The events that some rule takes, in the order of the rules."""
    return list(dict.fromkeys(rule.on for rule in table.rules))


def diagram(table: Table[Any, Any]) -> str:
    """The changes of state as a Mermaid diagram: an arrow for each pair of states, labelled with the events."""
    arrows: dict[tuple[Enum, Enum], list[str]] = {}
    for rule in table.rules:
        if rule.at is not rule.to:
            arrows.setdefault((rule.at, rule.to), []).append(rule.on.__name__)
    lines = ["```mermaid", "stateDiagram-v2"]
    for state in states_of(table):
        for (at, to), events in arrows.items():
            if at is state:
                lines.append(f"    {at.name} --> {to.name} : {', '.join(dict.fromkeys(events))}")
    return "\n".join([*lines, "```"])


def render(table: Table[Any, Any]) -> str:
    """Diagram, states, events and rules of a table, in Markdown."""
    parts = [
        "## The diagram",
        "Only events that change the state are drawn; the rules below have all.",
        diagram(table),
        "## The states",
        _markdown(
            ("state", "what it means", "waiting for"),
            ((f"`{s.name}`", _field(s, "sentence"), _field(s, "waiting_for")) for s in states_of(table)),
        ),
        "## The events",
        _markdown(("event", "what has happened"), ((f"`{e.__name__}`", _sentence(e)) for e in events_of(table))),
        "## The rules",
        "For each state and event the rules are tried from top to bottom, and the first whose condition holds decides. "
        "A pair that is not here, or that no condition fits, changes nothing.",
    ]
    for state in states_of(table):
        rules = [rule for rule in table.rules if rule.at is state]
        if rules:
            ordered = sorted(rules, key=lambda rule: [r.on for r in rules].index(rule.on))
            parts += [
                f"### In `{state.name}`",
                _markdown(("event", "when", "next", "rule", "clause"), map(_row, ordered)),
            ]
    return "\n\n".join(parts)


def page_text(page: Page, current: str | None) -> str:
    """The page as it should be: what is written by hand as in `current`, the rest from the table."""
    generated = f"{BEGIN}\n\n{render(page.load())}\n\n{END}\n"
    if current is None or BEGIN not in current or END not in current:
        return f"{current.rstrip() if current else '# ' + page.title}\n\n{generated}"
    before, _, rest = current.partition(BEGIN)
    after = rest.partition(END)[2].strip()
    return before + generated + (f"\n{after}\n" if after else "")


def stale(docs: Path = DOCS) -> list[Page]:
    """The pages that are not what their tables say."""
    return [page for page in PAGES if _current(docs, page) != page_text(page, _current(docs, page))]


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m outrider.protocol.diagram", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the pages that are stale")
    what.add_argument("--check", action="store_true", help="name the pages that are stale")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the pages")
    args = parser.parse_args(argv)
    pages = stale(args.docs)
    for page in pages:
        path = args.docs / f"{page.name}.md"
        if args.write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page_text(page, _current(args.docs, page)), encoding="utf-8")
        print(f"{path} {'written' if args.write else 'is stale: run `python -m outrider.protocol.diagram --write`'}")
    return 1 if pages and args.check else 0


def _current(docs: Path, page: Page) -> str | None:
    path = docs / f"{page.name}.md"
    return path.read_text(encoding="utf-8") if path.exists() else None


def _row(rule: Rule[Any, Any]) -> tuple[str, ...]:
    to = "–" if rule.to is rule.at else f"`{rule.to.name}`"
    return f"`{rule.on.__name__}`", rule.when, to, f"`{rule.id}`", rule.clause


def _field(state: Enum, name: str) -> str:
    value = getattr(state, name)
    assert isinstance(value, str)
    return value


def _sentence(event: type) -> str:
    return " ".join((event.__doc__ or "").split("\n\n")[0].split())


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
