"""Statements in Cedar: all reasons with their annotations, errors that refuse, and the facts as the schema says."""

from typing import Any

import cedarpy
import pytest

from outrider.decide.policy import cedar, rules
from outrider.decide.policy.builtin import Rules
from outrider.decide.policy.decision import Effect, Verdict
from outrider.decide.policy.policy import decide
from outrider.decide.policy.request import Action
from support.policies import PERMIT, A, B, C, policy, request

ALL = "permit(principal, action, resource);"


def test_all_forbids_and_all_permits_that_hold_are_told() -> None:
    text = f"""
    @id("one") {ALL}
    @id("two") permit(principal == Network::"{A}", action == Action::"HostService", resource);
    @id("other") permit(principal == Network::"{C}", action, resource);
    @id("big") @clause("Agreement 4") @remedy("Fewer UEs.") forbid(principal, action, resource)
      when {{ context.maxUes > 10 }};
    @id("night") forbid(principal, action, resource) when {{ context.now.minuteOfDay < 6 * 60 }};
    @id("noon") forbid(principal, action, resource)
      when {{ context.now.minuteOfDay == 720 && context.now.weekday == 1 }};
    """
    decision = decide(policy(cedar=text), request())
    assert decision.verdict is Verdict.REFUSE
    assert [r.rule for r in decision.against] == ["big", "noon"]
    assert [r.rule for r in decision.reasons if r.effect is Effect.PERMIT] == ["one", "two"]
    big = decision.against[0]
    assert (big.clause, big.change, big.remedy, big.source) == (
        "Agreement 4",
        "Fewer UEs.",
        "Fewer UEs.",
        "own.cedar:5",
    )
    assert "context.now.minuteOfDay == 720" in decision.against[1].change
    told = decision.told(B)
    assert [(r.code, r.remedy) for r in told] == [
        ("POLICY_FORBIDDEN", "Fewer UEs."),
        ("POLICY_FORBIDDEN", f"Ask the operator of {B}."),
    ]
    assert not any("context" in str(r) or "Agreement" in str(r) for r in told), "the text stays at home"


def test_typed_rules_and_cedar_are_one_policy() -> None:
    bar = '[[require]]\nid = "few"\nmax_ues = 5\n'
    assert decide(policy(bar, ALL), request(max_ues=5)).verdict is Verdict.ALLOW
    assert decide(policy(bar, ALL), request()).verdict is Verdict.REFUSE
    assert decide(policy(PERMIT, "forbid(principal, action, resource);"), request()).verdict is Verdict.REFUSE


FACTS = [
    'principal.mcc == "999" && principal.mnc == "70" && !principal.snpn && principal.jurisdiction == "mcc-999"',
    'resource == Package::"group-coordination" && resource.vendor == "Example Vendor"',
    'resource.version == "1.0.0" && resource.licence == "Apache-2.0" && resource.digest like "00*"',
    'resource.exportClass == "EAR99"',
    'resource.nfTypes.contains("SMF") && resource.dataCategories.contains("location")',
    f'context.network == Network::"{B}" && context.network.snpn && context.role == "target"',
    f'context.source == Network::"{A}" && context.target == context.network && context.home == principal',
    f'context.others == [Network::"{A}"] && context.phase == "NEGOTIATING"',
    'context.purpose == "communication-service" && context has ueGroup && context.ueGroup == "train-7"',
    'context has area && context.area.containsAll(["port"]) && context.maxUes == 1000 && !context.moveAll',
    'context.mode == "async" && context.arrivalEvidence == "target-asserted"',
    "context.stayMinutes == 360 && context.endMs > context.startMs && context.deadlineMs < context.endMs",
    "context.resources.memoryMb == 256 && context.resources.processes == 8 && context.resources.cpuPercent == 100",
    "context has sbom && context.sbom.components == 3 && context.sbom.undeclared == 0 && context.sbom.inactive == 1",
    'context has sbom && context.sbom.names.contains("starlette") && context.sbom.licences.contains("GPL-3.0-only")',
    "context.now.ms == 1796040000000",
]


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_of_the_schema_is_what_it_says(fact: str) -> None:
    held = policy(cedar=f"permit(principal, action, resource) when {{ {fact} }};")
    assert decide(held, request()).verdict is Verdict.ALLOW


