"""What an operator takes and hands on: each rule refuses for its own cause, and says what would change it."""

import msgspec
import pytest

from outrider.core.supply import Component, Finding, SoftwareFacts, SupplyRules
from outrider.decide.spdx import barred_by
from outrider.decide.supply import fits, judge


def component(**changes: object) -> Component:
    terms: dict[str, object] = {
        "ref": "wheels/lib.whl", "name": "lib", "version": "1.5", "purl": "pkg:pypi/lib@1.5", "licence": "MIT"
    }  # fmt: skip
    return Component(**(terms | changes))  # type: ignore[arg-type]


def facts(*components: Component, **changes: object) -> SoftwareFacts:
    made = SoftwareFacts(
        service="roll-call", version="1.2.0", package_digest="a" * 64, sbom_digest="b" * 64, vendor="Acme",
        components=components or (component(),),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def finding(**changes: object) -> Finding:
    terms: dict[str, object] = {
        "advisory": "GHSA-1", "aliases": ("CVE-1",), "component": "lib", "version": "1.5", "purl": "pkg:pypi/lib@1.5",
        "severity": "critical", "fixed_in": ("1.6", "2.0"),
    }  # fmt: skip
    return Finding(**(terms | changes))  # type: ignore[arg-type]


def causes(rules: SupplyRules, of: SoftwareFacts | None = None, *findings: Finding, to: str | None = None) -> list[str]:
    return [r.code for r in judge(rules, of or facts(), findings, handed_to=to)]


def test_plain_software_is_taken_and_handed_on():
    assert causes(SupplyRules()) == []
    assert causes(SupplyRules(), to="999-71") == []


@pytest.mark.parametrize(
    ("licence", "barred"),
    [
        ("AGPL-3.0-only", ["AGPL-3.0-only"]),
        ("MIT OR AGPL-3.0-only", []),
        ("MIT AND AGPL-3.0-only", ["AGPL-3.0-only"]),
        ("SSPL-1.0 OR AGPL-3.0-only", ["AGPL-3.0-only", "SSPL-1.0"]),
        ("(MIT OR SSPL-1.0) AND (Apache-2.0 OR AGPL-3.0-only)", []),
        ("(MIT AND SSPL-1.0) OR (Apache-2.0 AND AGPL-3.0-only)", ["AGPL-3.0-only", "SSPL-1.0"]),
        ("AGPL-3.0-only WITH Classpath-exception-2.0", ["AGPL-3.0-only"]),
        ("AGPL-3.0", ["AGPL-3.0-only"]),
        ("Our Own Licence", ["Our Own Licence"]),
        ("Their Own Licence", []),
        (";", []),
        ("MIT", []),
        ("LicenseRef-X AND AGPL-3.0-only", ["AGPL-3.0-only"]),
        ("AGPL-3.0-only AND (", ["AGPL-3.0-only"]),
        ("MIT OR (AGPL-3.0-only", ["AGPL-3.0-only"]),
        (None, []),
    ],
    ids=str,
)
def test_a_barred_licence_is_refused_unless_there_is_a_choice(licence, barred):
    rules = SupplyRules(barred_licences=("AGPL-3.0-only", "SSPL-1.0", "Our Own Licence"))
    assert barred_by(licence, rules.barred_licences) == barred
    reasons = judge(rules, facts(component(licence=licence)))
    assert [r.code for r in reasons] == (["LICENCE_BARRED"] if barred else [])
    if barred:
        assert reasons[0].facts["barred"] == ", ".join(barred)


def test_a_licence_that_is_not_declared():
    of = facts(component(licence=None))
    assert causes(SupplyRules(), of) == []
    assert causes(SupplyRules(undeclared_licences="refuse"), of) == ["LICENCE_UNDECLARED"]


def test_a_text_that_is_no_expression_declares_nothing_and_is_barred_by_what_it_names():
    of = facts(component(licence="AGPL-3.0-only AND ("))
    rules = SupplyRules(undeclared_licences="refuse", barred_licences=("AGPL-3.0-only",))
    assert causes(rules, of) == ["LICENCE_UNDECLARED", "LICENCE_BARRED"]
    assert causes(SupplyRules(undeclared_licences="refuse"), facts(component(licence="LicenseRef-Own"))) == []


@pytest.mark.parametrize(
    ("pattern", "bars"),
    [
        ("pkg:pypi/lib", True),
        ("pkg:pypi/LIB", True),
        ("pkg:pypi/lib@1.5", True),
        ("pkg:pypi/lib@1.4", False),
        ("pkg:pypi/lib@<2", True),
        ("pkg:pypi/lib@<1.5", False),
        ("pkg:pypi/lib@>=1,<1.6", True),
        ("pkg:pypi/lib@<nonsense", True),
        ("pkg:npm/lib", False),
        ("pkg:pypi/library", False),
    ],
)
def test_a_barred_component(pattern, bars):
    assert fits(pattern, component()) == bars
    assert causes(SupplyRules(barred_components=(pattern,))) == (["COMPONENT_BARRED"] if bars else [])


def test_what_nobody_looks_after():
    refuse = SupplyRules(unmaintained="refuse", unmaintained_components=("pkg:pypi/lib",))
    assert causes(refuse) == ["COMPONENT_UNMAINTAINED"]
    assert causes(SupplyRules(unmaintained="refuse"), facts(component(inactive=True))) == ["COMPONENT_UNMAINTAINED"]
    said = finding(unmaintained=True, severity=None)
    assert causes(SupplyRules(unmaintained="refuse"), None, said) == ["COMPONENT_UNMAINTAINED"]
    assert causes(SupplyRules(), facts(component(inactive=True)), said) == []


@pytest.mark.parametrize("worst", ["none", "low", "medium", "high", "critical"])
@pytest.mark.parametrize("severity", ["none", "low", "medium", "high", "critical", None])
def test_a_vulnerability_that_is_worse_than_tolerated(worst, severity):
    order = ["none", "low", "medium", "high", "critical"]
    refused = order.index(severity or "critical") > order.index(worst)
    assert causes(SupplyRules(max_severity=worst), None, finding(severity=severity)) == (
        ["COMPONENT_VULNERABLE"] if refused else []
    )


def test_a_refusal_names_advisory_component_version_fix_and_the_vex_that_would_change_it():
    (reason,) = judge(SupplyRules(), facts(), [finding()])
    assert {k: reason.facts[k] for k in ("advisory", "component", "version", "fixedIn")} == {
        "advisory": "GHSA-1", "component": "lib", "version": "1.5", "fixedIn": "1.6, 2.0",
    }  # fmt: skip
    assert "lib 1.6 or later" in reason.remedy
    assert "not_affected (component_not_present, " in reason.remedy
    assert "pkg:pypi/lib@1.5 or pkg:generic/roll-call@1.2.0" in reason.remedy


@pytest.mark.parametrize(
    ("vex", "justification", "refused"),
    [
        ("not_affected", "vulnerable_code_not_present", False),
        ("not_affected", "code_not_reachable", False),
        ("not_affected", "inline_mitigations_already_exist", True),
        ("not_affected", "", True),
        ("fixed", "", False),
        ("affected", "vulnerable_code_not_present", True),
        ("under_investigation", "", True),
        (None, "", True),
    ],
)
@pytest.mark.parametrize("exploited", [False, True])
def test_only_an_accepted_justification_takes_the_weight_off(vex, justification, refused, exploited):
    said = finding(vex=vex, justification=justification, vex_origin="own.json", known_exploited=exploited)
    code = "COMPONENT_EXPLOITED" if exploited else "COMPONENT_VULNERABLE"
    assert causes(SupplyRules(), None, said) == ([code] if refused else [])
    if refused and vex:
        assert "own.json" in judge(SupplyRules(), facts(), [said])[0].remedy


def test_known_exploited_counts_whatever_the_severity():
    mild = finding(severity="low", known_exploited=True)
    assert causes(SupplyRules(), None, mild) == ["COMPONENT_EXPLOITED"]
    assert causes(SupplyRules(known_exploited="allow"), None, mild) == []


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"licence": "GPL-3.0-only", "compiled": True}, True),
        ({"licence": "GPL-3.0-only", "compiled": False}, False),
        ({"licence": "GPL-3.0-only", "compiled": True, "source_offer": "https://example.org/lib"}, False),
        ({"licence": "MIT OR GPL-3.0-only", "compiled": True}, False),
        ({"licence": "MIT", "compiled": True}, False),
    ],
    ids=str,
)
def test_what_is_handed_on_brings_its_source_where_the_licence_says_so(changes, refused):
    of = facts(component(**changes))
    assert causes(SupplyRules(), of) == [], "taking it in is no distribution"
    assert causes(SupplyRules(), of, to="999-71") == (["SOURCE_OFFER_MISSING"] if refused else [])


@pytest.mark.parametrize(
    ("allowed", "declared", "refused"),
    [(None, "", False), (None, "5D002", False), (("EAR99",), "EAR99", False), (("EAR99",), "5D002", True),
     (("EAR99",), "", True), ((), "EAR99", True), (("EAR99", ""), "", False)],
)  # fmt: skip
def test_only_some_export_classes_are_handed_on(allowed, declared, refused):
    of = facts(export_class=declared)
    assert causes(SupplyRules(export_classes=allowed), of) == []
    assert causes(SupplyRules(export_classes=allowed), of, to="999-71") == (["EXPORT_CLASS_BARRED"] if refused else [])


def test_every_reason_is_told():
    rules = SupplyRules(barred_licences=("MIT",), barred_components=("pkg:pypi/lib",), export_classes=())
    of = facts(component(inactive=True))
    assert causes(rules, of, finding(), to="999-71") == [
        "LICENCE_BARRED", "COMPONENT_BARRED", "COMPONENT_VULNERABLE", "EXPORT_CLASS_BARRED",
    ]  # fmt: skip
