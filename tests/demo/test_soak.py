"""A soak judges what grew as well as what was lost, and a seed chooses the same faults again."""

import asyncio
import random
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from outrider.demo import soak
from outrider.demo.faults import Outcome
from outrider.demo.soak import Sample, chosen, growth, recovery


def samples(rss: list[float], store: float = 1.0, logs: list[float] | None = None) -> list[Sample]:
    return [
        Sample(
            at_s=n, rss_mb={"keeper": mb}, open_files={"keeper": 40}, file_mb={"store": store, "logs": (logs or rss)[n]}
        )
        for n, mb in enumerate(rss)
    ]


def test_memory_that_is_never_given_back_is_growth():
    assert growth(samples([100 + 20 * n for n in range(16)])) == [
        "rssMb of keeper: 210 in the second quarter, 370 in the last"
    ]


def test_memory_that_fills_up_and_stays_is_none():
    assert growth(samples([60, 80, 100, 110, 112, 112, 113, 112, 112, 113, 112, 112])) == []


def test_logs_are_the_operators_to_rotate():
    assert growth(samples([100.0] * 12, logs=[100.0 * n for n in range(12)])) == []


def test_of_few_journeys_nothing_is_said():
    assert growth(samples([100.0, 1000.0])) == []


def test_a_seed_chooses_the_same_faults_again():
    assert [chosen(random.Random(7)) for _ in range(3)] == [chosen(random.Random(7)) for _ in range(3)]
    picked = random.Random(1)
    assert {len(chosen(picked)) for _ in range(60)} == {0, 1, 2}


def test_recovery_counts_journeys_with_one_fault_only():
    outcomes = [
        Outcome(faults=["kill"], phase="", unavailable_s=1.0),
        Outcome(faults=["kill"], phase="", unavailable_s=3.0),
        Outcome(faults=["kill", "cut"], phase="", unavailable_s=9.0),
        Outcome(faults=[], phase="", unavailable_s=0.1),
        Outcome(faults=["cut"], phase="", unavailable_s=None),
    ]
    assert recovery(outcomes) == {
        "kill": {"journeys": 2, "median": 2.0, "max": 3.0},
        "no fault": {"journeys": 1, "median": 0.1, "max": 0.1},
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_journeys_go_on_in_the_same_networks(tmp_path: Path):
    service = Path(__file__).parents[2] / "examples" / "group-coordination"
    report = asyncio.run(soak.soak(0.4, 3, tmp_path, service, Console(file=StringIO())))
    assert report.verdict == "PASS", [o.reasons for o in report.outcomes]
    assert len(report.samples) == len(report.outcomes) >= 1
    assert {"keeper", "node", "worker"} <= report.samples[-1].rss_mb.keys()
    assert {"store", "journal", "logs"} <= report.samples[-1].file_mb.keys()
    assert [table.row_count > 0 for table in soak.tables(report)] == [True, bool(report.recovery_s)]
