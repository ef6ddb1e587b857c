import pytest

from outrider.core.refusal import Refusal
from outrider.sbi.http import Response
from outrider.sbi.problem import (
    SCOPE_INSUFFICIENT,
    TOKEN_INVALID,
    TOKEN_MISSING,
    json_response,
    problem,
    refusal_from,
    refusal_response,
)


def test_a_problem_has_every_member_that_was_given():
    response = problem(
        400,
        "MANDATORY_IE_MISSING",
        "The profile is incomplete.",
        title="Bad profile",
        invalid_params=[("/nfType", "missing")],
        headers=[("retry-after", "1")],
        supportedFeatures="1",
    )
    assert response.header("content-type") == "application/problem+json"
    assert response.header("retry-after") == "1"
    assert response.json() == {
        "title": "Bad profile",
        "status": 400,
        "cause": "MANDATORY_IE_MISSING",
        "detail": "The profile is incomplete.",
        "invalidParams": [{"param": "/nfType", "reason": "missing"}],
        "supportedFeatures": "1",
    }


def test_a_problem_says_no_more_than_it_was_given():
    assert problem(404, "NF_NOT_FOUND").json() == {"title": "Not Found", "status": 404, "cause": "NF_NOT_FOUND"}


def test_json_carries_its_type_and_further_headers():
    response = json_response(201, {"a": 1}, [("location", "/x")])
    assert (response.status, response.json()) == (201, {"a": 1})
    assert response.header("content-type") == "application/json"
    assert response.header("location") == "/x"


@pytest.mark.parametrize(
    ("code", "status", "challenge"),
    [
        (TOKEN_MISSING, 401, 'Bearer realm="outrider"'),
        (TOKEN_INVALID, 401, 'Bearer realm="outrider", error="invalid_token"'),
        (SCOPE_INSUFFICIENT, 403, 'Bearer realm="outrider", error="insufficient_scope"'),
        ("POLICY", 403, None),
    ],
)
def test_a_refused_token_is_challenged(code, status, challenge):
    response = refusal_response(Refusal(code, "No.", status=status))
    assert response.status == status
    assert response.header("www-authenticate") == challenge


def test_a_refusal_comes_back_as_it_went():
    refusal = Refusal("NO_ROOM", "There is no room.", {"free": "0"}, "Come later.", 409)
    assert refusal_from(refusal_response(refusal), "Something else.") == refusal


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (b"", "HTTP_502", "It failed."),
        (b"<html>", "HTTP_502", "It failed."),
        (b'{"cause": 1}', "HTTP_502", "It failed."),
        (b'{"title": "Bad Gateway"}', "HTTP_502", "Bad Gateway"),
        (b'{"error": "invalid_scope", "error_description": "No such scope."}', "INVALID_SCOPE", "No such scope."),
    ],
)
def test_a_peer_that_says_little_is_still_a_refusal(body, code, sentence):
    assert refusal_from(Response(502, body=body), "It failed.") == Refusal(code, sentence, status=502)
