"""An operator's policy as a value, read from the bytes of its files, and the decision about one request.

`rules.toml` holds typed rules (`builtin`), each `*.cedar` file statements in Cedar (`cedar`); a policy may have either
or both. One verdict comes of all of them: what forbids wins over what permits, and what nothing permits is refused.

This is where an operator's "no" is made, so everything fails closed. A file that is not understood makes no policy; a
rule that cannot be judged refuses; and an exception anywhere below, a fault of this code, refuses too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from outrider.core.canonical import canonical, sha256_hex
from outrider.decide.policy import builtin, cedar, rules
from outrider.decide.policy.builtin import DEFAULT, Rules
from outrider.decide.policy.cedar import Cedar
from outrider.decide.policy.decision import Decision, Effect, Reason, conclude
from outrider.decide.policy.invalid import Problem
from outrider.decide.policy.request import Request

RULES_FILE = "rules.toml"
CEDAR_SUFFIX = ".cedar"
FILE_BYTES = 256 * 1024
"""Largest file of a policy."""
FILES = 64
"""Most files of a policy."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What one operator allows, at one version."""

    digest: str
    """SHA-256 over the names and the bytes of its files; empty for the default."""
    rules: Rules = DEFAULT
    cedar: Cedar = field(default_factory=Cedar)
    where: dict[str, int] = field(default_factory=lambda: {"default": 0})
    """The line of each typed rule."""
    file: str = RULES_FILE

    @property
    def version(self) -> str:
        """Its name, and as much of the digest as tells versions apart."""
        return f"{self.rules.name or 'policy'}@{self.digest[:16]}" if self.digest else self.rules.name

    @property
    def permits(self) -> bool:
        """Whether there is anything that can permit; a policy without refuses everything."""
        return bool(self.rules.permit or self.cedar.permits.statements)


BEFORE_PACKAGE = ("NEGOTIATING", "PERMITTING", "PREPARING")
"""Phases in which a target may not have the package yet, so that rules about its SBOM wait."""

NO_POLICY = Policy("")
"""An operator who has written none: see `builtin.DEFAULT`."""


def parse(files: Mapping[str, bytes]) -> Policy | list[Problem]:
    """The policy that these files (name and bytes) say, or everything that is wrong with them."""
    problems: list[Problem] = []
    texts: dict[str, str] = {}
    if not files:
        return [Problem(".", 1, "there is no *.toml and no *.cedar file", "See docs/how-to/write-a-policy.md.")]
    if len(files) > FILES:
        return [Problem(".", 1, f"{len(files)} files are more than {FILES}", "Write fewer, longer files.")]
    for name, data in sorted(files.items()):
        if len(data) > FILE_BYTES:
            problems.append(Problem(name, 1, f"{len(data)} bytes are more than {FILE_BYTES}", "Split the file."))
            continue
        try:
            texts[name] = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            problems.append(Problem(name, line, f"no UTF-8 text ({error.reason})", "Save it as UTF-8."))
    typed, typed_file = Rules(), RULES_FILE
    where: dict[str, int] = {}
    places: list[tuple[str, str]] = []
    typed_files = [n for n in texts if not n.endswith(CEDAR_SUFFIX)]
    problems += [
        Problem(n, 1, f"there is {typed_files[0]} already", "Put all rules into one.") for n in typed_files[1:]
    ]
    for name in typed_files[:1]:
        read = builtin.parse(texts[name], name)
        if isinstance(read, list):
            problems += read
        else:
            typed, typed_file = read[0], name
            where = dict(read[1])
            places += [(rule_id, f"{name}:{line}") for rule_id, line in read[1]]
    statements = cedar.parse({n: text for n, text in texts.items() if n.endswith(CEDAR_SUFFIX)})
    if isinstance(statements, list):
        return problems + statements
    seen: dict[str, str] = {}
    for rule_id, place in [*places, *statements[1]]:
        if rule_id in seen:
            file, _, at = place.rpartition(":")
            problems.append(Problem(file, int(at), f"{rule_id} is the id of {seen[rule_id]} too", "Rename one."))
        seen.setdefault(rule_id, place)
    if problems:
        return problems
    digest = sha256_hex(canonical({name: sha256_hex(data) for name, data in files.items()}))
    return Policy(digest, typed, statements[0], where, typed_file)


def decide(policy: Policy, request: Request) -> Decision:
    """What the policy says to a request, with every reason. Any fault on the way refuses."""
    try:
        reasons, pending = rules.judge(policy.rules, request, policy.where, policy.file)
        reasons += cedar.judge(policy.cedar, request, policy.rules)
        if request.phase not in BEFORE_PACKAGE:
            reasons += [cedar.failed("the package's SBOM is not here", rule) for rule in pending]
        if all(r.effect is not Effect.PERMIT for r in reasons):
            reasons.append(_absent(policy, request))
    except Exception as error:
        reasons, pending = [cedar.failed(f"{type(error).__name__}: {error}")], []
    return conclude(request.action, policy.version, reasons, pending)


def _absent(policy: Policy, request: Request) -> Reason:
    full, told = rules.nearest(policy.rules, request)
    permits = [f"{s.id} ({s.source})" for s in policy.cedar.permits.statements]
    cedar_text = f"a statement of Cedar that permits it: {', '.join(permits)}" if permits else ""
    none = "a rule that permits it; this policy has none for this action and these networks"
    return Reason(
        effect=Effect.ABSENT,
        code="POLICY_NO_PERMIT",
        sentence=f"nothing in the policy permits {request.action.value} of {request.service} with {request.partner}",
        rule="",
        facts={"action": request.action.value, "service": request.service, "partner": request.partner},
        change="; or ".join(filter(None, (full, cedar_text))) or none,
        remedy=told or f"Ask the operator of {request.network}.",
    )