@pytest.mark.parametrize("action", list(Action))
def test_each_action_of_the_schema_can_be_named(action: Action) -> None:
    one = policy(cedar=f'permit(principal, action == Action::"{action.value}", resource);')
    assert decide(one, request(action=action)).verdict is Verdict.ALLOW
    for other in set(Action) - {action}:
        assert decide(one, request(action=other)).verdict is Verdict.REFUSE


def test_what_is_not_there_is_absent() -> None:
    text = "permit(principal, action, resource) unless { context has sbom || context has ueGroup || context has area };"
    assert decide(policy(cedar=text), request(sbom=None, ue_group=None, area=None)).verdict is Verdict.ALLOW


def test_a_forbid_whose_evaluation_fails_refuses_although_cedar_allows() -> None:
    text = ALL + '\n@id("sum") forbid(principal, action, resource) when { context.maxUes * 9223372036854775807 > 0 };'
    asked = request()
    alone = cedarpy.is_authorized(
        cedar._question(asked, Rules()), text, cedar._entities(asked, Rules()), cedar.schema_text()
    )
    assert alone.allowed, "Cedar skips what fails"
    decision = decide(policy(cedar=text), asked)
    assert decision.verdict is Verdict.REFUSE
    (reason,) = decision.against
    assert (reason.effect, reason.code, reason.rule, reason.source) == (
        Effect.ERROR,
        "POLICY_ERROR",
        "sum",
        "own.cedar:2",
    )
    assert "overflow" in reason.sentence


def test_a_permit_whose_evaluation_fails_refuses() -> None:
    text = ALL + "\npermit(principal, action, resource) when { context.maxUes * 9223372036854775807 > 0 };"
    assert decide(policy(cedar=text), request()).verdict is Verdict.REFUSE


def test_facts_that_do_not_fit_the_schema_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    question = cedar._question

    def without_role(*args: Any) -> Any:
        asked = question(*args)
        del asked["context"]["role"]
        return asked

    monkeypatch.setattr(cedar, "_question", without_role)
    decision = decide(policy(cedar=ALL), request())
    assert decision.verdict is Verdict.REFUSE
    assert "POLICY_ERROR" in [r.code for r in decision.against]


@pytest.mark.parametrize("broken", [cedar, rules])
def test_a_fault_of_this_code_refuses(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    def fail(*args: Any) -> Any:
        raise KeyError("gone")

    monkeypatch.setattr(broken, "judge", fail)
    decision = decide(policy(PERMIT, ALL), request())
    assert decision.verdict is Verdict.REFUSE
    assert decision.against[0].code == "POLICY_ERROR"


def test_a_forbid_with_approval_holds_until_a_human_approves() -> None:
    text = ALL + '\n@id("ask") @approval("the duty engineer decides") forbid(principal, action, resource);'
    asks = decide(policy(cedar=text), request())
    assert asks.verdict is Verdict.APPROVAL
    assert "the duty engineer decides" in asks.against[0].sentence
    approved = decide(policy(cedar=text), request(approved_by="chief"))
    assert approved.verdict is Verdict.ALLOW
    assert "chief" in approved.reasons[-1].sentence
    hard = text + "\nforbid(principal, action, resource);"
    assert decide(policy(cedar=hard), request(approved_by="chief")).verdict is Verdict.REFUSE


def test_an_outcome_is_the_statements() -> None:
    text = ALL + '\n@outcome("abort") forbid(principal, action, resource);'
    assert decide(policy(cedar=text), request()).outcome == "abort"


def test_statements_are_told_apart_whatever_their_strings_and_comments_say() -> None:
    text = (
        '// a; b "c\n@id("x") @remedy("x; // y \\" z;")\nforbid(principal, action, resource);// ;\n' + ALL + " // end"
    )
    assert list(cedar.split(text)) == [
        (2, '@id("x") @remedy("x; // y \\" z;")\nforbid(principal, action, resource);'),
        (4, ALL),
    ]
