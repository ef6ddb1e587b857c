import base64
import json

import pytest

from outrider.core.refusal import Refusal, Refused
from outrider.sbi import headers
from outrider.sbi.assertion import CcaSigner
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import problem

PLMN = {"mcc": "999", "mnc": "70"}
OTHER = {"mcc": "999", "mnc": "71", "nid": "0123456789a"}


class Border:
    """The way between two NRFs; remembers what went over it."""

    def __init__(self) -> None:
        self.handler = None
        self.network = None
        self.requests: list[Request] = []
        self.answer: Response | Exception | None = None

    async def __call__(self, network, request: Request) -> Response:
        if network != self.network:
            raise Refused(Refusal("NETWORK_UNKNOWN", f"{network} is no partner.", status=404))
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or await self.handler(request)

    def args(self) -> dict[str, list[str]]:
        return self.requests[-1].args()


@pytest.fixture
def border():
    return Border()


@pytest.fixture
def home(make_nrf, border):
    """The PLMN 999-70, whose NFs ask."""
    return make_nrf(remote=border)


@pytest.fixture
def other(make_nrf, build, border, home):
    """The SNPN 999-71-…, whose NFs are asked for; behind the border."""
    nrf = make_nrf(network=build.snpn, nf_instance_id=build.uuid(0xEE))
    border.handler = nrf.partner_router(home.network)
    border.network = build.snpn
    return nrf


@pytest.fixture
def api(home, build):
    return build.api(home.router)


@pytest.fixture
def there(other, build):
    return build.api(other.router)


async def test_instances_of_another_network_are_found_through_its_nrf(api, there, border, build):
    await there.put(build.profile(5, "SMF", build.service("nsmf-groupsession")))
    await api.put(build.profile(6, "SMF", build.service("nsmf-groupsession")))
    response = await api.search("SMF", "AF", target_snpn=OTHER, service_names="nsmf-groupsession")
    assert response.status == 200
    assert [one["nfInstanceId"] for one in response.json()["nfInstances"]] == [build.uuid(5)]
    assert response.header("etag")
    assert response.header("cache-control")
    assert json.loads(border.args()["target-snpn"][0]) == OTHER
    assert json.loads(border.args()["requester-plmn-list"][0]) == [PLMN]


async def test_one_can_ask_an_plmn_from_an_snpn(make_nrf, border, build):
    plmn = make_nrf()
    snpn = make_nrf(network=build.snpn, remote=border)
    border.handler, border.network = plmn.partner_router(build.snpn), build.own
    await build.api(plmn.router).put(build.profile(5, "SMF", allowedSnpns=[OTHER]))
    assert await build.api(snpn.router).found("SMF", "AF", target_plmn_list=[PLMN]) == [5]
    assert json.loads(border.args()["requester-snpn-list"][0]) == [OTHER]


async def test_a_consumer_cannot_claim_another_network(api, there, border, build):
    await there.put(build.profile(5, "SMF", allowedPlmns=[{"mcc": "001", "mnc": "01"}]))
    claimed = {"requester_plmn_list": [{"mcc": "001", "mnc": "01"}]}
    assert await api.found("SMF", "AF", target_snpn=OTHER, **claimed) == []
    assert json.loads(border.args()["requester-plmn-list"][0]) == [PLMN]


async def test_no_identity_of_a_ue_leaves_the_network(api, there, border):
    await api.search("SMF", "AF", target_snpn=OTHER, supi="imsi-999700000000001", gpsi="msisdn-4915", dnn="train")
    (request,) = border.requests
    assert "imsi" not in request.query
    assert "4915" not in request.query
    assert border.args()["dnn"] == ["train"]


async def test_own_headers_do_not_leave_the_network(api, there, border):
    await api.search("SMF", "AF", target_snpn=OTHER, headers={"authorization": "Bearer x", "if-none-match": '"e"'})
    assert border.requests[0].headers == {"if-none-match": '"e"'}


async def test_an_unchanged_result_of_another_network_need_not_be_sent(api, there):
    etag = (await api.search("SMF", "AF", target_snpn=OTHER)).header("etag")
    again = await api.search("SMF", "AF", target_snpn=OTHER, headers={"if-none-match": etag})
    assert (again.status, again.body) == (304, b"")


async def test_a_network_that_is_no_partner_is_not_asked(api, there, nrf, build):
    unknown = [{"mcc": "001", "mnc": "01"}]
    for asked in (api, build.api(nrf.router)):  # with a border, and without one
        response = await asked.search("SMF", "AF", target_plmn_list=unknown)
        assert (response.status, response.json()["cause"]) == (404, "NETWORK_UNKNOWN")


