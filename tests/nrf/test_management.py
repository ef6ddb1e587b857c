import json

import pytest

from outrider.functions.nrf import management, store
from outrider.sbi.http import Request


async def test_a_new_instance_is_created_with_its_place_and_timer(api, build):
    response = await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    assert response.status == 201
    assert response.header("location") == f"{build.root}/nnrf-nfm/v1/nf-instances/{build.uuid(1)}"
    assert response.header("etag")
    stored = response.json()
    assert stored["heartBeatTimer"] == 10
    assert stored["nfInstanceId"] == build.uuid(1)


async def test_an_instance_keeps_what_the_nrf_does_not_know(api, build):
    await api.put(build.profile(1, "SMF", customInfo={"lms": {"home": "999-71"}}, smfInfo={"x": 1}, futureIe=[1, 2]))
    stored = (await api.get(1)).json()
    assert stored["customInfo"] == {"lms": {"home": "999-71"}}
    assert stored["futureIe"] == [1, 2]


@pytest.mark.parametrize("form", ["nfServices", "nfServiceList", "both"])
async def test_services_are_given_back_in_both_forms(api, build, form):
    one, two = build.service("nsmf-pdusession", 1), build.service("nsmf-event-exposure", 2)
    mapped = {one["serviceInstanceId"]: one, two["serviceInstanceId"]: two}
    document = build.profile(1)
    if form != "nfServiceList":
        document["nfServices"] = [one, two]
    if form != "nfServices":
        document["nfServiceList"] = mapped
    stored = (await api.put(document)).json()
    assert stored["nfServices"] == [one, two]
    assert stored["nfServiceList"] == mapped


async def test_registering_again_replaces(api, build):
    first = await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    second = await api.put(build.profile(1, "SMF", priority=3))
    assert second.status == 200
    assert second.header("location") is None
    assert second.header("etag") != first.header("etag")
    assert "nfServices" not in second.json()
    assert (await api.get(1)).json()["priority"] == 3


async def test_an_instance_may_change_its_type_by_registering_again(api, build):
    await api.put(build.profile(1, "SMF"))
    await api.put(build.profile(1, "PCF"))
    assert await api.found("SMF") == []
    assert await api.found("PCF") == [1]


async def test_registering_the_same_again_changes_nothing(api, build):
    first = await api.put(build.profile(1))
    second = await api.put(build.profile(1))
    assert (second.status, second.header("etag")) == (200, first.header("etag"))


@pytest.mark.parametrize(
    ("change", "cause", "param"),
    [
        ({"nfInstanceId": None}, "MANDATORY_IE_MISSING", "/nfInstanceId"),
        ({"nfType": None}, "MANDATORY_IE_MISSING", "/nfType"),
        ({"nfStatus": None}, "MANDATORY_IE_MISSING", "/nfStatus"),
        ({"nfStatus": "SLEEPING"}, "MANDATORY_IE_INCORRECT", "/nfStatus"),
        ({"nfType": 7}, "MANDATORY_IE_INCORRECT", "/nfType"),
        ({"nfType": ""}, "MANDATORY_IE_INCORRECT", "/nfType"),
        ({"nfInstanceId": "me"}, "MANDATORY_IE_INCORRECT", "/nfInstanceId"),
        ({"ipv4Addresses": None}, "MANDATORY_IE_MISSING", "/fqdn"),
        ({"ipv4Addresses": []}, "OPTIONAL_IE_INCORRECT", "/ipv4Addresses"),
        ({"priority": 65536}, "OPTIONAL_IE_INCORRECT", "/priority"),
        ({"load": 101}, "OPTIONAL_IE_INCORRECT", "/load"),
        ({"plmnList": [{"mcc": "99"}]}, "OPTIONAL_IE_INCORRECT", "/plmnList/0/mcc"),
        ({"plmnList": [{"mcc": "999", "mnc": "71"}]}, "OPTIONAL_IE_INCORRECT", "/plmnList"),
        ({"snpnList": [{"mcc": "999", "mnc": "70", "nid": "00000000001"}]}, "OPTIONAL_IE_INCORRECT", "/snpnList"),
        ({"allowedNfTypes": "SMF"}, "OPTIONAL_IE_INCORRECT", "/allowedNfTypes"),
        ({"allowedNfDomains": ["("]}, "OPTIONAL_IE_INCORRECT", "/"),
        ({"sNssais": [{"sst": 256}]}, "OPTIONAL_IE_INCORRECT", "/sNssais/0/sst"),
        ({"customInfo": "x"}, "OPTIONAL_IE_INCORRECT", "/customInfo"),
        ({"nfServices": {}}, "OPTIONAL_IE_INCORRECT", "/nfServices"),
        ({"nfServices": [{"serviceName": "x"}]}, "MANDATORY_IE_MISSING", "/nfServices/*/serviceInstanceId"),
        ({"nfServiceList": {"x": {}}}, "MANDATORY_IE_MISSING", "/nfServiceList/*/serviceInstanceId"),
        ({"nfServiceList": []}, "OPTIONAL_IE_INCORRECT", "/nfServiceList"),
    ],
    ids=str,
)
async def test_a_profile_with_one_wrong_attribute_is_refused_and_named(api, build, change, cause, param):
    document = {name: value for name, value in (build.profile(1) | change).items() if value is not None}
    response = await api.put(document, identity=build.uuid(1))
    assert response.status == 400
    said = response.json()
    assert said["cause"] == cause
    assert said["invalidParams"][0]["param"] == param
    assert (await api.get(1)).status == 404


