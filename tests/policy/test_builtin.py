"""Each typed rule: what meets it, what does not, by which code, and the exact bound that would change it."""

import msgspec
import pytest

from outrider.decide.policy import builtin
from outrider.decide.policy.decision import Decision, Verdict
from outrider.decide.policy.policy import NO_POLICY, decide
from outrider.decide.policy.request import Part, Request, Sbom
from support.policies import NOON_MS, PERMIT, SBOM, A, B, C, policy, request

HOUR = 3_600_000

UNMET = [
    ('partners = ["999-72"]', request(), "POLICY_PARTNER", "partners: 999-72"),
    ('barred_partners = ["999-70"]', request(), "POLICY_PARTNER", "no party of 999-70"),
    ('partners = ["999-70"]', request(source=C), "POLICY_PARTNER", "partners: 999-70"),
    ('jurisdictions = ["DE"]', request(), "POLICY_JURISDICTION", "jurisdictions: DE"),
    ('services = ["other-*"]', request(), "POLICY_SERVICE", "services: other-*"),
    ('barred_services = ["group-*"]', request(), "POLICY_SERVICE", "services other than group-*"),
    ('vendors = ["Nobody"]', request(), "POLICY_VENDOR", "vendors: Nobody"),
    ('purposes = ["research"]', request(), "POLICY_PURPOSE", "purposes: research"),
    ('ue_groups = ["train-8"]', request(), "POLICY_UE_GROUP", "ue_groups: train-8"),
    ('ue_groups = ["train-8"]', request(ue_group=None), "POLICY_UE_GROUP", "ue_groups: train-8"),
    ('areas = ["yard"]', request(), "POLICY_AREA", "areas: yard"),
    ('areas = ["port"]', request(area=None), "POLICY_AREA", "areas: port"),
    ('areas = ["port"]', request(area=("port", "city")), "POLICY_AREA", "areas: port"),
    ('hours = "22:00-12:00"', request(), "POLICY_HOURS", "hours: 22:00-12:00 UTC"),
    ('hours = "08:00-12:00"', request(), "POLICY_HOURS", "hours: 08:00-12:00 UTC"),
    ('weekdays = ["sat", "sun"]', request(), "POLICY_HOURS", "weekdays: sat, sun UTC"),
    ("max_ues = 999", request(), "POLICY_UES", "max_ues: 999"),
    ("max_stay_hours = 5.5", request(), "POLICY_STAY", "max_stay_hours: 5.5"),
    ("max_memory_mb = 255", request(), "POLICY_MEMORY", "max_memory_mb: 255"),
    ('data_entering = ["session"]', request(), "POLICY_DATA", "data_entering: session"),
    ('data_leaving = ["session"]', request(role="source"), "POLICY_DATA", "data_leaving: session"),
    ('licences = ["Apache-2.0"]', request(), "POLICY_LICENCE", "licences: Apache-2.0"),
    ('barred_licences = ["BSD-3-Clause"]', request(), "POLICY_LICENCE", "licences other than BSD-3-Clause"),
    ('barred_components = ["star*"]', request(), "POLICY_COMPONENT", "components other than star*"),
    ("max_components = 2", request(), "POLICY_COMPONENT", "max_components: 2"),
    ('modes = ["sync"]', request(), "POLICY_MODE", "modes: sync"),
    ('arrival_evidence = ["home-verified"]', request(), "POLICY_EVIDENCE", "arrival_evidence: home-verified"),
]

MET = [
    ('partners = ["999-70"]', request()),
    ('barred_partners = ["999-72"]', request()),
    ('jurisdictions = ["mcc-999"]', request()),
    ('services = ["group-*"]', request()),
    ('barred_services = ["other-*"]', request()),
    ('vendors = ["Example Vendor"]', request()),
    ('purposes = ["communication-service"]', request()),
    ('ue_groups = ["train-7"]', request()),
    ('areas = ["port", "yard"]', request()),
    ('hours = "12:00-12:01"', request()),
    ('hours = "22:00-12:01"', request()),
    ('weekdays = ["mon"]', request()),
    ("max_ues = 1000", request()),
    ("max_stay_hours = 6", request()),
    ("max_memory_mb = 256", request()),
    ('data_entering = ["session", "location"]', request()),
    ("data_entering = []", request(role="source")),
    ("data_leaving = []", request()),
    ('licences = ["Apache-2.0", "BSD-3-Clause", "MIT"]', request()),
    ('barred_licences = ["GPL-3.0-only"]', request()),
    ('barred_components = ["log4j*"]', request()),
    ("max_components = 3", request()),
    ('modes = ["async"]', request()),
    ('arrival_evidence = ["target-asserted"]', request()),
]


