import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import openapi_spec_validator
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from outrider.core.ids import NetworkId
from outrider.functions.basic import Amf, Smf, events
from outrider.functions.basic.profiles import amf_profile, smf_profile
from outrider.network.keys import private_pem, public_pem
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer
from outrider.sbi.tokens import TokenIssuer, TokenVerifier

A = NetworkId.parse("999-70")
UE = "imsi-999700000000001"
GROUP = "00000001-999-70-01"


def tai(tac: str) -> dict[str, Any]:
    return {"plmnId": {"mcc": "999", "mnc": "70"}, "tac": tac}


@dataclass
class Subscriber:
    """A consumer that listens for notifications, and can be made to fail."""

    heard: asyncio.Queue[tuple[str, Any]] = field(default_factory=asyncio.Queue)
    statuses: list[int] = field(default_factory=list)
    uri: str = ""

    async def __call__(self, request: Request) -> Response:
        status = self.statuses.pop(0) if self.statuses else 204
        if status < 300:
            self.heard.put_nowait((request.headers["3gpp-sbi-callback"], request.json()))
        return Response(status)

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            return (await self.heard.get())[1]


@dataclass
class World:
    amf: Amf
    smf: Smf
    issuer: TokenIssuer
    subscriber: Subscriber
    now: list[dt.datetime]

    def token(self, scope: str, audience: str) -> str:
        return "Bearer " + self.issuer.issue(subject="c0ffee", audience=audience, scope=scope)

    async def call(self, method: str, path: str, body: object = None, *, token: str | None = None) -> tuple[int, Any]:
        api = path.split("/")[1]
        nf = self.amf if api.startswith("namf") else self.smf
        bearer = self.token(api, "AMF" if nf is self.amf else "SMF") if token is None else token
        data = b"" if body is None else msgspec.json.encode(body)
        response = await nf.router(Request(method, path, "", {"authorization": bearer}, data))
        return response.status, response.json() if response.body else None

    def amf_subscription(self, *types: str, **more: Any) -> dict[str, Any]:
        about = more or {"supi": UE}
        return {
            "subscription": {
                "eventList": [{"type": t} for t in types],
                "eventNotifyUri": self.subscriber.uri,
                "notifyCorrelationId": "corr-1",
                "nfId": "c0ffee",
                **about,
            }
        }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    key = ec.generate_private_key(ec.SECP256R1())
    subscriber = Subscriber()
    now = [dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)]
    server = SbiServer(subscriber)
    await server.start()
    subscriber.uri = f"http://127.0.0.1:{server.port}/told"
    async with SbiClient() as client:
        verifier = TokenVerifier({"nrf": public_pem(key)})
        made = {"verifier": verifier, "client": client, "root": "http://127.0.0.1:7770", "now": lambda: now[0]}
        amf, smf = Amf(A, "amf-id", **made), Smf(A, "smf-id", **made)  # type: ignore[arg-type]
        yield World(amf, smf, TokenIssuer(private_pem(key), "nrf", A), subscriber, now)
        await amf.close()
        await smf.close()
    await server.stop()


async def test_registration_is_made_changed_shown_and_ended(world: World) -> None:
    path = f"/namf-basic/v1/registrations/{UE}"
    body = {"tai": tai("000001"), "groupId": GROUP}
    assert await world.call("PUT", path, body) == (201, {**body, "supi": UE})
    assert (await world.call("PUT", path, {"tai": tai("000002"), "groupId": GROUP}))[0] == 200
    assert (await world.call("GET", path))[1]["tai"]["tac"] == "000002"
    assert await world.call("DELETE", path) == (204, None)
    status, problem = await world.call("GET", path)
    assert (status, problem["cause"]) == (404, "CONTEXT_NOT_FOUND")


@pytest.mark.parametrize(
    ("supi", "body"),
    [
        ("msisdn-1", {"tai": tai("000001")}),
        (UE, {"tai": {"plmnId": {"mcc": "9", "mnc": "70"}, "tac": "000001"}}),
        (UE, {"tai": tai("xyz")}),
        (UE, {}),
        (UE, []),
    ],
)
async def test_registration_that_does_not_fit_the_schema_is_refused(world: World, supi: str, body: object) -> None:
    status, problem = await world.call("PUT", f"/namf-basic/v1/registrations/{supi}", body)
    assert (status, problem["cause"]) == (400, "INVALID_MSG_FORMAT")
    assert world.amf.registered == 0


