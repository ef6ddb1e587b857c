import asyncio
import json
from datetime import UTC, datetime

import pytest

from outrider.functions.nrf import notify
from outrider.sbi.http import Request, Response


class Subscriber:
    """Receives notifications; may fail the first few."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[Request] = asyncio.Queue()
        self.answers: list[int] = []
        self.attempts = 0

    async def __call__(self, request: Request) -> Response:
        self.attempts += 1
        status = self.answers.pop(0) if self.answers else 204
        if status < 300:
            self.got.put_nowait(request)
        return Response(status)

    async def next(self) -> dict:
        return (await asyncio.wait_for(self.got.get(), 5)).json()

    async def events(self, count: int) -> list[tuple[str, int]]:
        found = [await self.next() for _ in range(count)]
        return [(one["event"], int(one["nfInstanceUri"][-12:], 16)) for one in found]


@pytest.fixture
async def subscriber(serve):
    made = Subscriber()
    made.server = await serve(made)
    made.uri = f"http://127.0.0.1:{made.server.port}/cb/1"
    return made


@pytest.fixture
def subscribe(nrf, subscriber):
    async def post(**data) -> Response:
        body = {"nfStatusNotificationUri": subscriber.uri, "reqNfType": "AMF"} | data
        body = {name: value for name, value in body.items() if value is not None}
        return await nrf.router(Request("POST", "/nnrf-nfm/v1/subscriptions", body=json.dumps(body).encode()))

    return post


async def test_a_subscription_is_created_with_its_place_and_end(subscribe, build, time):
    response = await subscribe(subscrCond={"nfType": "SMF"}, requesterFeatures="1")
    assert response.status == 201
    made = response.json()
    assert "-" not in made["subscriptionId"]
    assert response.header("location") == f"{build.root}/nnrf-nfm/v1/subscriptions/{made['subscriptionId']}"
    assert made["subscrCond"] == {"nfType": "SMF"}
    assert "requesterFeatures" not in made
    assert datetime.fromisoformat(made["validityTime"]).timestamp() == time.s + 24 * 3600


async def test_all_that_happens_to_an_instance_is_told(api, subscribe, subscriber, build):
    await subscribe(subscrCond={"nfType": "SMF"})
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    request = await asyncio.wait_for(subscriber.got.get(), 5)
    assert request.method == "POST"
    assert request.path == "/cb/1"
    assert request.headers["3gpp-sbi-callback"].startswith("Nnrf_NFManagement_NFStatusNotify")
    told = request.json()
    assert told["event"] == "NF_REGISTERED"
    assert told["nfInstanceUri"] == f"{build.root}/nnrf-nfm/v1/nf-instances/{build.uuid(1)}"
    assert told["nfProfile"]["nfServices"] == [build.service("nsmf-pdusession")]
    await api.patch(1, {"op": "add", "path": "/priority", "value": 4})
    changed = await subscriber.next()
    assert (changed["event"], changed["nfProfile"]["priority"]) == ("NF_PROFILE_CHANGED", 4)
    assert "conditionEvent" not in changed
    await api.delete(1)
    gone = await subscriber.next()
    assert gone["event"] == "NF_DEREGISTERED"
    assert "nfProfile" not in gone


async def test_a_heartbeat_is_not_told(api, subscribe, subscriber, build):
    await api.put(build.profile(1))
    await subscribe()
    await api.heartbeat(1)
    await api.put(build.profile(1))
    await api.delete(1)
    assert await subscriber.events(1) == [("NF_DEREGISTERED", 1)]


async def test_a_missed_heartbeat_is_told(nrf, api, subscribe, subscriber, build, time):
    await api.put(build.profile(1))
    await subscribe()
    time.s += 30
    nrf.tick()
    nrf.tick()
    suspended = await subscriber.next()
    assert (suspended["event"], suspended["nfProfile"]["nfStatus"]) == ("NF_PROFILE_CHANGED", "SUSPENDED")
    await api.heartbeat(1)
    assert (await subscriber.next())["nfProfile"]["nfStatus"] == "REGISTERED"
    time.s += 1000
    nrf.tick()
    assert await subscriber.events(1) == [("NF_DEREGISTERED", 1)]


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (None, [1, 2, 3]),
        ({}, [1, 2, 3]),
        ({"nfType": "SMF"}, [1, 2]),
        ({"nfInstanceId": "00000000-0000-4000-8000-000000000002"}, [2]),
        (
            {
                "nfInstanceIdList": [
                    "00000000-0000-4000-8000-000000000001",
                    "00000000-0000-4000-8000-000000000003",
                ]
            },
            [1, 3],
        ),
        ({"serviceName": "nsmf-pdusession"}, [1]),
        ({"conditionType": "SERVICE_NAME_LIST_COND", "serviceNameList": ["nsmf-nidd", "npcf-am"]}, [2, 3]),
    ],
    ids=str,
)
async def test_only_instances_under_the_condition_are_told(api, subscribe, subscriber, build, condition, told):
    assert (await subscribe(subscrCond=condition)).status == 201
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    await api.put(build.profile(2, "SMF", build.service("nsmf-nidd")))
    await api.put(build.profile(3, "PCF", build.service("npcf-am")))
    assert await subscriber.events(len(told)) == [("NF_REGISTERED", n) for n in told]
    assert subscriber.got.empty()


async def test_an_instance_that_comes_under_the_condition_or_leaves_it_is_told_so(api, subscribe, subscriber, build):
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    await subscribe(subscrCond={"serviceName": "nsmf-nidd"})
    more = {"op": "add", "path": "/nfServices/-", "value": build.service("nsmf-nidd", 2)}
    await api.patch(1, more)
    added = await subscriber.next()
    assert (added["event"], added["conditionEvent"]) == ("NF_PROFILE_CHANGED", "NF_ADDED")
    await api.patch(1, {"op": "remove", "path": "/nfServices/1"})
    removed = await subscriber.next()
    assert (removed["event"], removed["conditionEvent"]) == ("NF_PROFILE_CHANGED", "NF_REMOVED")


async def test_only_wanted_events_are_told(api, subscribe, subscriber, build):
    await subscribe(reqNotifEvents=["NF_DEREGISTERED", "FUTURE_EVENT"])
    await api.put(build.profile(1))
    await api.patch(1, {"op": "add", "path": "/priority", "value": 4})
    await api.delete(1)
    assert await subscriber.events(1) == [("NF_DEREGISTERED", 1)]


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ({"monitoredAttributes": ["/priority"]}, [1]),
        ({"monitoredAttributes": ["/customInfo"]}, [2, 3]),
        ({"monitoredAttributes": ["/customInfo/a"]}, [2]),
        ({"unmonitoredAttributes": ["/priority"]}, [2, 3]),
        ({"unmonitoredAttributes": ["/customInfo"]}, [1]),
    ],
    ids=str,
)
async def test_only_watched_attributes_are_told(api, subscribe, subscriber, build, condition, told):
    await api.put(build.profile(1, customInfo={"a": 0, "b": 0}))
    await subscribe(notifCondition=condition)
    for path, value in (("/priority", 1), ("/customInfo/a", 2), ("/customInfo/b", 3)):
        await api.patch(1, {"op": "add", "path": path, "value": value})
    await api.delete(1)
    assert await subscriber.events(len(told) + 1) == [("NF_PROFILE_CHANGED", 1)] * len(told) + [("NF_DEREGISTERED", 1)]


async def test_a_subscriber_is_told_only_what_it_may_discover(api, subscribe, subscriber, build):
    await subscribe(reqNfType="AMF")
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession"), allowedNfTypes=["AF"]))
    open_one, closed = build.service("a", 1), build.service("b", 2, allowedNfTypes=["AF"])
    await api.put(build.profile(2, "SMF", open_one, closed, allowedNfDomains=None) | {"allowedNfTypes": ["AMF"]})
    told = await subscriber.next()
    assert told["nfProfile"]["nfInstanceId"] == build.uuid(2)
    assert [one["serviceName"] for one in told["nfProfile"]["nfServices"]] == ["a"]
    assert "allowed" not in json.dumps(told)


async def test_a_subscriber_to_a_type_is_never_told_of_a_migrated_instance(api, subscribe, subscriber, build):
    for condition in ({"nfType": "SMF"}, None):
        await subscribe(subscrCond=condition)
    await subscribe(subscrCond={"serviceName": "nsmf-groupsession"})
    migrated = build.profile(1, "SMF", build.service("nsmf-groupsession"), customInfo={"lms": {}})
    await api.put(migrated)
    told = await subscriber.next()
    assert told["subscriptionContext"]["subscrCond"] == {"serviceName": "nsmf-groupsession"}
    assert subscriber.got.empty()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"nfStatusNotificationUri": "not a uri"}, "/nfStatusNotificationUri"),
        ({"nfStatusNotificationUri": "ftp://x/"}, "/nfStatusNotificationUri"),
        ({"nfStatusNotificationUri": "/relative"}, "/nfStatusNotificationUri"),
        ({"subscrCond": {"amfSetId": "001"}}, "/subscrCond"),
        ({"subscrCond": {"nfType": "UDM", "nfGroupId": "1"}}, "/subscrCond"),
        ({"plmnId": {"mcc": "999", "mnc": "71"}}, "/plmnId"),
        ({"plmnId": {"mcc": "999", "mnc": "70"}, "nid": "0123456789a"}, "/plmnId"),
    ],
    ids=str,
)
async def test_a_subscription_that_cannot_be_served_is_refused_and_says_why(subscribe, change, param):
    response = await subscribe(**change)
    assert response.status == 400
    assert response.json()["invalidParams"][0]["param"] == param


@pytest.mark.parametrize(
    "change",
    [
        {"nfStatusNotificationUri": None},
        {"subscrCond": "SMF"},
        {"subscrCond": {"nfType": 7}},
        {"reqNotifEvents": []},
        {"validityTime": "soon"},
        {"reqPlmnList": [{"mcc": "9"}]},
    ],
    ids=str,
)
async def test_a_malformed_subscription_is_refused(subscribe, change):
    assert (await subscribe(**change)).status == 400


async def test_a_subscription_of_this_network_may_say_so(subscribe):
    assert (await subscribe(plmnId={"mcc": "999", "mnc": "70"})).status == 201


async def test_a_subscription_ends_when_its_time_is_up(nrf, api, subscribe, subscriber, build, time):
    ends = datetime.fromtimestamp(time.s + 60, UTC).isoformat()
    first = await subscribe(validityTime=ends)
    assert datetime.fromisoformat(first.json()["validityTime"]).timestamp() == time.s + 60
    await subscribe(reqNotifEvents=["NF_DEREGISTERED"])
    await api.put(build.profile(1))
    assert await subscriber.events(1) == [("NF_REGISTERED", 1)]
    time.s += 61
    await api.heartbeat(1)
    nrf.tick()
    await api.delete(1)
    assert await subscriber.events(1) == [("NF_DEREGISTERED", 1)]
    await api.put(build.profile(2))
    await api.delete(2)
    assert await subscriber.events(1) == [("NF_DEREGISTERED", 2)]


async def patch(nrf, identity: str, operations: object, content_type="application/json-patch+json") -> Response:
    return await nrf.router(
        Request(
            "PATCH",
            f"/nnrf-nfm/v1/subscriptions/{identity}",
            headers={"content-type": content_type},
            body=json.dumps(operations).encode(),
        )
    )


async def test_a_subscription_is_renewed(nrf, subscribe, time):
    identity = (await subscribe()).json()["subscriptionId"]
    time.s += 3600
    later = datetime.fromtimestamp(time.s + 7200, UTC).isoformat().replace("+00:00", "Z")
    change = {"op": "replace", "path": "/validityTime", "value": later}
    assert (await patch(nrf, identity, [change])).status == 204
    too_late = datetime.fromtimestamp(time.s + 10**7, UTC).isoformat()
    shortened = await patch(nrf, identity, [change | {"value": too_late}])
    assert shortened.status == 200
    assert datetime.fromisoformat(shortened.json()["validityTime"]).timestamp() == time.s + 24 * 3600
    other = {"op": "replace", "path": "/nfStatusNotificationUri", "value": "http://127.0.0.1/"}
    assert (await patch(nrf, identity, [other])).status == 403
    assert (await patch(nrf, identity, [change | {"value": "soon"}])).status == 400
    assert (await patch(nrf, identity, [change], "application/json")).status == 415
    assert (await patch(nrf, "nobody", [change])).status == 404


async def test_an_ended_subscription_is_told_nothing(nrf, api, subscribe, subscriber, build):
    identity = (await subscribe()).json()["subscriptionId"]
    ended = Request("DELETE", f"/nnrf-nfm/v1/subscriptions/{identity}")
    assert (await nrf.router(ended)).status == 204
    again = await nrf.router(ended)
    assert (again.status, again.json()["cause"]) == (404, "SUBSCRIPTION_NOT_FOUND")
    await subscribe(reqNotifEvents=["NF_DEREGISTERED"])
    await api.put(build.profile(1))
    await api.delete(1)
    assert await subscriber.events(1) == [("NF_DEREGISTERED", 1)]


async def test_notifications_come_in_order_even_when_one_has_to_be_repeated(
    api, subscribe, subscriber, build, monkeypatch
):
    monkeypatch.setattr(notify, "RETRY_AFTER_S", (0.01, 0.01, 0.01))
    await subscribe()
    subscriber.answers = [503, 500, 204]
    for n in range(1, 6):
        await api.put(build.profile(n))
    assert await subscriber.events(5) == [("NF_REGISTERED", n) for n in range(1, 6)]
    assert subscriber.attempts == 7


async def test_a_notification_is_repeated_only_so_often(api, subscribe, subscriber, build, monkeypatch):
    monkeypatch.setattr(notify, "RETRY_AFTER_S", (0.01, 0.01))
    await subscribe()
    subscriber.answers = [503, 503, 503]
    await api.put(build.profile(1))
    await api.put(build.profile(2))
    assert await subscriber.events(1) == [("NF_REGISTERED", 2)]
    assert subscriber.attempts == 4


async def test_a_subscriber_that_refuses_is_not_asked_again(api, subscribe, subscriber, build):
    await subscribe()
    subscriber.answers = [404]
    await api.put(build.profile(1))
    await api.put(build.profile(2))
    assert await subscriber.events(1) == [("NF_REGISTERED", 2)]
    assert subscriber.attempts == 2


async def test_a_subscriber_that_hangs_holds_up_nobody_else(nrf, api, subscribe, subscriber, build, serve):
    never = asyncio.Event()

    async def hangs(request: Request) -> Response:
        await never.wait()
        return Response(204)

    deaf = await serve(hangs)
    await subscribe(nfStatusNotificationUri=f"http://127.0.0.1:{deaf.port}/")
    await subscribe()
    assert (await asyncio.wait_for(api.put(build.profile(1)), 1)).status == 201
    assert await subscriber.events(1) == [("NF_REGISTERED", 1)]
    never.set()
    await nrf.stop()