def _under(term: str, asked: Request, kind: str = "require") -> Decision:
    return decide(policy(f'{PERMIT}\n[[{kind}]]\nid = "rule"\nclause = "§ 4"\n{term}\n'), asked)


@pytest.mark.parametrize(("term", "asked", "code", "change"), UNMET)
def test_a_term_that_is_not_met_refuses_with_its_code_line_and_bound(
    term: str, asked: Request, code: str, change: str
) -> None:
    decision = _under(term, asked)
    assert decision.verdict is Verdict.REFUSE
    (reason,) = decision.against
    assert (reason.code, reason.change, reason.rule, reason.clause) == (code, change, "rule", "§ 4")
    assert reason.source == "rules.toml:4"
    assert reason.facts["asked"]
    (told,) = decision.told(B)
    assert (told.code, bool(told.remedy)) == (code, True)
    assert "rule" in told.sentence
    assert "§ 4" not in str(told)


@pytest.mark.parametrize(("term", "asked"), MET)
def test_a_term_that_is_met_says_nothing(term: str, asked: Request) -> None:
    assert _under(term, asked).verdict is Verdict.ALLOW


def test_every_term_is_tried_both_ways() -> None:
    for table in (UNMET, MET):
        assert {case[0].partition(" ")[0] for case in table} == set(builtin.TERMS)


def test_all_reasons_are_returned_not_the_first() -> None:
    decision = _under('max_ues = 1\nmax_stay_hours = 1\npurposes = []\nareas = ["x"]', request())
    assert [r.code for r in decision.against] == ["POLICY_PURPOSE", "POLICY_AREA", "POLICY_UES", "POLICY_STAY"]


def test_a_rule_about_an_sbom_that_is_not_here_is_pending_and_named() -> None:
    before = _under('licences = ["MIT"]', request(sbom=None))
    assert (before.verdict, before.pending) == (Verdict.ALLOW, ("rule",))
    after = _under('licences = ["MIT"]', request())
    assert (after.verdict, after.pending) == (Verdict.REFUSE, ())


@pytest.mark.parametrize("licence", ["", "Some License", "MIT AND", "(" * 500])
def test_a_licence_that_is_none_is_not_on_the_list(licence: str) -> None:
    asked = request(sbom=Sbom((Part("odd", "1", licence),)))
    assert _under('licences = ["MIT"]', asked).verdict is Verdict.REFUSE


