"""May this software be taken in, and may it be handed to another operator? Facts and rules in, every reason out.

Refusing is by the rules of one operator (`SupplyRules`). Each reason names what it is about, and what would change it:
another version, a VEX statement, a source offer, another rule. Handing software to another company is distribution, so
conveyance and export class are judged there, and only there.
"""

from collections.abc import Iterable, Iterator, Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from outrider.core.refusal import Refusal
from outrider.core.supply import SEVERITIES, Component, Finding, SoftwareFacts, SupplyRules
from outrider.decide.spdx import barred_by, declared


def judge(
    rules: SupplyRules, facts: SoftwareFacts, findings: Sequence[Finding] = (), *, handed_to: str | None = None
) -> list[Refusal]:
    """Every reason against the software; none to take it. `handed_to` is the network that it would be handed to."""
    reasons = [*_of_components(rules, facts.components), *_of_findings(rules, facts, findings)]
    if handed_to is not None:
        reasons += _of_conveyance(rules, facts, handed_to)
    return reasons


def _named(component: Component, **more: str) -> dict[str, str]:
    return {"component": component.name, "version": component.version, "purl": component.purl} | more


def _of_components(rules: SupplyRules, components: Iterable[Component]) -> Iterator[Refusal]:
    barred_licences = frozenset(rules.barred_licences)
    for component in components:
        what = f"{component.name} {component.version}"
        if rules.undeclared_licences == "refuse" and not declared(component.licence):
            said = f" (it says {component.licence!r}, which is no SPDX expression)" if component.licence else ""
            yield Refusal(
                "LICENCE_UNDECLARED",
                f"{what} declares no licence{said}, and this operator takes only software that does.",
                _named(component, licence=component.licence or ""),
                f"The vendor uses a version of {component.name} that declares its licence.",
            )
        barred = barred_by(component.licence, barred_licences)
        if barred:
            yield Refusal(
                "LICENCE_BARRED",
                f"{what} is under {component.licence}, which this operator bars.",
                _named(component, licence=component.licence or "", barred=", ".join(barred)),
                f"The vendor replaces {component.name}, or the operator changes `supply.barred_licences`.",
            )
        for pattern in rules.barred_components:
            if fits(pattern, component):
                yield Refusal(
                    "COMPONENT_BARRED",
                    f"{what} is a component that this operator bars ({pattern}).",
                    _named(component, rule=pattern),
                    f"The vendor replaces {component.name}, or the operator changes `supply.barred_components`.",
                )
        listed = any(fits(pattern, component) for pattern in rules.unmaintained_components)
        if rules.unmaintained == "refuse" and (component.inactive or listed):
            why = "says of itself that it is inactive" if component.inactive else "is known to be unmaintained"
            yield Refusal(
                "COMPONENT_UNMAINTAINED",
                f"{what} {why}, and this operator takes only software that somebody looks after.",
                _named(component),
                f"The vendor replaces {component.name}.",
            )


def _of_findings(rules: SupplyRules, facts: SoftwareFacts, findings: Iterable[Finding]) -> Iterator[Refusal]:
    for finding in findings:
        if justified(rules, finding):
            continue
        what = f"{finding.component} {finding.version}"
        about = {
            "advisory": finding.advisory,
            "aliases": ", ".join(finding.aliases),
            "component": finding.component,
            "version": finding.version,
            "purl": finding.purl,
            "severity": finding.severity or "unknown",
            "fixedIn": ", ".join(finding.fixed_in),
            "vex": finding.vex or "none",
            "justification": finding.justification,
        }
        maybe = "has" if finding.certain else "may have (its versions cannot be compared)"
        if finding.unmaintained:
            if rules.unmaintained == "refuse":
                yield Refusal(
                    "COMPONENT_UNMAINTAINED",
                    f"{what} is unmaintained, says {finding.advisory}.",
                    about,
                    f"The vendor replaces {finding.component}.",
                )
        elif finding.known_exploited and rules.known_exploited == "refuse":
            yield Refusal(
                "COMPONENT_EXPLOITED",
                f"{what} {maybe} {finding.advisory}, which is known to be used in attacks.",
                about,
                _would_change(rules, facts, finding),
            )
        elif finding.rank > SEVERITIES.index(rules.max_severity):
            severity = finding.severity or "of unknown severity, so taken for critical"
            yield Refusal(
                "COMPONENT_VULNERABLE",
                f"{what} {maybe} {finding.advisory} ({severity}); {rules.max_severity} is the worst that this operator "
                "tolerates.",
                about,
                _would_change(rules, facts, finding),
            )


def justified(rules: SupplyRules, finding: Finding) -> bool:
    """Whether a VEX statement takes the weight off a finding, by the justifications that this operator accepts."""
    if finding.vex == "fixed":
        return True
    return finding.vex == "not_affected" and finding.justification in rules.accepted_justifications


def _would_change(rules: SupplyRules, facts: SoftwareFacts, finding: Finding) -> str:
    newer = f"The vendor uses {finding.component} {finding.fixed_in[0]} or later; or a" if finding.fixed_in else "A"
    accepted = ", ".join(rules.accepted_justifications) or "none is accepted"
    said = ""
    if finding.vex == "not_affected":
        given = finding.justification or "no justification"
        said = f" The one in {finding.vex_origin} gives {given}, which is not accepted."
    elif finding.vex is not None:
        said = f" The one in {finding.vex_origin} says {finding.vex}."
    return (
        f"{newer} VEX statement says that {finding.advisory} is fixed, or not_affected ({accepted}), for "
        f"{finding.purl} or pkg:generic/{facts.service}@{facts.version}.{said}"
    )


def _of_conveyance(rules: SupplyRules, facts: SoftwareFacts, network: str) -> Iterator[Refusal]:
    allowed = rules.export_classes
    if allowed is not None and facts.export_class not in allowed:
        yield Refusal(
            "EXPORT_CLASS_BARRED",
            f"{facts.service} is of export class {facts.export_class or 'none declared'}, which this operator does not "
            f"hand to {network}.",
            {"exportClass": facts.export_class, "allowed": ", ".join(allowed), "network": network},
            "The vendor declares another class, or the operator changes `supply.export_classes`.",
        )
    demanding = frozenset(rules.source_offer_licences)
    for component in facts.components:
        by = barred_by(component.licence, demanding)
        if by and component.compiled and not component.source_offer:
            yield Refusal(
                "SOURCE_OFFER_MISSING",
                f"{component.name} {component.version} is under {component.licence}: who hands it to {network} must "
                "also hand over its source, or offer it, and the package does neither.",
                _named(component, licence=component.licence or "", network=network),
                f"The vendor writes where the source of {component.name} can be had into `source_offers` of the "
                "manifest, or replaces it.",
            )


# ------------------------------------------------------------------------------------------------ components


def fits(pattern: str, component: Component) -> bool:
    """Whether a component is one of those that a package URL names, with `@1.2`, a range (`@>=1,<2`) or neither."""
    bare, _, wanted = pattern.partition("@")
    own = component.purl.partition("@")[0]
    if bare.startswith("pkg:pypi/"):
        same = own.startswith("pkg:pypi/") and canonicalize_name(bare[9:]) == canonicalize_name(own[9:])
    else:
        same = bare == own
    if not same or not wanted:
        return same
    if wanted[0] not in "<>=!~":
        return wanted == component.version
    try:
        return SpecifierSet(wanted, prereleases=True).contains(Version(component.version))
    except (InvalidSpecifier, InvalidVersion):
        return True  # a range that cannot be compared bars: a rule must not fail open