@pytest.mark.parametrize(
    ("scope", "audience", "status"),
    [("namf-evts", "AMF", 403), ("namf-basic", "SMF", 401), ("nsmf-basic", "AMF", 403), ("namf-basic", "amf-id", 201)],
)
async def test_token_must_have_the_apis_scope_and_audience(
    world: World, scope: str, audience: str, status: int
) -> None:
    path, body = f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000001")}
    assert (await world.call("PUT", path, body, token=world.token(scope, audience)))[0] == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"/namf-basic/v1/registrations/{UE}"),
        ("GET", f"/namf-basic/v1/registrations/{UE}"),
        ("DELETE", f"/namf-basic/v1/registrations/{UE}"),
        ("POST", "/namf-evts/v1/subscriptions"),
        ("DELETE", "/namf-evts/v1/subscriptions/x"),
        ("POST", "/nsmf-basic/v1/pdu-sessions"),
        ("GET", "/nsmf-basic/v1/pdu-sessions/x"),
        ("DELETE", "/nsmf-basic/v1/pdu-sessions/x"),
        ("POST", "/nsmf-event-exposure/v1/subscriptions"),
        ("GET", "/nsmf-event-exposure/v1/subscriptions/x"),
        ("PUT", "/nsmf-event-exposure/v1/subscriptions/x"),
        ("DELETE", "/nsmf-event-exposure/v1/subscriptions/x"),
    ],
)
async def test_request_without_a_token_is_refused(world: World, method: str, path: str) -> None:
    assert (await world.call(method, path, {}, token=""))[0] == 401


async def test_subscriber_hears_registration_location_and_reachability_in_order(world: World) -> None:
    types = ("REGISTRATION_STATE_REPORT", "LOCATION_REPORT", "REACHABILITY_REPORT")
    status, created = await world.call("POST", "/namf-evts/v1/subscriptions", world.amf_subscription(*types))
    assert status == 201
    path = f"/namf-basic/v1/registrations/{UE}"
    await world.call("PUT", path, {"tai": tai("000001")})
    await world.call("PUT", path, {"tai": tai("000001")})  # nothing new
    await world.call("PUT", path, {"tai": tai("000002")})
    await world.call("DELETE", path)
    heard = [await world.subscriber.next() for _ in range(6)]
    assert {h["notifyCorrelationId"] for h in heard} == {"corr-1"}
    reports = [h["reportList"][0] for h in heard]
    assert [r["type"] for r in reports] == [
        "REGISTRATION_STATE_REPORT",
        "REACHABILITY_REPORT",
        "LOCATION_REPORT",
        "LOCATION_REPORT",
        "REGISTRATION_STATE_REPORT",
        "REACHABILITY_REPORT",
    ]
    assert reports[0]["rmInfoList"] == [{"rmState": "REGISTERED", "accessType": "3GPP_ACCESS"}]
    assert reports[3]["location"]["nrLocation"]["tai"] == tai("000002")
    assert reports[5]["reachability"] == "UNREACHABLE"
    assert reports[0]["supi"] == UE
    assert reports[0]["timeStamp"] == "2026-01-02T03:04:05.000Z"
    assert reports[0]["state"] == {"active": True}
    assert reports[0]["subscriptionId"] == created["subscriptionId"]


async def test_notification_is_marked_as_a_callback(world: World) -> None:
    await world.call("POST", "/namf-evts/v1/subscriptions", world.amf_subscription("LOCATION_REPORT"))
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000001")})
    async with asyncio.timeout(5):
        callback, _ = await world.subscriber.heard.get()
    assert callback == "Namf_EventExposure_Notify; apiversion=1"


async def test_group_and_any_ue_subscriptions_hear_of_their_ues_only(world: World) -> None:
    subscribe = "/namf-evts/v1/subscriptions"
    await world.call("POST", subscribe, world.amf_subscription("LOCATION_REPORT", groupId=GROUP))
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000001")})
    await world.call("PUT", "/namf-basic/v1/registrations/imsi-999700000000002", {"tai": tai("1234"), "groupId": GROUP})
    assert (await world.subscriber.next())["reportList"][0]["supi"] == "imsi-999700000000002"
    await world.call("POST", subscribe, world.amf_subscription("LOCATION_REPORT", anyUE=True))
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000009")})
    assert (await world.subscriber.next())["reportList"][0]["supi"] == UE
    assert world.subscriber.heard.empty()


async def test_immediate_report_comes_with_the_answer(world: World) -> None:
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000001")})
    body = world.amf_subscription("LOCATION_REPORT")
    body["subscription"]["eventList"][0]["immediateFlag"] = True
    body["subscription"]["options"] = {"trigger": "ONE_TIME"}
    status, created = await world.call("POST", "/namf-evts/v1/subscriptions", body)
    assert status == 201
    [report] = created["reportList"]
    assert report["state"] == {"active": False, "remainReports": 0}
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000002")})
    subscription = created["subscriptionId"].rpartition("/")[2]
    assert (await world.call("DELETE", f"/namf-evts/v1/subscriptions/{subscription}"))[0] == 404  # it is over


