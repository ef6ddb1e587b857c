import pytest

from outrider.sbi.http import Request

TAI = {"plmnId": {"mcc": "999", "mnc": "70"}, "tac": "0001"}
AREA = {"plmnId": {"mcc": "999", "mnc": "70"}, "tacRangeList": [{"start": "0000", "end": "00ff"}]}


async def test_instances_of_the_asked_type_are_found(api, build):
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession")))
    await api.put(build.profile(2, "PCF"))
    response = await api.search("SMF")
    assert response.status == 200
    (found,) = response.json()["nfInstances"]
    assert found["nfInstanceId"] == build.uuid(1)
    assert found["nfServices"] == [build.service("nsmf-pdusession")]
    assert found["nfServiceList"] == {"nsmf-pdusession-1": build.service("nsmf-pdusession")}


async def test_nothing_found_is_an_empty_result(api):
    result = (await api.search("UDM")).json()
    assert result["nfInstances"] == []
    assert result["validityPeriod"] > 0


@pytest.mark.parametrize(
    ("query", "cause", "param"),
    [
        ("requester-nf-type=AMF", "MANDATORY_QUERY_PARAM_MISSING", "query/target-nf-type"),
        ("target-nf-type=SMF", "MANDATORY_QUERY_PARAM_MISSING", "query/requester-nf-type"),
        ("target-nf-type=&requester-nf-type=AMF", "INVALID_QUERY_PARAM", "query/target-nf-type"),
        ("target-nf-type=SMF&target-nf-type=AMF&requester-nf-type=AMF", "INVALID_QUERY_PARAM", "query/target-nf-type"),
        ("target-nf-type=SMF&requester-nf-type=AMF&tai=x", "INVALID_QUERY_PARAM", "query/tai"),
        ("target-nf-type=SMF&requester-nf-type=AMF&tai={}", "INVALID_QUERY_PARAM", "query/tai"),
        ("target-nf-type=SMF&requester-nf-type=AMF&snssais={}", "INVALID_QUERY_PARAM", "query/snssais"),
        ("target-nf-type=SMF&requester-nf-type=AMF&limit=0", "INVALID_QUERY_PARAM", "query/limit"),
        ("target-nf-type=SMF&requester-nf-type=AMF&limit=x", "INVALID_QUERY_PARAM", "query/limit"),
        ("target-nf-type=SMF&requester-nf-type=AMF&service-names=a,,b", "INVALID_QUERY_PARAM", "query/service-names"),
        (
            "target-nf-type=SMF&requester-nf-type=AMF&target-nf-instance-id=7",
            "INVALID_QUERY_PARAM",
            "query/target-nf-instance-id",
        ),
        (
            "target-nf-type=SMF&requester-nf-type=AMF&target-plmn-list=[{}]",
            "INVALID_QUERY_PARAM",
            "query/target-plmn-list",
        ),
    ],
)
async def test_a_query_with_one_wrong_parameter_is_refused_and_named(nrf, query, cause, param):
    response = await nrf.router(Request("GET", "/nnrf-disc/v1/nf-instances", query))
    assert response.status == 400
    assert response.json()["cause"] == cause
    assert response.json()["invalidParams"][0]["param"] == param


async def test_an_unknown_parameter_is_ignored(api, build):
    await api.put(build.profile(1))
    assert await api.found(future_parameter="x") == [1]


async def test_only_the_named_services_are_shown(api, build):
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession"), build.service("nsmf-event-exposure", 2)))
    await api.put(build.profile(2, "SMF", build.service("nsmf-nidd")))
    assert await api.found(service_names="nsmf-event-exposure") == [1]
    assert await api.found_services(service_names="nsmf-event-exposure") == ["nsmf-event-exposure-2"]
    assert await api.found(service_names="nsmf-event-exposure,nsmf-nidd") == [1, 2]
    assert await api.found(service_names="nsmf-other") == []


async def test_an_instance_is_found_by_its_id_and_left_out_by_its_id(api, build):
    for n in (1, 2, 3):
        await api.put(build.profile(n))
    assert await api.found(target_nf_instance_id=build.uuid(2)) == [2]
    assert await api.found(target_nf_instance_id_list=f"{build.uuid(1)},{build.uuid(3)}") == [1, 3]
    assert await api.found(exclude_nfinst_list=f"{build.uuid(1)},{build.uuid(2)}") == [3]
    assert await api.found("AMF", target_nf_instance_id=build.uuid(2)) == []


