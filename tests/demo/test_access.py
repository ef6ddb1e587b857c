"""How a consumer finds a producer, and what it makes of answers that do not come."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from outrider.core.ids import NetworkId
from outrider.demo.access import Access, NetworkAt, Nf, NoProducer, Sent, Try, producers
from outrider.demo.member import PRESENCE, SESSION
from outrider.demo.population import population, transactions
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource

HOME, TARGET = "999-70", "999-71-000007ed9d5"
World = Any
SUPI = "imsi-999700000000001"
SESSIONS = "/nsmf-groupsession/v1/ue-sessions"


async def access_to(world: World, network_id: str) -> Access:
    network = NetworkAt(id=network_id, nrf_root=world.networks[network_id].root)
    af = str(uuid.uuid4())
    access = Access(world.client, network, TokenSource(world.client, network.nrf_root, af, "AF"), af)
    await access.register()
    return access


@pytest.fixture
async def home(world: World) -> AsyncIterator[Access]:
    """The way into the home network, where a session is open."""
    access = await access_to(world, HOME)
    body = {"supi": SUPI, "groupId": "group-1", "dnn": "group"}
    assert (await tried(access, Try(SESSION, "POST", SESSIONS, body, "open"))).outcome == "ok"
    yield access
    await access.deregister()


async def tried(access: Access, request: Try) -> Sent:
    """A request tried until it is judged, or time is up, with no pause between the tries."""
    async with asyncio.timeout(5):
        while True:
            response = await request.once(access)
            if (sent := request.judged(response)) is not None:
                return sent
            if len(request.attempts) == 5:
                return request.given_up(response)


async def test_a_busy_producer_is_asked_again(world: World, home: Access) -> None:
    world.producer.busy = 3
    sent = await tried(home, Try(SESSION, "GET", f"{SESSIONS}/{SUPI}"))
    assert sent.outcome == "ok"
    assert [a.status for a in sent.attempts] == [503, 503, 503, 200]


async def test_a_request_that_only_met_a_busy_producer_failed_without_effect(world: World, home: Access) -> None:
    world.producer.busy = 5
    sent = await tried(home, Try(SESSION, "GET", f"{SESSIONS}/{SUPI}"))
    assert (sent.outcome, sent.status, sent.cause) == ("failed", 503, "NF_CONGESTION")


async def test_a_request_whose_tries_were_all_lost_is_unknown(world: World, home: Access) -> None:
    world.producer.drop_answers = 5
    sent = await tried(home, Try(SESSION, "POST", f"{SESSIONS}/{SUPI}/transactions", {"seq": 1}, "x"))
    assert (sent.outcome, sent.status) == ("unknown", 504)


async def test_a_lost_answer_is_found_again_under_the_same_key(world: World, home: Access) -> None:
    world.producer.drop_answers = 2
    sent = await tried(home, Try(SESSION, "POST", f"{SESSIONS}/{SUPI}/transactions", {"seq": 1}, "x"))
    assert sent.outcome == "ok"
    assert sent.response is not None
    assert sent.response.json()["count"] == 1


async def test_a_refusal_is_an_answer(home: Access) -> None:
    sent = await tried(home, Try(SESSION, "POST", f"{SESSIONS}/{SUPI}/transactions", {"seq": -1}, "x"))
    assert (sent.outcome, sent.status, sent.cause) == ("refused", 400, "MANDATORY_IE_INCORRECT")
    assert len(sent.attempts) == 1


async def test_a_refusal_after_a_lost_try_does_not_say_what_became_of_that_one(world: World, home: Access) -> None:
    world.producer.drop_answers = 1
    sent = await tried(home, Try(SESSION, "POST", f"{SESSIONS}/imsi-00000/transactions", {"seq": 1}, "x"))
    assert (sent.outcome, sent.status) == ("unknown", 404)


async def test_a_consumer_that_the_nrf_does_not_know_sends_nothing(world: World) -> None:
    access = await access_to(world, HOME)
    await access.deregister()
    sent = await tried(access, Try(SESSION, "GET", f"{SESSIONS}/{SUPI}"))
    assert sent.outcome == "failed"
    assert all(a.not_sent for a in sent.attempts)
    assert "not registered" in sent.cause


# ------------------------------------------------------------------------------------------- finding the service


async def test_a_network_without_the_service_has_no_producer_for_it(world: World) -> None:
    access = await access_to(world, TARGET)
    with pytest.raises(NoProducer, match=f"{TARGET} has no nsmf-groupsession"):
        await access.find(SESSION)
    await world.networks[TARGET].host()
    access.forget(SESSION)
    assert await access.find(SESSION) == world.networks[TARGET].root


async def test_many_ues_that_look_for_a_producer_cause_one_discovery(world: World) -> None:
    network = world.networks[HOME]
    access = await access_to(world, HOME)
    roots = await asyncio.gather(*(access.find(PRESENCE) for _ in range(20)))
    assert set(roots) == {network.root}
    assert sum(r.path == "/nnrf-disc/v1/nf-instances" for r in network.requests) == 1


def test_producers_are_those_that_can_be_used_in_the_order_of_priority() -> None:
    def service(name: str, status: str, port: int, **more: Any) -> dict[str, Any]:
        endpoint = {"ipv4Address": "10.0.0.1", "port": port}
        return {"serviceName": name, "nfServiceStatus": status, "scheme": "http", "ipEndPoints": [endpoint], **more}

    result = {
        "nfInstances": [
            {"nfStatus": "REGISTERED", "priority": 2, "nfServices": [service("a", "REGISTERED", 1)]},
            {"nfStatus": "REGISTERED", "nfServiceList": {"x": service("a", "CANARY_RELEASE", 2, priority=1)}},
            {
                "nfStatus": "REGISTERED",
                "nfServices": [service("a", "UNDISCOVERABLE", 3), service("b", "REGISTERED", 4)],
            },
            {"nfStatus": "SUSPENDED", "nfServices": [service("a", "REGISTERED", 5)]},
            {"nfStatus": "REGISTERED", "priority": 3, "nfServices": [service("a", "REGISTERED", 6, apiPrefix="/p")]},
        ]
    }
    assert producers(result, "a") == ["http://10.0.0.1:2", "http://10.0.0.1:1", "http://10.0.0.1:6/p"]
    assert producers({}, "a") == []


def test_the_population_and_its_schedule_are_the_same_for_the_same_seed() -> None:
    ues = population(300, group_size=25, home=HOME)
    assert len({ue.supi for ue in ues}) == 300
    assert {len(ue.supi) for ue in ues} == {len("imsi-") + 15}
    assert (ues[0].group, ues[24].group, ues[25].group) == ("group-1", "group-1", "group-2")
    first, again = (transactions(ues[0], rate=10.0, overlap=0.1, seed=3) for _ in range(2))
    due = [next(first) for _ in range(1000)]
    assert due == [next(again) for _ in range(1000)]
    assert 95 < due[-1].at_s < 105
    assert 50 < sum(d.overlaps for d in due) < 150


# --------------------------------------------------------------------------------------------------- home routed


async def test_a_service_that_is_not_here_is_looked_for_at_home_and_reached_over_the_link(world: World) -> None:
    access = await access_to(world, TARGET)
    home, here = world.networks[HOME], access.discover
    access.network = msgspec.structs.replace(access.network, home=HOME, link=home.root)
    at_home = await access_to(world, HOME)
    asked: list[str | None] = []

    async def discover(nf: Nf, network: NetworkId | None = None) -> Response:
        asked.append(None if network is None else str(network))
        return await (here(nf) if network is None else at_home.discover(nf))

    access.discover = discover  # type: ignore[method-assign]
    assert await access.find(SESSION) == home.root
    assert asked == [None, HOME]
    # What this network has itself is not looked for elsewhere.
    await world.networks[TARGET].host()
    access.forget(SESSION)
    assert await access.find(SESSION) == world.networks[TARGET].root
    assert asked == [None, HOME, None]