@pytest.mark.parametrize(
    ("licence", "met"),
    [
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("(MIT OR Apache-2.0) AND ISC", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
    ],
)
def test_an_expression_is_met_by_one_of_its_choices(licence: str, met: bool) -> None:
    decision = _under('licences = ["MIT"]', request(sbom=Sbom((Part("c", "1", licence),))))
    assert (decision.verdict is Verdict.ALLOW) == met


def test_an_exception_makes_another_licence_to_take_and_none_to_bar() -> None:
    licence = "GPL-2.0-only WITH Classpath-exception-2.0"
    asked = request(sbom=Sbom((Part("c", "1", licence),)))
    assert _under(f'licences = ["{licence}"]', asked).verdict is Verdict.ALLOW
    assert _under('licences = ["GPL-2.0-only"]', asked).verdict is Verdict.REFUSE
    for barred in (licence, "GPL-2.0-only"):
        assert _under(f'barred_licences = ["{barred}"]', asked).verdict is Verdict.REFUSE


@pytest.mark.parametrize("licence", ["GPL-2.0-only AND (", "GPL-2.0, see COPYING", "LicenseRef-x AND GPL-2.0-only"])
def test_a_barred_licence_is_barred_in_what_is_no_expression_too(licence: str) -> None:
    asked = request(sbom=Sbom((Part("c", "1", licence),)))
    assert _under('barred_licences = ["GPL-2.0-only"]', asked).verdict is Verdict.REFUSE
    assert _under('barred_licences = ["MIT"]', asked).verdict is Verdict.ALLOW
    named = 'context has sbom && context.sbom.licences.contains("GPL-2.0-only")'
    cedar = f"permit(principal, action, resource);\nforbid(principal, action, resource) when {{ {named} }};"
    assert decide(policy(cedar=cedar), asked).verdict is Verdict.REFUSE


def test_when_says_which_requests_a_rule_is_about() -> None:
    for when, applies in (
        ('actions = ["HostService"]', True),
        ('actions = ["SendService"]', False),
        ('partners = ["999-70"]', True),
        ('partners = ["999-72"]', False),
        ('services = ["group-*"]', True),
        ('services = ["x"]', False),
        ('purposes = ["communication-service"]', True),
        ('purposes = ["x"]', False),
    ):
        decision = _under(f"max_ues = 1\nwhen = {{ {when} }}", request())
        assert (decision.verdict is Verdict.REFUSE) == applies, when


def test_what_no_permit_meets_is_refused_with_what_each_would_need() -> None:
    rules = '[[permit]]\nid = "far"\nmax_ues = 1\npurposes = ["x"]\n[[permit]]\nid = "near"\nmax_ues = 5\n'
    (reason,) = decide(policy(rules), request()).against
    assert reason.code == "POLICY_NO_PERMIT"
    assert reason.change == "rule near: max_ues: 5; or rule far: purposes: x and max_ues: 1"
    assert reason.remedy == "Ask for at most 5 UEs."


def test_a_forbid_wins_over_any_permit() -> None:
    assert _under("max_ues = 1", request()).verdict is Verdict.REFUSE


def test_an_approval_asks_a_human_about_what_does_not_meet_it() -> None:
    asks = _under("max_ues = 10", request(), "approval")
    assert asks.verdict is Verdict.APPROVAL
    assert [r.code for r in asks.told(B)] == ["POLICY_APPROVAL_NEEDED"]
    assert _under("max_ues = 10", request(approved_by="chief"), "approval").verdict is Verdict.ALLOW
    assert _under("max_ues = 1000", request(), "approval").verdict is Verdict.ALLOW
    assert _under("", request(), "approval").verdict is Verdict.APPROVAL


def test_an_approval_does_not_lift_what_is_forbidden() -> None:
    rules = f'{PERMIT}[[approval]]\nid = "ask"\n[[require]]\nid = "few"\nmax_ues = 1\n'
    assert decide(policy(rules), request(approved_by="chief")).verdict is Verdict.REFUSE
    without_permit = '[[approval]]\nid = "ask"\n'
    assert decide(policy(without_permit), request(approved_by="chief")).verdict is Verdict.REFUSE


def test_hours_and_days_are_those_of_the_operators_clock() -> None:
    rules = f'timezone = "Europe/Berlin"\n{PERMIT}[[require]]\nid = "r"\nhours = "13:00-13:01"\nweekdays = ["mon"]\n'
    assert decide(policy(rules), request()).verdict is Verdict.ALLOW
    summer = NOON_MS - 150 * 24 * HOUR
    assert decide(policy(rules), request(now_ms=summer)).verdict is Verdict.REFUSE


def test_jurisdictions_are_by_network_then_by_country_code() -> None:
    rules = f'{PERMIT}[jurisdictions]\n"999" = "XX"\n"999-70" = "DE"\n'
    parsed = policy(rules).rules
    assert [parsed.jurisdiction(n) for n in (A, B, "262-01")] == ["DE", "XX", "mcc-262"]


def test_without_a_policy_everything_is_allowed_and_says_by_what() -> None:
    decision = decide(NO_POLICY, request(sbom=SBOM))
    assert (decision.verdict, decision.policy, [r.rule for r in decision.reasons]) == (
        Verdict.ALLOW,
        "default",
        ["default"],
    )


def test_the_harder_outcome_wins() -> None:
    rules = f'{PERMIT}[[require]]\nid = "a"\nmax_ues = 1\n[[require]]\nid = "b"\nmax_ues = 1\noutcome = "abort"\n'
    assert decide(policy(rules), request()).outcome == "abort"
    assert _under("max_ues = 1", request()).outcome == "return"


def test_a_request_is_read_back_as_it_was_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(request()), type=Request) == request()
