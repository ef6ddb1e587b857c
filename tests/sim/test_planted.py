"""Every planted fault is caught, within the number of seeds that the documentation states."""

import re
from pathlib import Path

import pytest

from outrider.host.actor import Actor
from outrider.sim.whole.planted import PLANTED, planted
from outrider.sim.whole.run import replay, run
from outrider.sim.whole.scenario import draw
from outrider.sim.whole.shrink import shrink

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "correctness.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| (\d+) \|$", re.MULTILINE)
MORE = 5
"""So many times the seeds that a fault needed when the page was written it may need: a change draws other worlds."""


def stated():
    return {name: int(seeds) for name, seeds in ROW.findall(PAGE.read_text(encoding="utf-8"))}


def test_the_page_has_every_fault_that_can_be_planted():
    assert stated().keys() == PLANTED.keys()


@pytest.mark.parametrize("name", ["grant-before-disk", "units-over-a-grant"])
def test_what_breaks_at_once_is_caught_at_once(name):
    assert run(seeds=20, fault=name, stop_at_first=True).failed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_caught(name):
    assert run(seeds=MORE * stated()[name], fault=name, stop_at_first=True).failed


def test_a_fault_is_in_production_code_only_while_it_is_planted():
    before = Actor._commit
    with planted("grant-before-disk"):
        assert Actor._commit is not before
    assert Actor._commit is before


def test_a_failure_is_replayed_to_the_byte_and_made_smaller():
    failed = run(seeds=20, fault="grant-before-disk", stop_at_first=True).failed[0]
    plan = draw(failed.seed, lmsfs=False)
    again = replay(plan, "grant-before-disk")
    assert (again.hash, again.violations) == (failed.hash, failed.violations)
    assert any("CHECK" in str(event) for event in again.events)
    shrunk = shrink(plan, "grant-before-disk", runs=15)
    assert shrunk is not None
    assert shrunk.result.violations[0].rule == failed.violations[0].rule
    assert len(shrunk.plan.ues) + len(shrunk.plan.faults) < len(plan.ues) + len(plan.faults)


def test_what_does_not_fail_is_not_made_smaller():
    assert shrink(draw("7", "visit")) is None