@pytest.mark.parametrize(
    "change",
    [
        {"serviceName": None},
        {"versions": None},
        {"versions": []},
        {"versions": [{"apiVersionInUri": "v1"}]},
        {"scheme": None},
        {"scheme": "ftp"},
        {"nfServiceStatus": None},
        {"nfServiceStatus": "GONE"},
        {"selectionConditions": {"dnnList": 7}},
        {"selectionConditions": {"and": [{"taiRangeList": [{"plmnId": {}}]}]}},
        {"selectionConditions": {"supiRangeList": [{"pattern": "("}]}},
    ],
    ids=str,
)
async def test_a_service_with_one_wrong_attribute_is_refused(api, build, change):
    wrong = {name: value for name, value in build.service("nsmf-pdusession", **change).items() if value is not None}
    response = await api.put(build.profile(1, "SMF", wrong))
    assert response.status == 400
    assert response.json()["invalidParams"][0]["param"].startswith("/")


async def test_two_services_cannot_have_one_id_nor_another_key(api, build):
    one = build.service("nsmf-pdusession")
    assert (await api.put(build.profile(1, "SMF", one, one))).status == 400
    assert (await api.put(build.profile(1, nfServiceList={"other": one}))).status == 400


@pytest.mark.parametrize("name", ["not-a-uuid", "%2e%2e", "00000000-0000-4000-8000-00000000000"])
async def test_the_name_of_an_instance_is_a_uuid(api, build, name):
    assert (await api.put(build.profile(1), identity=name)).status == 400


async def test_the_name_of_an_instance_is_its_own(api, build):
    response = await api.put(build.profile(1), identity=build.uuid(2))
    assert (response.status, response.json()["cause"]) == (400, "MANDATORY_IE_INCORRECT")


async def test_the_case_of_a_uuid_does_not_make_another_instance(api, build):
    document = build.profile(0xABCDEF)
    await api.put(document)
    upper = document["nfInstanceId"].upper()
    assert (await api.put(document | {"nfInstanceId": upper}, identity=upper)).status == 200
    assert await api.found("SMF") == [0xABCDEF]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null"])
async def test_what_is_no_object_is_refused(nrf, build, body):
    path = f"/nnrf-nfm/v1/nf-instances/{build.uuid(1)}"
    response = await nrf.router(Request("PUT", path, headers={"content-type": "application/json"}, body=body))
    assert (response.status, response.json()["cause"]) == (400, "INVALID_MSG_FORMAT")


async def test_a_profile_is_sent_as_json(api, build):
    assert (await api.put(build.profile(1), content_type="text/plain")).status == 415
    assert (await api.put(build.profile(1), content_type="application/json; charset=utf-8")).status == 201


async def test_a_profile_has_a_bound(api, build):
    assert (await api.put(build.profile(1, customInfo={"x": "y" * 70_000}))).status == 413


