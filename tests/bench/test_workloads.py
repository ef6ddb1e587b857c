"""Short runs of each kind of workload: all of it is real, only small."""

from typing import Any

import pytest

from outrider.bench.figures import SETTLED, Size
from outrider.bench.options import Link, Options
from outrider.bench.relocation import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONTEXTS = 300


async def measured(**more: Any) -> Size:
    options = Options(**{"writes_per_s": 50, "warm_s": 0.5, "before_s": 1, "after_s": 0.5, "probe_s": 0, **more})
    size = await run(options, 60 if options.workload == "large" else CONTEXTS, lambda _: None)
    assert size.ended == SETTLED
    assert size.sample.get("lost", 0) == size.sample.get("doubled", 0) == size.sample.get("torn", 0) == 0
    assert size.judged is not None
    assert size.judged.two_owners == size.judged.reordered == 0
    return size


@pytest.mark.parametrize("workload", ["zipf", "large", "incompressible", "multi"])
async def test_contexts_of_every_shape_move_under_their_load(workload: str):
    size = await measured(workload=workload, writes_per_s=10 if workload == "large" else 50)
    assert size.moved_ues == size.contexts
    assert size.sample["served"] == size.sample["read"] > 0
    assert size.proof is not None
    assert (size.wire_share > 0.9) or workload != "incompressible"


async def test_without_a_load_everything_moves_and_nothing_is_claimed_about_requests():
    size = await measured(workload="idle")
    assert size.moved_ues == CONTEXTS
    assert size.holds is None
    assert not size.seen.pause_ms
    assert size.judged is not None
    assert size.judged.answers == 0


@pytest.mark.parametrize("workload", ["storm", "train"])
async def test_a_group_that_arrives_is_served_in_order_and_its_contexts_alone_move(workload: str):
    size = await measured(workload=workload, group_s=5.0)
    assert size.arrived is not None
    assert size.arrived.ues == CONTEXTS // 5
    assert size.arrived.refused == size.arrived.unanswered == size.arrived.out_of_order == 0
    assert size.arrived.first_by_target > 0
    assert 0 < size.moved_ues <= size.arrived.ues
    assert sum(size.grant_bodies.values()) >= size.moved_ues  # a grant that is not answered in time is sent again


async def test_a_visit_ends_where_it_began_and_its_way_back_is_measured():
    size = await measured(workload="visit")
    assert size.back is not None
    assert size.back.whole_s is not None
    assert size.back.ues == CONTEXTS
    assert size.back.bytes > 0
    assert size.back_share is not None
    assert size.sample["served"] == size.sample["read"] == round(CONTEXTS * 0.05)  # at home, with what was changed


async def test_an_abort_brings_everything_home():
    size = await measured(workload="abort")
    assert size.back is not None
    assert size.back.whole_s is not None
    assert size.sample["served"] == size.sample["read"] > 0


async def test_a_crash_of_the_sources_keeper_costs_time_and_no_write():
    size = await measured(workload="crash")
    assert size.moved_ues == CONTEXTS
    assert size.recovery_s is not None
    assert size.recovery_s > 0


@pytest.mark.parametrize("without", ["holds", "compression", "log"])
async def test_without_a_mechanism_contexts_still_move_whole(without: str):
    size = await measured(without=without)
    assert size.moved_ues == CONTEXTS
    assert size.without == without


async def test_without_the_shadows_stream_a_visit_still_ends():
    size = await measured(workload="visit", without="shadow")
    assert size.back is not None
    assert size.back.whole_s is not None


async def test_over_a_slow_link_that_breaks_contexts_move_no_faster_than_it_carries():
    size = await measured(link=Link(rtt_ms=4.0, mbit=4.0, reset_every_s=1.0))
    assert size.total_s is not None
    assert size.resets > 0
    assert size.total_s > size.state_bytes * 0.1 * 8 / 4e6  # were the state packed to a tenth
