"""This operator's policy at work: read from its files, asked, and each new decision kept with its facts.

A policy that cannot be read changes nothing: the one before goes on counting, and `show` says what is wrong. So an
editor's half-written file does not end a stay; a node that starts with a broken policy does not start.
"""

from dataclasses import dataclass

import msgspec
import structlog

from outrider.core import limits
from outrider.core.compress import compress, decompress
from outrider.core.contract import Contract
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal, Refused
from outrider.decide.policy.decision import Decision, Verdict
from outrider.decide.policy.invalid import Problem
from outrider.decide.policy.policy import NO_POLICY, Policy, decide, parse
from outrider.decide.policy.request import Action, Request, from_terms
from outrider.functions.lmsf.approvals import Approvals
from outrider.functions.lmsf.catalogue import Catalogue
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.ports import Clock, PolicyFiles
from outrider.protocol.phase import Phase, Role

log = structlog.get_logger(__name__)

_LAST = 4_096
"""Questions whose last answer is remembered, so that the same answer is not kept again each second."""


class PolicyInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The policy in force, and what is wrong with its files if they say something else by now."""

    version: str
    digest: str
    """Empty where the operator has no policy: then the default counts."""
    path: str
    permits: bool
    """Whether anything in it can permit."""
    since_ms: int
    problems: list[Problem] = []


class Applied(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The files were read again: the version before, and the one in force."""

    before: str
    after: str


