import base64
import json

import pytest

from outrider.core.refusal import Refusal
from outrider.sbi import headers
from outrider.sbi.assertion import CcaSigner
from outrider.sbi.http import Request

CONSUMER, PRODUCER = 1, 2


@pytest.fixture
async def registered(api, build):
    await api.put(build.profile(CONSUMER, "AF"))
    await api.put(build.profile(PRODUCER, "SMF", build.service("nsmf-groupsession"), build.service("nsmf-nidd", 2)))


@pytest.fixture
def ask(api, build, registered):
    async def post(headers=None, **change):
        form = {
            "nfInstanceId": build.uuid(CONSUMER),
            "nfType": "AF",
            "targetNfType": "SMF",
            "scope": "nsmf-groupsession",
        } | change
        return await api.token(headers, **form)

    return post


@pytest.fixture
def proof(cca_keys, build, time):
    """The header with a good assertion of an NF instance."""

    def make(n: int = CONSUMER, keys=cca_keys, audience=("NRF",)) -> dict[str, str]:
        signer = CcaSigner(keys.private, build.uuid(n), now_s=time)
        return {headers.CLIENT_CREDENTIALS: signer.assertion(audience)}

    return make


def claims_of(response) -> dict:
    return json.loads(base64.urlsafe_b64decode(response.json()["access_token"].split(".")[1] + "=="))


async def test_a_registered_nf_gets_a_token_that_a_producer_accepts(ask, verifier, build, time):
    response = await ask()
    assert response.status == 200
    assert response.header("cache-control") == "no-store"
    assert response.header("pragma") == "no-cache"
    assert response.json()["token_type"] == "Bearer"
    assert response.json()["expires_in"] == 600
    bearer = f"Bearer {response.json()['access_token']}"
    claims = verifier.verify(bearer, audience={"SMF", build.uuid(PRODUCER)}, scope="nsmf-groupsession")
    assert not isinstance(claims, Refusal)
    assert claims_of(response) == {
        "iss": build.nrf_id,
        "sub": build.uuid(CONSUMER),
        "aud": "SMF",
        "scope": "nsmf-groupsession",
        "exp": int(time.s) + 600,
        "iat": int(time.s),
        "consumerPlmnId": {"mcc": "999", "mnc": "70"},
        "producerPlmnId": {"mcc": "999", "mnc": "70"},
        "subNfType": "AF",
    }


async def test_a_token_may_be_for_one_instance(ask, build):
    response = await ask(targetNfInstanceId=build.uuid(PRODUCER), targetNfType="")
    assert claims_of(response)["aud"] == [build.uuid(PRODUCER)]


async def test_a_token_may_have_several_scopes(ask):
    assert claims_of(await ask(scope="nsmf-groupsession nsmf-nidd"))["scope"] == "nsmf-groupsession nsmf-nidd"


async def test_a_token_for_the_nrf_itself_needs_no_registered_nrf(ask):
    assert (await ask(scope="nnrf-disc nnrf-nfm", targetNfType="NRF")).status == 200
    assert (await ask(scope="nnrf-disc", targetNfType="SMF")).status == 400


@pytest.mark.parametrize("status", ["UNDISCOVERABLE", "CANARY_RELEASE"])
async def test_a_prepared_producer_can_be_reached_with_a_token(ask, api, build, status):
    await api.put(build.profile(3, "PCF", build.service("npcf-groupqos", nfServiceStatus=status), nfStatus=status))
    assert (await ask(scope="npcf-groupqos", targetNfType="PCF")).status == 200


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"nfInstanceId": ""}, "invalid_request"),
        ({"nfInstanceId": "me"}, "invalid_request"),
        ({"nfInstanceId": "00000000-0000-4000-8000-000000000009"}, "invalid_client"),
        ({"nfType": "SMF"}, "invalid_client"),
        ({"scope": ""}, "invalid_request"),
        ({"scope": "nsmf-other"}, "invalid_scope"),
        ({"scope": "nsmf-groupsession nsmf-other"}, "invalid_scope"),
        ({"scope": "nsmf-groupsession  nsmf-nidd"}, "invalid_scope"),
        ({"scope": "nsmf/x"}, "invalid_scope"),
        ({"scope": "nsmf-groupsession:read"}, "invalid_scope"),
        ({"scope": " ".join(["nsmf-groupsession"] * 17)}, "invalid_scope"),
        ({"targetNfType": ""}, "invalid_request"),
        ({"targetNfType": "AMF"}, "invalid_scope"),
        ({"targetNfInstanceId": "00000000-0000-4000-8000-000000000001"}, "invalid_scope"),
        ({"targetNfInstanceId": "00000000-0000-4000-8000-000000000002", "targetNfType": "AMF"}, "invalid_scope"),
        ({"targetNfInstanceId": "me"}, "invalid_request"),
        ({"targetPlmn": "999-71"}, "invalid_request"),
        ({"targetPlmn": {"mcc": "999", "mnc": "70"}, "targetSnpn": {"mcc": "999", "mnc": "70"}}, "invalid_request"),
    ],
    ids=str,
)
async def test_a_request_with_one_wrong_parameter_gets_no_token(ask, change, error):
    response = await ask(**change)
    assert response.status == 400
    assert response.json()["error"] == error
    assert response.json()["error_description"]
    assert response.header("cache-control") == "no-store"
    assert response.header("pragma") == "no-cache"