@pytest.mark.parametrize("status", ["SUSPENDED", "UNDISCOVERABLE"])
async def test_a_hidden_instance_is_in_no_result_also_when_named(api, build, status):
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession"), nfStatus=status))
    assert await api.found() == []
    assert await api.found(service_names="nsmf-pdusession") == []
    named = (await api.search(target_nf_instance_id=build.uuid(1))).json()
    assert named["nfInstances"] == []
    assert named["noProfileMatchInfo"] == {"reason": f"TARGET_NF_{status}"}


@pytest.mark.parametrize("status", ["SUSPENDED", "UNDISCOVERABLE"])
async def test_a_hidden_service_is_in_no_result(api, build, status):
    hidden = build.service("nsmf-event-exposure", 2, nfServiceStatus=status)
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession"), hidden))
    assert await api.found_services() == ["nsmf-pdusession-1"]
    assert await api.found(service_names="nsmf-event-exposure") == []
    await api.put(build.profile(2, "SMF", hidden))
    assert await api.found() == [1]


CANARY = [
    ({"taiRangeList": [AREA]}, {"tai": TAI}, True),
    ({"taiRangeList": [AREA]}, {"tai": TAI | {"tac": "0100"}}, False),
    ({"taiRangeList": [AREA]}, {"tai": TAI | {"plmnId": {"mcc": "999", "mnc": "71"}}}, False),
    ({"taiRangeList": [AREA]}, {}, False),
    ({"taiRangeList": [AREA]}, {"tai_list": [TAI, TAI | {"tac": "0002"}]}, True),
    ({"taiRangeList": [AREA]}, {"tai_list": [TAI, TAI | {"tac": "0100"}]}, False),
    ({"taiRangeList": [AREA | {"nid": "0123456789a"}]}, {"tai": TAI}, False),
    ({"taiRangeList": [AREA | {"nid": "0123456789a"}]}, {"tai": TAI | {"nid": "0123456789A"}}, True),
    ({"taiRangeList": [AREA | {"tacRangeList": [{"pattern": "^00.*"}]}]}, {"tai": TAI}, True),
    ({"taiList": [TAI]}, {"tai": TAI}, True),
    ({"taiList": [TAI]}, {"tai": TAI | {"tac": "0002"}}, False),
    ({"dnnList": ["train", "Tram"]}, {"dnn": "tram"}, True),
    ({"dnnList": ["train"]}, {"dnn": "internet"}, False),
    ({"dnnList": ["train"]}, {}, False),
    ({"consumerNfTypes": ["AMF"]}, {}, True),
    ({"consumerNfTypes": ["AF"]}, {}, False),
    (
        {"supiRangeList": [{"start": "999700000000001", "end": "999700000000009"}]},
        {"supi": "imsi-999700000000005"},
        True,
    ),
    (
        {"supiRangeList": [{"start": "999700000000001", "end": "999700000000009"}]},
        {"supi": "imsi-999700000000010"},
        False,
    ),
    ({"supiRangeList": [{"start": "999700000000001", "end": "999700000000009"}]}, {"supi": "nai-u@x"}, False),
    ({"supiRangeList": [{"pattern": "^imsi-99970.*"}]}, {"supi": "imsi-999700000000005"}, True),
    ({"supiRangeList": [{"pattern": "^imsi-99970.*"}]}, {}, False),
    ({"gpsiRangeList": [{"start": "100", "end": "200"}]}, {"gpsi": "msisdn-150"}, True),
    ({"and": [{"dnnList": ["train"]}, {"taiRangeList": [AREA]}]}, {"dnn": "train", "tai": TAI}, True),
    ({"and": [{"dnnList": ["train"]}, {"taiRangeList": [AREA]}]}, {"dnn": "train"}, False),
    ({"or": [{"dnnList": ["train"]}, {"taiRangeList": [AREA]}]}, {"tai": TAI}, True),
    ({"or": [{"and": [{"dnnList": ["x"]}]}, {"or": [{"dnnList": ["train"]}]}]}, {"dnn": "train"}, True),
    ({"or": [{"dnnList": ["train"]}]}, {}, False),
    ({"dnnList": ["train"], "taiRangeList": [AREA]}, {"dnn": "train"}, False),
    ({"dnnList": ["train"], "serviceFeature": 3}, {"dnn": "train"}, False),
    ({"dnnList": ["train"], "futureCondition": 3}, {"dnn": "train"}, False),
    ({}, {}, True),
    (None, {"dnn": "train", "tai": TAI}, False),
]


