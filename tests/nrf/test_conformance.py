"""Answers against the official OpenAPI files of TS 29.510, where they are at hand."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_schema_validator import OAS30Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from outrider.sbi.http import Request

FILES = Path(__file__).resolve().parents[2].parent / "shared" / "3gpp"

pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason=f"the OpenAPI files of 3GPP are not at {FILES}")


@cache
def load(name: str) -> Any:
    return yaml.load((FILES / name).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def retrieve(uri: str) -> Resource[Any]:
    return Resource(load(uri.removeprefix("file:///")), DRAFT4)


def errors(file: str, schema: str, instance: Any) -> list[str]:
    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    validator = OAS30Validator({"$ref": f"file:///{file}#/components/schemas/{schema}"}, registry=registry)
    return [f"{one.json_path}: {one.message}" for one in validator.iter_errors(instance)]


def assert_valid(file: str, schema: str, instance: Any) -> None:
    assert errors(file, schema, instance) == []


MANAGEMENT = "TS29510_Nnrf_NFManagement.yaml"
DISCOVERY = "TS29510_Nnrf_NFDiscovery.yaml"
TOKEN = "TS29510_Nnrf_AccessToken.yaml"
COMMON = "TS29571_CommonData.yaml"


@pytest.fixture
def full(build):
    """A profile with everything that this NRF looks at."""
    area = {"plmnId": {"mcc": "999", "mnc": "70"}, "tacRangeList": [{"start": "0001", "end": "00ff"}]}
    return build.profile(
        1,
        "SMF",
        build.service(
            "nsmf-groupsession",
            nfServiceStatus="CANARY_RELEASE",
            selectionConditions={"and": [{"taiRangeList": [area]}, {"or": [{"dnnList": ["train"]}]}]},
            allowedNfTypes=["AF", "AMF"],
            allowedSnpns=[build.snpn.plmn_id()],
            sNssais=[{"sst": 1, "sd": "00000a"}],
            priority=1,
            apiPrefix="/p",
        ),
        build.service("nsmf-event-exposure", 2),
        plmnList=[{"mcc": "999", "mnc": "70"}],
        sNssais=[{"sst": 1, "sd": "00000a"}],
        allowedPlmns=[{"mcc": "999", "mnc": "71"}],
        allowedNfDomains=["^.*$"],
        locality="east",
        customInfo={"lms": {"service": "group"}},
        load=3,
        capacity=100,
    )


QUERY = {
    "requester_nf_instance_fqdn": "af.example.org",
    "service_names": "nsmf-groupsession,nsmf-event-exposure",
    "tai": {"plmnId": {"mcc": "999", "mnc": "70"}, "tac": "0010"},
    "dnn": "train",
    "preferred_locality": "east",
}


def test_the_validator_follows_references_into_other_files(build):
    assert errors(MANAGEMENT, "NFProfile", build.profile(1, plmnList=[{"mcc": "99"}])) != []
    assert errors(MANAGEMENT, "NFProfile", {"nfInstanceId": 1}) != []


async def test_a_stored_profile_is_an_nf_profile(api, full):
    assert_valid(MANAGEMENT, "NFProfile", full)
    assert_valid(MANAGEMENT, "NFProfile", (await api.put(full)).json())
    assert_valid(MANAGEMENT, "NFProfile", (await api.get(1)).json())


async def test_a_list_of_instances_is_a_uri_list(nrf, api, full, build):
    for document in (full, build.profile(2)):
        await api.put(document)
    response = await nrf.router(Request("GET", "/nnrf-nfm/v1/nf-instances"))
    assert_valid(MANAGEMENT, "UriList", response.json())
    empty = await nrf.router(Request("GET", "/nnrf-nfm/v1/nf-instances", "nf-type=UDM"))
    assert_valid(MANAGEMENT, "UriList", empty.json())


async def test_a_result_is_a_search_result(api, full, build):
    await api.put(full)
    await api.put(build.profile(2, nfStatus="UNDISCOVERABLE"))
    found = (await api.search("SMF", "AF", **QUERY)).json()
    assert len(found["nfInstances"][0]["nfServices"]) == 2
    assert_valid(DISCOVERY, "SearchResult", found)
    assert_valid(DISCOVERY, "SearchResult", (await api.search("UDM")).json())
    hidden = (await api.search(target_nf_instance_id=build.uuid(2))).json()
    assert hidden["noProfileMatchInfo"]
    assert_valid(DISCOVERY, "SearchResult", hidden)


async def test_a_subscription_is_subscription_data(nrf, build):
    for condition in ({"nfType": "SMF"}, {"serviceName": "a"}, {"nfInstanceId": build.uuid(1)}, None):
        asked = {"nfStatusNotificationUri": "http://127.0.0.1/cb", "reqNfType": "AMF", "requesterFeatures": "1"}
        if condition is not None:
            asked["subscrCond"] = condition
        assert_valid(MANAGEMENT, "SubscriptionData", asked)
        response = await nrf.router(Request("POST", "/nnrf-nfm/v1/subscriptions", body=json.dumps(asked).encode()))
        assert response.status == 201
        made = response.json()
        # The pattern of a subscription id has a stray group before the NID; what is ours must fit it all the same.
        assert_valid(MANAGEMENT, "SubscriptionData", made)


async def test_what_subscribers_are_told_is_notification_data(nrf, api, full, build, monkeypatch):
    told: list[dict] = []
    monkeypatch.setattr(nrf._notifier, "push", lambda identity, uri, notification: told.append(notification))
    for condition in ({"serviceName": "nsmf-groupsession"}, {"nfInstanceId": build.uuid(1)}):
        asked = {
            "nfStatusNotificationUri": "http://127.0.0.1/cb",
            "reqNfType": "AF",
            "reqNfFqdn": "af.example.org",
            "subscrCond": condition,
        }
        await nrf.router(Request("POST", "/nnrf-nfm/v1/subscriptions", body=json.dumps(asked).encode()))
    await api.put(full)
    await api.patch(1, {"op": "remove", "path": "/nfServices/0"})
    await api.delete(1)
    assert [one["event"] for one in told] == [
        "NF_REGISTERED",
        "NF_REGISTERED",
        "NF_PROFILE_CHANGED",
        "NF_PROFILE_CHANGED",
        "NF_DEREGISTERED",
    ]
    for one in told:
        assert_valid(MANAGEMENT, "NotificationData", one)


async def test_tokens_and_their_errors_are_as_published(api, build):
    await api.put(build.profile(1, "AF"))
    await api.put(build.profile(2, "SMF", build.service("nsmf-groupsession")))
    form = {"nfInstanceId": build.uuid(1), "targetNfType": "SMF", "scope": "nsmf-groupsession"}
    assert_valid(TOKEN, "AccessTokenReq", form | {"grant_type": "client_credentials"})
    given = (await api.token(**form)).json()
    assert_valid(TOKEN, "AccessTokenRsp", given)
    claims = json.loads(base64.urlsafe_b64decode(given["access_token"].split(".")[1] + "=="))
    assert_valid(TOKEN, "AccessTokenClaims", claims)
    assert_valid(TOKEN, "AccessTokenErr", (await api.token(**form | {"scope": "other"})).json())


async def test_refusals_are_problem_details(api, build):
    refusals = [
        await api.put(build.profile(1, nfStatus="?")),
        await api.get(7),
        await api.search("SMF", "AMF", limit="0"),
    ]
    for response in refusals:
        assert response.header("content-type") == "application/problem+json"
        assert_valid(COMMON, "ProblemDetails", response.json())
