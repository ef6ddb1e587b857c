"""What a proposal may contain. The keeper trusts no worker, so it asks here; so does the test kit.

The figures are part of the worker protocol: they let every record that was ever accepted, together with the largest
request, fit into one frame again.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from outrider.sdk import wire

RECORD_BYTES = 256 * 1024
"""Largest body of one record, message or notification."""

CONTEXT_BYTES = 2 * 1024 * 1024
"""All records of one key together, with their names; with the largest request they fit one frame."""

RESPONSE_BYTES = 1024 * 1024
"""Largest body of a response."""

HEADERS_BYTES = 16 * 1024
"""All header fields of a response together."""

RECORDS = 1_024
"""Records, timers or sends in one proposal, each."""

NAME_BYTES = 255
"""Longest name of a record, timer, message or shared object."""

URI_CHARACTERS = 2_048
"""Longest URI of a notification."""

TIMER_DATA_BYTES = 16 * 1024
"""Largest data of a timer."""

TIMER_DELAY_MS = 366 * 24 * 3600 * 1000
"""Longest delay of a timer: a year."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URI = re.compile(r"[!-~]+")
_NEVER_HEADERS = frozenset(("connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"))


def broken_rule(run: wire.Run, proposal: wire.Proposal, hello: wire.Hello) -> str | None:
    """The first rule that a proposal for this unit breaks, as a sentence; None if it breaks none."""
    writes = proposal.records or proposal.timers or proposal.sends
    if (wrong := _response(proposal)) is not None:
        return wrong
    if not writes:
        return None
    if proposal.status >= 400:
        return f"It answers {proposal.status} and still proposes changes."
    return _records(run, proposal, hello) or _timers(proposal, hello) or _sends(proposal, hello)


def _response(proposal: wire.Proposal) -> str | None:
    if not 200 <= proposal.status <= 599:
        return f"The status {proposal.status} is none of a final response."
    if len(proposal.body) > RESPONSE_BYTES:
        return f"The response has {len(proposal.body)} bytes; {RESPONSE_BYTES} are allowed."
    total = sum(len(name) + len(value) for name, value in proposal.headers)
    if total > HEADERS_BYTES:
        return f"The response's header fields have {total} bytes; {HEADERS_BYTES} are allowed."
    for name, value in proposal.headers:
        if not _may_be_sent(name, value):
            return f"The response has a header field that may not be sent: {name[:80]!r}."
    return None


@lru_cache(256)
def _may_be_sent(name: str, value: str) -> bool:
    return bool(_TOKEN.fullmatch(name) and _FIELD_VALUE.fullmatch(value)) and name.lower() not in _NEVER_HEADERS


def _records(run: wire.Run, proposal: wire.Proposal, hello: wire.Hello) -> str | None:
    if len(proposal.records) > RECORDS:
        return f"It writes {len(proposal.records)} records; {RECORDS} are allowed."
    seen: set[tuple[str, str]] = set()
    for nf, name, body in proposal.records:
        if nf not in hello.nf_services:
            return f"It writes a record of {nf!r}, which is not in the package."
        if (wrong := _name(name, "a record")) is not None:
            return wrong
        if (nf, name) in seen:
            return f"It writes record {name!r} of {nf} twice."
        seen.add((nf, name))
        if body is not None and len(body) > RECORD_BYTES:
            return f"Record {name!r} of {nf} has {len(body)} bytes; {RECORD_BYTES} are allowed."
    size = 0
    for nf, name, body in run.records:
        if (nf, name) not in seen:
            size += _size(nf, name, body)
    for nf, name, body in proposal.records:
        if body is not None:
            size += _size(nf, name, body)
    if size > CONTEXT_BYTES:
        return f"The records of {run.key} would have {size} bytes together; {CONTEXT_BYTES} are allowed."
    return None


def _timers(proposal: wire.Proposal, hello: wire.Hello) -> str | None:
    if len(proposal.timers) > RECORDS:
        return f"It changes {len(proposal.timers)} timers; {RECORDS} are allowed."
    seen: set[tuple[str, str]] = set()
    for nf, name, after_ms, data in proposal.timers:
        if nf not in hello.nf_services:
            return f"It changes a timer of {nf!r}, which is not in the package."
        if (wrong := _name(name, "a timer")) is not None:
            return wrong
        if (nf, name) in seen:
            return f"It changes timer {name!r} of {nf} twice."
        seen.add((nf, name))
        if after_ms is None:
            continue
        if (nf, name) not in hello.timers:
            return f"It arms timer {name!r}, for which {nf} has no handler."
        if not 0 <= after_ms <= TIMER_DELAY_MS:
            return f"Timer {name!r} of {nf} would fire after {after_ms} ms; 0 to {TIMER_DELAY_MS} are allowed."
        if len(data) > TIMER_DATA_BYTES:
            return f"Timer {name!r} of {nf} carries {len(data)} bytes; {TIMER_DATA_BYTES} are allowed."
    return None


def _sends(proposal: wire.Proposal, hello: wire.Hello) -> str | None:
    if len(proposal.sends) > RECORDS:
        return f"It sends {len(proposal.sends)} messages and notifications; {RECORDS} are allowed."
    for send in proposal.sends:
        if send.nf not in hello.nf_services:
            return f"It sends for {send.nf!r}, which is not in the package."
        if len(send.body) > RECORD_BYTES:
            return f"A message or notification has {len(send.body)} bytes; {RECORD_BYTES} are allowed."
        if (send.shared is None) == (send.uri is None):
            return "A send goes either to a shared object or to a URI."
        if send.uri is not None:
            if not _is_http(send.uri):
                return f"It would notify {send.uri[:120]!r}, which is not an http or https URI."
        elif send.shared is not None:
            if (wrong := _name(send.shared, "a shared object")) is not None:
                return wrong
            if (send.nf, send.name) not in hello.messages:
                return f"It sends message {send.name[:80]!r}, for which {send.nf} has no handler."
    return None


def _name(name: str, what: str) -> str | None:
    if not name or len(name.encode(errors="replace")) > NAME_BYTES or not name.isprintable():
        return f"{name[:80]!r} is no name for {what}: 1 to {NAME_BYTES} bytes of printable text."
    return None


def _is_http(uri: str) -> bool:
    if len(uri) > URI_CHARACTERS or not _URI.fullmatch(uri):
        return False
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        return False


def too_large(records: Iterable[tuple[str, str, bytes]]) -> bool:
    """Whether the records of a key or replica are more than one frame carries."""
    return sum(_size(*record) for record in records) > CONTEXT_BYTES


def _size(nf: str, name: str, body: bytes) -> int:
    # 16: what the encoding adds at most.
    return len(nf) + len(name.encode()) + len(body) + 16
