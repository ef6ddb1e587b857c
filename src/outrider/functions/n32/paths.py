"""Which requests may cross the border, and on which of its two channels.

Everything that is not listed stays inside. NF services of a migrated package are not: their requests are forwarded
keeper to keeper, so a partner never talks to an NF service of this network directly.
"""

import re
from typing import Literal, NamedTuple

from outrider.core import limits

Channel = Literal["control", "bulk"]

_CLEAN = re.compile(r"^(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+$")
"""Only plain segments: no empty one, no escape that another parser would read differently."""


class Way(NamedTuple):
    """A kind of request that may cross, and what it may weigh."""

    channel: Channel
    methods: frozenset[str]
    pattern: re.Pattern[str]
    body_bytes: int
    paced: bool
    """Relocation traffic paces itself by windows; it is bounded by requests in flight, not by requests per second."""


def _way(channel: Channel, methods: str, pattern: str, body_bytes: int, *, paced: bool = False) -> Way:
    return Way(channel, frozenset(methods.split()), re.compile(f"^{pattern}$"), body_bytes, paced)


_ANY = "GET POST PUT PATCH DELETE"
_SEGMENT = r"[^/]+"

WAYS = (
    _way("control", "POST", rf"/nlmsf-relocation/v1/services/{_SEGMENT}/lane", limits.FRAME_BYTES, paced=True),
    _way("bulk", "POST", rf"/nlmsf-relocation/v1/services/{_SEGMENT}/bulk", limits.FRAME_BYTES, paced=True),
    _way("bulk", "GET", r"/nlmsf-catalogue/v1/packages/.+", 0, paced=True),
    _way(
        "control",
        _ANY,
        r"/nlmsf-(catalogue|negotiation|permission|migration|relocation|group|audit)/v1/(?!services/[^/]+/bulk$).+",
        limits.REQUEST_BYTES,
    ),
    _way("control", "GET", r"/nnrf-disc/v1/nf-instances", 0),
    _way("control", "POST", r"/oauth2/token", limits.REQUEST_BYTES),
)
"""The first that fits decides."""

_KEEPER = re.compile(r"^/nlmsf-relocation/v1/services/([^/]+)/.+$")


def way(channel: Channel, method: str, path: str) -> Way | None:
    """How this request may cross on this channel; None if it may not."""
    if _CLEAN.match(path) is None or any(s in (".", "..") for s in path.split("/")):
        return None
    return next((w for w in WAYS if w.channel == channel and method in w.methods and w.pattern.match(path)), None)


def channel_of(method: str, path: str) -> Channel:
    """The channel that an outgoing request belongs to: bulk where it may take it."""
    return "bulk" if way("bulk", method, path) is not None else "control"


def service_of(path: str) -> str | None:
    """The communication service whose keeper a request is for; None if it is for the node itself."""
    match = _KEEPER.match(path)
    return match[1] if match else None
