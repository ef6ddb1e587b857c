"""The Cedar half of a policy: parsed statement by statement, validated against the schema, evaluated with all reasons.

Cedar skips a policy whose evaluation fails, so that a "forbid" with a fault would allow. Here any error refuses: the
caller gets it as a reason of its own. Two annotations change what a statement does: `@approval` on a "forbid" means
that it holds until a human has approved, `@outcome("abort")` that a stay it ends is stopped and not returned.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, cast, get_args

import cedarpy

from outrider.core.ids import NetworkId
from outrider.decide import spdx
from outrider.decide.policy.builtin import Rules
from outrider.decide.policy.decision import Effect, Outcome, Reason
from outrider.decide.policy.invalid import Problem
from outrider.decide.policy.request import Request

ANNOTATIONS = ("id", "clause", "remedy", "approval", "outcome")
_ID = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")
_TEXT_MAX = 400
_BLANK = re.compile(r"(?:\s|//[^\n]*)*")
_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;', re.DOTALL)


def schema_text() -> str:
    """The schema, as it ships."""
    return (files("outrider.decide.policy") / "outrider.cedarschema").read_text(encoding="utf-8")


@functools.cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


@dataclass(frozen=True, slots=True)
class Statement:
    """One `permit` or `forbid`, with what its annotations say."""

    id: str
    effect: str
    text: str
    source: str
    """File and line."""
    clause: str = ""
    remedy: str = ""
    approval: str | None = None
    outcome: Outcome = "return"


@dataclass(frozen=True, slots=True)
class Half:
    """The statements of one effect, and the set that Cedar made of them; its ids are their places.

    Cedar names what permits only where nothing forbids, and all reasons are wanted: so each effect is asked alone.
    """

    statements: tuple[Statement, ...] = ()
    set: Any = field(default=None, compare=False)

    @classmethod
    def of(cls, statements: list[Statement], effect: str) -> "Half":
        """Those of one effect."""
        own = tuple(s for s in statements if s.effect == effect)
        return cls(own, cedarpy.PolicySet.from_str("\n".join(s.text for s in own)))


@dataclass(frozen=True, slots=True)
class Cedar:
    """All statements of a policy."""

    permits: Half = Half()
    forbids: Half = Half()


def parse(texts: Mapping[str, str]) -> tuple[Cedar, list[tuple[str, str]]] | list[Problem]:
    """The statements of all files, and each id with where it stands; or everything that is wrong with them."""
    found: list[Statement] = []
    problems: list[Problem] = []
    for file, text in sorted(texts.items()):
        for line, piece in split(text):
            made = _statement(file, line, piece)
            if isinstance(made, Statement):
                found.append(made)
            else:
                problems += made
    if problems:
        return problems
    return Cedar(Half.of(found, "permit"), Half.of(found, "forbid")), [(s.id, s.source) for s in found]


def split(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with the line that it begins on: Cedar's own errors name no line."""
    begin = 0
    for token in _TOKEN.finditer(text):
        if token[0] == ";":
            yield from _piece(text, begin, token.end())
            begin = token.end()
    yield from _piece(text, begin, len(text))


def _piece(text: str, begin: int, end: int) -> Iterator[tuple[int, str]]:
    blank = _BLANK.match(text, begin, end)
    begin = blank.end() if blank is not None else begin
    if begin < end:
        yield text.count("\n", 0, begin) + 1, text[begin:end]