@pytest.mark.parametrize(("conditions", "params", "shown"), CANARY, ids=str)
async def test_a_canary_service_is_shown_where_its_conditions_hold(api, build, conditions, params, shown):
    canary = {"nfServiceStatus": "CANARY_RELEASE"} | (
        {"selectionConditions": conditions} if conditions is not None else {}
    )
    await api.put(build.profile(1, "SMF", build.service("nsmf-groupsession", **canary)))
    assert await api.found(service_names="nsmf-groupsession", **params) == ([1] if shown else [])


@pytest.mark.parametrize(("conditions", "params", "shown"), [CANARY[0], CANARY[3]], ids=str)
async def test_a_canary_instance_is_shown_where_its_conditions_hold(api, build, conditions, params, shown):
    for n, mark in ((1, {"nfStatus": "CANARY_RELEASE"}), (2, {"canaryRelease": True})):
        await api.put(
            build.profile(n, "SMF", build.service("nsmf-groupsession"), selectionConditions=conditions, **mark)
        )
    assert await api.found(**params) == ([1, 2] if shown else [])


async def test_a_canary_service_carries_its_conditions(api, build):
    conditions = {"dnnList": ["train"]}
    marked = build.service("nsmf-groupsession", nfServiceStatus="CANARY_RELEASE", selectionConditions=conditions)
    await api.put(build.profile(1, "SMF", marked))
    (found,) = (await api.search(dnn="train")).json()["nfInstances"]
    assert found["nfServices"][0]["selectionConditions"] == conditions


async def test_a_basic_consumer_is_never_given_a_migrated_instance(api, build):
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession"), priority=9))
    await api.put(
        build.profile(2, "SMF", build.service("nsmf-groupsession"), priority=1, customInfo={"lms": {"home": "999-71"}})
    )
    assert await api.found("SMF", "AMF") == [1]
    assert await api.found("SMF", "AMF", dnn="internet", preferred_locality="x") == [1]
    assert await api.found("SMF", "AMF", service_names="nsmf-pdusession") == [1]
    assert await api.found("SMF", "AF", service_names="nsmf-groupsession") == [2]
    assert await api.found("SMF", "AF", target_nf_instance_id=build.uuid(2)) == [2]


ALLOWED = [
    ({}, {}, True),
    ({"allowedNfTypes": ["AMF", "AF"]}, {}, True),
    ({"allowedNfTypes": ["AF"]}, {}, False),
    ({"allowedNfDomains": [r".*\.example\.org"]}, {"requester_nf_instance_fqdn": "amf.example.org"}, True),
    ({"allowedNfDomains": [r".*\.example\.org"]}, {"requester_nf_instance_fqdn": "amf.example.org.evil.net"}, False),
    ({"allowedNfDomains": [r".*\.example\.org"]}, {}, False),
    ({"allowedPlmns": [{"mcc": "999", "mnc": "72"}]}, {}, True),
    ({"allowedPlmns": [{"mcc": "999", "mnc": "72"}]}, {"requester_plmn_list": [{"mcc": "999", "mnc": "70"}]}, True),
    ({"allowedPlmns": [{"mcc": "999", "mnc": "72"}]}, {"requester_plmn_list": [{"mcc": "999", "mnc": "72"}]}, True),
    ({"allowedPlmns": [{"mcc": "999", "mnc": "72"}]}, {"requester_plmn_list": [{"mcc": "999", "mnc": "73"}]}, False),
    ({}, {"requester_plmn_list": [{"mcc": "999", "mnc": "73"}]}, True),
    ({}, {"requester_snpn_list": [{"mcc": "999", "mnc": "71", "nid": "0123456789a"}]}, False),
    (
        {"allowedSnpns": [{"mcc": "999", "mnc": "71", "nid": "0123456789A"}]},
        {"requester_snpn_list": [{"mcc": "999", "mnc": "71", "nid": "0123456789a"}]},
        True,
    ),
    (
        {"allowedSnpns": [{"mcc": "999", "mnc": "71", "nid": "0123456789b"}]},
        {"requester_snpn_list": [{"mcc": "999", "mnc": "71", "nid": "0123456789a"}]},
        False,
    ),
    ({"allowedNssais": [{"sst": 1}]}, {"requester_snssais": [{"sst": 2}]}, False),
    ({"allowedNssais": [{"sst": 1}]}, {"requester_snssais": [{"sst": 2}, {"sst": 1}]}, True),
]


