import asyncio

import pytest

from outrider.functions.nrf import nrf as nrf_module


async def test_an_instance_that_sends_heartbeats_stays(nrf, api, build, time):
    await api.put(build.profile(1))
    for _ in range(50):
        time.s += 10
        assert (await api.heartbeat(1)).status == 204
        nrf.tick()
    assert await api.found() == [1]


async def test_one_lost_heartbeat_is_forgiven(nrf, api, build, time):
    await api.put(build.profile(1))
    time.s += 19.9
    nrf.tick()
    assert await api.found() == [1]


async def test_an_instance_unheard_is_suspended_and_not_found(nrf, api, build, time):
    etag = (await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))).header("etag")
    time.s += 20
    nrf.tick()
    stored = await api.get(1)
    assert stored.json()["nfStatus"] == "SUSPENDED"
    assert stored.header("etag") != etag
    assert await api.found() == []


async def test_a_suspended_instance_comes_back_with_its_heartbeat(nrf, api, build, time):
    await api.put(build.profile(1))
    time.s += 60
    nrf.tick()
    assert (await api.heartbeat(1)).status == 204
    assert await api.found() == [1]
    time.s += 15
    nrf.tick()
    assert await api.found() == [1]


async def test_an_instance_unheard_for_long_is_removed(nrf, api, build, time):
    await api.put(build.profile(1))
    time.s += 119
    nrf.tick()
    assert (await api.get(1)).status == 200
    time.s += 1
    nrf.tick()
    assert (await api.get(1)).status == 404
    assert (await api.heartbeat(1)).status == 404


async def test_only_those_unheard_are_suspended(nrf, api, build, time):
    await api.put(build.profile(1))
    time.s += 15
    await api.put(build.profile(2))
    time.s += 10
    nrf.tick()
    assert await api.found() == [2]


async def test_an_instance_that_registers_the_same_again_is_heard(nrf, api, build, time):
    await api.put(build.profile(1))
    time.s += 15
    await api.put(build.profile(1))
    time.s += 15
    nrf.tick()
    assert await api.found() == [1]


async def test_a_status_that_was_not_registered_is_kept_by_heartbeats(nrf, api, build, time):
    await api.put(build.profile(1, nfStatus="UNDISCOVERABLE"))
    time.s += 15
    await api.heartbeat(1, "UNDISCOVERABLE")
    time.s += 15
    nrf.tick()
    assert (await api.get(1)).json()["nfStatus"] == "UNDISCOVERABLE"


@pytest.mark.parametrize(("paused_s", "status"), [(100.0, "REGISTERED"), (0.0, "SUSPENDED")])
async def test_when_the_nrf_itself_stood_still_nobody_is_suspended_for_it(
    nrf, api, build, time, monkeypatch, paused_s, status
):
    await api.put(build.profile(1))
    monkeypatch.setattr(nrf_module, "TICK_S", 0.001)
    ticked = asyncio.Event()
    tick = nrf.tick

    def noticed() -> None:
        tick()
        ticked.set()

    monkeypatch.setattr(nrf, "tick", noticed)
    if not paused_s:
        time.s += 100
    await nrf.start()
    await asyncio.sleep(0)
    time.s += paused_s
    await asyncio.wait_for(ticked.wait(), 5)
    assert (await api.get(1)).json()["nfStatus"] == status
