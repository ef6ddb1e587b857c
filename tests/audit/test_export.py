"""Any single change of an exported log is found, and the finding names the place."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.core.audit import LMSF, Entry, follow, hash_of, read_event
from outrider.core.audit_check import Verdict
from outrider.core.canonical import sha256_hex
from outrider.core.refusal import Refusal
from outrider.package import audit_export
from support.audit_logs import A, B, Log, log

LOG = log()
LINES = LOG.lines()
EVENTS = len(LOG.events)
COUNT = len(LINES)


def verify(lines: Sequence[bytes], of: Log = LOG, held: Sequence[str] = ()) -> Verdict | Refusal:
    return audit_export.verify(b"".join(lines), of.keys, held)


def findings(lines: Sequence[bytes]) -> list[Refusal]:
    verdict = verify(lines)
    return [verdict] if isinstance(verdict, Refusal) else verdict.findings


def places(found: list[Refusal]) -> set[int]:
    """Every line that the findings name; an event stands on the line after its sequence, below the title."""
    lines = set()
    for finding in found:
        facts = finding.facts
        lines |= {int(facts[name]) for name in ("line", "other") if name in facts}
        if "sequence" in facts:
            first = int(facts["sequence"])
            lines |= {n + 1 for n in range(first, int(facts.get("until", first)) + 1)}
    return lines


def test_the_log_as_it_was_written_has_no_findings() -> None:
    verdict = verify(LINES)
    assert isinstance(verdict, Verdict)
    assert verdict.findings == []
    assert (verdict.network, verdict.events, verdict.sequence) == (A, EVENTS, EVENTS)
    assert verdict.vouched == EVENTS - 1


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(b"".join(LINES)) - 1), st.integers(1, 255))
def test_one_changed_byte_is_found_on_its_line(at: int, by: int) -> None:
    data = bytearray(b"".join(LINES))
    line = data[:at].count(b"\n") + 1
    data[at] ^= by
    found = findings([bytes(data)])
    assert found
    assert line in places(found) or data[at] == 10 or (data[at] ^ by) == 10
    assert places(found) & {line, line + 1}


@settings(deadline=None)
@given(st.integers(1, COUNT - 1))
def test_one_line_that_is_cut_out_is_found_where_it_stood(index: int) -> None:
    found = findings([*LINES[:index], *LINES[index + 1 :]])
    assert found
    if index <= EVENTS:  # line index + 1 had the event of sequence `index`
        cut = [f for f in found if f.code == "AUDIT_CUT"]
        assert [f.facts["sequence"] for f in cut] == [str(index)]
    elif index < COUNT - 1:
        head = next(read_event(e) for e, _ in LOG.events if _records(e, LOG.heads[index - EVENTS - 1]))
        assert [(f.code, f.facts["sequence"]) for f in found] == [("AUDIT_HEAD_MISSING", str(head.sequence))]
    else:
        assert [f.code for f in found] == ["AUDIT_CUT"]


def _records(event: bytes, envelope: str) -> bool:
    return read_event(event).subject.get("statement") == sha256_hex(envelope.encode())


@settings(deadline=None)
@given(st.integers(1, EVENTS), st.integers(1, EVENTS))
def test_a_run_of_lines_that_is_cut_out_is_found_with_its_ends(first: int, second: int) -> None:
    low, high = sorted((first, second))
    cut = [f for f in findings([*LINES[:low], *LINES[high + 1 :]]) if f.code == "AUDIT_CUT"]
    assert [(f.facts["sequence"], f.facts["until"]) for f in cut] == [(str(low), str(high))]


@settings(deadline=None)
@given(st.integers(1, COUNT - 1), st.integers(1, COUNT - 1))
def test_two_lines_that_are_swapped_are_found(first: int, second: int) -> None:
    low, high = sorted((first, second))
    changed = list(LINES)
    changed[low], changed[high] = changed[high], changed[low]
    found = findings(changed)
    assert bool(found) == (low != high)
    if low != high and high <= EVENTS:
        assert {f.code for f in found} == {"AUDIT_REORDERED"}
        assert places(found) & {low + 1, high + 1}


@settings(deadline=None)
@given(st.integers(1, EVENTS), st.integers(1, EVENTS))
def test_an_event_that_is_moved_is_found(source: int, to: int) -> None:
    changed = [*LINES[:source], *LINES[source + 1 :]]
    changed.insert(to, LINES[source])
    found = findings(changed)
    assert bool(found) == (source != to)
    if found:
        assert {f.code for f in found} == {"AUDIT_REORDERED"}
        assert to + 1 in places(found)


@settings(deadline=None)
@given(st.integers(1, COUNT), st.integers(1, COUNT - 1))
def test_a_line_that_is_put_in_again_is_found(to: int, source: int) -> None:
    changed = list(LINES)
    changed.insert(to, LINES[source])
    found = findings(changed)
    assert found
    assert places(found) & {to + 1, source + 1, source + 2}


@settings(deadline=None)
@given(st.integers(1, EVENTS + 1), st.integers(1, EVENTS + 3), st.booleans())
def test_an_event_that_was_never_there_is_found(to: int, sequence: int, holds_on: bool) -> None:
    before = LOG.events[to - 2][1] if holds_on and to > 1 else "5" * 64
    data = follow(A, sequence, before, 1_800_000_000_000, Entry(LMSF, "decision", "It was allowed.", "contract"))
    changed = list(LINES)
    changed.insert(to, b'{"event":' + data + b',"hash":"' + hash_of(data).encode() + b'"}\n')
    found = findings(changed)
    assert found
    assert to + 1 in places(found), found


@settings(deadline=None)
@given(st.integers(1, EVENTS))
def test_a_log_that_is_written_anew_from_somewhere_on_is_found_by_the_heads_of_the_partner(first: int) -> None:
    forged = Log(LOG.key_a, LOG.key_b, LOG.events[: first - 1], [])
    for _ in range(first, EVENTS + 1):
        forged.add(Entry(LMSF, "decision", "Something else.", "contract"))
    assert isinstance(whole := verify(forged.lines()), Verdict)
    # Whole in itself but for the heads that its own kept events still record.
    assert {f.code for f in whole.findings} <= {"AUDIT_HEAD_MISSING"}
    verdict = verify(forged.lines(), held=LOG.heads)
    assert isinstance(verdict, Verdict)
    rewritten = [f for f in verdict.findings if f.code == "AUDIT_REWRITTEN"]
    assert bool(rewritten) == (first < EVENTS)  # the last event records the last head: nobody holds it yet
    if rewritten:
        (finding,) = rewritten
        assert int(finding.facts["sequence"]) <= first <= int(finding.facts["until"])


@settings(deadline=None)
@given(st.integers(0, EVENTS - 1))
def test_a_log_whose_end_is_cut_off_and_signed_again_is_found_by_the_heads_of_the_partner(kept: int) -> None:
    short = Log(LOG.key_a, LOG.key_b, LOG.events[:kept], [])
    verdict = verify(short.lines(), held=LOG.heads)
    assert isinstance(verdict, Verdict)
    cut = [f for f in verdict.findings if f.code == "AUDIT_CUT"]
    assert bool(cut) == (kept < EVENTS - 1)
    if cut:
        assert cut[0].facts["sequence"] == str(kept + 1)


def test_without_the_key_of_its_network_nothing_is_believed() -> None:
    verdict = audit_export.verify(LOG.export(), {B: LOG.keys[B]})
    assert isinstance(verdict, Refusal)
    assert verdict.code == "AUDIT_KEY_MISSING"


def test_without_the_partners_key_nothing_counts_as_counter_signed() -> None:
    verdict = audit_export.verify(LOG.export(), {A: LOG.keys[A]})
    assert isinstance(verdict, Verdict)
    assert (verdict.vouched, verdict.findings) == (0, [])


def test_another_operators_key_does_not_do() -> None:
    other = log(1)
    verdict = audit_export.verify(LOG.export(), other.keys)
    assert isinstance(verdict, Verdict)
    assert {f.code for f in verdict.findings} == {"AUDIT_HEAD_UNSIGNED"}


@pytest.mark.parametrize("data", [b"", b"\n", b"{}", b"\xff\xfe", b"[" * 10_000, b'{"format":"outrider-audit-log"}\n'])
def test_what_is_no_export_is_refused(data: bytes) -> None:
    verdict = audit_export.verify(data, LOG.keys)
    assert isinstance(verdict, Refusal)
    assert verdict.code == "AUDIT_MALFORMED"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, COUNT))
def test_garbage_between_the_lines_never_crashes_and_is_found(garbage: bytes, to: int) -> None:
    changed = list(LINES)
    changed.insert(to, garbage + b"\n")
    assert findings(changed)