async def test_bounded_subscription_ends_with_its_last_report(world: World) -> None:
    body = world.amf_subscription("LOCATION_REPORT")
    body["subscription"]["options"] = {"trigger": "CONTINUOUS", "maxReports": 2}
    await world.call("POST", "/namf-evts/v1/subscriptions", body)
    for i in range(4):
        await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai(f"00000{i}")})
    first, second = await world.subscriber.next(), await world.subscriber.next()
    assert second["reportList"][0]["state"]["remainReports"] == 0
    assert first["reportList"][0]["location"]["nrLocation"]["tai"]["tac"] == "000000"
    assert world.subscriber.heard.empty()


async def test_expired_subscription_hears_nothing(world: World) -> None:
    body = world.amf_subscription("LOCATION_REPORT")
    body["subscription"]["options"] = {"trigger": "CONTINUOUS", "expiry": "2026-01-02T04:00:00Z"}
    await world.call("POST", "/namf-evts/v1/subscriptions", body)
    world.now[0] += dt.timedelta(hours=2)
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000001")})
    await world.call("POST", "/namf-evts/v1/subscriptions", world.amf_subscription("LOCATION_REPORT"))
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000002")})
    assert (await world.subscriber.next())["reportList"][0]["location"]["nrLocation"]["tai"]["tac"] == "000002"


async def test_unsubscribed_consumer_hears_nothing(world: World) -> None:
    _, created = await world.call("POST", "/namf-evts/v1/subscriptions", world.amf_subscription("LOCATION_REPORT"))
    path = "/namf-evts/v1/subscriptions/" + created["subscriptionId"].rpartition("/")[2]
    assert (await world.call("DELETE", path))[0] == 204
    assert (await world.call("DELETE", path))[0] == 404
    await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai("000001")})
    assert world.amf.subscriptions.delivered == 0


@pytest.mark.parametrize(
    "more",
    [
        {"supi": UE, "groupId": GROUP},
        {"anyUE": False},
        {"supi": UE, "eventList": [{"type": "TIMEZONE_REPORT"}]},
        {"supi": UE, "eventList": []},
        {"supi": UE, "eventNotifyUri": "file:///etc/passwd"},
        {"supi": UE, "options": {"trigger": "PERIODIC"}},
    ],
)
async def test_subscription_that_is_not_supported_is_refused(world: World, more: dict[str, Any]) -> None:
    body = world.amf_subscription("LOCATION_REPORT", **more)
    status, problem = await world.call("POST", "/namf-evts/v1/subscriptions", body)
    assert status == 400
    assert problem["cause"] in ("MANDATORY_IE_INCORRECT", "INVALID_MSG_FORMAT")


async def test_subscriber_that_fails_for_a_moment_misses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BACKOFF_S", 0.001)
    world.subscriber.statuses = [503, 503]
    await world.call("POST", "/namf-evts/v1/subscriptions", world.amf_subscription("LOCATION_REPORT"))
    for tac in ("000001", "000002"):
        await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai(tac)})
    heard = [await world.subscriber.next() for _ in range(2)]
    assert [h["reportList"][0]["location"]["nrLocation"]["tai"]["tac"] for h in heard] == ["000001", "000002"]


async def test_notification_that_the_subscriber_refuses_does_not_hold_up_the_next(world: World) -> None:
    world.subscriber.statuses = [400]
    await world.call("POST", "/namf-evts/v1/subscriptions", world.amf_subscription("LOCATION_REPORT"))
    for tac in ("000001", "000002"):
        await world.call("PUT", f"/namf-basic/v1/registrations/{UE}", {"tai": tai(tac)})
    assert (await world.subscriber.next())["reportList"][0]["location"]["nrLocation"]["tai"]["tac"] == "000002"
    assert world.amf.subscriptions.dropped == 1


async def test_session_is_established_shown_and_released(world: World) -> None:
    asked = {"supi": UE, "pduSessionId": 5, "dnn": "internet", "sNssai": {"sst": 1, "sd": "000001"}}
    status, session = await world.call("POST", "/nsmf-basic/v1/pdu-sessions", asked)
    assert status == 201
    assert session["ipv4Addr"] == "10.45.0.1"
    path = f"/nsmf-basic/v1/pdu-sessions/{session['sessionRef']}"
    assert await world.call("GET", path) == (200, session)
    assert await world.call("DELETE", path) == (204, None)
    assert (await world.call("GET", path))[0] == 404
    assert (await world.call("DELETE", path))[0] == 404


async def test_session_with_the_same_id_takes_the_place_of_the_old_one(world: World) -> None:
    asked = {"supi": UE, "pduSessionId": 5}
    _, old = await world.call("POST", "/nsmf-basic/v1/pdu-sessions", asked)
    _, new = await world.call("POST", "/nsmf-basic/v1/pdu-sessions", asked)
    assert old["sessionRef"] != new["sessionRef"]
    assert world.smf.sessions == 1


