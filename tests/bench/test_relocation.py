"""A short run of the benchmark: all of it is real, only small."""

import pytest

from outrider.bench.relocation import Options, run
from outrider.bench.result import bars


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_two_thousand_contexts_move_under_load_and_nothing_is_lost():
    said: list[str] = []
    size = await run(Options([2_000], writes_per_s=200, before_s=2, after_s=1), 2_000, said.append)
    assert size.sample["read"] == size.sample["served"] > 0
    assert size.sample["lost"] == size.sample["doubled"] == 0
    assert size.failed == dict.fromkeys(size.failed, 0)
    assert size.marks_wrong == 0
    assert size.latency_ms["during"].count > 0
    assert size.used["keeper B"].cpu_s > 0
    assert bars([size])[0].verdict == "PASS"
