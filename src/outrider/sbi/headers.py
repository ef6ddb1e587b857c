"""The `3gpp-Sbi-*` headers that Outrider uses (TS 29.500 §5.2.3): their names, and those that have a structure.

Names are lower-case, as HTTP/2 sends them and as `Request.headers` holds them.
"""

import re

from outrider.core.ids import NetworkId

TARGET_API_ROOT = "3gpp-sbi-target-apiroot"
CALLBACK = "3gpp-sbi-callback"
REQUEST_INFO = "3gpp-sbi-request-info"
RESPONSE_INFO = "3gpp-sbi-response-info"
PRODUCER_ID = "3gpp-sbi-producer-id"
MAX_RSP_TIME = "3gpp-sbi-max-rsp-time"
SENDER_TIMESTAMP = "3gpp-sbi-sender-timestamp"
MESSAGE_PRIORITY = "3gpp-sbi-message-priority"
ORIGINATING_NETWORK_ID = "3gpp-sbi-originating-network-id"
CLIENT_CREDENTIALS = "3gpp-sbi-client-credentials"
CORRELATION_INFO = "3gpp-sbi-correlation-info"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*?))\s*(?:;|$)')
_BARE = re.compile(rf"^{_TOKEN}$")
_API_ROOT = re.compile(r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", re.IGNORECASE)


def parse_parameters(value: str) -> dict[str, str]:
    """The parameters `name=value; name="value"` of a structured header; `ValueError` on anything else."""
    found: dict[str, str] = {}
    position = 0
    while position < len(value):
        match = _PARAMETER.match(value, position)
        if match is None:
            raise ValueError(f"{value[position:]!r} is not name=value")
        name, quoted, bare = match.groups()
        found[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
        position = match.end()
    return found


def format_parameters(parameters: dict[str, str]) -> str:
    """The inverse of `parse_parameters`; values that are no token are quoted."""
    return "; ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())


def _quoted(value: str) -> str:
    if _BARE.match(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def idempotency_key(value: str | None) -> str | None:
    """The idempotency key in a `3gpp-Sbi-Request-Info` header, if there is one."""
    if value is None or "idempotency-key" not in value.lower():
        return None
    return parse_parameters(value).get("idempotency-key") or None


def with_idempotency_key(key: str) -> tuple[str, str]:
    """The header that makes a request safe to repeat."""
    return REQUEST_INFO, f"idempotency-key={_quoted(key)}"


def max_rsp_time_ms(value: str | None) -> int | None:
    """The deadline that a consumer set, in milliseconds; None if it set none or wrote no number of 1 to 5 digits."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 5:
        return None
    return int(value)


def with_max_rsp_time(limit_ms: int) -> tuple[str, str]:
    """The header that tells how long the consumer waits."""
    return MAX_RSP_TIME, str(max(0, min(limit_ms, 99_999)))


def originating_network(value: str | None) -> NetworkId | None:
    """The network in a `3gpp-Sbi-Originating-Network-Id` (`MCC-MNC[-NID][; src: FQDN]`); `ValueError` if it is none."""
    return None if value is None else NetworkId.parse(value.partition(";")[0].strip())


def with_originating_network(network: NetworkId) -> tuple[str, str]:
    """The header that says which network a request comes from."""
    return ORIGINATING_NETWORK_ID, str(network)


def target_api_root(value: str) -> str:
    """A `3gpp-Sbi-Target-apiRoot` without its trailing slash; `ValueError` if it is no http(s) root."""
    if not _API_ROOT.match(value):
        raise ValueError(f"{value!r} is not an apiRoot: write http(s)://HOST[:PORT][/PREFIX]")
    return value.rstrip("/")


def with_callback(kind: str, api_version: int = 1) -> tuple[str, str]:
    """The header that marks a notification, e.g. of kind `Nnrf_NFManagement_NFStatusNotify`."""
    return CALLBACK, f"{kind}; apiversion={api_version}"


def callback_kind(value: str) -> str:
    """The kind of a notification."""
    return value.partition(";")[0].strip()


def producer_id(value: str | None) -> str | None:
    """The NF instance that answered, from a `3gpp-Sbi-Producer-Id`."""
    return None if value is None else parse_parameters(value).get("nfinst")


def with_producer_id(nf_instance_id: str) -> tuple[str, str]:
    """The header that says which NF instance answers."""
    return PRODUCER_ID, f"nfinst={nf_instance_id}"


def with_response_info(**parameters: str) -> tuple[str, str]:
    """The header about how a request was treated, e.g. `context_transferred="true"` or `no_retry="true"`."""
    return RESPONSE_INFO, format_parameters({name.replace("_", "-"): value for name, value in parameters.items()})
