"""What a run of `outrider bench relocation` found: figures, a table, and the bars of the design with PASS or MISS."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

from outrider.bench.usage import Used
from outrider.demo.machine import Machine
from outrider.demo.quantiles import Quantiles

VALKEY_S = 4.08
"""1 M keys of 1 KB under 5 000 writes/s, from one Valkey 9.1 to another on a machine of this kind; not in this run."""

WAIT_P99_MS, WAIT_MAX_MS = 5.0, 25.0
WIRE_SHARE = 0.25
P99_RATIO = 1.5
FLAT = 1.3
HELD_RATE = 0.98
"""The share of the scheduled writes that must have been served before the migration for the load to count as held."""


class Size(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The figures of one size. Times in seconds from the command; `copying` and `relocating` are parts of `during`."""

    contexts: int
    writes_per_s: float
    rtt_ms: float
    served_per_s: float
    state_bytes: int
    seed_s: float
    total_s: float
    prepare_s: float
    copy_s: float
    relocate_s: float
    moved_ues: int
    marks_wrong: int
    grant_bodies: dict[str, int]
    wire_bytes: int
    waits: dict[str, dict[str, float]]
    latency_ms: dict[str, Quantiles]
    failed: dict[str, int]
    outcomes: dict[str, int]
    sample: dict[str, int]
    used: dict[str, Used]

    @property
    def moving_s(self) -> float:
        """Copy and change of ownership: what depends on the number of contexts."""
        return self.copy_s + self.relocate_s

    @property
    def contexts_per_s(self) -> float:
        """Contexts moved per second of copy and change of ownership."""
        return self.contexts / self.moving_s

    @property
    def wire_share(self) -> float:
        """Bytes between the borders, both ways, writes forwarded and TLS included, for each byte of state."""
        return self.wire_bytes / self.state_bytes

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes of the two networks."""
        return sum(use.cpu_s for name, use in self.used.items() if name not in ("load", "relay"))


class Bar(msgspec.Struct, frozen=True, rename="camel"):
    """One row of the design's section 12."""

    kpi: str
    bar: str
    measured: str
    verdict: Literal["PASS", "MISS", "NOT MEASURED"]


