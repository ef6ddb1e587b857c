"""The figures as a page: for each workload a table with the peers and the ratio to each, the bars, and the drawings."""

import os
from pathlib import Path

from outrider.bench.figures import Measured, Result, Spread
from outrider.bench.plots import title_of
from outrider.bench.show import DASH, RATIO, ROWS, cell, summary

NOT_MEASURED = "NOT MEASURED"


def page(results: list[Result], drawings: list[Path], beside: Path) -> str:
    """The whole report, for a file in the folder `beside`."""
    first = results[0]
    parts = [
        "# Measurements",
        f"{first.machine}; load average before: {first.load_average}; {first.fsync}.",
        overview(results),
        *(_of(result) for result in results),
    ]
    if drawings:
        parts.append(
            "## Drawings\n\n" + "\n\n".join(f"![{file.stem}]({os.path.relpath(file, beside)})" for file in drawings)
        )
    return "\n\n".join(parts) + "\n"


def overview(results: list[Result]) -> str:
    """One line for each workload and size: the figures that most ask for."""
    lines = [
        "| workload | contexts | total, s | ÷ peer | longest wait of a UE, p50 / p99 / max, ms | peer's pause, ms | "
        "bytes ÷ state | failed | lost, doubled, reordered, two owners |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        lines += [_line(result, size) for size in result.sizes if size.runs]
    return "\n".join(lines)


def _line(result: Result, size: Measured) -> str:
    figures = summary(size)
    ours, peer = figures["ours"], figures[size.peers[0].name] if size.peers else {}

    def shown(values: list[Spread | None] | None, form: str) -> str:
        return _measured(cell(values, form))

    waits = ours["longest wait of a UE: p50 / p99 / p99.9 / max, ms"]
    pause = peer.get("longest time without a served write before / during, ms", [None, None])[1:]
    failed = sum(
        run.seen.refused[phase] + run.seen.unanswered[phase] for run in size.runs for phase in ("during", "after")
    )
    wrong = [str(sum(run.sample.get(name, 0) for run in size.runs)) for name in ("lost", "doubled")]
    judged = [run.judged for run in size.runs if run.judged is not None and run.judged.answers]
    of_answers = [sum(j.reordered for j in judged), sum(j.two_owners for j in judged)]
    wrong += [str(n) for n in of_answers] if judged else [NOT_MEASURED] * 2
    cells = [
        title_of(result),
        f"{size.contexts:,}",
        shown(ours["total from the command, s"], ".2f"),
        shown(ours.get(RATIO), ".2f"),
        shown([waits[0], waits[1], waits[3]], ".1f"),
        shown(pause, ",.0f"),
        shown(ours["bytes on the wire ÷ state"], ".3f"),
        str(failed) if _first_has_load(result) else NOT_MEASURED,
        ", ".join(wrong),
    ]
    return f"| {' | '.join(cells)} |"


def _first_has_load(result: Result) -> bool:
    return any(run.seen.writes_per_s or run.arrived for size in result.sizes for run in size.runs)


def _of(result: Result) -> str:
    parts = [f"## {title_of(result)}", f"`{result.command}`"]
    parts += [_table(size) for size in result.sizes if size.runs]
    parts += [f"Not made: {why}." for size in result.sizes for why in size.broken]
    bars = ["| bar | | measured | |", "|---|---|---|---|"]
    bars += [f"| {bar.kpi} | {bar.bar} | {bar.measured} | **{bar.verdict}** |" for bar in result.bars]
    return "\n\n".join([*parts, "\n".join(bars), f"Peer: {result.peer}."])


def _table(size: Measured) -> str:
    """Every figure of one size: ours, each peer's, and how many times the peer's ours is; what nobody has, by name."""
    found = summary(size)
    peers = [side for side in found if side != "ours"]
    lines = [
        f"| {size.contexts:,} contexts | ours |" + "".join(f" {peer} | ours ÷ it |" for peer in peers),
        "|---|---:|" + "---:|---:|" * len(peers),
    ]
    nobody = []
    for row in ROWS:
        sides = {side: found[side].get(row.name) for side in found}
        name = row.name.strip()
        if all(cell(values, row.form) == DASH for values in sides.values()):
            nobody += [] if row.process else [name]
            continue
        cells = [cell(sides["ours"], row.form) if row.process else _measured(cell(sides["ours"], row.form))]
        for peer in peers:
            there_is = row.peer is not None and not row.process
            theirs = cell(sides[peer], row.form)
            cells += [_measured(theirs) if there_is else theirs, _ratio(sides["ours"], sides[peer])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    return f"{table}\n\n{NOT_MEASURED}: {'; '.join(nobody)}." if nobody else table


def _measured(text: str) -> str:
    return NOT_MEASURED if text == DASH else text


def _ratio(ours: list[Spread | None] | None, theirs: list[Spread | None] | None) -> str:
    """Of medians, where both were measured and the peer's is not nothing."""
    if ours is None or theirs is None:
        return ""
    pairs = [(o, t) for o, t in zip(ours, theirs, strict=True) if o is not None and t is not None and t.median]
    return " / ".join(f"{o.median / t.median:.2f}" for o, t in pairs)
