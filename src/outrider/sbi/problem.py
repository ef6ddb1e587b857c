"""ProblemDetails (RFC 9457, TS 29.571) and JSON answers: the only place where a "no" becomes HTTP."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from outrider.core.refusal import Refusal
from outrider.sbi.http import Response

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

TOKEN_MISSING = "TOKEN_MISSING"
TOKEN_INVALID = "TOKEN_INVALID"
SCOPE_INSUFFICIENT = "SCOPE_INSUFFICIENT"

# RFC 6750 §3.1: a request without a token is told no error code; the others are told which of the two it is.
_CHALLENGES = {
    TOKEN_MISSING: 'Bearer realm="outrider"',
    TOKEN_INVALID: 'Bearer realm="outrider", error="invalid_token"',
    SCOPE_INSUFFICIENT: 'Bearer realm="outrider", error="insufficient_scope"',
}

_encoder = msgspec.json.Encoder()
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def json_response(status: int, value: object, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """An answer with a JSON body."""
    return Response(status, [("content-type", JSON), *headers], _encoder.encode(value))


def problem(
    status: int,
    cause: str,
    detail: str = "",
    *,
    title: str = "",
    invalid_params: Sequence[tuple[str, str]] = (),
    headers: Sequence[tuple[str, str]] = (),
    **extra: object,
) -> Response:
    """A ProblemDetails answer; `cause` is the protocol or application error of TS 29.500 §5.2.7.

    `invalid_params` are pairs of a parameter and the reason; `extra` are further members, named as on the wire.
    """
    if title:
        extra["title"] = title
    if invalid_params:
        extra["invalidParams"] = [{"param": param, "reason": reason} for param, reason in invalid_params]
    return _problem(status, cause, detail, extra, headers)


def refusal_response(refusal: Refusal, *others: Refusal) -> Response:
    """A refusal as ProblemDetails, with the challenge that a refused token needs.

    Where there are several reasons, the first is the problem's cause, and all of them stand in `refusals`.
    """
    challenge = _CHALLENGES.get(refusal.code)
    extra: dict[str, object] = {}
    if refusal.facts:
        extra["facts"] = refusal.facts
    if refusal.remedy:
        extra["remedy"] = refusal.remedy
    if others:
        extra["refusals"] = [refusal, *others]
    headers = [("www-authenticate", challenge)] if challenge else []
    return _problem(refusal.status, refusal.code, refusal.sentence, extra, headers)


def _problem(
    status: int, cause: str, detail: str, extra: Mapping[str, object], headers: Sequence[tuple[str, str]]
) -> Response:
    body: dict[str, object] = {"title": _PHRASES.get(status, "Error"), "status": status, "cause": cause}
    if detail:
        body["detail"] = detail
    return Response(status, [("content-type", PROBLEM_JSON), *headers], _encoder.encode(body | dict(extra)))


class _Problem(msgspec.Struct):
    cause: str = ""
    detail: str = ""
    title: str = ""
    facts: dict[str, str] = {}
    remedy: str = ""
    error: str = ""
    """`AccessTokenErr` of TS 29.510, which token endpoints send in place of ProblemDetails."""
    error_description: str = ""
    refusals: list[Refusal] = []
    """Every reason, where there are several."""


_problem_decoder = msgspec.json.Decoder(_Problem)


def refusals_from(response: Response, otherwise: str) -> list[Refusal]:
    """Every reason that a peer's error answer gives, the one that it is about first."""
    first = refusal_from(response, otherwise)
    try:
        return _problem_decoder.decode(response.body).refusals or [first]
    except msgspec.DecodeError:
        return [first]


def refusal_from(response: Response, otherwise: str) -> Refusal:
    """The refusal that a peer's error answer carries; a peer that says nothing useful gets the sentence `otherwise`."""
    try:
        said = _problem_decoder.decode(response.body)
    except msgspec.DecodeError:
        said = _Problem()
    return Refusal(
        code=said.cause or said.error.upper() or f"HTTP_{response.status}",
        sentence=said.detail or said.error_description or said.title or otherwise,
        facts=said.facts,
        remedy=said.remedy,
        status=response.status,
    )
