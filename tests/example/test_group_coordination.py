"""The example service does what its README says, also with a change of network in the middle."""

import importlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outrider.core.manifest import from_toml
from outrider.sdk import Reply
from outrider.sdk.testing import Harness, check_no_hidden_state, services_of

PROJECT = Path(__file__).parents[2] / "examples" / "group-coordination"
SUPI = "imsi-999700000000001"
OTHER = "imsi-999700000000002"
HOME = {"mcc": "999", "mnc": "70"}
AWAY = {"mcc": "999", "mnc": "71", "nid": "000007ed9d5"}
CALLBACK = "http://127.0.0.1:9/notifications"
GROUP = "group:train-7"


class Service:
    """The three NF services, asked by their own APIs."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    async def open(self, supi: str = SUPI, **body: Any) -> Reply:
        return await self.session("POST", "", supi, {"supi": supi, "groupId": "train-7", "dnn": "group"} | body)

    async def transact(self, seq: int, supi: str = SUPI, **body: Any) -> Reply:
        return await self.session("POST", f"/{supi}/transactions", supi, {"seq": seq, "payload": f"p{seq}"} | body)

    async def session(self, method: str, path: str, supi: str = SUPI, body: object = None) -> Reply:
        return await self._ask("nsmf-groupsession", method, f"ue-sessions{path}", body, ue=supi)

    async def policy(self, method: str, path: str = f"/{SUPI}", supi: str = SUPI, body: object = None) -> Reply:
        return await self._ask("npcf-groupqos", method, f"ue-policies{path}", body, ue=supi)

    async def presence(self, method: str, path: str = f"/{SUPI}", supi: str = SUPI, body: object = None) -> Reply:
        return await self._ask("namf-grouppresence", method, f"ue-presences{path}", body, ue=supi)

    async def terms(self, method: str, body: object = None) -> Reply:
        return await self._ask("npcf-groupqos", method, "groups/train-7", body, shared=GROUP)

    async def group(self, method: str, path: str = "", body: object = None) -> Reply:
        return await self._ask("namf-grouppresence", method, f"groups/train-7{path}", body, shared=GROUP)

    async def _ask(self, nf: str, method: str, path: str, body: object, **key: Any) -> Reply:
        json: dict[str, Any] = {} if body is None else {"json": body}
        return await self.harness.request(nf, method, f"/{nf}/v1/{path}", **key, **json)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """The example at home, with nobody in it."""
    async with Harness.of_project(PROJECT, network=HOME) as harness:
        yield Service(harness)


def refused(reply: Reply, status: int, cause: str) -> bool:
    assert dict(reply.headers)["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == reply.status
    return (reply.status, problem["cause"]) == (status, cause)


# ---------------------------------------------------------------------------------------------------- sessions


async def test_a_session_is_opened_in_all_three_nf_services(service: Service) -> None:
    reply = await service.open(area="999-70/1")
    assert reply.status == 201
    assert dict(reply.headers)["location"] == f"/nsmf-groupsession/v1/ue-sessions/{SUPI}"
    session = (await service.session("GET", f"/{SUPI}")).json()
    assert (session["groupId"], session["dnn"], session["count"], session["lastSeq"]) == ("train-7", "group", 0, None)
    assert (await service.policy("GET")).json()["groupId"] == "train-7"
    assert (await service.presence("GET")).json()["area"] == "999-70/1"


async def test_a_transaction_is_counted_and_says_who_served_it(service: Service) -> None:
    await service.open()
    reply = await service.transact(7)
    answer = reply.json()
    assert reply.status == 200
    assert {k: answer[k] for k in ("seq", "count", "lastSeq", "previousSeq")} == {
        "seq": 7, "count": 1, "lastSeq": 7, "previousSeq": None,
    }  # fmt: skip
    assert answer["servedBy"]["plmnId"] == HOME
    assert answer["servedBy"]["nfInstanceId"]
    assert (await service.transact(8)).json()["previousSeq"] == 7


async def test_a_sequence_number_applied_twice_is_visible_in_the_count(service: Service) -> None:
    await service.open()
    await service.transact(1)
    assert (await service.transact(1)).json()["count"] == 2
    session = (await service.session("GET", f"/{SUPI}")).json()
    assert [applied["seq"] for applied in session["recent"]] == [1, 1]


async def test_a_session_remembers_its_last_transactions_only(service: Service) -> None:
    await service.open()
    for seq in range(1, 12):
        await service.transact(seq)
    session = (await service.session("GET", f"/{SUPI}")).json()
    assert session["count"] == 11
    assert [(a["seq"], a["payload"]) for a in session["recent"]] == [(s, f"p{s}") for s in range(4, 12)]


async def test_a_second_session_is_refused_and_changes_nothing(service: Service) -> None:
    await service.open()
    await service.transact(1)
    assert refused(await service.open(), 409, "SESSION_EXISTS")
    assert (await service.session("GET", f"/{SUPI}")).json()["count"] == 1


async def test_a_closed_session_is_gone_from_all_three_and_can_be_opened_again(service: Service) -> None:
    await service.open()
    assert (await service.session("DELETE", f"/{SUPI}")).status == 204
    assert refused(await service.session("GET", f"/{SUPI}"), 404, "CONTEXT_NOT_FOUND")
    assert refused(await service.policy("GET"), 404, "CONTEXT_NOT_FOUND")
    assert refused(await service.presence("GET"), 404, "CONTEXT_NOT_FOUND")
    assert service.harness.armed("npcf-groupqos", "renew", ue=SUPI) is None
    assert (await service.open()).status == 201


@pytest.mark.parametrize(
    ("body", "cause", "param"),
    [
        ({"groupId": "g", "dnn": "d"}, "MANDATORY_IE_MISSING", "/supi"),
        ({"supi": SUPI, "dnn": "d"}, "MANDATORY_IE_MISSING", "/groupId"),
        ({"supi": SUPI, "groupId": "g"}, "MANDATORY_IE_MISSING", "/dnn"),
        ({"supi": "0815", "groupId": "g", "dnn": "d"}, "MANDATORY_IE_INCORRECT", "/supi"),
        ({"supi": SUPI, "groupId": "a group", "dnn": "d"}, "MANDATORY_IE_INCORRECT", "/groupId"),
        ({"supi": SUPI, "groupId": "g", "dnn": 1}, "MANDATORY_IE_INCORRECT", "/dnn"),
        ({"supi": SUPI, "groupId": "g", "dnn": "d", "qos": {"rate": 0}}, "MANDATORY_IE_INCORRECT", "/qos/rate"),
        ([], "MANDATORY_IE_INCORRECT", "/"),
    ],
)
async def test_a_wrong_session_body_is_refused_with_the_attribute(
    service: Service, body: object, cause: str, param: str
) -> None:
    reply = await service.session("POST", "", SUPI, body)
    assert refused(reply, 400, cause)
    assert [p["param"] for p in reply.json().get("invalidParams", [])] == [param]
    assert service.harness.names("nsmf-groupsession", ue=SUPI) == []


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"payload": "x"}, "MANDATORY_IE_MISSING"),
        ({"seq": -1}, "MANDATORY_IE_INCORRECT"),
        ({"seq": "1"}, "MANDATORY_IE_INCORRECT"),
        ({"seq": 1, "payload": "x" * 1025}, "MANDATORY_IE_INCORRECT"),
    ],
)
async def test_a_wrong_transaction_is_refused_and_not_counted(service: Service, body: object, cause: str) -> None:
    await service.open()
    assert refused(await service.session("POST", f"/{SUPI}/transactions", SUPI, body), 400, cause)
    assert (await service.session("GET", f"/{SUPI}")).json()["count"] == 0


async def test_a_body_that_is_not_json_is_refused(service: Service) -> None:
    reply = await service.harness.request(
        "nsmf-groupsession", "POST", "/nsmf-groupsession/v1/ue-sessions", ue=SUPI, body=b"{"
    )
    assert refused(reply, 400, "INVALID_MSG_FORMAT")


async def test_a_transaction_without_a_session_is_refused(service: Service) -> None:
    assert refused(await service.transact(1), 404, "CONTEXT_NOT_FOUND")


async def test_an_unknown_path_and_an_unknown_method_are_refused(service: Service) -> None:
    assert refused(await service.session("GET", "/a/b/c"), 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND")
    reply = await service.session("PATCH", f"/{SUPI}")
    assert refused(reply, 405, "METHOD_NOT_ALLOWED")
    assert set(dict(reply.headers)["allow"].split(", ")) >= {"GET", "DELETE"}


# ------------------------------------------------------------------------------------------------- rate and grant


async def test_an_empty_bucket_refuses_the_transaction_and_nothing_is_applied(service: Service) -> None:
    await service.open(qos={"rate": 2, "burst": 3})
    for seq in range(1, 4):
        assert (await service.transact(seq)).status == 200
    reply = await service.transact(4, area="999-70/2")
    assert refused(reply, 429, "GROUP_RATE_EXCEEDED")
    assert dict(reply.headers)["retry-after"] == "1"
    assert (await service.session("GET", f"/{SUPI}")).json()["count"] == 3
    presence = (await service.presence("GET")).json()
    assert (presence["events"], presence["area"]) == (4, None)


async def test_the_bucket_fills_at_the_rate_up_to_the_burst(service: Service) -> None:
    await service.open(qos={"rate": 2, "burst": 3})
    for seq in range(1, 4):
        await service.transact(seq)
    await service.harness.advance(499)
    assert (await service.transact(4)).status == 429
    await service.harness.advance(1)
    assert (await service.transact(4)).status == 200
    await service.harness.advance(60_000)
    assert (await service.policy("GET")).json()["remaining"] == 3


async def test_the_grant_is_renewed_on_its_grid_once_each(service: Service) -> None:
    await service.open(qos={"validityMs": 1000})
    opened = service.harness.now_ms
    await service.harness.advance(5_500)
    policy = (await service.policy("GET")).json()
    assert policy["renewals"] == 5
    assert [(f["sequence"], f["dueMs"] - opened) for f in policy["firings"]] == [(s, s * 1000) for s in range(1, 6)]
    assert policy["lastRenewalMs"] == opened + 5_000
    assert policy["nextRenewal"] == {"sequence": 6, "dueMs": opened + 6_000}


async def test_the_grant_goes_on_being_renewed_where_the_ue_went(service: Service) -> None:
    await service.open(qos={"validityMs": 1000})
    opened = service.harness.now_ms
    await service.harness.advance(2_500)
    await service.harness.relocate(to_network=AWAY)
    await service.harness.advance(2_000)
    await service.harness.relocate(to_network=HOME)
    await service.harness.advance(1_000)
    policy = (await service.policy("GET")).json()
    assert [f["sequence"] for f in policy["firings"]] == [1, 2, 3, 4, 5]
    assert policy["nextRenewal"]["dueMs"] == opened + 6_000


async def test_a_policy_lists_a_bounded_number_of_firings(service: Service) -> None:
    await service.open(qos={"validityMs": 100})
    await service.harness.advance(10_000)
    policy = (await service.policy("GET")).json()
    assert policy["renewals"] == 100
    assert [f["sequence"] for f in policy["firings"]] == list(range(37, 101))


async def test_the_terms_of_the_group_are_taken_over_at_the_next_renewal(service: Service) -> None:
    await service.open(qos={"rate": 5, "burst": 9, "validityMs": 1000})
    assert (await service.terms("PUT", {"rate": 1, "burst": 2})).status == 200
    assert (await service.terms("GET")).json() == {"rate": 1, "burst": 2}
    before = (await service.policy("GET")).json()
    await service.harness.advance(1_000)
    after = (await service.policy("GET")).json()
    assert (before["rate"], before["burst"], before["remaining"]) == (5, 9, 9)
    assert (after["rate"], after["burst"], after["remaining"]) == (1, 2, 2)
    await service.open(OTHER)
    assert (await service.policy("GET", f"/{OTHER}", OTHER)).json()["burst"] == 2


async def test_a_group_without_terms_of_its_own_says_so(service: Service) -> None:
    assert refused(await service.terms("GET"), 404, "CONTEXT_NOT_FOUND")
    assert refused(await service.terms("PUT", {"rate": "many"}), 400, "MANDATORY_IE_INCORRECT")


async def test_a_clock_that_stands_earlier_at_the_other_network_does_no_harm(service: Service) -> None:
    await service.open(qos={"rate": 1, "burst": 2})
    await service.transact(1)
    service.harness.now_ms -= 500
    assert (await service.transact(2)).status == 200
    assert (await service.transact(3)).status == 429
    await service.harness.advance(1_400)
    assert (await service.transact(3)).status == 429  # time that was counted already is not counted again


# ------------------------------------------------------------------------------------------------------- presence


async def test_members_are_listed_by_a_name_that_does_not_tell_who_they_are(service: Service) -> None:
    await service.open(area="999-70/1")
    await service.open(OTHER)
    await service.transact(1, OTHER, area="999-70/2")
    roster = (await service.group("GET")).json()
    presence = (await service.presence("GET", f"/{OTHER}", OTHER)).json()
    member = next(m for m in roster["members"] if m["member"] == presence["member"])
    assert len(roster["members"]) == 2
    assert (member["event"], member["number"], member["area"]) == ("SEEN", 2, "999-70/2")
    assert "imsi" not in str(roster)


async def test_a_subscriber_is_told_every_event_numbered_by_each_members_own_count(service: Service) -> None:
    reply = await service.group("POST", "/subscriptions", {"callbackUri": CALLBACK})
    assert reply.status == 201
    subscription_id = reply.json()["subscriptionId"]
    assert dict(reply.headers)["location"].endswith(f"/groups/train-7/subscriptions/{subscription_id}")
    await service.open()
    await service.open(OTHER)
    for seq in range(1, 4):
        await service.transact(seq)
        await service.transact(seq, OTHER)
    await service.session("DELETE", f"/{OTHER}", OTHER)
    told: dict[str, list[tuple[int, str]]] = {}
    for uri, value in service.harness.notifications:
        assert (uri, value["subscriptionId"], value["groupId"]) == (CALLBACK, subscription_id, "train-7")
        told.setdefault(value["member"], []).append((value["number"], value["event"]))
    stayed = [(1, "JOINED"), (2, "SEEN"), (3, "SEEN"), (4, "SEEN")]
    assert sorted(told.values()) == [stayed, [*stayed, (5, "LEFT")]]
    assert len((await service.group("GET")).json()["members"]) == 1


async def test_notifications_go_on_without_a_gap_across_a_migration(service: Service) -> None:
    await service.group("POST", "/subscriptions", {"callbackUri": CALLBACK})
    await service.open()
    await service.transact(1)
    await service.harness.relocate(to_network=AWAY)
    await service.transact(2)
    await service.harness.relocate(to_network=HOME, ue=SUPI)
    await service.transact(3)
    assert [value["number"] for _, value in service.harness.notifications] == [1, 2, 3, 4]


async def test_a_cancelled_subscription_is_told_nothing_more(service: Service) -> None:
    reply = await service.group("POST", "/subscriptions", {"callbackUri": CALLBACK})
    path = f"/subscriptions/{reply.json()['subscriptionId']}"
    assert (await service.group("DELETE", path)).status == 204
    assert refused(await service.group("DELETE", path), 404, "SUBSCRIPTION_NOT_FOUND")
    await service.open()
    assert service.harness.notifications == []


async def test_a_group_has_a_bounded_number_of_subscriptions(service: Service) -> None:
    for _ in range(16):
        assert (await service.group("POST", "/subscriptions", {"callbackUri": CALLBACK})).status == 201
    reply = await service.group("POST", "/subscriptions", {"callbackUri": CALLBACK})
    assert refused(reply, 403, "SUBSCRIPTION_NOT_ALLOWED")


@pytest.mark.parametrize("uri", ["", "ftp://a/b", "http://", "http://a b/", "/notify"])
async def test_a_callback_that_cannot_be_called_is_refused(service: Service, uri: str) -> None:
    assert refused(await service.group("POST", "/subscriptions", {"callbackUri": uri}), 400, "MANDATORY_IE_INCORRECT")


async def test_an_unknown_group_is_refused(service: Service) -> None:
    assert refused(await service.group("GET"), 404, "CONTEXT_NOT_FOUND")


async def test_an_area_of_the_network_before_is_forgotten_on_arrival(service: Service) -> None:
    await service.open(area="999-70/1")
    await service.harness.relocate(to_network=AWAY)
    presence = (await service.presence("GET")).json()
    assert (presence["area"], presence["network"], presence["arrivals"]) == (None, "999-71-000007ed9d5", 1)
    await service.transact(1, area="999-71/1")
    assert (await service.presence("GET")).json()["area"] == "999-71/1"


# -------------------------------------------------------------------------------------------------- the migration


async def test_a_session_goes_on_where_the_ue_went(service: Service) -> None:
    await service.open()
    await service.transact(1)
    await service.harness.relocate(to_network=AWAY)
    answer = (await service.transact(2)).json()
    assert (answer["count"], answer["previousSeq"]) == (2, 1)
    assert answer["servedBy"]["plmnId"] == {"mcc": "999", "mnc": "71"}
    assert answer["servedBy"]["nid"] == "000007ed9d5"


async def test_no_record_holds_a_supi(service: Service) -> None:
    await service.group("POST", "/subscriptions", {"callbackUri": CALLBACK})
    await service.open(area="999-70/1")
    for seq in range(1, 4):
        await service.transact(seq)
    await service.harness.advance(60_000)
    await service.harness.relocate(to_network=AWAY)
    await service.transact(4)
    held = service.harness.context_bytes(ue=SUPI) + service.harness.context_bytes(shared=GROUP)
    assert SUPI.encode() not in held
    assert SUPI.removeprefix("imsi-").encode() not in held
    assert "imsi" not in str(service.harness.notifications)


async def test_nothing_is_kept_outside_the_units() -> None:
    async def scenario(harness: Harness) -> None:
        service = Service(harness)
        await service.open(qos={"rate": 2, "burst": 3, "validityMs": 1000})
        for seq in range(1, 6):
            await service.transact(seq, area=f"area-{seq}")
            await harness.advance(700)
        await service.terms("PUT", {"rate": 9, "burst": 9})
        await service.open(OTHER)
        await harness.advance(1500)
        await service.transact(1, OTHER)
        await service.session("GET", f"/{SUPI}")
        await service.policy("GET")
        await service.group("GET")
        await service.session("DELETE", f"/{SUPI}")

    assert await check_no_hidden_state(services_of(PROJECT), scenario, code=PROJECT) == []


def test_every_route_has_a_key_rule_in_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT))
    manifest = from_toml((PROJECT / "outrider.toml").read_text())
    assert {spec.name: spec.nf_type for spec in manifest.nf_services} == {
        "nsmf-groupsession": "SMF",
        "npcf-groupqos": "PCF",
        "namf-grouppresence": "AMF",
    }
    for spec in manifest.nf_services:
        module, _, _ = spec.app.partition(":")
        routed = {(m, route.path) for route in importlib.import_module(module).app.routes for m in route.methods}
        ruled = {(m, rule.path) for rule in spec.keys for m in rule.methods}
        assert {(m, path) for m, path in routed if m != "HEAD"} == ruled
