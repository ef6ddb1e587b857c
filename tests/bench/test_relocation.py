"""Short runs of the benchmark: all of it is real, only small."""

import asyncio

import pytest

from outrider.bench.bars import bars
from outrider.bench.figures import SETTLED, Measured
from outrider.bench.options import Options
from outrider.bench.relocation import run
from outrider.bench.steps import step
from outrider.demo.processes import ProcessFailed


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_contexts_move_under_load_and_nothing_is_lost():
    said: list[str] = []
    size = await run(Options(writes_per_s=100, before_s=2, after_s=1, probe_s=1), 200, said.append)
    assert size.ended == SETTLED
    assert size.moved_ues == 200
    assert size.sample["read"] == size.sample["served"] > 0
    assert size.sample["lost"] == size.sample["doubled"] == 0
    assert size.seen.refused == size.seen.unanswered == dict.fromkeys(size.seen.refused, 0)
    assert size.marks_wrong == 0
    assert size.capacity_per_s is not None
    assert size.capacity_per_s > 0
    assert size.seen.latency_ms["during"].count > 0
    assert {"before", "copying", "relocating", "after"} <= set(size.seen.series.phase)
    assert size.used["keeper B"].cpu_s > 0
    assert bars([Measured(contexts=200, runs=[size], peers=[])])[0].verdict == "PASS"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_run_ends_also_if_far_more_is_written_than_can_be_served():
    said: list[str] = []
    options = Options(writes_per_s=20_000, warm_s=1, before_s=1, after_s=0.5, probe_s=0, move_limit_s=10)
    size = await run(options, 200, said.append)
    assert size.ended
    assert size.capacity_per_s is None
    assert size.seen.served_per_s["before"] < 20_000
    assert size.seen.not_sent["before"] > 0
    assert size.sample.get("lost", 0) == size.sample.get("doubled", 0) == 0


async def test_a_step_that_takes_too_long_is_named():
    with pytest.raises(ProcessFailed, match="waiting for ever took longer than"):
        async with step("waiting for ever", 0.01):
            await asyncio.Future()


async def test_a_timeout_of_what_a_step_does_is_not_the_steps():
    with pytest.raises(TimeoutError):
        async with step("asking", 10):
            raise TimeoutError
