"""Files that ask a policy: one request, or cases with the verdict that each must get.

They are TOML in snake_case, with times as TOML writes them (`now = 2026-12-01T09:00:00Z`), or JSON as the network keeps
requests. A case says only what differs from `[request]`, and that only what differs from `EXAMPLE`.
"""

import datetime as dt
from typing import Annotated, Any

import msgspec

from outrider.decide.policy.decision import Decision, Verdict
from outrider.decide.policy.request import Request

_TIMES = ("now", "start", "end", "deadline")

EXAMPLE: dict[str, Any] = {
    "action": "HostService",
    "network": "999-71",
    "partner": "999-70",
    "source": "999-70",
    "target": "999-71",
    "home": "999-70",
    "role": "target",
    "service": "group-coordination",
    "version": "1.0.0",
    "vendor": "Example Vendor",
    "purpose": "communication-service",
    "max_ues": 1000,
    "now": dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
}
"""What a request of a case says where the file does not; window and deadline begin at `now` and last a day."""


class Case(msgspec.Struct, frozen=True):
    """One request and what the policy must say to it."""

    name: str
    expect: Verdict
    request: Request
    rules: tuple[str, ...] | None = None
    """Ids of all rules that must be against it; not looked at if None."""

    def wrong(self, decision: Decision) -> str:
        """How a decision differs from what is expected; empty if it does not."""
        if decision.verdict is not self.expect:
            return f"expected {self.expect}, got {decision.verdict}"
        against = tuple(sorted({r.rule for r in decision.against if r.rule}))
        if self.rules is not None and against != tuple(sorted(set(self.rules))):
            return (
                f"expected the rules {', '.join(self.rules) or 'none'} against it, got {', '.join(against) or 'none'}"
            )
        return ""


class _Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    expect: Verdict
    request: dict[str, Any] = {}
    rules: tuple[str, ...] | None = None


class _Cases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    case: Annotated[tuple[_Case, ...], msgspec.Meta(min_length=1)]
    request: dict[str, Any] = {}


def read_cases(data: bytes) -> list[Case]:
    """The cases of a TOML file; `ValueError` says which one is wrong and how."""
    made = msgspec.toml.decode(data, type=_Cases)
    return [Case(c.name, c.expect, _request(made.request | c.request, f"case {c.name!r}"), c.rules) for c in made.case]


def read_request(data: bytes, *, json: bool) -> Request:
    """The request of a JSON file, as it is kept, or of a TOML file; `ValueError` says what is wrong."""
    if not json:
        return _request(msgspec.toml.decode(data, type=dict[str, Any]), "the request")
    found = msgspec.json.decode(data, type=dict[str, Any])
    return msgspec.convert(found.get("request", found), Request)


def _request(facts: dict[str, Any], what: str) -> Request:
    given = EXAMPLE | facts
    for name in _TIMES:
        if name in given:
            at = given.pop(name)
            if not isinstance(at, dt.datetime) or at.tzinfo is None:
                raise ValueError(f"{what}: {name} must be a time with its zone, such as 2026-12-01T09:00:00Z")
            given[f"{name}_ms"] = round(at.timestamp() * 1000)
    start = given.setdefault("start_ms", given["now_ms"])
    given.setdefault("end_ms", start + 86_400_000)
    given.setdefault("deadline_ms", given["end_ms"])
    known = {f.name: f.encode_name for f in msgspec.structs.fields(Request)}
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"{what}: {unknown[0]} is no fact (known: {', '.join(known)})")
    try:
        return msgspec.convert({known[name]: _camel(value) for name, value in given.items()}, Request)
    except msgspec.ValidationError as error:
        raise ValueError(f"{what}: {error}") from None


def _camel(value: Any) -> Any:
    """Keys of nested facts (`resources`, `sbom`) as JSON has them."""
    if isinstance(value, dict):
        return {_name(key): _camel(v) for key, v in value.items()}
    return [_camel(v) for v in value] if isinstance(value, list) else value


def _name(key: str) -> str:
    first, *more = key.split("_")
    return first + "".join(part.capitalize() for part in more)
