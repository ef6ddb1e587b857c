"""The typed rules of a policy (`rules.toml`): the common cases, without a language.

There are three kinds. A *permit* allows what meets all of it. A *require* refuses what does not meet it, and an
*approval* asks a human about that; both look only at requests that their `when` covers. What is left out is not looked
at; an empty list is met by nothing.
"""

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.manifest import Line
from outrider.decide import spdx
from outrider.decide.policy.decision import Outcome
from outrider.decide.policy.invalid import Problem
from outrider.decide.policy.request import Action

Id = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=400)]
Hours = Annotated[str, msgspec.Meta(pattern=r"\A([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
Names = tuple[Line, ...]
Networks = tuple[str, ...]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests a rule is about; all, if it says nothing."""

    actions: tuple[Action, ...] | None = None
    """`HostService`, `SendService`, `GoOnward`, `SignPermission`, `ContinueStay`."""
    partners: Networks | None = None
    """Requests to which one of these networks is a party."""
    services: Names | None = None
    """Names, or patterns with `*`."""
    purposes: Names | None = None
    """Purposes, word for word."""


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request must be like."""

    partners: Networks | None = None
    """Every other party is one of these networks."""
    barred_partners: Networks | None = None
    """No party is one of these networks."""
    jurisdictions: Names | None = None
    """Every other party is in one of these; see `[jurisdictions]`."""
    services: Names | None = None
    """The service is one of these; names, or patterns with `*`."""
    barred_services: Names | None = None
    """The service is none of these; names, or patterns with `*`."""
    vendors: Names | None = None
    """The package's vendor is one of these."""
    purposes: Names | None = None
    """The purpose is one of these."""
    ue_groups: Names | None = None
    """It is for one of these UE groups, not for all UEs."""
    areas: Names | None = None
    """The service stays within these areas; terms without an area are everywhere, so they do not meet it."""
    hours: Hours | None = None
    """The decision falls into these hours (`22:00-05:00`), in the policy's time zone."""
    weekdays: tuple[Weekday, ...] | None = None
    """The decision falls on one of these days, in the policy's time zone."""
    max_ues: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The terms cover at most so many UEs."""
    max_stay_hours: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """The window of the terms is at most so long."""
    max_memory_mb: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """A worker may use at most so much memory."""
    data_entering: Names | None = None
    """Where this network is the target: the data categories that may come in."""
    data_leaving: Names | None = None
    """Where it is not: the data categories that may go to the target."""
    licences: Names | None = None
    """Every component is under one of these SPDX licences, or offers one as a choice. One without a licence is not."""
    barred_licences: Names | None = None
    """No component is under one of these SPDX licences without another choice; with an exception it is, and a text that
    is no expression is under each that it names."""
    barred_components: Names | None = None
    """No component has one of these names; patterns with `*`."""
    max_components: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The SBOM has at most so many components."""
    modes: tuple[Literal["async", "sync"], ...] | None = None
    """The contract's mode is one of these."""
    arrival_evidence: tuple[Literal["home-verified", "target-asserted"], ...] | None = None
    """The contract asks for one of these kinds of evidence that a UE has arrived."""


class Rule(Terms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: who it is, when it is looked at, and the terms."""

    id: Id
    """Unique in the policy, also among the `@id` of Cedar."""
    clause: Text = ""
    """What it refers to: a paragraph of an agreement, a law."""
    remedy: Text = ""
    """What a partner is told that would help; by default the bound of the term that is not met."""
    when: When = When()
    """Which requests it is about."""
    outcome: Outcome = "return"
    """What becomes of a stay that does not meet it any more: `return` or `abort`."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `rules.toml`."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]{0,64}\Z")] = ""
    """A name for people; a policy's version is its digest."""
    timezone: str = "UTC"
    """Of `hours` and `weekdays`, and of the local time that Cedar sees: a name such as `Europe/Berlin`."""
    approval_hours: Annotated[float, msgspec.Meta(gt=0, le=168)] = 24.0
    """How long a request waits for a human before it is refused."""
    jurisdictions: dict[str, Line] = {}
    """A network's, by its id or its MCC (`"262" = "DE"`); else `mcc-MCC`."""
    permit: tuple[Rule, ...] = ()
    """What is allowed."""
    require: tuple[Rule, ...] = ()
    """What is refused unless it is met."""
    approval: tuple[Rule, ...] = ()
    """What a human is asked about unless it is met; a rule without terms always asks."""

    def jurisdiction(self, network: str) -> str:
        """Where a network is, as far as the policy says."""
        mcc = network.partition("-")[0]
        return self.jurisdictions.get(network) or self.jurisdictions.get(mcc) or f"mcc-{mcc}"

    @property
    def zone(self) -> dt.tzinfo:
        """The operator's clock."""
        return dt.UTC if self.timezone == "UTC" else zoneinfo.ZoneInfo(self.timezone)


DEFAULT = Rules(name="default", permit=(Rule(id="default"),))
"""Where an operator has no policy: whatever the terms and all permissions cover is allowed."""

KINDS = ("permit", "require", "approval")
TERMS = tuple(f.name for f in msgspec.structs.fields(Terms))


def parse(text: str, file: str) -> tuple[Rules, list[tuple[str, int]]] | list[Problem]:
    """The rules, and each id with its line; or everything that is wrong with them."""
    lines = _Lines(text)
    try:
        rules = msgspec.toml.decode(text, type=Rules)
    except msgspec.ValidationError as error:
        return [lines.problem(file, str(error))]
    except msgspec.DecodeError as error:
        at = re.search(r"\(at line (\d+)", str(error))
        line = int(at[1]) if at else len(text.splitlines())
        return [Problem(file, line, f"not TOML: {error}", "Correct the line.")]
    where = [(rule.id, lines.table(kind, n)) for kind in KINDS for n, rule in enumerate(getattr(rules, kind))]
    found = [Problem(file, lines.find(at), what, remedy) for at, what, remedy in _wrong(rules)]
    return found or (rules, where)


def _wrong(rules: Rules) -> Iterator[tuple[str, str, str]]:
    """What the types do not catch: where, what, and what to write."""
    if rules.timezone != "UTC":
        try:
            zoneinfo.ZoneInfo(rules.timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            yield "timezone", f"this machine knows no time zone {rules.timezone!r}", "Write one such as Europe/Berlin."
    for name in rules.jurisdictions:
        if not re.fullmatch(r"\d{3}", name) and (what := _no_network(name)):
            yield f"jurisdictions.{name}", what, 'Write an MCC or a network: "262" = "DE".'
    for kind in KINDS:
        for n, rule in enumerate(getattr(rules, kind)):
            yield from _wrong_rule(rule, f"{kind}[{n}]", kind)


def _wrong_rule(rule: Rule, at: str, kind: str) -> Iterator[tuple[str, str, str]]:
    if kind == "require" and all(getattr(rule, name) is None for name in TERMS):
        yield at, f"rule {rule.id} requires nothing", f"Give it a term: {', '.join(TERMS)}."
    for name in ("partners", "barred_partners"):
        for network in getattr(rule, name) or ():
            if what := _no_network(network):
                yield f"{at}.{name}", what, "Write MCC-MNC, or MCC-MNC-NID for an SNPN."
    for network in rule.when.partners or ():
        if what := _no_network(network):
            yield f"{at}.when", what, "Write MCC-MNC, or MCC-MNC-NID for an SNPN."
    for name in ("licences", "barred_licences"):
        for licence in getattr(rule, name) or ():
            if not spdx.known(licence):
                yield f"{at}.{name}", f"{licence!r} is no SPDX licence identifier", "Write one such as Apache-2.0."


def _no_network(text: str) -> str:
    try:
        return "" if str(NetworkId.parse(text)) == text else f"{text!r} must be written {NetworkId.parse(text)}"
    except ValueError as error:
        return str(error)


_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<at>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"(?:missing required|unknown) field `(?P<field>[^`]+)`")


class _Lines:
    """Where things stand in a TOML text: the parser tells what is wrong, but not on which line."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def table(self, kind: str, n: int) -> int:
        """The line of the n-th `[[kind]]`."""
        heads = [i for i, line in enumerate(self._lines, 1) if re.match(rf"\s*\[\[\s*{kind}\s*\]\]", line)]
        return heads[n] if n < len(heads) else 1

    def find(self, path: str) -> int:
        """The line of a path such as `require[0].when.actions[1]`."""
        kind, n = re.match(r"([a-z_]+)(?:\[(\d+)\])?", path or "x").groups()  # type: ignore[union-attr]
        start = self.table(kind, int(n)) if n is not None else 1
        key = re.sub(r"\[[^\]]*\]", "", path).split(".")[1 if n is not None else 0 :]
        for name in reversed(key):
            for i in range(start, len(self._lines) + 1):
                line = self._lines[i - 1]
                if i > start and n is not None and re.match(r"\s*\[\[", line):
                    break
                if re.match(rf"""\s*(\[[^\[]*\.)?["']?{re.escape(name)}["']?\s*[\]=.]""", line) or re.search(
                    rf"[{{,]\s*{re.escape(name)}\s*=", line
                ):
                    return i
        return start

    def problem(self, file: str, error: str) -> Problem:
        """A msgspec error with its line and what to write."""
        match = _AT.match(error)
        what, at = (match["what"], match["at"] or "") if match else (error, "")
        line = self.find(at)
        field = _FIELD.search(what)
        if field is not None and "unknown" in what:
            here = Rule if "[" in at and not at.endswith(".when") else When if at.endswith(".when") else Rules
            known = ", ".join(f.name for f in msgspec.structs.fields(here))
            line = self.find(f"{at}.{field['field']}" if at else field["field"])
            return Problem(file, line, f"{field['field']} is no key here", f"Known keys: {known}.")
        if field is not None:
            return Problem(file, line, f"{at} has no {field['field']}", f'Write {field["field"]} = "…".')
        return Problem(file, line, f"{at or 'the file'}: {what[:1].lower()}{what[1:]}", "See docs/reference/policy.md.")


def bounds(value: Any) -> str:
    """A term's value for people."""
    return ", ".join(str(v) for v in value) or "none" if isinstance(value, tuple) else str(value)