async def test_addresses_are_given_once_and_used_again(world: World) -> None:
    refs = []
    for i in range(3):
        _, session = await world.call("POST", "/nsmf-basic/v1/pdu-sessions", {"supi": UE, "pduSessionId": i + 1})
        refs.append(session)
    assert len({s["ipv4Addr"] for s in refs}) == 3
    await world.call("DELETE", f"/nsmf-basic/v1/pdu-sessions/{refs[1]['sessionRef']}")
    _, again = await world.call("POST", "/nsmf-basic/v1/pdu-sessions", {"supi": UE, "pduSessionId": 9})
    assert again["ipv4Addr"] == refs[1]["ipv4Addr"]


async def test_subscriber_hears_establishment_and_release_of_the_sessions_it_asked_for(world: World) -> None:
    body = {
        "notifId": "n-1",
        "notifUri": world.subscriber.uri,
        "groupId": GROUP,
        "dnn": "rail",
        "eventSubs": [{"event": "PDU_SES_EST"}, {"event": "PDU_SES_REL"}],
    }
    status, created = await world.call("POST", "/nsmf-event-exposure/v1/subscriptions", body)
    assert status == 201
    assert created == {**body, "subId": created["subId"]}
    asked = {"supi": UE, "groupId": GROUP, "pduSessionId": 1, "dnn": "rail"}
    _, session = await world.call("POST", "/nsmf-basic/v1/pdu-sessions", asked)
    await world.call("POST", "/nsmf-basic/v1/pdu-sessions", {**asked, "pduSessionId": 2, "dnn": "internet"})
    await world.call("DELETE", f"/nsmf-basic/v1/pdu-sessions/{session['sessionRef']}")
    first, second = await world.subscriber.next(), await world.subscriber.next()
    assert first["notifId"] == "n-1"
    [established] = first["eventNotifs"]
    assert established["event"] == "PDU_SES_EST"
    assert (established["supi"], established["pduSeId"], established["ipv4Addr"]) == (UE, 1, session["ipv4Addr"])
    assert established["plmnId"] == {"mcc": "999", "mnc": "70"}
    assert second["eventNotifs"][0]["event"] == "PDU_SES_REL"
    assert world.subscriber.heard.empty()


async def test_session_subscription_is_shown_replaced_and_ended(world: World) -> None:
    root = "/nsmf-event-exposure/v1/subscriptions"
    body = {"notifId": "n", "notifUri": world.subscriber.uri, "supi": UE, "eventSubs": [{"event": "PDU_SES_EST"}]}
    await world.call("POST", "/nsmf-basic/v1/pdu-sessions", {"supi": UE})
    _, created = await world.call("POST", root, {**body, "ImmeRep": True})
    assert created["eventNotifs"][0]["event"] == "PDU_SES_EST"
    path = f"{root}/{created['subId']}"
    assert (await world.call("GET", path))[1]["notifId"] == "n"
    assert (await world.call("PUT", path, {**body, "notifId": "other"}))[1]["notifId"] == "other"
    await world.call("POST", "/nsmf-basic/v1/pdu-sessions", {"supi": UE, "pduSessionId": 2})
    assert (await world.subscriber.next())["notifId"] == "other"
    assert (await world.call("DELETE", path))[0] == 204
    assert (await world.call("GET", path))[0] == (await world.call("PUT", path, body))[0] == 404


@pytest.mark.parametrize("api", ["namf-basic", "nsmf-basic"])
async def test_openapi_file_is_valid_served_and_names_exactly_the_routes(world: World, api: str) -> None:
    nf = world.amf if api == "namf-basic" else world.smf
    served = await nf.router(Request("GET", f"/{api}/v1/openapi.yaml"))
    document = yaml.safe_load(served.body)
    openapi_spec_validator.validate(document)
    for path, operations in document["paths"].items():
        concrete = f"/{api}/v1{path}".replace("{supi}", UE).replace("{sessionRef}", "x")
        refused = await nf.router(Request("TRACE", concrete))
        named = {m.upper() for m in operations} - {"PARAMETERS"}
        assert set((refused.header("allow") or "").split(", ")) == named, path


def test_profiles_are_ordinary_instances_with_what_basic_consumers_select_by() -> None:
    snpn = NetworkId.parse("999-71-000007ed9d5")
    amf, smf = amf_profile("a", snpn, "127.0.0.1", 7770), smf_profile("s", A, "127.0.0.1", 7770)
    assert amf["amfInfo"]["guamiList"][0]["plmnId"]["nid"] == "000007ed9d5"
    assert amf["snpnList"] == [{"mcc": "999", "mnc": "71", "nid": "000007ed9d5"}]
    assert [s["serviceName"] for s in smf["nfServices"]] == ["nsmf-event-exposure", "nsmf-basic"]
    assert "smfInfo" in smf
    assert "snpnList" not in smf
