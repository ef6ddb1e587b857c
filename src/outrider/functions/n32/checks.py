"""What a partner's request must prove before its body is looked at, and which headers cross the border."""

import base64
import binascii
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.sbi import headers as names

HOP = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of one connection (RFC 9110 §7.6.1); the next one makes its own."""

TOKEN_CHARS = 4096
"""A longer token is not remembered here; ours have about 600 characters."""

_OURS = HOP | {names.TARGET_API_ROOT, names.ORIGINATING_NETWORK_ID}


def onward(headers: Mapping[str, str], origin: NetworkId) -> list[tuple[str, str]]:
    """The headers of a request for its next hop, saying which network it comes from."""
    kept = [(k, v) for k, v in headers.items() if k not in _OURS]
    kept.append((names.ORIGINATING_NETWORK_ID, str(origin)))
    return kept


def backward(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of a response for the way back."""
    return [(k, v) for k, v in headers if k.lower() not in HOP]


def origin(headers: Mapping[str, str], partner: NetworkId) -> Refusal | None:
    """Anti-spoofing: the network that a request names is the partner whose listener it came in on."""
    named = headers.get(names.ORIGINATING_NETWORK_ID)
    if named is None:
        return Refusal(
            "ORIGINATING_NETWORK_MISSING",
            f"A request of {partner} does not say which network it comes from.",
            remedy="Send 3gpp-Sbi-Originating-Network-Id.",
        )
    try:
        network = NetworkId.parse(named.split(";")[0].strip())
    except ValueError as error:
        return Refusal("ORIGINATING_NETWORK_MISMATCH", f"A request of {partner} names a network badly: {error}.")
    if network != partner:
        return Refusal(
            "ORIGINATING_NETWORK_MISMATCH",
            f"A request on the listener of {partner} says that it comes from {network}.",
            {"listener": str(partner), "named": str(network)},
        )
    return None


class _Claims(msgspec.Struct):
    consumer_plmn: dict[str, Any] | None = msgspec.field(name="consumerPlmnId", default=None)
    consumer_snpn: dict[str, Any] | None = msgspec.field(name="consumerSnpnId", default=None)


@functools.lru_cache(maxsize=1024)
def _consumer(token: str) -> NetworkId | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Claims)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None
    named = claims.consumer_snpn or claims.consumer_plmn
    if named is None:
        return None
    return NetworkId(
        str(named.get("mcc")), str(named.get("mnc")), str(named["nid"]).lower() if "nid" in named else None
    )


def token(headers: Mapping[str, str], partner: NetworkId) -> Refusal | None:
    """A token that names a consumer network names this partner (TS 33.501 §13.2).

    Signature, audience and scope are the receiving function's to check; a token that it cannot read is refused there.
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    consumer = _consumer(value) if scheme.lower() == "bearer" and len(value) <= TOKEN_CHARS else None
    if consumer is None or consumer == partner:
        return None
    return Refusal(
        "TOKEN_NETWORK_MISMATCH",
        f"A request of {partner} carries a token that was issued to {consumer}.",
        {"listener": str(partner), "token": str(consumer)},
    )
