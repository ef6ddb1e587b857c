"""Real processes are killed, stopped and cut off while a service moves, and an independent checker judges."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from outrider.demo import faults as running
from outrider.demo.fault import Fault
from outrider.demo.matrix import NEVER, ONWARD, full, onward, pairwise
from outrider.host.failpoints import PLACES


def _names(runs: list[list[Fault]]) -> list[str]:
    return [" + ".join(map(str, run)) for run in runs]


def test_the_full_matrix_kills_at_every_place_that_a_network_can_reach():
    tried = {(f.where, f.what.split(":")[0]) for run in full() for f in run if f.kind == "fail-point"}
    assert tried == {(where, place) for where in "AB" for place in PLACES if place not in NEVER[where]}


def test_onward_kills_at_every_step_of_a_relocation_at_both_that_have_a_part_in_it():
    tried = {(f.where, f.what.split(":")[0]) for run in onward() for f in run if f.kind == "fail-point"}
    assert tried == {(where, place) for where, places in ONWARD.items() for place in places}
    assert set(PLACES) == {place for places in ONWARD.values() for place in places}


def test_onward_has_every_kind_of_fault_at_every_network_and_link():
    faults = [f for run in onward() for f in run]
    assert {f.kind for f in faults} == {f.kind for run in full() for f in run}
    assert {f.where for f in faults if f.kind in ("cut", "slow")} == {"A-B", "A-C", "B-C"}
    for kind in ("fail-point", "kill", "stop", "disk", "memory"):
        assert {f.where for f in faults if f.kind == kind} == {"A", "B", "C"}


def test_the_pairwise_selection_has_every_kind_of_fault_in_every_phase_of_a_move():
    chosen = [f for run in pairwise() for f in run]
    assert {f.kind for f in chosen} == {f.kind for run in full() for f in run}
    assert {f.phase for f in chosen} == {f.phase for run in full() for f in run}
    assert {f.what for f in chosen if f.kind == "kill"} == {"worker", "keeper", "node"}
    assert {f.what for f in chosen if f.kind == "memory"} == {"worker", "keeper", "bulk"}


def test_an_order_for_a_fail_point_is_obeyed_once_at_its_place_and_count(tmp_path: Path):
    order, report = tmp_path / "order", tmp_path / "report"
    passes = "from outrider.host.failpoints import reach; [reach(p) for p in ('hold', 'settled', 'hold', 'settled')]"
    env = {**os.environ, "OUTRIDER_FAILPOINT_ORDER": str(order), "OUTRIDER_FAILPOINT_REPORT": str(report)}

    def ended() -> int:
        return subprocess.run([sys.executable, "-c", passes], env=env, check=False).returncode

    assert ended() == 0
    order.write_text("settled:kill:2")
    assert ended() == -signal.SIGKILL
    assert report.read_text().startswith("settled:kill:")
    assert ended() == 0
    assert len(report.read_text().splitlines()) == 1


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, service_dir: Path) -> dict[str, running.Outcome]:
    """All runs of the selection, one after the other: they share two networks."""
    runs = pairwise()
    done = asyncio.run(running.play_all(runs, tmp_path_factory.mktemp("faults"), service_dir=service_dir))
    return dict(zip(_names(runs), done, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("run", _names(pairwise()))
def test_nothing_is_lost_or_doubled_and_the_migration_ends_by_itself(
    outcomes: dict[str, running.Outcome], run: str
) -> None:
    outcome = outcomes[run]
    assert len(outcome.fired) == len(outcome.faults), outcome.reasons
    assert outcome.reasons == []
    assert outcome.ended.split()[0] in ("RETIRED", "ABORTED")
