"""The audit log's events: what one is, how each holds on to the one before, and what a head is.

An event names its place (`sequence`, from 1), who acted, what for, and under which clause. It holds the SHA-256 of
the event before it, so none can be edited, cut, put in or moved without a trace in all that follow. A *head* is the
place and the digest of one event, signed by its network and counter-signed by a partner: whoever writes a log anew from
somewhere on cannot write the heads anew that others keep. `core.audit_check` finds such a place.

No event says who a UE is. `Said` cannot hold anything that looks like an identity of a subscriber or a device, so a log
that has one is not read; `said` is how free text gets in.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec

from outrider.core.canonical import NotCanonical, canonical, decode_canonical, sha256_hex
from outrider.core.permission import Digest, Time, check_networks
from outrider.core.refusal import Refusal

AUDIT_HEAD_TYPE = "application/vnd.outrider.audit-head.v1+json"

NOTHING = "0" * 64
"""What the first event holds in place of a digest."""

_IDENTITY = (
    r"(?i:(?<![0-9a-z])(?:imsi|imei|imeisv|msisdn|suci|nai|gci|gli|extid|extgroupid)-[^\s\"'/]+"
    r"|(?<![0-9a-z])[0-9]{14,15}(?![0-9a-z])"
    r"|[0-9a-z._%+-]+@[0-9a-z-]+(?:\.[0-9a-z-]+)*)"
)
"""SUPI, SUCI, GPSI and PEI as TS 29.571 §5.3.2 writes them, an IMSI or IMEI without its prefix, and anything like an
NAI. No number of ours has 14 or 15 digits: times have 13, identifiers of migrations and digests 16 and more."""

_FINDS_IDENTITY = re.compile(_IDENTITY)
_TEXT = rf"\A(?:(?!{_IDENTITY})[^\x00-\x1f\x7f])*\Z"

Said = Annotated[str, msgspec.Meta(max_length=200, pattern=_TEXT)]
Sentence = Annotated[str, msgspec.Meta(max_length=500, pattern=_TEXT)]
Label = Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[a-z][A-Za-z0-9]*\Z")]
MigrationId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z._-]{0,64}\Z")]

Kind = Literal["command", "decision", "phase", "refusal", "signature", "permission", "revocation", "head"]
"""What an event records.

`command`: an operator asks for something. `decision`: this network's own judgement. `phase`: a migration enters one.
`refusal`: a "no", of this network or a partner. `signature`: a signature of a contract or receipt, made here or
received. `permission`, `revocation`: one is kept here. `head`: the head of a log is counter-signed.
"""


class Actor(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Who acted: an operator, a partner's LMSF, or a function of this network by itself."""

    kind: Literal["operator", "partner", "function"]
    name: Said
    """The network of the operator or the partner; the function's name."""


LMSF = Actor("function", "LMSF")


class Entry(NamedTuple):
    """What is to be recorded; `follow` gives it its place."""

    actor: Actor
    kind: Kind
    sentence: str
    clause: str
    migration: str = ""
    subject: Mapping[str, str] = MappingProxyType({})
    facts: Mapping[str, str] = MappingProxyType({})
    once: str | None = None
    """Where an act may be repeated without effect: the same `once` is recorded once. It is not part of the event."""


