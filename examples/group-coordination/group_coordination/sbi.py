"""What the three NF services share: bodies in, JSON and ProblemDetails out, as TS 29.500 and TS 29.571 write them."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import outrider.sdk as sdk

T = TypeVar("T")

Supi = Annotated[str, msgspec.Meta(pattern=r"^(imsi-[0-9]{5,15}|nai-[^@]+@[^@]+|gci-.+|gli-.+)$", max_length=255)]
"""A SUPI as TS 29.571 writes it. It comes with a request and goes with it: no record holds one."""

GroupId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Area = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

_MISSING = re.compile(r"missing required field `([^`]+)`")
_AT = re.compile(r" - at `\$\.?([^`]*)`$")


class Problem(Exception):
    """An answer that is not a success. Whatever the unit wrote before is discarded with it."""

    def __init__(
        self, status: int, cause: str, detail: str, *, param: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        body: dict[str, Any] = {"status": status, "cause": cause, "detail": detail}
        if param:
            body["invalidParams"] = [{"param": param, "reason": detail}]
        self.response = Response(msgspec.json.encode(body), status, headers, "application/problem+json")


async def sibling(nf: str, method: str, path: str, json: object = None) -> Any:
    """Ask a sibling NF service inside this unit. What it refuses, the whole request is refused for."""
    reply = await sdk.unit().call(nf, method, path, json=json)
    if not reply.ok:
        raise Relayed(reply)
    return reply.json() if reply.body else None


class Relayed(Problem):
    """A sibling's refusal, passed on as it is."""

    def __init__(self, reply: sdk.Reply) -> None:
        Exception.__init__(self, f"a sibling answered {reply.status}")
        self.response = Response(reply.body, reply.status, dict(reply.headers))


def answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


async def body_of(request: Request, type: type[T]) -> T:
    """The request's body as `type`; a `Problem` 400 that names the attribute if it does not fit."""
    try:
        return msgspec.json.decode(await request.body(), type=type)
    except msgspec.ValidationError as e:
        raise _does_not_fit(str(e)) from None
    except msgspec.DecodeError as e:
        raise Problem(400, "INVALID_MSG_FORMAT", f"The body is not JSON: {e}.") from None


def _does_not_fit(text: str) -> Problem:
    place = _AT.search(text)
    pointer = ("/" + place.group(1).replace(".", "/")) if place and place.group(1) else ""
    if missing := _MISSING.search(text):
        return Problem(400, "MANDATORY_IE_MISSING", text, param=f"{pointer}/{missing.group(1)}")
    return Problem(400, "MANDATORY_IE_INCORRECT", text, param=pointer or "/")


def served_by() -> dict[str, Any]:
    """Which network and NF instance answers: the only part of an answer that a relocation changes."""
    serving = sdk.unit().serving
    nid = {"nid": serving.nid} if serving.nid else {}
    return {"plmnId": serving.plmn_id, **nid, "nfInstanceId": serving.nf_instance_id}


Handler = Callable[[Request], Awaitable[Response]]


def service(routes: Mapping[str, Mapping[str, Handler]]) -> Starlette:
    """An ASGI application of handlers by path and method, whose every refusal is a ProblemDetails."""

    async def refused(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, Problem)
        return problem.response

    async def not_here(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        cause = {404: "RESOURCE_URI_STRUCTURE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "")
        detail = f"{request.method} is not defined here."
        return Problem(error.status_code, cause or "INVALID_API", detail, headers=error.headers).response

    return Starlette(
        routes=[Route(path, _by_method(handlers), methods=list(handlers)) for path, handlers in routes.items()],
        exception_handlers={Problem: refused, HTTPException: not_here},
    )


def _by_method(handlers: Mapping[str, Handler]) -> Handler:
    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle
