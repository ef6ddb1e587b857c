"""A host beside the bare app."""

import pytest

from outrider.bench.serve import Side, judged, run
from outrider.demo.quantiles import Quantiles


def side(per_s: float) -> Side:
    return Side(per_s, Quantiles(), 0)


@pytest.mark.parametrize(("hosted", "verdict"), [([60.0, 50.0, 10.0], "PASS"), ([60.0, 49.0, 10.0], "MISS")])
def test_the_median_of_the_rounds_ratios_is_judged(hosted: list[float], verdict: str):
    assert judged([side(h) for h in hosted], [side(100.0)] * 3).verdict == verdict


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_same_app_serves_under_a_host_and_bare():
    served = await run(200, seconds=1.0, repeat=2, command="outrider bench serve", say=lambda _: None)
    assert len(served.hosted) == len(served.bare) == 2
    assert all(side.per_s > 0 and side.latency_ms.count > 0 for side in (*served.hosted, *served.bare))
    assert sum(side.failed for side in (*served.hosted, *served.bare)) == 0
