"""A soak judges what grew as well as what was lost, and a seed chooses the same journeys again."""

import asyncio
import random
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from outrider.demo import soak
from outrider.demo.growth import Sample, curve, growth
from outrider.demo.machine import this_machine
from outrider.demo.matrix import full, onward
from outrider.demo.outcome import Outcome
from outrider.demo.soak import chosen
from outrider.demo.soak_report import Soak, markdown, recovery, tables


def samples(rss: list[float], store: float = 1.0, logs: list[float] | None = None) -> list[Sample]:
    return [
        Sample(
            at_s=n,
            rss_mb={"keeper of A": mb},
            open_files={"keeper of A": 40},
            file_mb={"store of A": store, "logs of B": (logs or rss)[n]},
        )
        for n, mb in enumerate(rss)
    ]


def test_memory_that_is_never_given_back_is_growth():
    assert growth(samples([100 + 20 * n for n in range(16)])) == [
        "rssMb of keeper of A: 210 in the second quarter, 370 in the last"
    ]


def test_memory_that_fills_up_and_stays_is_none():
    assert growth(samples([60, 80, 100, 110, 112, 112, 113, 112, 112, 113, 112, 112])) == []


def test_logs_are_the_operators_to_rotate():
    assert growth(samples([100.0] * 12, logs=[100.0 * n for n in range(12)])) == []


def test_of_few_journeys_nothing_is_said():
    assert growth(samples([100.0, 1000.0])) == []


def test_growth_is_judged_in_the_networks_that_lived_longest():
    grown = samples([100 + 20 * n for n in range(16)])
    others = samples([10.0] * 9)
    for s in others:
        s.networks = 2
    assert growth([*grown, *others]) == growth(grown) != []


def test_what_is_gone_has_no_height_in_a_curve():
    assert curve([0.0, 1.0, 4.5, 8.0, 0.0]) == " ▂▅█ "
    assert curve([0.0, 0.0]) == "  "


def test_a_seed_chooses_the_same_journeys_and_faults_again():
    assert [chosen(random.Random(7)) for _ in range(3)] == [chosen(random.Random(7)) for _ in range(3)]
    picked = random.Random(1)
    drawn = [chosen(picked) for _ in range(300)]
    assert {len(d.faults) for d in drawn} == {0, 1, 2}
    assert {d.onward for d in drawn} == {True, False}
    assert {f.kind for d in drawn for f in d.faults} == {f.kind for [f] in full() + onward()}
    assert all(len({f.kind for f in d.faults}) == len(d.faults) for d in drawn), "two orders could undo each other"
    assert all(f.leg == "there" for d in drawn if not d.onward for f in d.faults)
    assert {f.after_s == 0 for d in drawn for f in d.faults if f.phase == "COPYING"} == {True}


def test_recovery_counts_journeys_with_one_fault_only():
    outcomes = [
        Outcome(faults=["kill"], kinds=["kill"], phase="", unavailable_s=1.0),
        Outcome(faults=["kill"], kinds=["kill"], phase="", unavailable_s=3.0),
        Outcome(faults=["kill", "cut"], kinds=["kill", "cut"], phase="", unavailable_s=9.0),
        Outcome(faults=[], phase="", unavailable_s=0.1),
        Outcome(faults=["cut"], kinds=["cut"], phase="", unavailable_s=None),
    ]
    assert recovery(outcomes) == {
        "kill": {"journeys": 2, "median": 2.0, "max": 3.0},
        "no fault": {"journeys": 1, "median": 0.1, "max": 0.1},
    }


def test_the_page_says_which_journey_failed_and_why():
    failed = Outcome(faults=["kill -9 keeper of B"], kinds=["kill keeper"], phase="START", reasons=["1 × lost: ue-1."])
    passed = Outcome(faults=[], phase="", verdict="PASS", unavailable_s=0.25, route="A → B → C → A")
    page = markdown(
        Soak(seed=5, machine=this_machine(), outcomes=[failed, passed], samples=samples([1.0, 2.0]), verdict="FAIL")
    )
    assert "# Soak, seed 5: FAIL" in page
    assert "1 of 2 journeys passed" in page
    assert "**1 × lost: ue-1.**" in page
    assert "| kill keeper | 1 | 0 |" in page
    assert "| no fault | 1 | 1 |" in page
    assert "| keeper of A: memory, MB | 1 | 2 | 2 |" in page


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_journey_over_three_networks_with_a_fault_passes_and_is_measured(tmp_path: Path):
    service = Path(__file__).parents[2] / "examples" / "group-coordination"
    seed = 13  # a keeper at B is killed when it has sent a grant to C
    report = asyncio.run(soak.soak(0.1, seed, tmp_path, service, Console(file=StringIO())))
    assert report.verdict == "PASS", [o.reasons for o in report.outcomes]
    assert [o.route for o in report.outcomes] == ["A → B → C → A"]
    assert report.outcomes[0].faults == ["kill at grant-sent, keeper of B"]
    assert report.outcomes[0].fired[0].startswith("grant-sent:kill:")
    assert {"keeper of A", "worker of A", "node of A", "node of B", "node of C"} <= report.samples[-1].rss_mb.keys()
    assert {"store of A", "journal of C", "logs of B"} <= report.samples[-1].file_mb.keys()
    assert "store of B" not in report.samples[-1].file_mb, "it has erased its store"
    assert [table.row_count > 0 for table in tables(report)] == [True, True]
