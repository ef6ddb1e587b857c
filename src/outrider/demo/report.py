"""The report of a run: one JSON object, and a table that says PASS or MISS to each bar that the design sets.

The checker's findings and what the run measured of itself stand side by side in it; only the former decide the verdict.
"""

from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from outrider.demo.checker import Findings
from outrider.demo.machine import Machine, this_machine
from outrider.demo.quantiles import Quantiles

Result = Literal["PASS", "MISS", "NOT MEASURED"]


class AddedWait(msgspec.Struct, frozen=True, rename="camel"):
    """What a change of owner added to requests that met it: at arrival (WANT and grant), and those held."""

    arrival: Quantiles = Quantiles()
    held: Quantiles = Quantiles()


class Measured(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the run knows of itself: from the networks' APIs, the relay and the clock."""

    contexts: int
    relocations: int
    migration_s: float | None
    state_bytes: int
    wire_bytes: int
    return_s: float | None
    return_wire_bytes: int
    added_wait_ms: AddedWait = AddedWait()
    rtt_ms: float
    elapsed_s: float
    rate: float
    seed: int


class Bar(msgspec.Struct, frozen=True, rename="camel"):
    """A bar of the design, what was measured against it, and the result; `note` says what explains it."""

    kpi: str
    bar: str
    measured: str
    result: Result
    note: str = ""


class Report(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Everything that is reported of a run. Names and units are those of `docs/reference`; times in ms end in `Ms`."""

    ues: int
    contexts: int
    requests_sent: int
    requests_ok: int
    requests_refused: int
    requests_failed: int
    requests_unknown: int
    requests_lost: int
    requests_duplicated: int
    requests_reordered: int
    requests_phantom: int
    owner_conflicts: int
    added_wait_ms: AddedWait
    latency_ms: dict[str, Quantiles]
    relocations: int
    migration_s: float | None
    state_bytes: int
    wire_bytes: int
    return_s: float | None
    return_wire_bytes: int
    arrivals: int
    served_locally_on_arrival: float | None
    served_locally_on_return: float | None
    timers_fired: int
    timers_missed: int
    timers_doubled: int
    notifications: int
    notifications_lost: int
    notifications_duplicated: int
    notifications_reordered: int
    basic_sent: int
    basic_failed: int
    basic_latency_ms: dict[str, Quantiles]
    basic_p99_ratio: float | None
    discovery_before: int | None
    discovery_during: int | None
    discovery_after: int | None
    verdict: Literal["PASS", "FAIL"]
    reasons: list[str]
    bars: list[Bar]
    machine: Machine
    rtt_ms: float
    elapsed_s: float
    rate: float
    seed: int
    baselines: dict[str, Findings] = {}
    """The same track without a migration, by the baseline's name."""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def make_report(findings: Findings, measured: Measured, baselines: dict[str, Findings] | None = None) -> Report:
    """Put a run's findings and figures together, and hold them against the bars."""
    found = {f.name: getattr(findings, f.name) for f in msgspec.structs.fields(findings) if f.name != "attempts"}
    own = {f.name: getattr(measured, f.name) for f in msgspec.structs.fields(measured)}
    return Report(**found, **own, bars=bars(findings, measured), machine=this_machine(), baselines=baselines or {})


# ---------------------------------------------------------------------------------------------------- bars


def bars(findings: Findings, measured: Measured) -> list[Bar]:
    """The bars of the design that a run of the demo can be held against, and where the others are measured."""
    wrong = findings.requests_lost + findings.requests_duplicated + findings.requests_reordered
    wrong += findings.requests_phantom + findings.owner_conflicts
    side_effects = findings.timers_missed + findings.timers_doubled
    side_effects += findings.notifications_lost + findings.notifications_duplicated + findings.notifications_reordered
    before, during = findings.latency_ms["before"], findings.latency_ms["during"]
    ratio = during.p99 / before.p99 if during.p99 is not None and before.p99 else None
    amplification = measured.wire_bytes / measured.state_bytes if measured.state_bytes else None
    return [
        _at_most("requests lost, duplicated, reordered; two owners", wrong, 0, judged=findings.requests_ok > 0),
        _at_most("timers and notifications missed, doubled, reordered", side_effects, 0, judged=findings.ues > 0),
        *_waits("wait added at arrival", measured.added_wait_ms.arrival, measured.rtt_ms),
        *_waits("wait added to held requests", measured.added_wait_ms.held, measured.rtt_ms),
        _at_most(
            "bytes on the wire ÷ state", amplification, 0.25, note="The package and forwarded requests are in it."
        ),
        _at_most("p99 of the service, during ÷ before", ratio, 1.5),
        _at_most("failed requests of the basic part", findings.basic_failed, 0, judged=findings.basic_sent > 0),
        _at_most("p99 of the basic part, during ÷ before", findings.basic_p99_ratio, 1.1),
        _at_least("first request after arrival answered by the target", findings.served_locally_on_arrival, 0.999),
        _at_most("duration of the demo, s", measured.elapsed_s, 60.0),
        Bar("return after 5 % changed", "≤ 5 % of the bytes", "–", "NOT MEASURED", "Here every context changes."),
        Bar("1 M contexts, cost per context, abort", "–", "–", "NOT MEASURED", "See `outrider bench` and the tests."),
    ]


def _waits(kpi: str, waits: Quantiles, rtt_ms: float) -> list[Bar]:
    note = f"A round trip of {rtt_ms:g} ms is in it." if rtt_ms else ""
    return [
        _at_most(f"{kpi}, p99 in ms ({waits.count} requests)", waits.p99, 5.0, judged=waits.count > 0, note=note),
        _at_most(f"{kpi}, max in ms", waits.max, 25.0 + rtt_ms, judged=waits.count > 0),
    ]


def _at_most(kpi: str, value: float | None, bar: float, *, judged: bool = True, note: str = "") -> Bar:
    return _judge(kpi, f"≤ {bar:g}" if bar else "0", value, judged, value is not None and value <= bar, note)


def _at_least(kpi: str, value: float | None, bar: float) -> Bar:
    return _judge(kpi, f"≥ {bar:g}", value, True, value is not None and value >= bar, "")


def _judge(kpi: str, bar: str, value: float | None, judged: bool, good: bool, note: str) -> Bar:
    if value is None or not judged:
        return Bar(kpi, bar, "–", "NOT MEASURED")
    return Bar(kpi, bar, f"{value:.4g}", "PASS" if good else "MISS", "" if good else note)


# ------------------------------------------------------------------------------------------------ for people


def render(report: Report) -> RenderableType:
    """The report for a terminal."""
    return Group(_figures(report), _bars(report), *_verdict(report))


def show(report: Report, console: Console | None = None) -> None:
    """Print the report."""
    (console or Console()).print(render(report))


def _figures(report: Report) -> Table:
    table = Table(title="What happened", show_header=True, title_justify="left")
    table.add_column("")
    table.add_column("with migration", justify="right")
    for name in report.baselines:
        table.add_column(name, justify="right")
    runs: list[Report | Findings] = [report, *report.baselines.values()]

    def row(label: str, *names: str) -> None:
        table.add_row(label, *(" / ".join(str(getattr(run, name)) for name in names) for run in runs))

    row("UEs, arrivals", "ues", "arrivals")
    row("requests sent / answered / refused (rate) / failed", *_named("requests", "sent ok refused failed"))
    row(
        "lost / duplicated / reordered / two owners",
        *_named("requests", "lost duplicated reordered"),
        "owner_conflicts",
    )
    for phase in ("before", "during", "after"):
        table.add_row(f"latency {phase}, p50 / p99 ms", *(_pair(run.latency_ms[phase]) for run in runs))
    row("timers fired / missed / doubled", *_named("timers", "fired missed doubled"))
    row("notifications / lost / duplicated", "notifications", *_named("notifications", "lost duplicated"))
    row("basic part: sent / failed", *_named("basic", "sent failed"))
    row("instances found at the target before / during / after", *_named("discovery", "before during after"))
    rest = [""] * len(report.baselines)
    arrival, held = report.added_wait_ms.arrival, report.added_wait_ms.held
    table.add_row("wait added at arrival, p50 / p99 / max ms", _triple(arrival), *rest)
    table.add_row("wait added to held requests, p50 / p99 / max ms", _triple(held), *rest)
    table.add_row("contexts, changes of owner", f"{report.contexts}, {report.relocations}", *rest)
    table.add_row("migration, return in s", f"{_number(report.migration_s)}, {_number(report.return_s)}", *rest)
    moved = f"{report.state_bytes:,} / {report.wire_bytes:,} / {report.return_wire_bytes:,}"
    table.add_row("bytes of state / on the wire / of the return", moved, *rest)
    return table


def _named(prefix: str, names: str) -> list[str]:
    return [f"{prefix}_{name}" for name in names.split()]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _pair(q: Quantiles) -> str:
    return f"{_number(q.p50)} / {_number(q.p99)}"


def _triple(q: Quantiles) -> str:
    return f"{_pair(q)} / {_number(q.max)} ({q.count})"


_STYLE = {"PASS": "green", "MISS": "red", "FAIL": "red", "NOT MEASURED": "dim"}


def _bars(report: Report) -> Table:
    table = Table(title=f"Bars, on {report.machine}", title_justify="left")
    for column in ("", "bar", "measured", "result", ""):
        table.add_column(column)
    for bar in report.bars:
        table.add_row(bar.kpi, bar.bar, bar.measured, Text(bar.result, _STYLE[bar.result]), Text(bar.note, "dim"))
    return table


def _verdict(report: Report) -> list[Text]:
    lines = [Text(f"Verdict: {report.verdict}", f"bold {_STYLE[report.verdict]}")]
    return lines + [Text(f"  {reason}") for reason in report.reasons]