@pytest.mark.parametrize(("access", "params", "allowed"), ALLOWED, ids=str)
@pytest.mark.parametrize("level", ["profile", "service", "empty"])
async def test_only_who_is_allowed_is_shown(api, build, level, access, params, allowed):
    if level == "service":
        document = build.profile(1, "SMF", build.service("nsmf-pdusession", **access))
    elif level == "profile":
        document = build.profile(1, "SMF", build.service("nsmf-pdusession"), **access)
    else:
        document = build.profile(1, "SMF", **access)
    assert (await api.put(document)).status == 201
    assert await api.found(**params) == ([1] if allowed else [])


async def test_what_a_service_says_counts_before_what_its_nf_says(api, build):
    open_to_af = build.service("nsmf-groupsession", 1, allowedNfTypes=["AF"])
    inherits = build.service("nsmf-pdusession", 2)
    await api.put(build.profile(1, "SMF", open_to_af, inherits, allowedNfTypes=["AMF"]))
    assert await api.found_services("SMF", "AF") == ["nsmf-groupsession-1"]
    assert await api.found_services("SMF", "AMF") == ["nsmf-pdusession-2"]
    assert await api.found("SMF", "UDM") == []


async def test_a_result_does_not_tell_who_is_allowed_what(api, build):
    access = {"allowedNfTypes": ["AMF"], "allowedPlmns": [{"mcc": "999", "mnc": "70"}]}
    await api.put(build.profile(1, "SMF", build.service("nsmf-pdusession", **access), **access))
    response = await api.search()
    assert b"allowed" not in response.body
    assert b"heartBeatTimer" not in response.body


async def test_slices_are_matched_with_ranges_and_wildcards(api, build):
    await api.put(build.profile(1, sNssais=[{"sst": 1}]))
    await api.put(build.profile(2, sNssais=[{"sst": 1, "sd": "00000A"}]))
    await api.put(
        build.profile(3, sNssais=[{"sst": 1, "sd": "000010", "sdRanges": [{"start": "000010", "end": "00001f"}]}])
    )
    await api.put(build.profile(4, sNssais=[{"sst": 2, "sd": "000000", "wildcardSd": True}]))
    await api.put(build.profile(5))
    assert await api.found(snssais=[{"sst": 1}]) == [1, 5]
    assert await api.found(snssais=[{"sst": 1, "sd": "00000a"}]) == [2, 5]
    assert await api.found(snssais=[{"sst": 1, "sd": "000015"}]) == [3, 5]
    assert await api.found(snssais=[{"sst": 2, "sd": "abcdef"}, {"sst": 1}]) == [1, 4, 5]


async def test_a_service_of_another_slice_is_not_shown(api, build):
    one, two = (
        build.service("nsmf-pdusession", 1, sNssais=[{"sst": 1}]),
        build.service("nsmf-pdusession", 2, sNssais=[{"sst": 2}]),
    )
    await api.put(build.profile(1, "SMF", one, two))
    assert await api.found_services(snssais=[{"sst": 2}]) == ["nsmf-pdusession-2"]


@pytest.mark.parametrize(
    ("nf_type", "attributes", "params", "found"),
    [
        ("SMF", {"smfInfo": {"sNssaiSmfInfoList": [{"dnnSmfInfoList": [{"dnn": "train"}]}]}}, {"dnn": "train"}, True),
        ("SMF", {"smfInfo": {"sNssaiSmfInfoList": [{"dnnSmfInfoList": [{"dnn": "train"}]}]}}, {"dnn": "ims"}, False),
        ("SMF", {"smfInfo": {"sNssaiSmfInfoList": [{"dnnSmfInfoList": [{"dnn": "*"}]}]}}, {"dnn": "ims"}, True),
        ("SMF", {"smfInfo": {"taiList": [TAI]}}, {"tai": TAI}, True),
        ("SMF", {"smfInfo": {"taiRangeList": [AREA]}}, {"tai": TAI | {"tac": "0100"}}, False),
        (
            "SMF",
            {"smfInfoList": {"1": {"taiList": [TAI]}, "2": {"taiRangeList": [AREA]}}},
            {"tai": TAI | {"tac": "0003"}},
            True,
        ),
        ("SMF", {"smfInfo": {"taiList": "broken"}}, {"tai": TAI}, False),
        ("AMF", {"amfInfo": {"taiList": [TAI]}}, {"tai": TAI | {"tac": "0002"}}, False),
        ("PCF", {"pcfInfo": {"dnnList": ["train"]}}, {"dnn": "ims"}, False),
        ("PCF", {"pcfInfo": {"supiRanges": [{"start": "100", "end": "200"}]}}, {"supi": "imsi-300"}, False),
        ("UDM", {"udmInfo": {"supiRanges": [{"start": "100", "end": "200"}]}}, {"supi": "imsi-150"}, True),
        ("CHF", {"chfInfo": {"supiRangeList": [{"pattern": "^imsi-1"}]}}, {"supi": "imsi-2"}, False),
        ("UDM", {"udmInfo": {"gpsiRanges": [{"start": "100", "end": "200"}]}}, {"gpsi": "msisdn-300"}, False),
        ("SMF", {}, {"dnn": "any", "tai": TAI, "supi": "imsi-1"}, True),
    ],
    ids=str,
)
async def test_an_nf_is_found_for_the_ues_and_areas_that_it_serves(api, build, nf_type, attributes, params, found):
    await api.put(build.profile(1, nf_type, **attributes))
    assert await api.found(nf_type, **params) == ([1] if found else [])


