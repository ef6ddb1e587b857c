"""Discovery and tokens between networks (TS 29.510 §5.3.2.2.3, §5.4.2.2.2): NRF to NRF through the borders.

On the way out the NRF says who asks — its own network, whatever the consumer claimed — and sends on only what the
other side needs; nothing that tells which UE it is about. What comes back is a stranger's and is read, not relayed.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import JSON, problem, refusal_response

Remote = Callable[[NetworkId, Request], Awaitable[Response]]
"""Sends a request to another network's NRF; `Refused` if that network is no partner, `Unreachable` if it is away."""

DISCOVERY_PATH = "/nnrf-disc/v1/nf-instances"
TOKEN_PATH = "/oauth2/token"
FORM = "application/x-www-form-urlencoded"
NO_STORE = [("cache-control", "no-store"), ("pragma", "no-cache")]

_SENT_ON = (
    "target-nf-type",
    "requester-nf-type",
    "service-names",
    "target-nf-instance-id",
    "target-nf-instance-id-list",
    "exclude-nfinst-list",
    "requester-nf-instance-id",
    "requester-nf-instance-fqdn",
    "requester-snssais",
    "snssais",
    "dnn",
    "tai",
    "tai-list",
    "preferred-locality",
    "limit",
)
"""No SUPI, GPSI or other identity of a UE leaves the network in a query."""


class _Found(Struct, rename="camel"):
    validity_period: int
    nf_instances: list[dict[str, Any]]


class _Token(Struct, omit_defaults=True):
    access_token: str
    token_type: str = "Bearer"
    expires_in: int = 0


class _TokenError(Struct, omit_defaults=True):
    error: str
    error_description: str = ""


def network_json(network: NetworkId) -> str:
    """A network as the JSON in a query or a form."""
    return msgspec.json.encode(network.plmn_id()).decode()


def unknown_network(target: NetworkId) -> Response:
    """There is no way to that network from here."""
    return refusal_response(
        Refusal("NETWORK_UNKNOWN", f"{target} is no partner of this network.", {"network": str(target)}, status=404)
    )


async def forward_discovery(remote: Remote | None, own: NetworkId, target: NetworkId, request: Request) -> Response:
    """What the other network's NRF shows to ours."""
    if remote is None:
        return unknown_network(target)
    asked = request.args()
    pairs = [(name, value) for name in _SENT_ON for value in asked.get(name, ())]
    target_text, own_text = network_json(target), network_json(own)
    pairs.append(("target-snpn", target_text) if target.nid else ("target-plmn-list", f"[{target_text}]"))
    pairs.append(("requester-snpn-list" if own.nid else "requester-plmn-list", f"[{own_text}]"))
    kept = request.headers.get("if-none-match")
    response = await remote(
        target,
        Request("GET", DISCOVERY_PATH, urlencode(pairs), {"if-none-match": kept} if kept else {}),
    )
    headers = [(name, value) for name, value in response.headers if name in ("etag", "cache-control")]
    if response.status == 304:
        return Response(304, headers)
    if response.status != 200:
        return _failed(target, response)
    try:
        msgspec.json.decode(response.body, type=_Found)
    except msgspec.DecodeError as error:
        return problem(502, "INBOUND_SERVER_ERROR", f"{target} answered with no search result: {error}")
    return Response(200, [("content-type", JSON), *headers], response.body)


async def forward_token(remote: Remote | None, own: NetworkId, target: NetworkId, form: Mapping[str, str]) -> Response:
    """The token that the other network's NRF issues to one of our NFs; `form` has been checked."""
    if remote is None:
        return unknown_network(target)
    sent = dict(form)
    sent["targetSnpn" if target.nid else "targetPlmn"] = network_json(target)
    if own.nid:
        sent["requesterSnpnList"] = f"[{network_json(own)}]"
    else:
        sent["requesterPlmn"] = network_json(own)
    response = await remote(target, Request("POST", TOKEN_PATH, "", {"content-type": FORM}, urlencode(sent).encode()))
    try:
        if response.status == 200:
            answer: Struct = msgspec.json.decode(response.body, type=_Token)
        elif response.status == 400:
            answer = msgspec.json.decode(response.body, type=_TokenError)
        else:
            return _failed(target, response)
    except msgspec.DecodeError as error:
        return problem(502, "INBOUND_SERVER_ERROR", f"{target} answered with no token: {error}")
    return Response(response.status, [("content-type", JSON), *NO_STORE], msgspec.json.encode(answer))


def _failed(target: NetworkId, response: Response) -> Response:
    """The other NRF's refusal as ours; its faults are 502 here, because they are not faults of this NRF."""
    said = refusal_cause(response)
    if 400 <= response.status < 500:
        return problem(response.status, said, f"The NRF of {target} refused: {said}.")
    return problem(502, "INBOUND_SERVER_ERROR", f"The NRF of {target} failed with {response.status} {said}.")


class _Cause(Struct):
    cause: str = ""


def refusal_cause(response: Response) -> str:
    """The cause in a ProblemDetails of another network, if it is a plain word."""
    try:
        cause = msgspec.json.decode(response.body, type=_Cause).cause
    except msgspec.DecodeError:
        return "UNSPECIFIED"
    return cause if cause.replace("_", "").isalnum() and len(cause) <= 64 else "UNSPECIFIED"
