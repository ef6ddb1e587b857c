"""The figures for people: one row a figure, median and spread where there are several runs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outrider.bench.bars import ratios
from outrider.bench.figures import SETTLED, Measured, Peer, Result, Size, Spread
from outrider.bench.serve import Served
from outrider.demo.quantiles import Quantiles

Values = Sequence[float | None]


class Row(NamedTuple):
    """A figure, or some that are read together; `peer` is None where a peer has no such thing."""

    name: str
    ours: Callable[[Size], Values]
    peer: Callable[[Peer], Values] | None
    form: str = ",.0f"
    process: bool = False
    """Whether it is of a process, which one side has and the other has not."""


def summary(measured: Measured) -> dict[str, dict[str, list[Spread | None]]]:
    """Median and spread of every row, by who was measured."""
    found = {"ours": {row.name: _spreads([row.ours(run) for run in measured.runs]) for row in ROWS}}
    for peers in filter(None, (measured.peers, measured.dumps)):
        rows = [(row.name, row.peer) for row in ROWS if row.peer is not None]
        found[peers[0].name] = {row: _spreads([figure(run) for run in peers]) for row, figure in rows}
    if measured.peers:
        found["ours"][RATIO] = [Spread.over(ratios(measured))]
    return found


def table_of(sizes: list[Measured]) -> tuple[list[str], list[list[str]]]:
    """Titles of the columns, and the rows: a figure, and what each side of each size has for it."""
    found = [(size, side, figures) for size in sizes for side, figures in summary(size).items()]
    titles = [
        f"{size.contexts:,} contexts" if side == "ours" else f"{side}, {size.contexts:,}" for size, side, _ in found
    ]
    rows = []
    for name, form in (*((row.name, row.form) for row in ROWS), (RATIO, ".2f")):
        cells = [cell(figures.get(name), form) for *_, figures in found]
        if any(shown != DASH for shown in cells):
            rows.append([name, *cells])
    return titles, rows


def show(result: Result, console: Console) -> None:
    """Print the figures."""
    title = ", ".join(filter(None, (result.workload, str(result.link), result.without and f"without {result.without}")))
    table = Table(title=f"outrider bench relocation: {title}", title_justify="left")
    titles, rows = table_of(result.sizes)
    table.add_column("")
    for column in titles:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    judged = Table(title="bars", title_justify="left")
    for column in ("", "bar", "measured", ""):
        judged.add_column(column)
    for bar in result.bars:
        judged.add_row(bar.kpi, bar.bar, escape(bar.measured), bar.verdict)
    console.print(judged)
    for size in result.sizes:
        _tell(size, console)
    runs = max(len(size.runs) for size in result.sizes)
    console.print(
        f"{result.command}\n{result.machine}; load average before: {result.load_average}; {result.fsync}"
        f"\npeer: {result.peer}" + (f"; median of {runs} runs [smallest–largest]" if runs > 1 else ""),
        markup=False,
    )


def show_served(served: Served, console: Console) -> None:
    """Print what serving costs under a host."""
    table = Table(title="outrider bench serve", title_justify="left")
    for column in ("", "requests/s", f"p50 / p99 / max at {served.rate_per_s:,.0f} requests/s, ms", "failed"):
        table.add_column(column, justify="right" if column else "left")
    for name, sides in (("under a host, every commit synced", served.hosted), ("bare on granian", served.bare)):
        per_s = cell([Spread.over(side.per_s for side in sides)], ",.0f")
        latency = cell(_spreads([_three(side.latency_ms) for side in sides]), ".1f")
        table.add_row(name, per_s, latency, str(sum(side.failed for side in sides)))
    console.print(table)
    console.print(f"{served.bar.verdict}: {served.bar.kpi} {served.bar.bar}: {served.bar.measured}", markup=False)
    console.print(f"{served.command}\n{served.machine}", markup=False)


def _tell(size: Measured, console: Console) -> None:
    """What is no figure: how a run ended that did not settle, how requests were answered, and the profile."""
    at = f"{size.contexts:,} contexts"
    for why in size.broken:
        console.print(f"not made: {why}", style="red", markup=False)
    for run in size.runs:
        if run.ended != SETTLED:
            console.print(f"{at}: did not settle: {run.ended}", style="red", markup=False)
        if odd := {name: n for name, n in run.seen.outcomes.items() if name not in ("ok", "redirected")}:
            counted = ", ".join(f"{name} {n}" for name, n in sorted(odd.items()))
            console.print(f"{at}: answered otherwise: {counted}", markup=False)
        for process, functions in run.hot.items():
            listed = ", ".join(f"{f.function} {f.share:.0%} ({f.samples})" for f in functions[:6])
            console.print(f"{at}: samples of {process}: {listed}", markup=False)
    for peer in size.peers:
        if peer.ended != SETTLED:
            console.print(f"{peer.name}, {size.contexts:,}: {peer.ended}", style="red", markup=False)


def _spreads(runs: list[Values]) -> list[Spread | None]:
    return [Spread.over(values) for values in zip(*runs, strict=True)]


def cell(spreads: list[Spread | None] | None, form: str) -> str:
    """Medians with their spread; a dash if nothing of it was measured."""
    if not spreads or all(spread is None for spread in spreads):
        return DASH
    return " / ".join(DASH if s is None else _figure(s, form) for s in spreads)


def _figure(spread: Spread, form: str) -> str:
    if spread.runs == 1:
        return format(spread.median, form)
    least, most = f"{spread.min:{form}}", f"{spread.max:{form}}"
    return f"{spread.median:{form}}" + (f" [{least}–{most}]" if least != most else "")


DASH = "–"
"""In the place of a figure that was not measured."""

RATIO = "total ÷ the peer's, by round"


def _latency(phase: str) -> Row:
    def figures(run: Size | Peer) -> Values:
        q = run.seen.latency_ms.get(phase)
        return [None] * 3 if q is None else _three(q)

    return Row(f"latency {phase}: p50 / p99 / max, ms", figures, figures, ".1f")


def _process(name: str) -> Row:
    def figures(run: Size | Peer) -> Values:
        use = run.used.get(name)
        return [None] * 2 if use is None else [use.cpu_s, use.peak_rss_mb]

    return Row(f"{name}: CPU s / peak MB", figures, figures, ",.1f", process=True)


def _wait(cause: str) -> Row:
    def figures(run: Size) -> Values:
        wait = run.waits[cause]
        return [wait[q] if wait["count"] else None for q in ("p50", "p99", "max")]

    return Row(f"{cause}: p50 / p99 / max, ms", figures, None, ".1f")


def _by_phase(name: str, counts: Callable[[Size | Peer], dict[str, int]]) -> Row:
    def figures(run: Size | Peer) -> Values:
        if not run.seen.writes_per_s:
            return [None] * 3  # there were none to be refused
        return [counts(run)[phase] for phase in ("before", "during", "after")]

    return Row(f"{name} before / during / after", figures, figures)


def _served(run: Size | Peer) -> Values:
    if not run.seen.writes_per_s:
        return [None] * 4
    return [run.seen.writes_per_s, *(run.seen.served_per_s.get(phase) for phase in ("before", "during", "after"))]


def _p99_ratio(run: Size | Peer) -> Values:
    before, during = (run.seen.latency_ms.get(phase) for phase in ("before", "during"))
    if before is None or during is None or not before.p99 or during.p99 is None:
        return [None]
    return [during.p99 / before.p99]


def _rate_ratio(run: Size | Peer) -> Values:
    before, during = (run.seen.served_per_s.get(phase) for phase in ("before", "during"))
    return [during / before if before and during is not None else None]


def _pause(run: Size | Peer) -> Values:
    return [run.seen.pause_ms.get(phase) for phase in ("before", "during")]


def _sample(run: Size | Peer) -> Values:
    return [run.sample.get(name) for name in ("read", "lost", "doubled")]


def _holds(run: Size | Peer) -> Values:
    return [None] * 4 if run.holds is None else [run.holds.p50, run.holds.p99, run.holds.p999, run.holds.max]


def _changed(run: Size | Peer) -> Values:
    return [run.seen.target_first_s, run.seen.source_last_s]


def _judged(run: Size) -> Values:
    return (
        [None] * 3
        if run.judged is None or not run.judged.answers
        else [run.judged.answers, run.judged.reordered, run.judged.two_owners]
    )


def _arrived(run: Size) -> Values:
    group = run.arrived
    return [None] * 3 if group is None else [group.ues, group.first_by_target, group.last_by_target]


def _group_failed(run: Size) -> Values:
    group = run.arrived
    return [None] * 3 if group is None else [group.refused, group.unanswered, group.out_of_order]


def _first(run: Size) -> Values:
    return [None] * 3 if run.arrived is None else _three(run.arrived.first_ms)


def _later(run: Size) -> Values:
    return [None] * 3 if run.arrived is None else _three(run.arrived.later_ms)


def _three(q: Quantiles) -> Values:
    return [q.p50, q.p99, q.max]


def _back(run: Size) -> Values:
    return [None] * 2 if run.back is None else [run.back.asked_s, run.back.whole_s]


def _back_bytes(run: Size) -> Values:
    return [None] * 2 if run.back is None else [run.back.bytes, run.back.stream_bytes]


def _proof(run: Size) -> Values:
    return [None] * 2 if run.proof is None else [run.proof.compare_s, run.proof.recompute_s]


def _cpu_per_million(run: Size | Peer) -> Values:
    return [run.cpu_s / run.contexts * 1e6]


ROWS = [
    Row("writes/s that the service can serve (closed loop)", lambda s: [s.capacity_per_s], None),
    Row("writes/s scheduled / served before / during / after", _served, _served),
    Row("state, MB", lambda s: [s.state_bytes / 1e6], lambda p: [p.state_bytes / 1e6], ",.1f"),
    Row("total from the command, s", lambda s: [s.total_s], lambda p: [p.total_s], ".2f"),
    Row("  prepare (package, permission, host), s", lambda s: [s.prepare_s], None, ".2f"),
    Row("  copy, s", lambda s: [s.copy_s], None, ".2f"),
    Row("  change of owner, s", lambda s: [s.relocate_s], None, ".2f"),
    Row("contexts/s (copy and change of owner)", lambda s: [s.contexts / m if (m := s.moving_s) else None], None),
    Row("bytes on the wire ÷ state", lambda s: [s.wire_share], lambda p: [p.wire_share], ".3f"),
    Row("longest time without a served write before / during, ms", _pause, _pause),
    _wait("held"),
    _wait("arrival"),
    Row("requests that waited: held / at arrival", lambda s: [s.waits[c]["count"] for c in ("held", "arrival")], None),
    Row("longest wait of a UE: p50 / p99 / p99.9 / max, ms", _holds, _holds, ".1f"),
    *(_latency(phase) for phase in ("before", "copying", "relocating", "during", "after")),
    Row("p99 latency during ÷ before", _p99_ratio, _p99_ratio, ".2f"),
    Row("served during ÷ before, per second", _rate_ratio, _rate_ratio, ".2f"),
    _by_phase("requests refused", lambda run: run.seen.refused),
    _by_phase("requests unanswered", lambda run: run.seen.unanswered),
    _by_phase("requests not sent", lambda run: run.seen.not_sent),
    _by_phase("requests answered after 10 ms", lambda run: run.seen.late),
    Row("first answer of the target / last of the source, s", _changed, _changed, ".2f"),
    Row("UEs read afterwards / lost / doubled", _sample, _sample),
    Row("answers judged / reordered / of two owners", _judged, None),
    Row("UEs that arrived / first served by the target / at last", _arrived, None),
    Row("requests of those who arrived: refused / unanswered / out of order", _group_failed, None),
    Row("first request after arrival: p50 / p99 / max, ms", _first, None, ".1f"),
    Row("later requests: p50 / p99 / max, ms", _later, None, ".1f"),
    Row("way back: asked / all home, s", _back, None, ".2f"),
    Row("way back: bytes ÷ way out, with the shadow's stream", lambda s: [s.back_share], None, ".3f"),
    Row("way back: bytes / bytes of the shadow's stream before it", _back_bytes, None),
    Row("served again after the crash, s", lambda s: [s.recovery_s], None, ".2f"),
    Row("resets of all connections", lambda s: [s.resets or None], None),
    Row("proof: to compare / recompute all digests, s", _proof, None, ".3f"),
    Row("CPU s of both ends during", lambda s: [s.cpu_s], lambda p: [p.cpu_s], ",.1f"),
    Row("CPU s for 1 M contexts", _cpu_per_million, _cpu_per_million, ",.0f"),
    Row("peak memory of both ends ÷ state", lambda s: [s.peak_share], lambda p: [p.peak_share], ".2f"),
    *(
        _process(name)
        for name in (
            *("keeper A", "bulk A", "worker A", "node A", "node B", "keeper B", "bulk B", "worker B", "relay"),
            *("valkey A", "valkey B", "load"),
        )
    ),
    Row("seeding, s", lambda s: [s.seed_s], lambda p: [p.fill_s], ".1f"),
]