async def test_the_registry_has_a_bound(api, build, monkeypatch):
    monkeypatch.setattr(store, "INSTANCES", 2)
    assert [(await api.put(build.profile(n))).status for n in (1, 2, 3)] == [201, 201, 500]
    assert (await api.put(build.profile(2, priority=1))).status == 200


async def test_a_profile_of_this_network_may_say_so(api, build):
    assert (await api.put(build.profile(1, plmnList=[{"mcc": "999", "mnc": "70"}]))).status == 201


async def test_an_snpns_registry_takes_nfs_of_the_snpn(make_nrf, build):
    api = build.api(make_nrf(network=build.snpn).router)
    assert (await api.put(build.profile(1, snpnList=[build.snpn.plmn_id()]))).status == 201
    assert (await api.put(build.profile(2, plmnList=[{"mcc": "999", "mnc": "71"}]))).status == 400


async def test_a_profile_that_has_not_changed_need_not_be_sent(api, build):
    etag = (await api.put(build.profile(1))).header("etag")
    assert (await api.get(1, if_none_match=etag)).status == 304
    assert (await api.get(1, if_none_match='"other"')).status == 200


async def test_what_is_not_registered_is_not_found(api, build):
    for response in (await api.get(1), await api.delete(1), await api.heartbeat(1)):
        assert (response.status, response.json()["cause"]) == (404, "NF_NOT_FOUND")


async def test_a_deregistered_instance_is_gone(api, build):
    await api.put(build.profile(1))
    assert (await api.delete(1)).status == 204
    assert (await api.get(1)).status == 404
    assert await api.found("SMF") == []
    assert (await api.put(build.profile(1))).status == 201


async def test_a_heartbeat_is_answered_with_204(api, build):
    etag = (await api.put(build.profile(1))).header("etag")
    response = await api.patch(
        1,
        {"op": "replace", "path": "/nfStatus", "value": "REGISTERED"},
    )
    assert (response.status, response.body) == (204, b"")
    assert (await api.get(1)).header("etag") == etag


async def test_a_heartbeat_may_report_a_load_that_was_not_there(api, build):
    await api.put(build.profile(1))
    beat = {"op": "replace", "path": "/nfStatus", "value": "REGISTERED"}
    assert (await api.patch(1, beat, {"op": "replace", "path": "/load", "value": 40})).status == 204
    assert (await api.get(1)).json()["load"] == 40


@pytest.mark.parametrize("path", ["/nfServices/0", "/nfServiceList/nsmf-pdusession-1"])
async def test_a_patch_of_one_form_of_a_service_changes_both(api, build, path):
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    change = {"op": "replace", "path": f"{path}/nfServiceStatus", "value": "UNDISCOVERABLE"}
    assert (await api.patch(1, change)).status == 204
    stored = (await api.get(1)).json()
    assert stored["nfServices"][0]["nfServiceStatus"] == "UNDISCOVERABLE"
    assert stored["nfServiceList"]["nsmf-pdusession-1"]["nfServiceStatus"] == "UNDISCOVERABLE"


async def test_services_are_added_and_removed_by_patches(api, build):
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    more = build.service("nsmf-event-exposure", 2)
    assert (await api.patch(1, {"op": "add", "path": "/nfServices/-", "value": more})).status == 204
    assert await api.found_services() == ["nsmf-pdusession-1", "nsmf-event-exposure-2"]
    assert (await api.patch(1, {"op": "remove", "path": "/nfServiceList/nsmf-pdusession-1"})).status == 204
    assert await api.found_services() == ["nsmf-event-exposure-2"]


