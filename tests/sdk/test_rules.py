"""Each rule for a proposal, broken once."""

from typing import Any

import pytest

from outrider.sdk import rules, wire

HELLO = wire.Hello(1, ["a", "b"], [("a", "t")], [("b", "m")])


def verdict(there: list[tuple[str, str, bytes]] | None = None, **fields: Any) -> str | None:
    run = wire.Run(1, "request", "a", "ue:00", 0, there or [])
    return rules.broken_rule(run, wire.Proposal(1, **fields), HELLO)


def test_a_proposal_that_keeps_all_rules() -> None:
    assert (
        verdict(
            status=201,
            headers=[("location", "/x"), ("x-name", "ü")],
            body=bytes(rules.RESPONSE_BYTES),
            records=[("a", "n", b"1"), ("b", "n", None), ("a", "x" * 255, bytes(rules.RECORD_BYTES))],
            timers=[("a", "t", 0, b""), ("b", "gone", None, b"")],
            sends=[
                wire.Send("b", "m", b"", shared="group:7"),
                wire.Send("a", "", b"{}", uri="https://[2001:db8::1]:8443/cb?x=1"),
            ],
        )
        is None
    )
    assert verdict(status=404, body=b"no") is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"status": 100}, "none of a final response"),
        ({"status": 700}, "none of a final response"),
        ({"body": bytes(rules.RESPONSE_BYTES + 1)}, "The response has"),
        ({"headers": [("a b", "x")]}, "may not be sent"),
        ({"headers": [("", "x")]}, "may not be sent"),
        ({"headers": [("x", "a\r\nb: c")]}, "may not be sent"),
        ({"headers": [("x", "\x00")]}, "may not be sent"),
        ({"headers": [("x", "日")]}, "may not be sent"),
        ({"headers": [("Transfer-Encoding", "chunked")]}, "may not be sent"),
        ({"headers": [("x", "y" * 17_000)]}, "header fields have"),
        ({"status": 404, "records": [("a", "n", b"")]}, "answers 404 and still proposes"),
        ({"status": 500, "timers": [("a", "t", 1, b"")]}, "answers 500 and still proposes"),
        ({"status": 400, "sends": [wire.Send("b", "m", b"", shared="g")]}, "answers 400 and still proposes"),
        ({"records": [("c", "n", b"")]}, "record of 'c', which is not in the package"),
        ({"records": [("a", "", b"")]}, "no name for a record"),
        ({"records": [("a", "x" * 256, b"")]}, "no name for a record"),
        ({"records": [("a", "ü" * 128, b"")]}, "no name for a record"),
        ({"records": [("a", "a\x00", b"")]}, "no name for a record"),
        ({"records": [("a", "n", b""), ("a", "n", None)]}, "twice"),
        ({"records": [("a", "n", bytes(rules.RECORD_BYTES + 1))]}, "Record 'n' of a has"),
        ({"records": [("a", str(n), b"") for n in range(1025)]}, "writes 1025 records"),
        ({"records": [("a", str(n), bytes(rules.RECORD_BYTES)) for n in range(8)]}, "together"),
        ({"timers": [("c", "t", 1, b"")]}, "timer of 'c'"),
        ({"timers": [("b", "t", 1, b"")]}, "for which b has no handler"),
        ({"timers": [("a", "", None, b"")]}, "no name for a timer"),
        ({"timers": [("a", "t", -1, b"")]}, "would fire after -1 ms"),
        ({"timers": [("a", "t", 2**40, b"")]}, "would fire after"),
        ({"timers": [("a", "t", 1, bytes(20_000))]}, "carries 20000 bytes"),
        ({"timers": [("a", "t", 1, b""), ("a", "t", 2, b"")]}, "twice"),
        ({"timers": [("a", str(n), None, b"") for n in range(1025)]}, "changes 1025 timers"),
        ({"sends": [wire.Send("c", "m", b"", shared="g")]}, "sends for 'c'"),
        ({"sends": [wire.Send("b", "other", b"", shared="g")]}, "for which b has no handler"),
        ({"sends": [wire.Send("b", "m", b"")]}, "either to a shared object or to a URI"),
        ({"sends": [wire.Send("b", "m", b"", shared="g", uri="http://x")]}, "either to a shared object or to a URI"),
        ({"sends": [wire.Send("b", "m", b"", shared="")]}, "no name for a shared object"),
        ({"sends": [wire.Send("b", "m", bytes(rules.RECORD_BYTES + 1), shared="g")]}, "message or notification has"),
        ({"sends": [wire.Send("b", "m", b"", shared="g")] * 1025}, "sends 1025"),
    ],
)
def test_a_broken_rule_has_its_sentence(fields: dict[str, Any], sentence: str) -> None:
    assert sentence in (verdict(**fields) or "")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "file:///etc/passwd",
        "unix:/run/x",
        "http://",
        "http:///path",
        "http://user:pw@host/",
        "http://host/ space",
        "http://host/\r\n",
        "http://[::1",
        "http://host:99999/",
        "http://host:0/",
        "http://host/" + "x" * 2048,
        "//host/",
        "gopher://host/",
    ],
)
def test_a_uri_that_is_no_consumers_is_refused(uri: str) -> None:
    assert "not an http or https URI" in (verdict(sends=[wire.Send("a", "", b"", uri=uri)]) or "")


def test_what_stays_counts_against_the_context_and_what_goes_does_not() -> None:
    full = [("a", str(n), bytes(rules.RECORD_BYTES)) for n in range(7)]
    half = bytes(rules.RECORD_BYTES // 2)
    assert verdict(full, records=[("a", "more", half)]) is None
    assert "together" in (verdict([*full, ("b", "x", half)], records=[("a", "more", half)]) or "")
    assert verdict([*full, ("b", "x", half)], records=[("a", "more", half), ("a", "0", None)]) is None
