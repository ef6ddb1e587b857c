import asyncio
import json

import pytest

from outrider.core.refusal import Refused
from outrider.functions.nrf.client import NrfClient, api_roots
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Request, Response


class Pauses:
    """Stands for `asyncio.sleep`: each pause waits until the test lets it end."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[float, asyncio.Event]] = asyncio.Queue()

    async def __call__(self, pause_s: float) -> None:
        over = asyncio.Event()
        self.asked.put_nowait((pause_s, over))
        await over.wait()

    async def pass_one(self) -> float:
        """Let the current pause end, and wait for the next one: what lay between has then happened."""
        pause_s, over = await asyncio.wait_for(self.asked.get(), 5)
        over.set()
        following = await asyncio.wait_for(self.asked.get(), 5)
        self.asked.put_nowait(following)
        return pause_s


@pytest.fixture
def pauses():
    return Pauses()


@pytest.fixture
async def client(nrf, serve, http, pauses, time):
    server = await serve(nrf.router)
    made = NrfClient(http, f"http://127.0.0.1:{server.port}/", sleep=pauses, steady_s=time)
    made.server = server
    yield made
    await made.close()


async def test_a_registered_instance_is_found(client, build):
    stored = await client.register(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    assert stored["heartBeatTimer"] == 10
    (found,) = await client.discover("SMF", "AMF", service_names=["nsmf-pdusession"])
    assert found["nfInstanceId"] == build.uuid(1)


async def test_heartbeats_come_well_within_the_timer_and_keep_the_instance(nrf, client, api, build, pauses, time):
    await client.register(build.profile(1))
    for _ in range(20):
        time.s += 10
        assert await pauses.pass_one() <= 8
        nrf.tick()
    assert await api.found() == [1]


async def test_an_instance_that_the_nrf_has_lost_is_registered_again(client, api, build, pauses):
    await client.register(build.profile(1, customInfo={"lms": {"a": 1}}))
    await api.delete(1)
    await pauses.pass_one()
    assert (await api.get(1)).json()["customInfo"] == {"lms": {"a": 1}}


async def test_an_nrf_that_is_away_is_tried_again_soon(client, api, build, pauses, serve, nrf):
    await client.register(build.profile(1))
    await client.server.stop()
    await pauses.pass_one()
    await serve(nrf.router, port=client.server.port)
    await api.delete(1)
    assert await pauses.pass_one() <= 1
    assert (await api.get(1)).status == 200


async def test_an_update_changes_the_instance_here_and_there(client, api, build, pauses):
    await client.register(build.profile(1))
    await client.update(build.uuid(1), [{"op": "add", "path": "/priority", "value": 3}])
    assert (await api.get(1)).json()["priority"] == 3
    await api.delete(1)
    await pauses.pass_one()
    assert (await api.get(1)).json()["priority"] == 3


async def test_an_update_of_an_instance_that_the_nrf_has_lost_registers_it(client, api, build):
    await client.register(build.profile(1))
    await api.delete(1)
    await client.update(build.uuid(1), [{"op": "add", "path": "/priority", "value": 3}])
    assert (await api.get(1)).json()["priority"] == 3


@pytest.mark.parametrize("form", ["nfServices", "nfServiceList"])
async def test_a_status_is_set_for_the_instance_and_its_services(client, api, build, form, pauses):
    services = [build.service("nsmf-a", 1), build.service("nsmf/b~c", 2)]
    both = {"nfServices": services, "nfServiceList": {one["serviceInstanceId"]: one for one in services}}
    await client.register(build.profile(1, **{form: both[form]}))
    await client.set_status(build.uuid(1), "UNDISCOVERABLE")
    stored = (await api.get(1)).json()
    assert stored["nfStatus"] == "UNDISCOVERABLE"
    assert [one["nfServiceStatus"] for one in stored["nfServices"]] == ["UNDISCOVERABLE"] * 2
    await pauses.pass_one()  # a heartbeat does not bring it back
    assert (await api.get(1)).json()["nfStatus"] == "UNDISCOVERABLE"
    await client.set_status(build.uuid(1), "REGISTERED")
    assert await api.found() == [1]


async def test_a_deregistered_instance_is_gone_and_stays_so(client, api, build):
    await client.register(build.profile(1))
    await client.deregister(build.uuid(1))
    assert (await api.get(1)).status == 404
    await client.deregister(build.uuid(1))


async def test_registering_again_replaces_and_leaves_one_heartbeat(client, api, build, pauses):
    await client.register(build.profile(1))
    await pauses.asked.get()
    await client.register(build.profile(1, priority=2))
    assert (await api.get(1)).json()["priority"] == 2
    await pauses.asked.get()
    assert pauses.asked.empty()


async def test_a_refused_profile_is_a_refusal(client, build):
    with pytest.raises(Refused) as refused:
        await client.register(build.profile(1, nfStatus="SLEEPING"))
    assert refused.value.refusal.code == "MANDATORY_IE_INCORRECT"
    assert refused.value.refusal.status == 400


async def test_an_unreachable_nrf_is_said_to_be_so(client, build):
    await client.server.stop()
    with pytest.raises(Unreachable):
        await client.register(build.profile(1))
    with pytest.raises(Unreachable):
        await client.discover("SMF", "AMF")


async def test_a_result_is_kept_as_long_as_the_nrf_allows(client, api, build, time):
    await api.put(build.profile(1))
    assert len(await client.discover("SMF", "AMF")) == 1
    await api.put(build.profile(2))
    assert len(await client.discover("SMF", "AMF")) == 1
    assert len(await client.discover("SMF", "AMF", limit=5)) == 2
    time.s += 3
    assert len(await client.discover("SMF", "AMF")) == 2
    time.s += 3
    assert len(await client.discover("SMF", "AMF")) == 2  # asked again, answered with 304


async def test_every_parameter_reaches_the_nrf(http, serve, build):
    asked: list[Request] = []

    async def nrf(request: Request) -> Response:
        asked.append(request)
        return Response(200, body=b'{"validityPeriod": 0, "nfInstances": []}')

    server = await serve(nrf)
    client = NrfClient(http, f"http://127.0.0.1:{server.port}")
    tai = {"plmnId": {"mcc": "999", "mnc": "70"}, "tac": "0001"}
    await client.discover(
        "SMF",
        "AF",
        service_names=["a", "b"],
        target_nf_instance_id=build.uuid(1),
        requester_nf_instance_id=build.uuid(2),
        target=build.snpn,
        requester=build.own,
        snssais=[{"sst": 1}],
        dnn="train",
        tai=tai,
        supi="imsi-1",
        preferred_locality="east",
        limit=3,
    )
    assert asked[0].args() == {
        "target-nf-type": ["SMF"],
        "requester-nf-type": ["AF"],
        "service-names": ["a,b"],
        "target-nf-instance-id": [build.uuid(1)],
        "requester-nf-instance-id": [build.uuid(2)],
        "target-snpn": ['{"mcc":"999","mnc":"71","nid":"0123456789a"}'],
        "requester-plmn-list": ['[{"mcc":"999","mnc":"70"}]'],
        "snssais": ['[{"sst":1}]'],
        "dnn": ["train"],
        "tai": ['{"plmnId":{"mcc":"999","mnc":"70"},"tac":"0001"}'],
        "supi": ["imsi-1"],
        "preferred-locality": ["east"],
        "limit": ["3"],
    }


async def test_an_instance_without_the_wanted_service_is_left_out_whatever_the_nrf_says(http, serve, build):
    async def careless(request: Request) -> Response:
        one = build.profile(1, "SMF", build.service("nsmf-pdusession"))
        two = build.profile(2, "SMF", build.service("nsmf-groupsession"))
        return Response(200, body=json.dumps({"validityPeriod": 0, "nfInstances": [one, two]}).encode())

    server = await serve(careless)
    client = NrfClient(http, f"http://127.0.0.1:{server.port}")
    found = await client.discover("SMF", "AF", service_names=["nsmf-groupsession"])
    assert [one["nfInstanceId"] for one in found] == [build.uuid(2)]


@pytest.mark.parametrize(
    ("nf", "service", "roots"),
    [
        ({}, {}, ["http://127.0.0.1:8001"]),
        ({}, {"apiPrefix": "/p/"}, ["http://127.0.0.1:8001/p"]),
        ({}, {"scheme": "https", "ipEndPoints": [{"ipv6Address": "::1", "port": 1}]}, ["https://[::1]:1"]),
        ({}, {"ipEndPoints": [{"port": 9}], "fqdn": "smf.example.org"}, ["http://smf.example.org:9"]),
        ({"fqdn": "nf.example.org"}, {"ipEndPoints": None}, ["http://nf.example.org"]),
        ({"ipv4Addresses": ["127.0.0.9"]}, {"ipEndPoints": None}, ["http://127.0.0.9"]),
        ({"ipv4Addresses": [], "ipv6Addresses": ["::2"]}, {"ipEndPoints": None}, ["http://[::2]"]),
        (
            {},
            {"ipEndPoints": [{"ipv4Address": "127.0.0.1", "port": 1}, {"ipv4Address": "127.0.0.2", "port": 2}]},
            ["http://127.0.0.1:1", "http://127.0.0.2:2"],
        ),
    ],
    ids=str,
)
def test_the_roots_of_a_service_come_from_it_or_from_its_nf(build, nf, service, roots):
    one = {name: value for name, value in build.service("x", **service).items() if value is not None}
    assert api_roots(build.profile(1, "SMF", one, **nf), "x") == roots
    assert api_roots(build.profile(1, "SMF", **nf, nfServiceList={"x-1": one}), "x") == roots
    assert api_roots(build.profile(1, "SMF", one, **nf), "y") == []
