"""The report of a run: one JSON object, and a table that says PASS or MISS to each bar that the design sets.

The checker's findings and what the run measured of itself stand side by side in it; only the former decide the verdict.
"""

from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from outrider.demo.checker import PHASES, Findings
from outrider.demo.machine import Machine, this_machine
from outrider.demo.quantiles import Quantiles

Result = Literal["PASS", "MISS", "NOT MEASURED"]


class AddedWait(msgspec.Struct, frozen=True, rename="camel"):
    """What a change of owner added to requests that met it: at arrival (WANT and grant), and those held."""

    arrival: Quantiles = Quantiles()
    held: Quantiles = Quantiles()


class Stretch(msgspec.Struct, frozen=True, rename="camel"):
    """A part of the run: from when to when, in seconds since its start, and the CPU seconds of all its processes."""

    name: str
    from_s: float
    to_s: float
    cpu_s: float


class Measured(Findings, frozen=True, rename="camel", kw_only=True):
    """With the findings, what the run knows of itself: from the networks' APIs, the relay, /proc and the clock."""

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
    timeline: list[Stretch] = msgspec.field(default_factory=list)
    cpu_s: dict[str, float] = msgspec.field(default_factory=dict)


class Bar(msgspec.Struct, frozen=True, rename="camel"):
    """A bar of the design, what was measured against it, and the result; `note` says what explains it."""

    kpi: str
    bar: str
    measured: str
    result: Result
    note: str = ""


class Report(Measured, frozen=True, rename="camel", kw_only=True):
    """Everything that is reported of a run. Names and units are those of `docs/reference`; times in ms end in `Ms`."""

    bars: list[Bar]
    machine: Machine
    baselines: dict[str, Findings] = msgspec.field(default_factory=dict)
    """The same track without a migration, by the baseline's name."""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def make_report(measured: Measured, baselines: dict[str, Findings] | None = None) -> Report:
    """Hold a run's findings and figures against the bars."""
    figures = msgspec.structs.asdict(measured)
    return Report(**figures, bars=bars(measured), machine=this_machine(), baselines=baselines or {})


# ---------------------------------------------------------------------------------------------------- bars


def bars(run: Measured) -> list[Bar]:
    """The bars of the design that a run of the demo can be held against, and where the others are measured."""
    wrong = run.requests_lost + run.requests_duplicated + run.requests_reordered
    wrong += run.requests_phantom + run.owner_conflicts
    side_effects = run.timers_missed + run.timers_doubled
    side_effects += run.notifications_lost + run.notifications_duplicated + run.notifications_reordered
    amplification = run.wire_bytes / run.state_bytes if run.state_bytes else None
    return [
        _at_most("requests lost, duplicated, reordered; two owners", wrong, 0, judged=run.requests_ok > 0),
        _at_most("timers and notifications missed, doubled, reordered", side_effects, 0, judged=run.ues > 0),
        *_waits("wait added at arrival", run.added_wait_ms.arrival, run.rtt_ms),
        *_waits("wait added to held requests", run.added_wait_ms.held, run.rtt_ms),
        _at_most(
            "bytes on the wire ÷ state", amplification, 0.25, note="The package and forwarded requests are in it."
        ),
        _at_most("p99 of the service, copy ÷ before", _ratio(run, "copy"), 1.5, note=_SHARED),
        _at_most("p99 of the service, during ÷ before", _ratio(run, "during"), 1.5, note=_SHARED),
        _at_most("failed requests of the basic part", run.basic_failed, 0, judged=run.basic_sent > 0),
        _at_most(
            "p99 of the basic part, during ÷ before", run.basic_p99_ratio, 1.1,
            note="A group that arrives registers: `--baseline` shows the same without a migration.",
        ),
        _at_least("first request after arrival answered by the target", run.served_locally_on_arrival, 0.999),
        _at_most("duration of the demo, s", run.elapsed_s, 60.0),
        Bar("return after 5 % changed", "≤ 5 % of the bytes", "–", "NOT MEASURED", "Here every context changes."),
        Bar("1 M contexts, cost per context, abort", "–", "–", "NOT MEASURED", "See `outrider bench` and the tests."),
    ]  # fmt: skip


_SHARED = "Both networks and the UEs share this machine."


def _ratio(run: Measured, phase: str) -> float | None:
    """The service's p99 in a phase, over that before."""
    before, then = run.latency_ms["before"].p99, run.latency_ms[phase].p99
    return then / before if then is not None and before else None


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
    for phase in PHASES:
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
    table.add_row("CPU seconds", ", ".join(f"{name} {cpu_s:.0f}" for name, cpu_s in report.cpu_s.items()), *rest)
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