@pytest.mark.parametrize(
    ("answer", "status", "cause"),
    [
        (Unreachable("away", not_sent=True), 504, "TARGET_NF_NOT_REACHABLE"),
        (problem(403, "REQUESTER_NETWORK_NOT_ALLOWED"), 403, "REQUESTER_NETWORK_NOT_ALLOWED"),
        (problem(500, "SYSTEM_FAILURE"), 502, "INBOUND_SERVER_ERROR"),
        (Response(403, body=b'{"cause": "<script>"}'), 403, "UNSPECIFIED"),
        (Response(200, body=b"<html>"), 502, "INBOUND_SERVER_ERROR"),
        (Response(200, body=b'{"validityPeriod": 1, "nfInstances": "all"}'), 502, "INBOUND_SERVER_ERROR"),
        (Response(302, [("location", "http://evil")]), 502, "INBOUND_SERVER_ERROR"),
    ],
)
async def test_what_another_nrf_answers_is_read_and_not_relayed(api, there, border, answer, status, cause):
    border.answer = answer
    response = await api.search("SMF", "AF", target_snpn=OTHER)
    assert (response.status, response.json()["cause"]) == (status, cause)
    assert response.header("location") is None


@pytest.fixture
def partner(home, build):
    """The home NRF as the SNPN's NRF reaches it."""
    return build.api(home.partner_router(build.snpn))


@pytest.mark.parametrize(
    "claim",
    [
        {},
        {"requester_plmn_list": [PLMN]},
        {"requester_snpn_list": [OTHER | {"nid": "00000000001"}]},
        {"requester_snpn_list": [OTHER], "requester_plmn_list": [PLMN]},
        {"requester_plmn_list": [{"mcc": "999", "mnc": "71"}]},
    ],
    ids=str,
)
async def test_a_partner_discovers_for_its_own_nfs_only(partner, claim):
    response = await partner.search("SMF", "AF", **claim)
    assert (response.status, response.json()["cause"]) == (403, "REQUESTER_NETWORK_NOT_ALLOWED")


async def test_a_partner_is_shown_what_is_allowed_for_it(api, partner, build):
    await api.put(build.profile(1, "SMF", build.service("nsmf-groupsession", allowedSnpns=[OTHER])))
    await api.put(build.profile(2, "SMF", build.service("nsmf-groupsession")))
    assert await partner.found("SMF", "AF", requester_snpn_list=[OTHER]) == [1]


async def test_a_partner_cannot_reach_a_third_network_through_this_one(partner):
    response = await partner.search(
        "SMF", "AF", requester_snpn_list=[OTHER], target_plmn_list=[{"mcc": "001", "mnc": "01"}]
    )
    assert (response.status, response.json()["cause"]) == (403, "TARGET_NETWORK_NOT_SERVED")


async def test_a_partner_reaches_neither_registrations_nor_subscriptions(api, partner, build):
    await api.put(build.profile(1))
    for response in (
        await partner.put(build.profile(2)),
        await partner.get(1),
        await partner.heartbeat(1),
        await partner.delete(1),
        await partner.handler(Request("GET", "/nnrf-nfm/v1/nf-instances")),
        await partner.handler(Request("POST", "/nnrf-nfm/v1/subscriptions", body=b"{}")),
    ):
        assert response.status == 404
    assert (await api.get(1)).status == 200


def claims_of(response) -> dict:
    return json.loads(base64.urlsafe_b64decode(response.json()["access_token"].split(".")[1] + "=="))


def proof(cca_keys, build, time, n: int) -> dict[str, str]:
    return {headers.CLIENT_CREDENTIALS: CcaSigner(cca_keys.private, build.uuid(n), now_s=time).assertion()}


async def test_the_producers_nrf_issues_the_token(api, there, border, build, cca_keys, time):
    await api.put(build.profile(1, "LMSF"))
    response = await api.token(
        proof(cca_keys, build, time, 1) | {"authorization": "Bearer x"},
        nfInstanceId=build.uuid(1),
        targetNfType="LMSF",
        scope="nlmsf-relocation",
        targetSnpn=OTHER,
        requesterPlmn={"mcc": "001", "mnc": "01"},
    )
    assert response.status == 200
    claims = claims_of(response)
    assert claims["iss"] == build.uuid(0xEE)
    assert claims["consumerPlmnId"] == PLMN
    assert claims["producerSnpnId"] == OTHER
    assert (claims["sub"], claims["aud"], claims["subNfType"]) == (build.uuid(1), "LMSF", "LMSF")
    (sent,) = border.requests
    assert headers.CLIENT_CREDENTIALS not in sent.headers
    assert "authorization" not in sent.headers
    assert response.header("cache-control") == "no-store"


