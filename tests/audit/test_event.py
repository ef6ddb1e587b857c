"""What an event can say, and that it cannot say who a UE is."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.core.audit import LMSF, NOTHING, Actor, Entry, Event, follow, read_event, refused, said
from outrider.core.canonical import NotCanonical, canonical
from outrider.core.refusal import Refusal

IDENTITIES = [
    "imsi-999700000000001",
    "IMSI-99970000000001",
    "999700000000001",
    "99970000000001",
    "nai-train@rail.example",
    "train@rail.example",
    "msisdn-861012345678",
    "extid-unit7@rail.example",
    "suci-0-999-70-0-0-0-0000000001",
    "gci-00-00-5e-00-53-00",
    "imei-490154203237518",
    "imeisv-4901542032375180",
]
AROUND = [
    "{}",
    "The UE {} is unknown.",
    "/nsmf/v1/ues/{}/x",
    "a={}",
    '"{}"',
    "({})",
    "\t{}\n",
    "{},{}",
    "x{}"[:1] + "-{}",
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("identity", IDENTITIES)
def test_no_identity_of_a_subscriber_or_device_gets_into_an_event(identity: str, around: str) -> None:
    text = around.replace("{}", identity)
    entry = Entry(
        Actor("partner", text), "refusal", text, text, facts={"reason": text, "ue": identity}, subject={},
    )  # fmt: skip
    data = follow("999-70", 1, NOTHING, 0, entry)
    assert identity.lower().encode() not in data.lower()
    assert read_event(data).sentence


@pytest.mark.parametrize("field", ["sentence", "clause"])
@pytest.mark.parametrize("identity", IDENTITIES)
def test_an_event_that_has_an_identity_is_not_read(identity: str, field: str) -> None:
    event = read_event(follow("999-70", 1, NOTHING, 0, Entry(LMSF, "decision", "Yes.", "contract")))
    value = msgspec.to_builtins(event) | {field: f"of {identity}"}
    with pytest.raises(NotCanonical):
        read_event(canonical(value))


@pytest.mark.parametrize(
    "text",
    [
        "m-0123456789012345 is RELOCATING", "epoch 1800000000000 ms", "999-71-000007ed9d5 answers 503",
        "a" * 64, "0" * 64, "12345678-1234-4123-8123-123456789012 of 1000000 UEs", "UE 4/7 · “waits”",
    ],
)  # fmt: skip
def test_what_is_no_identity_stays_as_it_is(text: str) -> None:
    assert said(text) == text


@settings(max_examples=500, deadline=None)
@given(st.text(), st.integers(1, 500))
def test_any_text_can_be_said_within_its_length(text: str, limit: int) -> None:
    entry = Entry(LMSF, "decision", text, text, facts={"reason": text})
    read_event(follow("999-70", 1, NOTHING, 0, entry))
    assert len(said(text, 20)) <= 20


@settings(deadline=None)
@given(st.text(alphabet="0123456789imsna-@. ", max_size=260))
def test_what_is_said_is_always_read_again(text: str) -> None:
    event = read_event(follow("999-70", 1, NOTHING, 0, Entry(LMSF, "decision", text, text)))
    assert isinstance(event, Event)


def test_facts_without_a_proper_name_or_beyond_sixteen_are_left_out() -> None:
    facts = {"ok": "1", "Not": "2", "a b": "3"} | {f"n{i}": str(i) for i in range(30)}
    event = read_event(follow("999-70", 1, NOTHING, 0, Entry(LMSF, "decision", "Yes.", "contract", facts=facts)))
    assert len(event.facts) == 16
    assert "Not" not in event.facts


def test_a_refusal_is_recorded_with_its_cause_and_the_clause_that_it_names() -> None:
    entry = refused(LMSF, Refusal("UES_EXCEEDED", "Too many.", {"ues": "7"}), "m-1")
    assert (entry.clause, entry.facts) == ("contract, maxUes", {"cause": "UES_EXCEEDED", "ues": "7"})
    assert refused(LMSF, Refusal("X_Y", "No.", {"clause": "policy, rule 3"})).clause == "policy, rule 3"