class Decided(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A decision as it is kept."""

    seq: int
    at_ms: int
    migration_id: str
    request: Request
    decision: Decision


class _Kept(msgspec.Struct, frozen=True):
    request: Request
    decision: Decision


@dataclass(frozen=True, slots=True)
class Case:
    """What a question is about: a migration at this side, whether it has begun or not."""

    migration_id: str
    contract: Contract
    manifest: Manifest
    role: Role
    phase: Phase

    @property
    def partner(self) -> str:
        """The other network that it is about: home for the target, else the target."""
        return self.contract.home if self.role is Role.TARGET else self.contract.target


class Policies:
    """The policy of this network's operator."""

    def __init__(
        self, network: str, journal: Journal, catalogue: Catalogue, clock: Clock, files: PolicyFiles | None
    ) -> None:
        self._network = network
        self._journal = journal
        self._catalogue = catalogue
        self._clock = clock
        self._files = files
        self.approvals = Approvals(network, journal, clock)
        self._policy = NO_POLICY
        self._problems: list[Problem] = []
        self._since_ms = clock.now_ms()
        self._stamp: object = None
        """Of the files that were read last."""
        self._seen: object = None
        """As the files were at the last look."""
        self._last: dict[tuple[str, Action], bytes] = {}
        if files is not None:
            self.apply()

    @property
    def info(self) -> PolicyInfo:
        """What counts now."""
        return PolicyInfo(
            version=self._policy.version,
            digest=self._policy.digest,
            path=self._files.path if self._files is not None else "",
            permits=self._policy.permits,
            since_ms=self._since_ms,
            problems=self._problems,
        )

    # ------------------------------------------------------------------------------------------ the files

    def apply(self) -> Applied:
        """Read the files now; refused, with every fault, if they make no policy, and the one before goes on."""
        before = self._policy.version
        if self._files is None:
            raise Refused(
                Refusal(
                    "POLICY_NONE",
                    f"{self._network} has no policy files: everything that terms and permissions cover is allowed.",
                    remedy='Write [policy] path = "policy" into network.toml, and start the network again.',
                    status=409,
                )
            )
        self._stamp = self._seen = self._files.stamp()  # before reading, so that what comes meanwhile is seen
        made = self._read(self._files)
        if isinstance(made, list):
            self._problems = made
            raise Refused(*invalid(made))
        self._problems = []
        if made.digest != self._policy.digest:
            self._policy, self._since_ms = made, self._clock.now_ms()
            log.info("policy.applied", version=made.version, before=before)
        return Applied(before=before, after=made.version)

    def look(self) -> bool:
        """Whether another policy counts since the last look: its files have changed, and then stayed the same."""
        if self._files is None:
            return False
        before, self._seen = self._seen, self._files.stamp()
        if self._seen == self._stamp or self._seen != before:
            return False
        digest = self._policy.digest
        try:
            self.apply()
        except Refused as refused:
            log.warning("policy.invalid", why=[str(r) for r in refused.refusals])
        return self._policy.digest != digest

    @staticmethod
    def _read(files: PolicyFiles) -> Policy | list[Problem]:
        try:
            return parse(files.read())
        except OSError as error:
            what = f"it cannot be read ({error.strerror or error})"
            return [Problem(str(error.filename or files.path), 1, what, "Put it back, or change [policy] path.")]

    # ---------------------------------------------------------------------------------------- the question

    async def judge(self, action: Action, case: Case) -> Decision:
        """What the policy says now. A new answer is durable, with its facts, when this returns.

        Raises:
            Refused: the facts cannot be had (the SBOM in the catalogue is damaged).
        """
        request = from_terms(
            action,
            case.contract,
            case.manifest,
            network=self._network,
            role=case.role.value,
            phase=case.phase.value,
            now_ms=self._clock.now_ms(),
            components=await self._catalogue.components(case.contract.package_digest),
            approved_by=self.approvals.approved_by(case.migration_id),
        )
        decision = decide(self._policy, request)
        try:
            await self._keep(case.migration_id, request, decision)
        except Exception:
            if action is not Action.STAY:
                raise  # nothing is begun of which no record is left
            log.exception("policy.not-kept", migration=case.migration_id)  # a full disk keeps no stay alive
        return decision

    def told(self, decision: Decision) -> list[Refusal]:
        """What is against an action, as partners get it; an approval that is missing is one of the reasons."""
        return decision.told(self._network)

    async def awaited(self, case: Case, decision: Decision) -> list[Refusal]:
        """What is against an action, once a human has decided where the policy asks for one.

        Raises:
            Refused: nobody has decided yet (`APPROVAL_PENDING`, 503); to be asked again.
        """
        if decision.verdict is not Verdict.APPROVAL:
            return self.told(decision)
        contract = case.contract
        wait_ms = round(self._policy.rules.approval_hours * 3_600_000)
        return [*await self.approvals.ask(case.migration_id, contract, case.partner, decision, wait_ms)]

    async def _keep(self, migration_id: str, request: Request, decision: Decision) -> None:
        """The same answer for the same reasons is kept once, not each second; and once more when the SBOM is known."""
        question = migration_id, request.action
        reasons = [(r.rule, r.key, r.effect) for r in decision.reasons]
        answer = msgspec.json.encode((decision.verdict, decision.policy, request.sbom is not None, reasons))
        if self._last.get(question) == answer:
            return
        body = compress(msgspec.json.encode(_Kept(request, decision)))
        await self._journal.decided(request.now_ms, migration_id, body, keep=limits.DECISIONS_KEPT)
        self._last.pop(question, None)
        self._last[question] = answer
        while len(self._last) > _LAST:
            del self._last[next(iter(self._last))]

    async def decisions(
        self, *, since_ms: int = 0, migration: str = "", after: int = 0, limit: int = 100
    ) -> list[Decided]:
        """Kept decisions, the oldest first."""
        rows = await self._journal.decisions(since_ms=since_ms, migration=migration, after=after, limit=limit)
        found = []
        for seq, at_ms, name, body in rows:
            kept = msgspec.json.decode(decompress(body), type=_Kept)
            found.append(Decided(seq=seq, at_ms=at_ms, migration_id=name, request=kept.request, decision=kept.decision))
        return found


def invalid(problems: list[Problem]) -> list[Refusal]:
    """Faults of a policy as refusals, one each."""
    return [
        Refusal(
            "POLICY_INVALID",
            f"{p.file}:{p.line}: {p.what}.",
            {"file": p.file, "line": str(p.line)},
            p.remedy,
            status=400,
        )
        for p in problems
    ]
