"""The simplest peer moves a store, and its pause is its total."""

import pytest

from outrider.bench import dump
from outrider.bench.figures import SETTLED
from outrider.bench.options import Link, Options


@pytest.mark.slow
async def test_a_store_is_sent_compressed_and_started_at_the_target_while_nobody_is_served():
    said: list[str] = []
    peer = await dump.run(Options(), 2_000, said.append)
    assert peer.ended == SETTLED
    assert peer.total_s is not None
    assert peer.seen.pause_ms["during"] == pytest.approx(peer.total_s * 1000, abs=1)
    assert 0 < peer.wire_bytes < peer.state_bytes
    assert peer.used["receiver"].cpu_s >= 0


@pytest.mark.slow
async def test_a_slow_link_bounds_the_dump():
    mbit = 8.0
    peer = await dump.run(Options(link=Link(mbit=mbit)), 2_000, lambda _: None)
    assert peer.total_s is not None
    assert peer.total_s >= peer.wire_bytes * 8 / (mbit * 1e6) * 0.8  # the last pieces are in the buffers of both ends
