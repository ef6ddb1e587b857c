"""What a part found: a row for each step, the bars that it is held against, and which columns are curves."""

from collections.abc import Mapping
from typing import Any

import msgspec

from outrider.bench.figures import Bar

Value = float | int | str | None


class Curve(msgspec.Struct, frozen=True, rename="camel"):
    """A drawing: columns over another one."""

    name: str
    x: str
    ys: list[str]
    unit: str


class Part(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One part of the measurement."""

    name: str
    title: str
    ran: str
    """What was run, in a sentence or two: what is real and how many of it."""
    rows: list[dict[str, Value]]
    curves: list[Curve]
    bars: list[Bar]
    left_out: list[str] = []
    """Steps that were asked for and not run, and why."""
    raw: list[Any] = []
    """Everything that was measured."""
    took_s: float = 0.0

    def column(self, name: str) -> list[float]:
        """The numbers of a column, in the order of the rows; those that there are."""
        return [float(row[name]) for row in self.rows if isinstance(row.get(name), (int, float))]  # type: ignore[arg-type]


def at_most(kpi: str, limit: float, unit: str, values: Mapping[str, float | None]) -> Bar:
    """A bar that the largest of some figures must not pass; where one was measured and where is said."""
    there = {where: value for where, value in values.items() if value is not None}
    if not there:
        return Bar(kpi, f"≤ {limit:g} {unit}".strip(), "no run came so far", "NOT MEASURED")
    where = max(there, key=lambda name: there[name])
    said = f"{there[where]:.3g} {unit}".strip() + f" at {where}"
    return Bar(kpi, f"≤ {limit:g} {unit}".strip(), said, "PASS" if there[where] <= limit else "MISS")


def flat(kpi: str, limit: float, values: Mapping[str, float | None]) -> Bar:
    """A bar for a figure that must not grow: the last of them divided by the first."""
    there = [(where, value) for where, value in values.items() if value is not None]
    bar = f"last ÷ first ≤ {limit:g}"
    if len(there) < 2 or not there[0][1]:
        return Bar(kpi, bar, "fewer than two steps were measured", "NOT MEASURED")
    (first, least), (last, most) = there[0], there[-1]
    ratio = most / least
    said = f"{ratio:.2f} ({least:.3g} at {first}, {most:.3g} at {last})"
    return Bar(kpi, bar, said, "PASS" if ratio <= limit else "MISS")


def by(rows: list[dict[str, Value]], x: str, y: str) -> dict[str, float | None]:
    """A column by the words of another one, for a bar."""
    found: dict[str, float | None] = {}
    for row in rows:
        value = row.get(y)
        found[f"{row[x]:,}" if isinstance(row[x], int) else str(row[x])] = (
            float(value) if isinstance(value, (int, float)) else None
        )
    return found
