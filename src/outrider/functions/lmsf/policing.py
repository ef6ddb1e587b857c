"""The API for the own network's policy: which one counts, what it has decided, and what humans have to decide."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.engine import Lmsf
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import json_response

_POLICY = "/nlmsf-policy/v1"
_LIMIT = 100
"""Decisions in one answer: each has all its facts."""


def routes(lmsf: Lmsf, add: Callable[[str, str, Handler], None]) -> None:
    """Add everything that the own network may ask about its policy."""
    api = Policing(lmsf)
    add("GET", f"{_POLICY}/policy", api.policy)
    add("POST", f"{_POLICY}/apply", api.apply)
    add("GET", f"{_POLICY}/decisions", api.decisions)
    add("GET", f"{_POLICY}/approvals", api.approvals)
    add("POST", f"{_POLICY}/approvals/{{migrationId}}/grant", api.grant)
    add("POST", f"{_POLICY}/approvals/{{migrationId}}/refuse", api.refuse)


class _Said(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    sentence: Annotated[str, msgspec.Meta(max_length=400)] = ""


class Policing:
    """The handlers."""

    def __init__(self, lmsf: Lmsf) -> None:
        self._lmsf = lmsf

    async def policy(self, request: Request) -> Response:
        """The policy in force."""
        return json_response(200, self._lmsf.policies.info)

    async def apply(self, request: Request) -> Response:
        """Read the policy's files now; migrations and stays are judged by it before the answer."""
        return json_response(200, await self._lmsf.apply_policy())

    async def decisions(self, request: Request) -> Response:
        """Kept decisions in their order, some at a time."""
        args = request.args()
        found = await self._lmsf.policies.decisions(
            since_ms=_number(args, "since-ms"),
            after=_number(args, "after"),
            migration=args.get("migration", [""])[0],
            limit=min(_number(args, "limit", _LIMIT), _LIMIT),
        )
        return json_response(200, {"decisions": found})

    async def approvals(self, request: Request) -> Response:
        """Every question to a human, the newest first."""
        return json_response(200, {"approvals": self._lmsf.policies.approvals.all()})

    async def grant(self, request: Request) -> Response:
        """A human approves."""
        return await self._decide(request, grant=True)

    async def refuse(self, request: Request) -> Response:
        """A human refuses."""
        return await self._decide(request, grant=False)

    async def _decide(self, request: Request, *, grant: bool) -> Response:
        said = msgspec.json.decode(request.body, type=_Said)
        name = request.params["migrationId"]
        return json_response(200, await self._lmsf.approve(name, grant=grant, by=said.by, sentence=said.sentence))


def _number(args: dict[str, list[str]], name: str, otherwise: int = 0) -> int:
    text = args.get(name, [str(otherwise)])[0]
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        sentence = f"{name} is no number: {text[:40]!r}."
        raise Refused(Refusal("INVALID_QUERY_PARAM", sentence, {"param": name}, f"Write {name}=0 or more.", status=400))
    return int(text)
