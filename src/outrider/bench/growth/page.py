"""The parts as a page, as drawings, and on a terminal."""

import os
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outrider.bench import plots
from outrider.bench.growth.table import Curve, Part, Value
from outrider.demo.machine import Machine

COLOURS = (plots.OURS, plots.PEER, plots.OTHER, plots.LIMIT)


class Grown(msgspec.Struct, frozen=True, rename="camel"):
    """Everything that one command measured."""

    command: str
    machine: Machine
    load_average: float
    """Of the machine over the minute before: above 0 something else ran too."""
    parts: list[Part]
    broken: list[str]
    """Parts that could not be run to their end, and why."""


def shown(value: Value) -> str:
    """A cell."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else value


def page(grown: Grown, drawings: list[Path], beside: Path) -> str:
    """The report, for a file in the folder `beside`."""
    parts = ["# Growth", f"`{grown.command}`", f"{grown.machine}; load average before: {grown.load_average}."]
    parts += [_of(part) for part in grown.parts]
    parts += [f"Not measured: {why}." for why in grown.broken]
    parts += [f"![{file.stem}]({os.path.relpath(file, beside)})" for file in drawings]
    return "\n\n".join(parts) + "\n"


def _of(part: Part) -> str:
    names = list(part.rows[0]) if part.rows else []
    lines = [f"| {' | '.join(names)} |", "|" + "---:|" * len(names)]
    lines += [f"| {' | '.join(shown(row[name]) for name in names)} |" for row in part.rows]
    bars = ["| bar | | measured | |", "|---|---|---|---|"]
    bars += [f"| {bar.kpi} | {bar.bar} | {bar.measured} | **{bar.verdict}** |" for bar in part.bars]
    blocks = [f"## {part.title}", f"{part.ran} Took {part.took_s:.0f} s.", "\n".join(lines) if names else ""]
    blocks += [f"Not run: {why}." for why in part.left_out]
    return "\n\n".join([*filter(None, blocks), "\n".join(bars)])


def draw(parts: list[Part], directory: Path) -> list[Path]:
    """One drawing for each curve with two points or more; the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [_curve(part, curve, directory) for part in parts for curve in part.curves if len(part.rows) > 1]
    return [file for file in files if file is not None]


def _curve(part: Part, curve: Curve, directory: Path) -> Path | None:
    figure, axes = plots.axes_of(f"{part.title}: {', '.join(curve.ys)}")
    drawn = 0
    for name, colour in zip(curve.ys, COLOURS, strict=False):
        points = [
            (row[curve.x], row[name])
            for row in part.rows
            if isinstance(row[name], (int, float)) and isinstance(row[curve.x], (int, float))
        ]
        if points:
            at, values = zip(*points, strict=True)
            axes.plot(at, values, color=colour, marker="o", markersize=3, linewidth=1.0, label=name)
            drawn += 1
    if not drawn:
        return None
    at_all = part.column(curve.x)
    axes.set_xscale("log")
    axes.set_xticks(at_all, [f"{at:,.0f}" for at in at_all])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(curve.x, fontsize=8)
    axes.set_ylabel(curve.unit, fontsize=8)
    return plots.save(figure, directory / f"growth-{curve.name}.svg")


def show(grown: Grown, console: Console) -> None:
    """Print the figures and the bars."""
    for part in grown.parts:
        table = Table(title=part.title, title_justify="left", caption=part.ran, caption_justify="left")
        table.add_column("")
        for row in part.rows:
            table.add_column(shown(next(iter(row.values()))), justify="right")
        for name in list(part.rows[0])[1:] if part.rows else []:
            table.add_row(escape(name), *(escape(shown(row[name])) for row in part.rows))
        console.print(table)
        for why in part.left_out:
            console.print(f"not run: {why}", style="red", markup=False)
        for bar in part.bars:
            console.print(f"{bar.verdict}: {bar.kpi} {bar.bar}: {bar.measured}", markup=False)
    for why in grown.broken:
        console.print(f"not measured: {why}", style="red", markup=False)
    console.print(f"{grown.command}\n{grown.machine}; load average before: {grown.load_average}", markup=False)