async def test_a_network_is_asked_for_among_several(api, build):
    await api.put(build.profile(1))
    await api.put(build.profile(2, plmnList=[{"mcc": "999", "mnc": "70"}, {"mcc": "999", "mnc": "88"}]))
    assert await api.found(target_plmn_list=[{"mcc": "999", "mnc": "70"}, {"mcc": "001", "mnc": "01"}]) == [1, 2]


async def test_the_best_come_first_and_only_so_many(api, build):
    await api.put(build.profile(1, priority=5))
    await api.put(build.profile(2, priority=1))
    await api.put(build.profile(3))
    await api.put(build.profile(4, priority=9, locality="east"))
    assert await api.found() == [2, 1, 4, 3]
    assert await api.found(limit="2") == [2, 1]
    assert await api.found(preferred_locality="east") == [4, 2, 1, 3]
    result = (await api.search(preferred_locality="east")).json()
    assert result["preferredSearch"] == {"preferredLocalityMatchInd": True, "otherLocalityInd": True}
    only = (await api.search(preferred_locality="east", limit="1")).json()
    assert only["preferredSearch"] == {"preferredLocalityMatchInd": True, "otherLocalityInd": False}


async def test_a_result_may_be_kept_for_a_short_time_only(api, build):
    await api.put(build.profile(1))
    response = await api.search()
    validity_s = response.json()["validityPeriod"]
    assert response.header("cache-control") == f"max-age={validity_s}"
    assert validity_s <= 5


async def test_an_unchanged_result_need_not_be_sent(api, build):
    await api.put(build.profile(1))
    etag = (await api.search()).header("etag")
    same = await api.search(headers={"if-none-match": f'"x", {etag}'})
    assert (same.status, same.body, same.header("etag")) == (304, b"", etag)
    await api.heartbeat(1)
    assert (await api.search(headers={"if-none-match": etag})).status == 304
    await api.put(build.profile(2))
    assert (await api.search(headers={"if-none-match": etag})).status == 200


async def test_an_answer_shows_nothing_between_two_states_of_a_service(api, build):
    """What a cut-over does: hidden at the one, shown at the other, each with one patch."""
    for n, status in ((1, "REGISTERED"), (2, "UNDISCOVERABLE")):
        await api.put(
            build.profile(n, "SMF", build.service("nsmf-groupsession", nfServiceStatus=status), customInfo={"lms": {}})
        )
    assert await api.found(service_names="nsmf-groupsession") == [1]
    status = "/nfServices/0/nfServiceStatus"
    await api.patch(2, {"op": "replace", "path": status, "value": "REGISTERED"})
    assert await api.found(service_names="nsmf-groupsession") == [1, 2]
    await api.patch(1, {"op": "replace", "path": status, "value": "UNDISCOVERABLE"})
    assert await api.found(service_names="nsmf-groupsession") == [2]


@pytest.mark.parametrize(("depth", "status"), [(10, 201), (40, 400), (400, 400)])
async def test_a_profile_is_nested_only_so_deeply(api, build, depth, status):
    nested: object = {"dnnList": ["x"]}
    for _ in range(depth):
        nested = {"and": [nested]}
    canary = build.service("a", nfServiceStatus="CANARY_RELEASE", selectionConditions=nested)
    assert (await api.put(build.profile(1, "SMF", canary))).status == status
    assert await api.found(dnn="x") == ([1] if status == 201 else [])


async def test_a_body_nested_without_end_is_refused(nrf, build):
    path = f"/nnrf-nfm/v1/nf-instances/{build.uuid(1)}"
    body = b"[" * 20_000
    response = await nrf.router(Request("PUT", path, headers={"content-type": "application/json"}, body=body))
    assert response.status == 400
