"""Every field of an event, a line, a head and an export, tampered with one at a time, is refused with its cause."""

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from outrider.core.audit import AUDIT_HEAD_TYPE, Actor, Event, Head, hash_of
from outrider.core.audit_check import Verdict
from outrider.core.canonical import canonical, sha256_hex
from outrider.core.refusal import Refusal
from outrider.package import audit_export, signing, statements
from support.audit_logs import A, B, Log, log

LOG = log()
LINE = 7
"""The line that is tampered with: an event in the middle that no head is about."""


def other(value: Any) -> Any:
    """Another value that the schema takes as well."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str() if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            return ("1" if value[0] != "1" else "2") + value[1:]
        case str() if value in (A, B, ""):
            return "001-01"
        case str():
            return {"decision": "command", "function": "operator"}.get(value, value + "x")
        case dict():
            return value | {"more": "0" * 64}
    raise AssertionError(value)


def fields(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a JSON object, nested ones too."""
    for name, inner in value.items():
        yield (*path, name)
        if isinstance(inner, dict):
            yield from fields(inner, (*path, name))


def changed(value: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    name, *rest = path
    inner = value[name]
    return value | {name: changed(inner, tuple(rest)) if rest else other(inner)}


def verdict(lines: list[bytes], of: Log = LOG, held: tuple[str, ...] = ()) -> list[Refusal]:
    found = audit_export.verify(b"".join(lines), of.keys, held)
    return found.findings if isinstance(found, Verdict) else [found]


RECORD: dict[str, Any] = msgspec.json.decode(LOG.lines()[LINE - 1])
EVENT_FIELDS = [p for p in fields(RECORD) if p != ("event",)]


def test_the_matrix_leaves_no_field_out() -> None:
    assert {p[1] for p in EVENT_FIELDS if p[0] == "event"} == {f.encode_name for f in msgspec.structs.fields(Event)}
    assert {p[2] for p in EVENT_FIELDS if p[:2] == ("event", "actor") and len(p) > 2} == {
        f.encode_name for f in msgspec.structs.fields(Actor)
    }
    assert set(HEAD_FIELDS) == {f.encode_name for f in msgspec.structs.fields(Head)}


@pytest.mark.parametrize("path", EVENT_FIELDS, ids=".".join)
def test_a_tampered_field_of_an_event_is_an_edit_of_its_line(path: tuple[str, ...]) -> None:
    if path == ("event", "actor"):  # as a whole: by one of its fields
        tampered = RECORD | {"event": RECORD["event"] | {"actor": {"kind": "operator", "name": B}}}
    else:
        tampered = changed(RECORD, path)
    lines = LOG.lines()
    lines[LINE - 1] = canonical(tampered) + b"\n"
    assert [(f.code, f.facts["line"]) for f in verdict(lines)] == [("AUDIT_EDITED", str(LINE))]


@pytest.mark.parametrize("path", [p for p in EVENT_FIELDS if p[0] == "event"], ids=".".join)
def test_a_tampered_event_with_its_digest_made_to_fit_breaks_the_chain_at_its_line(path: tuple[str, ...]) -> None:
    tampered = (
        RECORD["event"] | {"actor": {"kind": "operator", "name": B}} if path == ("event", "actor")
        else changed(RECORD["event"], path[1:])
    )  # fmt: skip
    body = canonical(tampered)
    lines = LOG.lines()
    lines[LINE - 1] = b'{"event":' + body + b',"hash":"' + hash_of(body).encode() + b'"}\n'
    found = verdict(lines)
    assert found
    broken = {"AUDIT_REPLACED", "AUDIT_OF_ANOTHER", "AUDIT_CUT", "AUDIT_INSERTED", "AUDIT_EDITED", "AUDIT_REWRITTEN"}
    assert {f.code for f in found} <= broken
    assert {int(f.facts.get("line", 0)) for f in found} & {LINE, LINE + 1}


@pytest.mark.parametrize("name", ["event", "hash"])
def test_a_field_that_a_line_lacks_is_an_edit(name: str) -> None:
    lines = LOG.lines()
    lines[LINE - 1] = canonical({k: v for k, v in RECORD.items() if k != name}) + b"\n"
    assert ("AUDIT_EDITED", str(LINE)) in [(f.code, f.facts.get("line")) for f in verdict(lines)]


@pytest.mark.parametrize("name", [f.encode_name for f in msgspec.structs.fields(Event)])
def test_a_field_that_an_event_lacks_is_an_edit(name: str) -> None:
    body = canonical({k: v for k, v in RECORD["event"].items() if k != name})
    lines = LOG.lines()
    lines[LINE - 1] = b'{"event":' + body + b',"hash":"' + hash_of(body).encode() + b'"}\n'
    assert ("AUDIT_EDITED", str(LINE)) in [(f.code, f.facts.get("line")) for f in verdict(lines)]


@pytest.mark.parametrize("name", ["format", "network", "version"])
def test_a_tampered_title_is_refused(name: str) -> None:
    title = msgspec.json.decode(LOG.lines()[0])
    lines = [canonical(title | {name: other(title[name])}) + b"\n", *LOG.lines()[1:]]
    causes = {f.code for f in verdict(lines)}
    assert causes == ({"AUDIT_KEY_MISSING"} if name == "network" else {"AUDIT_MALFORMED"})


HEAD = statements.show_head(LOG.heads[1].encode())
assert isinstance(HEAD, Head)
HEAD_FIELDS = [f.encode_name for f in msgspec.structs.fields(Head)]


def tampered_head(name: str, envelope: str) -> dict[str, Any]:
    head = statements.show_head(envelope.encode())
    assert isinstance(head, Head)
    value = msgspec.to_builtins(head)
    return value | {name: other(value[name])}


@pytest.mark.parametrize("name", HEAD_FIELDS)
def test_a_tampered_field_of_a_counter_signed_head_does_not_fit_its_signatures(name: str) -> None:
    payload = canonical(tampered_head(name, LOG.heads[1]))
    envelope = msgspec.json.decode(LOG.heads[1])
    forged = canonical(envelope | {"payload": base64.b64encode(payload).decode()}).decode()
    lines = LOG.lines()
    line = 1 + len(LOG.events) + 1
    lines[line] = canonical({"head": forged}) + b"\n"
    found = {f.code: f.facts for f in verdict(lines)}
    assert set(found) <= {"AUDIT_HEAD_UNSIGNED", "AUDIT_HEAD_MISSING", "AUDIT_INSERTED", "AUDIT_HEAD_MALFORMED"}
    assert found["AUDIT_HEAD_MISSING"]
    assert found["AUDIT_INSERTED"]["line"] == str(line + 1)
    # As something that a partner holds it counts nothing either.
    held = audit_export.verify(LOG.export(), LOG.keys, [forged])
    assert isinstance(held, Verdict)
    if name != "network":  # then it is about another log
        assert [f.code for f in held.findings] == ["AUDIT_HEAD_UNSIGNED"]


@pytest.mark.parametrize("name", ["payload", "payloadType", "signatures"])
def test_a_tampered_field_of_the_envelope_of_the_end_is_refused(name: str) -> None:
    envelope = msgspec.json.decode(LOG.end())
    value = envelope[name]
    bad = {
        "payload": canonical(envelope | {"payload": "AAAA" + value[4:]}) if name == "payload" else b"",
        "payloadType": canonical(envelope | {"payloadType": "application/json"}),
        "signatures": canonical(envelope | {"signatures": [{**envelope["signatures"][0], "sig": "AAAA"}]}),
    }[name]
    lines = [*LOG.lines()[:-1], canonical({"end": bad.decode()}) + b"\n"]
    (finding,) = verdict(lines)
    expected = {
        "payload": "AUDIT_HEAD_MALFORMED", "payloadType": "ENVELOPE_MALFORMED", "signatures": "AUDIT_HEAD_UNSIGNED",
    }  # fmt: skip
    assert (finding.code, finding.facts["line"]) == (expected[name], str(len(lines)))


@pytest.mark.parametrize("name", HEAD_FIELDS)
def test_a_tampered_field_of_the_end_signed_again_by_somebody_else_is_refused(name: str) -> None:
    stranger = log(1).key_a
    forged = signing.sign(canonical(tampered_head(name, LOG.end())), AUDIT_HEAD_TYPE, stranger)
    lines = [*LOG.lines()[:-1], canonical({"end": forged.decode()}) + b"\n"]
    assert {f.code for f in verdict(lines)} <= {"AUDIT_HEAD_UNSIGNED", "AUDIT_HEAD_MALFORMED"}
    assert verdict(lines)


@pytest.mark.parametrize(
    ("name", "cause"),
    [("network", "AUDIT_HEAD_MISMATCH"), ("sequence", "AUDIT_CUT"), ("hash", "AUDIT_REWRITTEN"),
     ("givenTo", "AUDIT_HEAD_MISMATCH")],
)  # fmt: skip
def test_an_end_that_its_own_network_has_signed_falsely_is_found(name: str, cause: str) -> None:
    forged = signing.sign(canonical(tampered_head(name, LOG.end())), AUDIT_HEAD_TYPE, LOG.key_a)
    lines = [*LOG.lines()[:-1], canonical({"end": forged.decode()}) + b"\n"]
    assert [f.code for f in verdict(lines)] == [cause]


def test_the_digest_of_an_event_is_over_its_canonical_bytes() -> None:
    assert RECORD["hash"] == sha256_hex(canonical(RECORD["event"]))