async def test_a_token_for_a_registered_producer_of_another_network(api, there, build):
    await api.put(build.profile(1, "AF"))
    await there.put(build.profile(5, "SMF", build.service("nsmf-groupsession", allowedPlmns=[PLMN])))
    await there.put(build.profile(6, "PCF", build.service("npcf-x", allowedPlmns=[{"mcc": "001", "mnc": "01"}])))
    asked = {"nfInstanceId": build.uuid(1), "targetSnpn": OTHER}
    given = await api.token(**asked, targetNfInstanceId=build.uuid(5), scope="nsmf-groupsession")
    assert claims_of(given)["aud"] == [build.uuid(5)]
    refused = await api.token(**asked, targetNfType="PCF", scope="npcf-x")
    assert (refused.status, refused.json()["error"]) == (400, "invalid_scope")


async def test_only_a_registered_nf_gets_a_token_of_another_network(api, there, border, build):
    asked = {"targetNfType": "LMSF", "targetSnpn": OTHER, "scope": "nsmf-groupsession"}
    assert (await api.token(nfInstanceId=build.uuid(1), **asked)).json()["error"] == "invalid_client"
    await api.put(build.profile(1, "LMSF"))
    privileged = await api.token(nfInstanceId=build.uuid(1), **asked | {"scope": "nlmsf-relocation"})
    assert privileged.json()["error"] == "invalid_client"  # no proof
    assert border.requests == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Unreachable("away", not_sent=False), 504),
        (Response(200, body=b"{}"), 502),
        (Response(400, body=b"{}"), 502),
        (problem(403, "REQUESTER_NETWORK_NOT_ALLOWED"), 403),
        (problem(503, "NF_CONGESTION"), 502),
    ],
)
async def test_a_token_answer_of_another_nrf_is_read_and_not_relayed(api, there, border, build, answer, status):
    await api.put(build.profile(1, "AF"))
    border.answer = answer
    response = await api.token(nfInstanceId=build.uuid(1), targetNfType="SMF", scope="x", targetSnpn=OTHER)
    assert response.status == status
    assert "access_token" not in response.json()


async def test_a_network_without_a_way_there_gives_no_token(api, nrf, there, build):
    for asked in (api, build.api(nrf.router)):
        await asked.put(build.profile(1, "AF"))
        response = await asked.token(
            nfInstanceId=build.uuid(1), targetNfType="SMF", scope="x", targetPlmn={"mcc": "001", "mnc": "01"}
        )
        assert (response.status, response.json()["cause"]) == (404, "NETWORK_UNKNOWN")


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({}, 200, None),
        ({"requesterSnpnList": ""}, 403, "REQUESTER_NETWORK_NOT_ALLOWED"),
        ({"requesterSnpnList": [PLMN]}, 403, "REQUESTER_NETWORK_NOT_ALLOWED"),
        ({"requesterPlmn": PLMN}, 403, "REQUESTER_NETWORK_NOT_ALLOWED"),
        ({"targetPlmn": {"mcc": "001", "mnc": "01"}}, 403, "TARGET_NETWORK_NOT_SERVED"),
        ({"targetPlmn": PLMN}, 200, None),
        ({"scope": "nlmsf-migration"}, 400, "invalid_scope"),
        ({"scope": "outrider-host"}, 400, "invalid_scope"),
        ({"scope": "nnrf-nfm"}, 400, "invalid_scope"),
        ({"scope": "nlmsf-relocation outrider-host"}, 400, "invalid_scope"),
        ({"scope": "nsmf-groupsession"}, 400, "invalid_scope"),
        ({"nfInstanceId": "x"}, 400, "invalid_request"),
        ({"targetNfType": ""}, 400, "invalid_request"),
    ],
    ids=str,
)
async def test_a_partner_gets_tokens_for_its_own_nfs_and_what_partners_may_do(partner, build, change, status, said):
    form = {
        "nfInstanceId": build.uuid(0xF0),
        "nfType": "LMSF",
        "targetNfType": "LMSF",
        "scope": "nlmsf-relocation",
        "requesterSnpnList": [OTHER],
    } | change
    response = await partner.token(**form)
    assert response.status == status
    if said is None:
        claims = claims_of(response)
        assert claims["consumerSnpnId"] == OTHER
        assert claims["producerPlmnId"] == PLMN
        assert claims["sub"] == build.uuid(0xF0)
    else:
        assert said in (response.json().get("cause"), response.json().get("error"))