def _statement(file: str, line: int, text: str) -> Statement | list[Problem]:
    """One statement alone, so that what Cedar says is about these lines."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        return [Problem(file, _line(line, text, str(error)), f"not Cedar: {error}", "Correct the statement.")]
    if parsed["templates"] or len(parsed["staticPolicies"]) != 1:
        return [Problem(file, line, "templates have nobody who fills them in here", "Write the value itself.")]
    (policy,) = parsed["staticPolicies"].values()
    result = cedarpy.validate_policies(text, _schema())
    problems: list[Problem] = []
    for invalid in result.errors:
        what = re.sub(r"^for policy `policy0`, | for Action::\"\w+\"", "", invalid.error)
        remedy = "`outrider policy schema` shows what there is."
        if "optional attribute" in what and (name := re.search(r"attribute `([^`]+)`", what)) is not None:
            remedy = f"Ask for it first: `context has {name[1]} && …`."
        problem = Problem(file, _line(line, text, what), what, remedy)
        if problem not in problems:  # it says the same for each action
            problems.append(problem)
    notes = {name: value or "" for name, value in policy.get("annotations", {}).items()}
    wrong = _annotations(notes, policy["effect"])
    problems += [Problem(file, _line(line, text, f"`@{name}`"), what, remedy) for name, what, remedy in wrong]
    return problems or Statement(
        id=notes.get("id") or f"{file}:{line}",
        effect=policy["effect"],
        text=text,
        source=f"{file}:{line}",
        clause=notes.get("clause", ""),
        remedy=notes.get("remedy", ""),
        approval=notes.get("approval"),
        outcome=cast(Outcome, notes.get("outcome", "return")),
    )


def _annotations(notes: dict[str, str], effect: str) -> Iterator[tuple[str, str, str]]:
    for name, value in notes.items():
        if name not in ANNOTATIONS:
            yield name, f"@{name} means nothing here", f"Known annotations: @{', @'.join(ANNOTATIONS)}."
        if name == "id" and not _ID.match(value):
            yield name, f"@id({value!r}) is no id", "Letters, digits, blank, dot, dash and underscore, 64 at most."
        if len(value) > _TEXT_MAX:
            yield name, f"@{name} has more than {_TEXT_MAX} characters", "Say it shorter."
    if "approval" in notes and effect != "forbid":
        yield "approval", "@approval stands on a permit, which asks for nothing", "Put it on the forbid that it lifts."
    if notes.get("outcome", "return") not in get_args(Outcome):
        yield "outcome", f"@outcome({notes['outcome']!r}) is no outcome", 'Write @outcome("return") or ("abort").'


def _line(first: int, text: str, message: str) -> int:
    """The line that a message is about, if what it quotes stands on one line only; else the statement's first."""
    for quoted in re.findall(r"`([^`]+)`", message):
        name = re.escape(quoted)
        lines = [i for i, line in enumerate(text.split("\n")) if re.search(rf"(?<!\w){name}(?!\w)", line)]
        if len(lines) == 1:
            return first + lines[0]
    return first


def judge(cedar: Cedar, request: Request, rules: Rules) -> list[Reason]:
    """What every statement says that holds for a request, and every error as a reason against it."""
    asked = [half for half in (cedar.permits, cedar.forbids) if half.statements]
    if not asked:
        return []
    question, entities = _question(request, rules), _entities(request, rules)
    return [reason for half in asked for reason in _judge(half, question, entities, request)]


def _judge(half: Half, question: dict[str, Any], entities: list[dict[str, Any]], request: Request) -> Iterator[Reason]:
    result = cedarpy.is_authorized(question, half.set, entities, _schema())
    for name in sorted(result.diagnostics.reasons, key=_place):
        yield _reason(half.statements[_place(name)], request)
    errors = result.diagnostics.errors
    if result.decision is cedarpy.Decision.NoDecision and not errors:
        errors = ["Cedar did not decide"]
    for error in errors:
        at = re.search(r"`(policy\d+)`", error)
        statement = half.statements[_place(at[1])] if at is not None else None
        yield failed(error, statement.id if statement else "", statement.source if statement else "")


def _place(name: str) -> int:
    return int(name.removeprefix("policy"))


def failed(error: object, rule: str = "", source: str = "") -> Reason:
    """The reason of something that could not be judged."""
    return Reason(
        effect=Effect.ERROR,
        code="POLICY_ERROR",
        sentence=f"the policy could not be judged: {error}",
        rule=rule,
        source=source,
        change="a policy that can be judged: `outrider policy explain` with this request shows the error",
        remedy="Ask the operator of that network.",
    )


