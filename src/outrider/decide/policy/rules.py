"""Judging the typed rules: for each term that is not met, its code, the facts, and the exact bound."""

import datetime as dt
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

import msgspec

from outrider.decide import spdx
from outrider.decide.policy.builtin import TERMS, Rule, Rules, bounds
from outrider.decide.policy.decision import Effect, Reason
from outrider.decide.policy.request import Part, Request, Sbom

ABOUT_SBOM = frozenset({"licences", "barred_licences", "barred_components", "max_components"})
"""Terms that can be judged only when the package is here."""

_NAMED = 5
"""Components that a sentence names; the facts have all."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Unmet(msgspec.Struct, frozen=True):
    """A term that a request does not meet."""

    key: str
    code: str
    sentence: str
    asked: str
    """The fact that decided."""
    change: str
    """The bound, for the operator."""
    remedy: str
    """The bound in words that a partner may read; other partners are not named."""


def judge(rules: Rules, request: Request, where: dict[str, int], file: str) -> tuple[list[Reason], list[str]]:
    """What each rule says, and the rules that look at an SBOM which is not here yet."""
    reasons: list[Reason] = []
    pending: list[str] = []
    for kind, effect in (("require", Effect.FORBID), ("approval", Effect.APPROVAL)):
        for rule in getattr(rules, kind):
            if not _covers(rule, request):
                continue
            source = f"{file}:{where[rule.id]}"
            if _waits(rule, request):
                pending.append(rule.id)
            found = list(unmet(rule, request, rules))
            if effect is Effect.APPROVAL:
                if _waits(rule, request):  # the terms are what a human reads: asked once, before anything moves
                    asked = request.package_digest
                    found.append(Unmet("sbom", "POLICY_APPROVAL_NEEDED", "the SBOM is not here yet", asked, "", ""))
                given = Effect.APPROVED if request.approved_by else effect
                reasons += _approval(rule, found, given, source, request)
            else:
                reasons += [_reason(effect, u, rule, source) for u in found]
    for rule in rules.permit:
        if _covers(rule, request) and not list(unmet(rule, request, rules)):
            if _waits(rule, request):
                pending.append(rule.id)
            said = f"rule {rule.id} permits it"
            source = f"{file}:{where[rule.id]}"
            reasons.append(
                Reason(effect=Effect.PERMIT, code="", sentence=said, rule=rule.id, clause=rule.clause, source=source)
            )
    return reasons, pending


def nearest(rules: Rules, request: Request) -> tuple[str, str]:
    """What would let each rule permit the request: for the operator in full, and for the partner, of the nearest."""
    tried = [(list(unmet(rule, request, rules)), rule) for rule in rules.permit if _covers(rule, request)]
    tried.sort(key=lambda t: len(t[0]))
    full = "; or ".join(f"rule {rule.id}: {' and '.join(u.change for u in found)}" for found, rule in tried)
    told = " ".join(u.remedy for u in tried[0][0]) if tried else ""
    return full, told


def _covers(rule: Rule, request: Request) -> bool:
    when = rule.when
    return (
        (when.actions is None or request.action in when.actions)
        and (when.partners is None or any(other in when.partners for other in request.others))
        and (when.services is None or _like(request.service, when.services))
        and (when.purposes is None or request.purpose in when.purposes)
    )


def _waits(rule: Rule, request: Request) -> bool:
    return request.sbom is None and any(getattr(rule, key) is not None for key in ABOUT_SBOM)


def _approval(rule: Rule, found: list[Unmet], effect: Effect, source: str, request: Request) -> list[Reason]:
    """A rule without terms always asks; one with terms only about what does not meet them."""
    if all(getattr(rule, key) is None for key in TERMS):
        found = [Unmet("when", "POLICY_APPROVAL_NEEDED", "a human decides about it", request.service, "", "")]
    by = f"; {request.approved_by} has approved" if effect is Effect.APPROVED else ""
    return [
        msgspec.structs.replace(
            _reason(effect, u, rule, source),
            code="POLICY_APPROVAL_NEEDED",
            sentence=f"{u.sentence}{by}",
            remedy="Wait for this network's operator to approve it.",
            change=" or ".join(filter(None, (u.change, "an approval (`outrider approval grant`)"))),
        )
        for u in found
    ]


def _reason(effect: Effect, found: Unmet, rule: Rule, source: str) -> Reason:
    return Reason(
        effect=effect,
        code=found.code,
        sentence=found.sentence,
        rule=rule.id,
        key=found.key,
        clause=rule.clause,
        source=source,
        facts={found.key: bounds(getattr(rule, found.key, "")), "asked": found.asked},
        change=found.change,
        remedy=rule.remedy or found.remedy,
        outcome=rule.outcome,
    )


def _like(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unmet(rule: Rule, request: Request, rules: Rules) -> Iterator[Unmet]:
    """Every term of a rule that a request does not meet. Terms about an SBOM that is not here are passed over."""
    yield from _who(rule, request, rules)
    yield from _what(rule, request)
    yield from _when(rule, request, rules)
    if request.sbom is not None:
        yield from _software(rule, request.sbom)


def _who(rule: Rule, request: Request, rules: Rules) -> Iterator[Unmet]:
    others = request.others
    ask = f"Ask the operator of {request.network}."

    def no(code: str, sentence: str, key: str, asked: Iterable[str], change: str) -> Unmet:
        return Unmet(key, code, sentence, ", ".join(asked), change, ask)

    if rule.partners is not None and (strange := [n for n in others if n not in rule.partners]):
        said = f"{', '.join(strange)} is none of the networks that it is for"
        yield no("POLICY_PARTNER", said, "partners", strange, f"partners: {bounds(rule.partners)}")
    if rule.barred_partners is not None and (barred := [n for n in others if n in rule.barred_partners]):
        said = f"{', '.join(barred)} is barred"
        yield no("POLICY_PARTNER", said, "barred_partners", barred, f"no party of {bounds(rule.barred_partners)}")
    if rule.jurisdictions is not None:
        where = {n: rules.jurisdiction(n) for n in others}
        outside = [f"{n} ({j})" for n, j in where.items() if j not in rule.jurisdictions]
        if outside:
            said = f"{', '.join(outside)} is in no jurisdiction that it is for"
            change = f"jurisdictions: {bounds(rule.jurisdictions)}"
            yield no("POLICY_JURISDICTION", said, "jurisdictions", outside, change)


def _what(rule: Rule, request: Request) -> Iterator[Unmet]:
    def no(code: str, sentence: str, key: str, asked: str, remedy: str = "") -> Unmet:
        bound = bounds(getattr(rule, key))
        change = f"{key.removeprefix('barred_')} other than {bound}" if "barred" in key else f"{key}: {bound}"
        return Unmet(key, code, sentence, asked, change, remedy or f"Ask for {change.replace('_', ' ')}.")

    ask = f"Ask the operator of {request.network}."
    service = request.service
    if rule.services is not None and not _like(service, rule.services):
        yield no("POLICY_SERVICE", f"{service} is none of its services", "services", service, ask)
    if rule.barred_services is not None and _like(service, rule.barred_services):
        yield no("POLICY_SERVICE", f"{service} is barred", "barred_services", service, ask)
    if rule.vendors is not None and request.vendor not in rule.vendors:
        yield no("POLICY_VENDOR", f"{request.vendor} is none of its vendors", "vendors", request.vendor, ask)
    if rule.purposes is not None and request.purpose not in rule.purposes:
        yield no("POLICY_PURPOSE", f"{request.purpose} is none of its purposes", "purposes", request.purpose)
    if rule.ue_groups is not None and request.ue_group not in rule.ue_groups:
        group = request.ue_group or "all UEs"
        yield no("POLICY_UE_GROUP", f"{group} is none of its UE groups", "ue_groups", group, ask)
    if rule.areas is not None:
        outside = ["everywhere"] if request.area is None else sorted(set(request.area) - set(rule.areas))
        if outside:
            yield no("POLICY_AREA", f"{', '.join(outside)} is outside its areas", "areas", ", ".join(outside))
    if rule.max_ues is not None and request.max_ues > rule.max_ues:
        said = f"{request.max_ues} UEs are more than {rule.max_ues}"
        yield no("POLICY_UES", said, "max_ues", str(request.max_ues), f"Ask for at most {rule.max_ues} UEs.")
    if rule.max_stay_hours is not None and request.stay_ms > rule.max_stay_hours * 3_600_000:
        hours = f"{request.stay_ms / 3_600_000:g}"
        said = f"a stay of {hours} hours is longer than {rule.max_stay_hours:g}"
        yield no("POLICY_STAY", said, "max_stay_hours", hours, f"Ask for at most {rule.max_stay_hours:g} hours.")
    if rule.max_memory_mb is not None and request.resources.memory_mb > rule.max_memory_mb:
        memory = request.resources.memory_mb
        said = f"{memory} MB of memory are more than {rule.max_memory_mb}"
        yield no("POLICY_MEMORY", said, "max_memory_mb", str(memory), f"At most {rule.max_memory_mb} MB of memory.")
    key = "data_entering" if request.enters else "data_leaving"
    allowed = rule.data_entering if request.enters else rule.data_leaving
    if allowed is not None and (beyond := sorted(set(request.data_categories) - set(allowed))):
        way = "enter" if request.enters else "leave"
        yield no("POLICY_DATA", f"{', '.join(beyond)} data may not {way}", key, ", ".join(beyond))
    if rule.modes is not None and request.mode not in rule.modes:
        yield no("POLICY_MODE", f"{request.mode} is none of its modes", "modes", request.mode)
    if rule.arrival_evidence is not None and request.arrival_evidence not in rule.arrival_evidence:
        evidence = request.arrival_evidence
        yield no("POLICY_EVIDENCE", f"{evidence} is not evidence enough of an arrival", "arrival_evidence", evidence)


def _when(rule: Rule, request: Request, rules: Rules) -> Iterator[Unmet]:
    if rule.hours is None and rule.weekdays is None:
        return
    local = request.local(rules.zone)
    clock = f"{local:%H:%M} {rules.timezone}"

    def no(code: str, sentence: str, key: str, asked: str) -> Unmet:
        change = f"{key}: {bounds(getattr(rule, key))} {rules.timezone}"
        return Unmet(key, code, sentence, asked, change, f"Ask within {change.partition(': ')[2]}.")

    if rule.hours is not None and not _within(rule.hours, local):
        yield no("POLICY_HOURS", f"{clock} is outside {rule.hours}", "hours", clock)
    if rule.weekdays is not None and (day := _DAYS[local.weekday()]) not in rule.weekdays:
        yield no("POLICY_HOURS", f"{day} is none of its days", "weekdays", day)


def _within(hours: str, local: dt.datetime) -> bool:
    """From the first minute, until the last one is reached; over midnight where the end is not after the begin."""
    begin, end = hours.split("-")
    clock = f"{local:%H:%M}"
    return begin <= clock < end if begin < end else clock >= begin or clock < end


def _software(rule: Rule, sbom: Sbom) -> Iterator[Unmet]:
    def no(code: str, key: str, why: str, found: list[Part]) -> Unmet:
        named = ", ".join(_name(c) for c in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        bound = bounds(getattr(rule, key))
        change = f"{key.removeprefix('barred_')} other than {bound}" if "barred" in key else f"{key}: {bound}"
        asked = ", ".join(_name(c) for c in found)
        return Unmet(key, code, f"{named}{more} {why}", asked, change, f"A package without {named}{more}.")

    components = sbom.components
    if rule.licences is not None:
        allowed = frozenset(rule.licences)
        if found := [c for c in components if not spdx.met(c.licence, allowed)]:
            yield no("POLICY_LICENCE", "licences", "is under no licence that it takes", found)
    if rule.barred_licences is not None:
        barred = frozenset(rule.barred_licences)
        if found := [c for c in components if spdx.barred_by(c.licence, barred)]:
            yield no("POLICY_LICENCE", "barred_licences", "is under a barred licence", found)
    if found := [c for c in components if _like(c.name, rule.barred_components or ())]:
        yield no("POLICY_COMPONENT", "barred_components", "is barred", found)
    if rule.max_components is not None and len(components) > rule.max_components:
        many = f"{len(components)} components are more than {rule.max_components}"
        bound = f"max_components: {rule.max_components}"
        less = f"A package of at most {rule.max_components} components."
        yield Unmet("max_components", "POLICY_COMPONENT", many, str(len(components)), bound, less)


def _name(component: Part) -> str:
    return f"{component.name} {component.version} ({component.licence or 'no licence declared'})"