class Event(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """One line of an operator's log."""

    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    at_ms: Time
    network: str
    """Whose log this is."""
    actor: Actor
    kind: Kind
    migration: MigrationId
    subject: Annotated[dict[Label, Digest], msgspec.Meta(max_length=16)]
    """SHA-256 of what it is about, by what that is: `package`, `contract`, `permission` …"""
    sentence: Sentence
    clause: Said
    """The rule: of a contract, a permission, a protocol or a standard."""
    facts: Annotated[dict[Label, Said], msgspec.Meta(max_length=16)]
    before: Digest
    """SHA-256 of the event before this one; of the first, `NOTHING`."""

    def __post_init__(self) -> None:
        check_networks(self.network)

    def encode(self) -> bytes:
        """The bytes that the next event holds the digest of."""
        return canonical(self)


class Head(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """How far a log is: the place and the digest of its last event (of an empty log: 0 and `NOTHING`)."""

    network: str
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    hash: Digest
    at_ms: Time
    given_to: str = ""
    """The partner that is to counter-sign it; empty in an export."""
    migration: MigrationId = ""
    phase: Said = ""
    """The phase that the event records."""

    def __post_init__(self) -> None:
        check_networks(self.network, *([self.given_to] if self.given_to else []))

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self)


def follow(network: str, sequence: int, before: str, at_ms: int, entry: Entry) -> bytes:
    """The canonical bytes of an event with this place; `NotCanonical` if it says what no event may say."""
    event = Event(
        sequence=sequence,
        at_ms=at_ms,
        network=network,
        actor=Actor(entry.actor.kind, said(entry.actor.name)),
        kind=entry.kind,
        migration=entry.migration,
        subject=dict(entry.subject),
        sentence=said(entry.sentence, 500),
        clause=said(entry.clause),
        facts=facts_of(entry.facts),
        before=before,
    )
    data = event.encode()
    decode_canonical(data, Event)
    return data


def read_event(data: bytes) -> Event:
    """An event from its canonical bytes; `NotCanonical` says what is wrong."""
    event = decode_canonical(data, Event)
    if event.encode() != data:
        raise NotCanonical("it leaves out what it must say")
    return event


def hash_of(data: bytes) -> str:
    """What the next event holds of this one's bytes."""
    return sha256_hex(data)


def said(text: str, limit: int = 200) -> str:
    """Free text as an event may have it: without control characters and identities, of bounded length."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    plain = _FINDS_IDENTITY.sub("[identity]", plain)
    if len(plain) > limit:
        plain = plain[: limit - 1] + "…"
    # What was cut off or replaced may have left a number that was longer before: then nothing of it is kept.
    return "[identity]" if _FINDS_IDENTITY.search(plain) else plain


def facts_of(facts: Mapping[str, str]) -> dict[str, str]:
    """Facts of a refusal, of a partner's too, as an event may have them: what has no proper name is left out."""
    named = {k: said(str(v)) for k, v in facts.items() if re.fullmatch(r"[a-z][A-Za-z0-9]{0,63}", k)}
    return dict(list(named.items())[:16])


def refused(actor: Actor, refusal: Refusal, migration: str = "", *, once: str | None = None) -> Entry:
    """The entry of a refusal: its code, its reason, and the clause that it rests on."""
    facts = {"cause": refusal.code} | refusal.facts
    clause = refusal.facts.get("clause") or clause_of(refusal.code)
    return Entry(actor, "refusal", refusal.sentence, clause, migration, facts=facts, once=once)


def clause_of(cause: str) -> str:
    """What a cause rests on."""
    for prefix, clause in _CLAUSES.items():
        if cause.startswith(prefix):
            return clause
    return f"cause {cause}"


_CLAUSES = {
    "DEADLINE_PASSED": "contract, deadlineMs",
    "STAY_ENDED": "contract, window.endMs",
    "UES_EXCEEDED": "contract, maxUes",
    "MODE_UNSUPPORTED": "contract, mode",
    "CONTRACT_": "contract, signatures of every party over the same bytes",
    "OFFER_MISMATCH": "contract, the terms that the offer names",
    "PERMISSION_": "permission of every party over the same digests",
    "PACKAGE_MISMATCH": "permission, packageDigest",
    "SBOM_MISMATCH": "permission, sbomDigest",
    "TOKEN_": "TS 33.501 §13.4.1 (access tokens)",
    "SCOPE_": "TS 33.501 §13.4.1 (access tokens)",
    "CONSUMER_MISMATCH": "TS 33.501 §13.4.1.2 (tokens across networks)",
    "STORE_": "PROTOCOL.md §9 (lost stores)",
    "CLOCK_": "PROTOCOL.md §5 (timers and clocks)",
    "AUDIT_": "audit log, counter-signed heads",
}
"""By the beginning of the cause; the first that fits."""