def _reason(statement: Statement, request: Request) -> Reason:
    words = " ".join(statement.text.split())
    if statement.effect == "permit":
        said = f"rule {statement.id} permits it"
        return Reason(
            effect=Effect.PERMIT,
            code="",
            sentence=said,
            rule=statement.id,
            clause=statement.clause,
            source=statement.source,
        )
    effect, said = Effect.FORBID, f"rule {statement.id} forbids it"
    if statement.approval is not None:
        effect = Effect.APPROVED if request.approved_by else Effect.APPROVAL
        said = f"rule {statement.id} asks a human: {statement.approval or words}"
        said += f"; {request.approved_by} has approved" if request.approved_by else ""
    return Reason(
        effect=effect,
        code="POLICY_FORBIDDEN" if effect is Effect.FORBID else "POLICY_APPROVAL_NEEDED",
        sentence=said,
        rule=statement.id,
        clause=statement.clause,
        source=statement.source,
        change=statement.remedy or f"what this does not say: {words}",
        remedy=statement.remedy or f"Ask the operator of {request.network}.",
        outcome=statement.outcome,
    )


def _network(network: str) -> dict[str, str]:
    return {"type": "Network", "id": network}


def _question(request: Request, rules: Rules) -> dict[str, Any]:
    local = request.local(rules.zone)
    network = {name: {"__entity": _network(getattr(request, name))} for name in ("network", "source", "target", "home")}
    context: dict[str, Any] = {
        **network,
        "role": request.role,
        "phase": request.phase,
        "others": [{"__entity": _network(other)} for other in request.others],
        "purpose": request.purpose,
        "maxUes": request.max_ues,
        "moveAll": request.move_all,
        "mode": request.mode,
        "arrivalEvidence": request.arrival_evidence,
        "startMs": request.start_ms,
        "endMs": request.end_ms,
        "stayMinutes": request.stay_ms // 60_000,
        "deadlineMs": request.deadline_ms,
        "resources": {
            "memoryMb": request.resources.memory_mb,
            "processes": request.resources.processes,
            "cpuPercent": round(request.resources.cpu_share * 100),
        },
        "now": {
            "ms": request.now_ms,
            "minuteOfDay": 60 * local.hour + local.minute,
            "weekday": local.isoweekday(),
        },
    }
    if request.ue_group is not None:
        context["ueGroup"] = request.ue_group
    if request.area is not None:
        context["area"] = list(request.area)
    if request.sbom is not None:
        components = request.sbom.components
        context["sbom"] = {
            "components": len(components),
            "names": sorted({c.name for c in components}),
            "licences": sorted({i for c in components for i in spdx.identifiers(c.licence)}),
            "undeclared": sum(not spdx.declared(c.licence) for c in components),
            "inactive": sum(c.inactive for c in components),
        }
    return {
        "principal": _network(request.partner),
        "action": {"type": "Action", "id": request.action.value},
        "resource": {"type": "Package", "id": request.service},
        "context": context,
    }


def _entities(request: Request, rules: Rules) -> list[dict[str, Any]]:
    networks = dict.fromkeys((request.network, request.partner, request.source, request.target, request.home))
    package = {
        "digest": request.package_digest,
        "version": request.version,
        "vendor": request.vendor,
        "licence": request.licence,
        "exportClass": request.export_class,
        "nfTypes": list(request.nf_types),
        "dataCategories": list(request.data_categories),
    }
    made: list[dict[str, Any]] = [
        {"uid": {"type": "Package", "id": request.service}, "attrs": package, "parents": []},
    ]
    for network in networks:
        parsed = NetworkId.parse(network)
        attrs = {
            "mcc": parsed.mcc,
            "mnc": parsed.mnc,
            "snpn": parsed.nid is not None,
            "jurisdiction": rules.jurisdiction(network),
        }
        made.append({"uid": _network(network), "attrs": attrs, "parents": []})
    return made
