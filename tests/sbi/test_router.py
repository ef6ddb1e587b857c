import msgspec
import pytest
from structlog.testing import capture_logs

from outrider.core.refusal import Refusal, Refused
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response
from outrider.sbi.router import Router, guarded


async def params(request: Request) -> Response:
    return json_response(200, request.params)


async def path(request: Request) -> Response:
    return json_response(200, request.path)


def raising(error: Exception):
    async def handler(request: Request) -> Response:
        raise error

    return handler


@pytest.fixture
def router() -> Router:
    made = Router()
    made.add("GET", "/n/v1/things", params)
    made.add("GET", "/n/v1/things/{thingId}", params)
    made.add("PUT", "/n/v1/things/{thingId}", params)
    made.add("GET", "/n/v1/things/{thingId}/parts/{partId}", params)
    made.add("GET", "/n/v1/things/all", path)
    return made


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ("/n/v1/things", {}),
        ("/n/v1/things/7", {"thingId": "7"}),
        ("/n/v1/things/a%20b%2525", {"thingId": "a b%25"}),
        ("/n/v1/things/7/parts/8", {"thingId": "7", "partId": "8"}),
        ("/n/v1/things/all", "/n/v1/things/all"),
    ],
)
async def test_a_template_finds_its_handler(router, requested, expected):
    assert (await router(Request("GET", requested))).json() == expected


@pytest.mark.parametrize(
    "requested", ["/", "/n/v1", "/n/v1/things/", "/n/v1/things/7/parts", "/n/v2/things", "/n/v1/things/7/"]
)
async def test_a_path_without_a_template_is_not_found(router, requested):
    response = await router(Request("GET", requested))
    assert response.status == 404
    assert response.json()["cause"] == "RESOURCE_URI_STRUCTURE_NOT_FOUND"


async def test_another_method_is_told_which_are_allowed(router):
    response = await router(Request("DELETE", "/n/v1/things/7"))
    assert response.status == 405
    assert response.header("allow") == "GET, PUT"


async def test_a_mounted_handler_gets_what_no_template_fits(router):
    router.mount("/other", path)
    router.mount("/n/v1", path)
    assert (await router(Request("GET", "/other/deep/er"))).json() == "/other/deep/er"
    assert (await router(Request("GET", "/other"))).json() == "/other"
    assert (await router(Request("GET", "/n/v1/else"))).json() == "/n/v1/else"
    assert (await router(Request("GET", "/n/v1/things/7"))).json() == {"thingId": "7"}
    assert (await router(Request("GET", "/others"))).status == 404


async def test_a_refusal_is_answered_with_its_own_code():
    router = Router()
    refusal = Refusal("NF_TYPE_ABSENT", "There is no SMF here.", {"nfType": "SMF"}, "Add one.", 409)
    router.add("GET", "/x", raising(Refused(refusal)))
    response = await router(Request("GET", "/x"))
    assert response.status == 409
    assert response.json() == {
        "title": "Conflict",
        "status": 409,
        "cause": "NF_TYPE_ABSENT",
        "detail": "There is no SMF here.",
        "facts": {"nfType": "SMF"},
        "remedy": "Add one.",
    }


async def test_a_body_that_cannot_be_read_is_the_senders_mistake():
    class Body(msgspec.Struct):
        n: int

    async def typed(request: Request) -> Response:
        msgspec.json.decode(request.body, type=Body)
        return Response(204)

    router = Router()
    router.add("POST", "/x", typed)
    for body in (b"{", b'{"n":"one"}', b"\xff", b""):
        response = await router(Request("POST", "/x", body=body))
        assert (response.status, response.json()["cause"]) == (400, "INVALID_MSG_FORMAT")


async def test_the_log_of_a_bug_names_the_api_and_no_ue():
    router = Router()
    router.add("GET", "/namf-basic/v1/registrations/{supi}", raising(RuntimeError("a bug")))
    with capture_logs() as lines:
        await guarded(router, Request("GET", "/namf-basic/v1/registrations/imsi-999700000000001", "", {}, b""))
    assert [(line["api"], "imsi" in str(line)) for line in lines] == [("/namf-basic/v1", False)]


async def test_a_bug_is_a_500_that_gives_nothing_away():
    router = Router()
    router.add("GET", "/x", raising(RuntimeError("inner detail")))
    response = await router(Request("GET", "/x"))
    assert (response.status, response.json()["cause"]) == (500, "UNSPECIFIED_NF_FAILURE")
    assert b"inner detail" not in response.body


@pytest.mark.parametrize("not_sent", [True, False])
async def test_an_unreachable_peer_is_a_504(not_sent):
    router = Router()
    router.add("GET", "/x", raising(Unreachable("no answer", not_sent=not_sent)))
    response = await router(Request("GET", "/x"))
    assert (response.status, response.json()["cause"]) == (504, "TARGET_NF_NOT_REACHABLE")


def test_two_handlers_for_one_route_are_a_mistake(router):
    with pytest.raises(ValueError, match="twice"):
        router.add("GET", "/n/v1/things", params)
    with pytest.raises(ValueError, match="calls this segment"):
        router.add("GET", "/n/v1/things/{other}/x", params)
    router.mount("/m", params)
    with pytest.raises(ValueError, match="twice"):
        router.mount("/m", params)