async def test_a_patch_is_applied_whole_or_not_at_all(api, build):
    await api.put(build.profile(1))
    response = await api.patch(
        1,
        {"op": "add", "path": "/priority", "value": 1},
        {"op": "replace", "path": "/absent", "value": 1},
    )
    assert (response.status, response.json()["cause"]) == (409, "PATCH_CONFLICT")
    assert "priority" not in (await api.get(1)).json()


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"op": "test", "path": "/nfType", "value": "AMF"}, 409),
        ({"op": "remove", "path": "/a/b/c"}, 409),
        ({"op": "add", "path": "/ipv4Addresses/9", "value": "127.0.0.2"}, 409),
        ({"op": "add", "path": "/nfType/x", "value": 1}, 409),
        ({"op": "rename", "path": "/load"}, 400),
        ({"op": "add", "path": "/load"}, 400),
        ({"op": "add", "path": "load", "value": 1}, 400),
        ({"op": "add", "path": "/~9", "value": 1}, 400),
        ({"op": "move", "path": "/load"}, 400),
        ({"path": "/load", "value": 1}, 400),
        ({"op": "add", "path": 1, "value": 1}, 400),
        ({"op": "add", "path": "/load", "value": 1000}, 400),
        ({"op": "replace", "path": "/nfStatus", "value": "GONE"}, 400),
        ({"op": "remove", "path": "/ipv4Addresses"}, 400),
        ({"op": "replace", "path": "/nfType", "value": "AMF"}, 403),
        ({"op": "replace", "path": "/nfInstanceId", "value": "x"}, 403),
        ({"op": "remove", "path": "/nfType"}, 403),
        ({"op": "replace", "path": "", "value": {}}, 403),
        ({"op": "replace", "path": "", "value": 7}, 403),
        ({"op": "add", "path": "/customInfo", "value": {"x": "y" * 200_000}}, 413),
    ],
    ids=str,
)
async def test_a_patch_that_cannot_be_is_refused_and_changes_nothing(api, build, operation, status):
    before = (await api.put(build.profile(1))).json()
    response = await api.patch(1, operation)
    assert response.status == status
    assert response.header("content-type") == "application/problem+json"
    assert (await api.get(1)).json() == before


async def test_a_patch_cannot_grow_a_profile_by_copying(api, build):
    await api.put(build.profile(1, customInfo={}))
    response = await api.patch(1, *({"op": "copy", "from": "", "path": f"/customInfo/{n}"} for n in range(30)))
    assert response.status == 400


async def test_the_heartbeat_timer_is_the_nrfs(api, build):
    await api.put(build.profile(1, heartBeatTimer=3600))
    await api.patch(1, {"op": "replace", "path": "/heartBeatTimer", "value": 99999})
    assert (await api.get(1)).json()["heartBeatTimer"] == 10


async def test_a_patch_of_another_version_is_refused(api, build):
    etag = (await api.put(build.profile(1))).header("etag")
    beat = {"op": "add", "path": "/priority", "value": 1}
    assert (await api.patch(1, beat, if_match='"other"')).status == 412
    assert (await api.patch(1, beat, if_match=etag)).status == 204
    assert (await api.patch(1, beat, if_match=etag)).status == 412
    assert (await api.patch(1, beat, if_match=f'"other", {(await api.get(1)).header("etag")}')).status == 204
    assert (await api.patch(1, beat, if_match="*")).status == 204


async def test_a_patch_is_sent_as_json_patch_and_has_operations(nrf, api, build):
    await api.put(build.profile(1))
    path = f"/nnrf-nfm/v1/nf-instances/{build.uuid(1)}"
    merge = Request("PATCH", path, headers={"content-type": "application/merge-patch+json"}, body=b'{"load":1}')
    assert (await nrf.router(merge)).status == 415
    assert (await api.patch(1)).status == 400
    many = [{"op": "test", "path": "/nfType", "value": "SMF"}] * (management.PATCH_ITEMS + 1)
    assert (await api.patch(1, *many)).status == 400


async def test_instances_are_listed_by_type_and_in_pages(nrf, api, build):
    for n, nf_type in ((1, "SMF"), (2, "PCF"), (3, "SMF"), (4, "SMF")):
        await api.put(build.profile(n, nf_type))

    async def listed(query: str) -> list[int]:
        response = await nrf.router(Request("GET", "/nnrf-nfm/v1/nf-instances", query))
        assert response.header("content-type") == "application/3gppHal+json"
        links = json.loads(response.body)["_links"]
        return [int(one["href"][-12:], 16) for one in links.get("item", [])]

    assert await listed("") == [1, 2, 3, 4]
    assert await listed("nf-type=SMF") == [1, 3, 4]
    assert await listed("nf-type=UDM") == []
    assert await listed("limit=2") == [1, 2]
    assert await listed("page-size=3&page-number=2") == [4]
    assert (await nrf.router(Request("GET", "/nnrf-nfm/v1/nf-instances", "limit=0"))).status == 400
