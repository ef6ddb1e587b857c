"""The report has every field that is promised, and says PASS or MISS to each bar."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from outrider.demo.checker import Timeline, check
from outrider.demo.machine import this_machine
from outrider.demo.quantiles import Quantiles, quantiles
from outrider.demo.report import AddedWait, Bar, Measured, Stretch, bars, make_report, show

FIELDS = [
    "ues",
    "contexts",
    "requestsSent",
    "requestsOk",
    "requestsFailed",
    "requestsLost",
    "requestsDuplicated",
    "requestsReordered",
    "ownerConflicts",
    "addedWaitMs",
    "latencyMs",
    "relocations",
    "migrationS",
    "stateBytes",
    "wireBytes",
    "returnS",
    "returnWireBytes",
    "servedLocallyOnArrival",
    "timersMissed",
    "timersDoubled",
    "notificationsLost",
    "notificationsDuplicated",
    "basicFailed",
    "basicP99Ratio",
    "discoveryBefore",
    "discoveryDuring",
    "discoveryAfter",
    "verdict",
]


@pytest.fixture
def measured() -> Measured:
    """A run in which everything held."""
    latency = {
        "before": Quantiles(100, 2.0, 4.0, 9.0),
        "copy": Quantiles(100, 2.5, 5.0, 20.0),
        "during": Quantiles(100, 2.5, 5.5, 30.0),
        "after": Quantiles(),
    }
    found = msgspec.structs.asdict(check([], Timeline("999-70", "999-71", [])))
    found |= {
        "ues": 300,
        "requests_sent": 9000,
        "requests_ok": 9000,
        "latency_ms": latency,
        "arrivals": 285,
        "served_locally_on_arrival": 1.0,
        "basic_sent": 100,
        "basic_latency_ms": latency,
        "basic_p99_ratio": 1.02,
        "discovery_before": 0,
        "discovery_during": 1,
        "discovery_after": 0,
        "verdict": "PASS",
        "reasons": [],
    }
    return Measured(
        **found,
        contexts=300,
        relocations=570,
        migration_s=7.5,
        state_bytes=600_000,
        wire_bytes=120_000,
        return_s=6.0,
        return_wire_bytes=130_000,
        added_wait_ms=AddedWait(Quantiles(285, 21.0, 24.0, 31.0), Quantiles(12, 1.0, 3.0, 4.0)),
        rtt_ms=20.0,
        elapsed_s=41.0,
        rate=1.0,
        seed=1,
        timeline=[Stretch("copy", 10.0, 12.5, 3.1)],
        cpu_s={"keeper": 12.3, "node": 8.0},
    )


def bar(measured: Measured, kpi: str) -> Bar:
    (found,) = [b for b in bars(measured) if b.kpi.startswith(kpi)]
    return found


def test_the_report_has_every_field_that_is_promised(measured: Measured, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    make_report(measured).write(file)
    report: dict[str, Any] = json.loads(file.read_text())
    assert [name for name in FIELDS if name not in report] == []
    assert report["addedWaitMs"]["arrival"] == {"count": 285, "p50": 21.0, "p99": 24.0, "max": 31.0}
    assert report["latencyMs"]["during"]["p99"] == 5.5
    assert report["timeline"] == [{"name": "copy", "fromS": 10.0, "toS": 12.5, "cpuS": 3.1}]
    assert report["cpuS"] == {"keeper": 12.3, "node": 8.0}
    assert report["verdict"] == "PASS"
    assert report["machine"]["cores"] >= 1


SLOW = {"before": Quantiles(9, 1, 1, 1), "copy": Quantiles(9, 2, 2, 2), "during": Quantiles(9, 2, 2, 2)}


@pytest.mark.parametrize(
    ("kpi", "changed"),
    [
        ("requests lost", {"requests_lost": 1}),
        ("requests lost", {"owner_conflicts": 1}),
        ("timers and notifications", {"timers_doubled": 1}),
        ("wait added at arrival, p99", {}),
        ("wait added at arrival, max", {"rtt_ms": 2.0}),
        ("bytes on the wire", {"wire_bytes": 160_000}),
        ("p99 of the service, copy", {"latency_ms": SLOW}),
        ("p99 of the service, during", {"latency_ms": SLOW}),
        ("failed requests of the basic part", {"basic_failed": 1}),
        ("p99 of the basic part", {"basic_p99_ratio": 1.2}),
        ("first request after arrival", {"served_locally_on_arrival": 0.99}),
        ("duration", {"elapsed_s": 61.0}),
    ],
)
def test_a_bar_that_is_not_reached_is_a_miss(measured: Measured, kpi: str, changed: dict[str, Any]) -> None:
    assert bar(replace(measured, **changed), kpi).result == "MISS"


def test_bars_that_are_reached_pass(measured: Measured) -> None:
    results = {b.kpi: b.result for b in bars(measured)}
    missed = [kpi for kpi, result in results.items() if result == "MISS"]
    assert missed == ["wait added at arrival, p99 in ms (285 requests)"]
    assert "round trip" in bar(measured, "wait added at arrival, p99").note


def test_what_was_not_measured_is_no_pass(measured: Measured) -> None:
    nothing = msgspec.structs.asdict(check([], Timeline("999-70", "999-71", [])))
    unmeasured = replace(measured, **nothing, state_bytes=0, added_wait_ms=AddedWait())
    assert {b.result for b in bars(unmeasured) if not b.kpi.startswith("duration")} == {"NOT MEASURED"}


def test_the_table_shows_the_bars_the_verdict_and_the_baselines(measured: Measured) -> None:
    bad = replace(measured, verdict="FAIL", reasons=["3 × lost: ue-1 …"], requests_lost=3)
    out = StringIO()
    show(make_report(bad, {"routed home": measured}), Console(file=out, width=160))
    text = out.getvalue()
    assert "Verdict: FAIL" in text
    assert "3 × lost" in text
    assert "routed home" in text
    assert "MISS" in text
    assert "keeper 12, node 8" in text
    assert this_machine().kernel in text


def test_a_report_can_be_read_back(measured: Measured) -> None:
    report = make_report(measured)
    assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report


def test_quantiles_are_values_of_the_sample() -> None:
    assert quantiles([]) == Quantiles()
    assert quantiles([3.0]) == Quantiles(1, 3.0, 3.0, 3.0)
    assert quantiles(range(1, 101)) == Quantiles(100, 50, 99, 100)
