"""Over many requests and policies: a rule that forbids never opens anything, one that permits never closes anything."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.decide.policy import policy as policies
from outrider.decide.policy.decision import Effect, Verdict, conclude
from outrider.decide.policy.policy import decide
from outrider.decide.policy.request import Action, Part, Request, Sbom
from support.policies import NOON_MS, SBOM, A, B, C, policy, request

RANK = {Verdict.ALLOW: 0, Verdict.APPROVAL: 1, Verdict.REFUSE: 2}

TERMS = st.sampled_from(
    [
        "max_ues = 500", "max_ues = 5000", 'purposes = ["research"]', 'partners = ["999-70"]', 'areas = ["port"]',
        'barred_partners = ["999-72"]', 'hours = "08:00-18:00"', "max_stay_hours = 4", 'licences = ["Apache-2.0"]',
        'data_entering = ["session"]', 'data_leaving = ["session"]', 'modes = ["async"]', 'weekdays = ["sun"]',
        'barred_components = ["star*"]', "max_components = 1", 'jurisdictions = ["mcc-999"]', 'ue_groups = []',
    ]
)  # fmt: skip
WHEN = st.sampled_from(["", 'when = { actions = ["HostService", "ContinueStay"] }', 'when = { partners = ["999-72"] }'])
CONDITIONS = st.sampled_from(
    [
        "", "when { context.maxUes > 500 }", "unless { context has sbom }", 'when { context.purpose == "research" }',
        f'when {{ context.others.contains(Network::"{C}") }}', "when { context.now.minuteOfDay < 480 }",
        "when { context has ueGroup }", 'when { resource.dataCategories.contains("location") }',
    ]
)  # fmt: skip
SCOPES = st.sampled_from(["principal, action, resource", 'principal, action == Action::"HostService", resource'])

requests = st.builds(
    request,
    action=st.sampled_from(list(Action)),
    partner=st.sampled_from([A, C]),
    home=st.sampled_from([A, C]),
    role=st.sampled_from(["source", "target", "giver", "home"]),
    purpose=st.sampled_from(["communication-service", "research"]),
    ue_group=st.sampled_from([None, "train-7"]),
    area=st.sampled_from([None, ("port",), ("port", "city")]),
    max_ues=st.integers(0, 10_000),
    now_ms=st.integers(NOON_MS, NOON_MS + 7 * 86_400_000),
    sbom=st.sampled_from([None, SBOM, Sbom((Part("x", "1", ""),))]),
    approved_by=st.sampled_from(["", "chief"]),
)


@st.composite
def typed(draw: Any, kind: str) -> str:
    name = draw(st.integers(0, 10**9))
    terms = draw(st.lists(TERMS, min_size=1, max_size=3, unique_by=lambda t: t.partition(" ")[0]))
    return "\n".join([f'[[{kind}]]\nid = "{kind}-{name}"', draw(WHEN), *terms]) + "\n"


@st.composite
def stated(draw: Any, effect: str) -> str:
    note = draw(st.sampled_from(["", '@approval("ask") '])) if effect == "forbid" else ""
    return f"{note}{effect}({draw(SCOPES)}) {draw(CONDITIONS)};\n"


FORBIDS = st.one_of(
    st.tuples(st.one_of(typed("require"), typed("approval")), st.just("")), st.tuples(st.just(""), stated("forbid"))
)
PERMITS = st.one_of(st.tuples(typed("permit"), st.just("")), st.tuples(st.just(""), stated("permit")))
BASES = st.lists(st.one_of(PERMITS, FORBIDS), min_size=1, max_size=4, unique_by=lambda pair: pair[0] or id(pair))


def _judged(parts: list[tuple[str, str]], asked: Request) -> Any:
    return decide(policy("".join(p[0] for p in parts), "".join(p[1] for p in parts)), asked)


def _distinct(base: list[tuple[str, str]], more: tuple[str, str]) -> list[tuple[str, str]]:
    return [*base, (more[0].replace('id = "', 'id = "more-'), more[1])]


@settings(max_examples=100, deadline=None)
@given(BASES, FORBIDS, requests)
def test_one_more_forbid_never_opens_anything(base: Any, more: tuple[str, str], asked: Request) -> None:
    before, after = _judged(base, asked), _judged(_distinct(base, more), asked)
    assert RANK[after.verdict] >= RANK[before.verdict]


@settings(max_examples=100, deadline=None)
@given(BASES, PERMITS, requests)
def test_one_more_permit_never_closes_anything(base: Any, more: tuple[str, str], asked: Request) -> None:
    before, after = _judged(base, asked), _judged(_distinct(base, more), asked)
    assert RANK[after.verdict] <= RANK[before.verdict]


@settings(max_examples=100, deadline=None)
@given(BASES, requests)
def test_the_same_question_has_the_same_answer_and_every_refusal_a_reason(base: Any, asked: Request) -> None:
    decision = _judged(base, asked)
    assert decision == _judged(base, asked)
    assert decision == _judged(base, msgspec.json.decode(msgspec.json.encode(asked), type=Request))
    assert (decision.verdict is Verdict.ALLOW) == (not decision.against)
    if decision.verdict is not Verdict.ALLOW:
        assert all(r.code and r.sentence and r.change for r in decision.against)
        assert all(told.remedy for told in decision.told(B))
    assert decision.policy


def test_a_permit_that_won_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rule "what forbids wins" taken out, the second half of the first property fails: it can."""

    def lax(action: Action, version: str, found: Any, pending: Any) -> Any:
        permits = [r for r in found if r.effect is Effect.PERMIT]
        return conclude(action, version, permits or found, pending)

    monkeypatch.setattr(policies, "conclude", lax)
    with pytest.raises(AssertionError):
        test_every_forbid_refuses(("", "forbid(principal, action, resource);"))


@pytest.mark.parametrize(
    "forbid", [('[[require]]\nid = "f"\nmax_ues = 1\n', ""), ("", "forbid(principal, action, resource);")]
)
def test_every_forbid_refuses(forbid: tuple[str, str]) -> None:
    assert _judged([('[[permit]]\nid = "p"\n', ""), forbid], request()).verdict is Verdict.REFUSE