async def test_a_request_is_a_form_and_has_each_parameter_once(nrf, registered, build):
    good = (
        f"grant_type=client_credentials&nfInstanceId={build.uuid(1)}&nfType=AF&targetNfType=SMF&scope=nsmf-groupsession"
    )
    form = {"content-type": "application/x-www-form-urlencoded"}
    for sent, body in (
        (form, good + "&scope=nsmf-nidd"),
        ({"content-type": "application/json"}, good),
        (form, ""),
        (form, "nonsense"),
        (form, good + "&x=" + "y" * 20_000),
        (form, "é"),
        (form, good + "&" + "&".join(f"a{n}=1" for n in range(100))),
    ):
        response = await nrf.router(Request("POST", "/oauth2/token", headers=sent, body=body.encode()))
        assert (response.status, response.json()["error"]) == (400, "invalid_request")
    assert (await nrf.router(Request("POST", "/oauth2/token", headers=form, body=good.encode()))).status == 200


@pytest.mark.parametrize(
    ("access", "given"),
    [
        ({"allowedNfTypes": ["AF"]}, True),
        ({"allowedNfTypes": ["AMF"]}, False),
        ({"allowedNfDomains": ["af\\.example\\.org"]}, False),
        ({"allowedPlmns": [{"mcc": "999", "mnc": "72"}]}, True),
    ],
    ids=str,
)
async def test_a_token_is_given_only_for_producers_that_allow_the_requester(api, ask, build, access, given):
    await api.put(build.profile(PRODUCER, "SMF", build.service("nsmf-groupsession", **access)))
    assert (await ask()).status == (200 if given else 400)


async def test_a_deregistered_nf_gets_no_token(api, ask):
    await api.delete(CONSUMER)
    assert (await ask()).json()["error"] == "invalid_client"


@pytest.mark.parametrize("scope", ["outrider-host", "nlmsf-relocation", "nlmsf-migration nsmf-groupsession"])
async def test_a_privileged_scope_needs_proof_but_no_producer(ask, proof, scope):
    refused = await ask(scope=scope)
    assert (refused.status, refused.json()["error"]) == (400, "invalid_client")
    assert (await ask(scope=scope, headers=proof())).status == 200


async def test_proof_is_by_the_nf_that_asks_and_by_a_trusted_key(ask, proof, build, time):
    bad = [
        proof(PRODUCER),
        proof(keys=build.keys()),
        proof(audience=("SMF",)),
        {headers.CLIENT_CREDENTIALS: "nonsense"},
    ]
    for header in bad:
        assert (await ask(scope="outrider-host", headers=header)).json()["error"] == "invalid_client"
    old = proof()
    time.s += 60
    assert (await ask(scope="outrider-host", headers=old)).json()["error"] == "invalid_client"


async def test_which_scopes_are_privileged_is_the_operators_choice(make_nrf, build):
    api = build.api(make_nrf(privileged=["secret-*", "exact"]).router)
    await api.put(build.profile(CONSUMER, "AF"))
    for scope, error in (("secret-x", "invalid_client"), ("exact", "invalid_client"), ("exactly", "invalid_scope")):
        response = await api.token(nfInstanceId=build.uuid(CONSUMER), targetNfType="X", scope=scope)
        assert response.json()["error"] == error