class Result(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """All sizes of a run, on one machine."""

    command: str
    machine: Machine
    load_average: float
    """Of the machine over the minute before the run: above 0 something else ran too."""
    fsync: str
    sizes: list[Size]
    bars: list[Bar]


def bars(sizes: list[Size]) -> list[Bar]:
    """The rows that this benchmark can judge, and by name those that it cannot."""
    largest = max(sizes, key=lambda s: s.contexts)
    smallest = min(sizes, key=lambda s: s.contexts)
    found = [_whole(sizes), _waits(largest), _time(largest)]
    share = max(s.wire_share for s in sizes)
    found.append(
        _bar("bytes on the wire ÷ state", f"≤ {WIRE_SHARE}", f"{share:.3f} (the largest)", share <= WIRE_SHARE)
    )
    before, copying = largest.latency_ms["before"].p99, largest.latency_ms["copying"].p99
    if before is None or copying is None:
        found.append(Bar("p99 during copy ÷ before", f"≤ {P99_RATIO}", "no writes", "NOT MEASURED"))
    else:
        said = f"{copying / before:.2f} ({copying:.1f} ms after {before:.1f} ms) at {largest.contexts}"
        found.append(_bar("p99 during copy ÷ before", f"≤ {P99_RATIO}", said, copying / before <= P99_RATIO))
    if largest is smallest:
        found.append(Bar("cost per context, smallest → largest", f"flat within {FLAT}×", "one size", "NOT MEASURED"))
    else:
        costs = [s.moving_s / s.contexts * 1e6 for s in (smallest, largest)]
        ratio = costs[1] / costs[0]
        said = f"{costs[0]:.1f} → {costs[1]:.1f} µs, {ratio:.2f}× ({smallest.contexts} → {largest.contexts})"
        found.append(_bar("cost per context, smallest → largest", f"flat within {FLAT}×", said, ratio <= FLAT))
    for kpi, where in (
        ("the same under any single fault", "make faults"),
        ("return after 5 % changed", "outrider demo"),
        ("basic part during everything", "outrider demo"),
        ("first request after arrival answered by the target", "outrider demo"),
        ("abort typed within 1 s", "tests/lmsf"),
    ):
        found.append(Bar(kpi, "", f"see {where}", "NOT MEASURED"))
    return found


def _whole(sizes: list[Size]) -> Bar:
    lost, doubled, unread = (sum(s.sample.get(name, 0) for s in sizes) for name in ("lost", "doubled", "unread"))
    failed, read = (
        sum(sum((s.failed["during"], s.failed["after"])) for s in sizes),
        sum(s.sample["read"] for s in sizes),
    )
    elsewhere = read - sum(s.sample.get("served", 0) for s in sizes)
    said = f"{lost} lost, {doubled} doubled, {elsewhere} not at the target of {read} UEs read; {failed} requests failed"
    return _bar(
        "requests lost, duplicated; two owners", "0", said, not (lost or doubled or unread or elsewhere or failed)
    )


def _waits(size: Size) -> Bar:
    worst_p99 = max(w["p99"] for w in size.waits.values())
    worst_max = max(w["max"] for w in size.waits.values())
    limit = WAIT_MAX_MS + size.rtt_ms
    said = "; ".join(
        f"{cause}: p99 {w['p99']:.1f} ms, max {w['max']:.1f} ms, {w['count']:.0f} requests"
        for cause, w in size.waits.items()
    )
    good = worst_p99 <= WAIT_P99_MS and worst_max <= limit
    return _bar(f"added wait at {size.contexts}", f"p99 ≤ {WAIT_P99_MS:g} ms, max ≤ {limit:g} ms", said, good)


def _time(size: Size) -> Bar:
    bar = f"≤ {0.7 * VALKEY_S:.2f} s (0.7 × Valkey's {VALKEY_S} s)"
    said = (
        f"{size.contexts}: {size.total_s:.2f} s from the command, {size.moving_s:.2f} s of it copy and change of owner"
    )
    if size.contexts < 1_000_000:
        return Bar("1 M contexts of 1 KB, source to target", bar, said, "NOT MEASURED")
    held = size.served_per_s >= HELD_RATE * size.writes_per_s
    load = "" if held else f"; only {size.served_per_s:.0f} of {size.writes_per_s:.0f} writes/s were served before"
    return _bar("1 M contexts of 1 KB, source to target", bar, said + load, held and size.total_s <= 0.7 * VALKEY_S)


def _bar(kpi: str, bar: str, measured: str, good: bool) -> Bar:
    return Bar(kpi, bar, measured, "PASS" if good else "MISS")


def show(result: Result, console: Console) -> None:
    """Print the figures for people."""
    table = Table(title="outrider bench relocation", title_justify="left")
    table.add_column("")
    for size in result.sizes:
        table.add_column(f"{size.contexts:,} contexts", justify="right")
    for name, figure in _ROWS:
        table.add_row(name, *(figure(size) for size in result.sizes))
    console.print(table)
    judged = Table(title="bars", title_justify="left")
    for column in ("", "bar", "measured", ""):
        judged.add_column(column)
    for bar in result.bars:
        judged.add_row(bar.kpi, bar.bar, bar.measured, bar.verdict)
    console.print(judged)
    console.print(f"{result.command}\n{result.machine}; load average before: {result.load_average}; {result.fsync}")


def _latency(size: Size, phase: str) -> str:
    q = size.latency_ms[phase]
    return "–" if q.p50 is None else f"{q.p50:.1f} / {q.p99:.1f} / {q.max:.0f}"


def _wait(size: Size, cause: str) -> str:
    return "{p50:.1f} / {p99:.1f} / {max:.1f}".format(**size.waits[cause])


def _process(size: Size, name: str) -> str:
    use = size.used.get(name)
    return "–" if use is None else f"{use.cpu_s:.1f} / {use.peak_rss_mb:.0f}"


_ROWS: list[tuple[str, Callable[[Size], str]]] = [
    ("writes/s scheduled / served before", lambda s: f"{s.writes_per_s:,.0f} / {s.served_per_s:,.0f}"),
    ("state, MB", lambda s: f"{s.state_bytes / 1e6:,.1f}"),
    ("total from the command, s", lambda s: f"{s.total_s:.2f}"),
    ("  prepare (package, permission, host), s", lambda s: f"{s.prepare_s:.2f}"),
    ("  copy, s", lambda s: f"{s.copy_s:.2f}"),
    ("  change of owner, s", lambda s: f"{s.relocate_s:.2f}"),
    ("contexts/s (copy and change of owner)", lambda s: f"{s.contexts_per_s:,.0f}"),
    ("bytes on the wire ÷ state", lambda s: f"{s.wire_share:.3f}"),
    *((f"{cause}: p50 / p99 / max, ms", partial(_wait, cause=cause)) for cause in ("held", "arrival")),
    ("requests held", lambda s: f"{s.waits['held']['count']:.0f}"),
    *(
        (f"latency {phase}: p50 / p99 / max, ms", partial(_latency, phase=phase))
        for phase in ("before", "copying", "relocating", "after")
    ),
    (
        "requests failed before / during / after",
        lambda s: " / ".join(str(s.failed[p]) for p in ("before", "during", "after")),
    ),
    ("UEs read at the target: lost / doubled", lambda s: f"{s.sample.get('lost', 0)} / {s.sample.get('doubled', 0)}"),
    ("CPU s of both networks during", lambda s: f"{s.cpu_s:.1f}"),
    *(
        (
            f"{name}: CPU s / peak MB",
            partial(_process, name=name),
        )
        for name in ("keeper A", "worker A", "node A", "node B", "keeper B", "worker B", "relay", "load")
    ),
    ("seeding, s", lambda s: f"{s.seed_s:.1f}"),
]
