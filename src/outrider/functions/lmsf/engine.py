"""The LMSF's parts put together, and its migrations.

A migration is a `Runner`; all that the engine adds is to begin one, to find one, and to start all of them again after a
restart, each with what its journalled row demands.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from outrider.core import limits
from outrider.core.audit import LMSF, refused
from outrider.core.canonical import sha256_hex
from outrider.core.contract import Contract
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.decide.policy.decision import Verdict
from outrider.decide.policy.request import Action
from outrider.functions.lmsf import audit_log, audited, negotiation
from outrider.functions.lmsf.acts import ACTS
from outrider.functions.lmsf.anew import Anew
from outrider.functions.lmsf.approvals import Approval
from outrider.functions.lmsf.calls import Calls
from outrider.functions.lmsf.catalogue import Catalogue
from outrider.functions.lmsf.clocks import SystemClock
from outrider.functions.lmsf.deployments import Deployments
from outrider.functions.lmsf.images import Images
from outrider.functions.lmsf.instances import Instances
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.keepers import Keepers
from outrider.functions.lmsf.negotiation import Negotiation, Wanted
from outrider.functions.lmsf.permissions import Permissions
from outrider.functions.lmsf.policies import Applied, Case, Policies
from outrider.functions.lmsf.ports import Clock, Hosts, Inner, Partner, Partners, PolicyFiles, Signer, Software, Supply
from outrider.functions.lmsf.record import Exchange, Migration, Offer, role_of
from outrider.functions.lmsf.runner import Runner, Tools
from outrider.functions.lmsf.witness import Witness
from outrider.package import statements
from outrider.protocol import migration as machine
from outrider.protocol.phase import ENDS, Fact, Phase, Role, Row
from outrider.sbi.client import Unreachable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LmsfConfig:
    """What the LMSF of one network is told."""

    network: NetworkId
    instance_id: str
    nf_types: frozenset[str]
    nrf_root: str
    data_dir: Path


class Lmsf:
    """The LMS Function; who may ask what of it is in `faces`."""

    def __init__(
        self,
        config: LmsfConfig,
        *,
        partners: Partners,
        inner: Inner,
        hosts: Hosts,
        signer: Signer,
        software: Software,
        policy: PolicyFiles | None = None,
        supply: Supply | None = None,
        clock: Clock | None = None,
        journal: Callable[[Path, str, Clock], Journal] = Journal,
    ) -> None:
        self.config = config
        self.network = str(config.network)
        self.partners = partners
        self.clock = clock or SystemClock()
        self.signer = signer
        folder = config.data_dir
        self.journal = journal(folder / "lmsf.db", self.network, self.clock)
        self.calls = Calls(self.network, self.journal, self.clock)
        self.hosts = hosts
        self.keepers = Keepers(inner, hosts)
        self.catalogue = Catalogue(folder / "packages", self.journal, software, partners, self.clock, supply)
        self.permissions = Permissions(self.network, self.journal, signer, partners, self.clock)
        self.deployments = Deployments(
            self.network,
            config.nf_types,
            folder / "installed",
            self.journal,
            self.catalogue,
            hosts,
            Instances(inner, config.nrf_root, config.network),
            self.clock,
        )
        self.policies = Policies(self.network, self.journal, self.catalogue, self.clock, policy)
        self.negotiation = Negotiation(self.network, config.nf_types, folder, self.deployments, partners, signer)
        self._tools = Tools(
            network=self.network,
            journal=self.journal,
            clock=self.clock,
            signer=signer,
            partners=partners,
            keepers=self.keepers,
            catalogue=self.catalogue,
            permissions=self.permissions,
            policies=self.policies,
            negotiation=self.negotiation,
            deployments=self.deployments,
            onward=self.onward,
            hosting=lambda service, network: self._hosting(service, network) is not None,
            entered=lambda runner: self.witness.news(runner),
        )
        self.witness = Witness(self.network, self.journal, signer, partners, self.permissions, self.clock)
        self.anew = Anew(self.network, self.journal, self.deployments, self.clock, self.all)
        self.images = Images(
            self.network,
            config.nf_types,
            folder / "images",
            self.deployments,
            self.catalogue,
            hosts,
            signer,
            self.clock,
            self.live,
            self.anew,
        )
        self._runners: dict[str, Runner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for body in self.journal.all("migration"):
            record = msgspec.json.decode(body, type=Migration)
            self._runners[record.id] = Runner(record, self._tools, ACTS)

    async def start(self) -> None:
        """Bring up what is to run here and go on with every migration; the own NRF must be reachable soon."""
        under_way = (Phase.PREPARING, Phase.PERMITTING)
        self.catalogue.tidy({r.contract.package_digest for r in self._runners.values() if r.row.phase in under_way})
        self.deployments.start()
        self._keep(self._follow_policy())
        for runner in self._runners.values():
            if not runner.told:
                runner.start(resume=True)
            self.witness.news(runner)
        self._keep(self._check_audit())

    async def stop(self) -> None:
        """Stop working, end the hosts and close the journal; what is under way goes on after the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.images.stop()
        await self.witness.stop()
        await asyncio.gather(*(runner.stop() for runner in self._runners.values()))
        await self.deployments.stop()
        await self.catalogue.stop()
        await self.hosts.close()  # before the journal, which takes their last word of their stores
        self.journal.close()

    async def _check_audit(self) -> None:
        """Look once at the audit log as it was found; what is wrong with it is logged, and recorded in it."""
        verdict = await asyncio.to_thread(audit_log.check, self.journal.path, self.network)
        for finding in verdict.findings:
            log.error("audit.damaged", cause=finding.code, why=finding.sentence)
        # One event for the whole of it, once for each state in which the log was found.
        if verdict.findings:
            once = f"damaged/{'/'.join(f.code + str(f.facts) for f in verdict.findings)}"
            await self.journal.record(refused(LMSF, verdict.findings[0], once=sha256_hex(once.encode())))

    # ------------------------------------------------------------------------------------------- looking

    def all(self) -> list[Runner]:
        """Every migration, the newest first."""
        return sorted(self._runners.values(), key=lambda r: -r.record.created_ms)

    def get(self, migration_id: str) -> Runner | None:
        """One migration."""
        return self._runners.get(migration_id)

    def live(self, service: str) -> Runner | None:
        """The migration of a service that is not over, if there is one."""
        return next((r for r in self._runners.values() if r.record.service == service and not r.over), None)

    def onward(self, service: str, network: str) -> str | None:
        """The network to which a service of this one goes onward from another that hosts it; None if it does not."""
        runner = self._onward(service, network)
        return None if runner is None else runner.contract.target

    def _onward(self, service: str, source: str) -> Runner | None:
        led = (r for r in self._runners.values() if r.row.role is Role.HOME and r.record.service == service)
        return next((r for r in led if r.contract.source == source and not r.over), None)

    def _hosting(self, service: str, network: str) -> Runner | None:
        """The migration by which another network hosts a service of this one, until every key has left it."""
        led = (r for r in self._runners.values() if r.row.role.leads and r.record.service == service)
        there = (r for r in led if r.contract.target == network and r.row.phase not in ENDS)
        return next((r for r in there if Fact.HOME not in r.row.facts), None)

    def hands_out(self, package_digest: str, network: str) -> bool:
        """Whether a partner may fetch a package: it is preparing a migration of it that all have permitted."""
        return any(
            r.partner == network
            and r.row.role.leads
            and r.row.phase is Phase.PREPARING
            and r.contract.package_digest == package_digest
            and self.catalogue.usable(package_digest) is None
            for r in self._runners.values()
        )

    # ------------------------------------------------------------------------------------ by the operator

    async def begin(self, wanted: Wanted) -> Runner | Refusal:
        """Begin a migration of a service of this network; refused at once for what is known here alone.

        Raises:
            Refused: this operator's supply rules or policy do not let it go; with every reason.
        """
        deployment = self.deployments.get(wanted.service)
        if deployment is None or deployment.migration_id is not None:
            return _not_deployed(wanted, self.network, deployment.home if deployment is not None else None)
        if deployment.state != "RUNNING":
            return Refusal(
                "SERVICE_NOT_RUNNING",
                f"{wanted.service} does not run yet: {deployment.state.lower()}.",
                {"state": deployment.state},
                f"`outrider service show {wanted.service}` says why.",
                status=409,
            )
        if self.partners.get(wanted.target) is None:
            return _no_partner(wanted.target)
        source = wanted.source or self.network
        if source != self.network and self._serving(wanted.service, source) is None:
            return _not_hosting(wanted.service, source, self._hosting(wanted.service, source))
        package = self.catalogue.get(deployment.package_digest)
        if package is None:
            return Refusal(
                "PACKAGE_UNKNOWN", f"The package of {wanted.service} is gone from the catalogue.", status=404
            )
        unusable = self.catalogue.usable(package.digest)
        if unusable is not None:
            return unusable
        status = await self.keepers.status(wanted.service)
        busy = self._busy(wanted.service, source, wanted.target)
        if busy is not None:
            return _migrating(busy)
        if self.images.busy(wanted.service):
            sentence = f"{wanted.service} is being saved."
            return Refusal("SERVICE_BUSY", sentence, {"service": wanted.service}, "Begin after that.", status=409)
        now_ms = self.clock.now_ms()
        permission = self.permissions.terms_for(wanted.service, package.digest, source, wanted.target)
        try:
            contract = negotiation.draft(wanted, package, self.network, permission, now_ms, status.ues)
        except (ValueError, msgspec.ValidationError) as error:
            return Refusal("TERMS_INVALID", f"These terms cannot be offered: {error}.", status=400)
        if (too_many := negotiation.uncovered(contract, status.ues)) is not None:
            return too_many
        role = role_of(self.network, contract)
        case = Case(contract.contract_id, contract, package.manifest, role, Phase.NEGOTIATING)
        against = await self.catalogue.against(package.digest, handed_to=wanted.target)
        decision = await self.policies.judge(Action.ONWARD if contract.onward else Action.SEND, case)
        if against or decision.verdict is Verdict.REFUSE:
            raise Refused(*against, *decision.told(self.network))
        offer = negotiation.offer(contract, package, self.signer)
        return await self._create(
            offer, contract, wanted.target, store_id=status.store_id, digest_key=status.digest_key
        )

    def _serving(self, service: str, network: str) -> Runner | None:
        """The migration by which another network serves UEs of a service now."""
        runner = self._hosting(service, network)
        copied = (Phase.RELOCATING, Phase.SETTLED)
        return runner if runner is not None and runner.row.phase in copied else None

    def _busy(self, service: str, source: str, target: str) -> Runner | None:
        """The migration that a new one is in the way of: any where home gives, else one of its source or target."""
        if source == self.network:
            return self.live(service)
        return self._onward(service, source) or self._hosting(service, target)

    async def _create(
        self, offer: Offer, contract: Contract, other: str, *, store_id: str = "", digest_key: str | None = None
    ) -> Runner:
        now_ms = self.clock.now_ms()
        record = Migration(
            id=offer.migration_id,
            service=contract.service,
            version=contract.version,
            partner=other,
            row=Row(role=role_of(self.network, contract), move_all=contract.move_all),
            contract=offer.contract,
            manifest=offer.manifest,
            package_bytes=offer.package_bytes,
            created_ms=now_ms,
            phases={Phase.NEGOTIATING.value: now_ms},
            store_id=store_id,
            other_store_id=offer.other_store_id,
            digest_key=digest_key,
        )
        runner = Runner(record, self._tools, ACTS)
        self._runners[record.id] = runner  # before it is durable, so that the same offer does not create it twice
        begun = audited.begun(self.network, record, contract, self.permissions.keys)
        try:
            await self.journal.put("migration", record.id, msgspec.json.encode(record), audit=begun)
        except BaseException:
            del self._runners[record.id]  # or it would be in the way of every other one, and never move
            raise
        runner.start(resume=False)
        self.witness.news(runner)
        return runner

    async def abort(self, runner: Runner, cause: str, sentence: str) -> None:
        """Stop a migration: typed and journalled when this returns, and as a rule the keeper has stopped too.

        One that is over stays as it is.
        """
        if runner.over:
            return
        await runner.tell(machine.StopAsked(runner.ending(cause, sentence)))
        await runner.until(lambda row: Fact.STOPPED in row.facts or row.phase in ENDS, limits.ABORT_ANSWER_MS)

    async def send_home(self, runner: Runner, sentence: str) -> Refusal | None:
        """Begin the way back; refused where nothing can be away."""
        phase = runner.row.phase
        if phase in machine.BEFORE:
            return Refusal(
                "NOTHING_TO_RETURN",
                f"The migration is {phase.value}: no UE has moved.",
                {"phase": phase.value},
                f"`outrider migration abort {runner.id}` stops it.",
                status=409,
            )
        if runner.over:
            return None
        await runner.tell(machine.ReturnAsked(runner.ending("RETURN_ASKED", sentence)))
        return None

    async def declare_lost(self, runner: Runner, store_id: str, sentence: str) -> Refusal | None:
        """Take back what a store of the partner had that is gone for good; refused where nothing can be lost."""
        if Fact.LOST in runner.row.facts:
            return None
        refusal = _not_lost(runner, store_id) or self._undecided(runner)
        if refusal is not None:
            return refusal
        await self.keepers.may_declare_lost(runner.record.service, runner.id, store_id)
        sentence = sentence or f"the operator of {self.network} declares store {store_id} of {runner.partner} lost"
        log.warning("store.declared-lost", migration=runner.id, partner=runner.partner, store=store_id, why=sentence)
        await runner.tell(machine.DeclaredLost(runner.ending("STORE_LOST", sentence)), lost_store=store_id)
        await runner.until(lambda row: Fact.HOME in row.facts, limits.FORWARD_LIMIT_MS)
        return None

    async def approve(self, migration_id: str, *, grant: bool, by: str, sentence: str) -> Approval:
        """A human decides about a migration; what waits for it goes on at once.

        Raises:
            Refused: there is no such migration, it is over, or it was decided before.
        """
        runner = self._runners.get(migration_id)
        if runner is None or (runner.over and self.policies.approvals.get(migration_id) is None):
            raise Refused(
                Refusal(
                    "APPROVAL_UNKNOWN",
                    f"No migration {migration_id[:80]} is under way or waits for a human at {self.network}.",
                    {"migrationId": migration_id[:80]},
                    "`outrider approval list` shows those that wait.",
                    status=404,
                )
            )
        partner = runner.contract.home if runner.row.role is Role.TARGET else runner.contract.target
        decided = await self.policies.approvals.decide(
            migration_id, runner.contract, partner, grant=grant, by=by, sentence=sentence
        )
        if not runner.over:
            await runner.tell(machine.Resume())
        return decided

    async def apply_policy(self) -> Applied:
        """Read the policy's files now, and let every migration look at once.

        Raises:
            Refused: they make no policy; the one before counts.
        """
        applied = self.policies.apply()
        await self.looked()
        return applied

    async def _follow_policy(self) -> None:
        while True:
            await self.clock.sleep(limits.POLICY_LOOK_MS / 1000)
            if self.policies.look():
                await self.looked()

    async def looked(self, service: str | None = None) -> None:
        """Let migrations look at permissions and policy now: one has come, was taken back, or is another."""
        for runner in self._runners.values():
            if not runner.over and service in (None, runner.record.service):
                try:
                    await runner.look()
                except (Unreachable, Refused) as error:
                    log.warning("migration.look", migration=runner.id, why=str(error))

    def spread(self, envelope: str) -> None:
        """Tell partners of running migrations that a permission was taken back; they also learn its effect."""
        parties = {party for r in self._runners.values() if not r.over for party in r.contract.parties}
        for network in sorted(parties - {self.network}):
            if self.partners.get(network) is not None:
                self._keep(self._spread(network, envelope))

    async def _spread(self, network: str, envelope: str) -> None:
        pause_s = 0.1
        while pause_s < 60:
            try:
                response = await self.partners.request(
                    network,
                    "POST",
                    "/nlmsf-permission/v1/revocations",
                    scope="nlmsf-permission",
                    headers=[("content-type", "application/json")],
                    body=envelope.encode(),
                )
                if response.status < 500:
                    return
            except Unreachable as error:
                log.warning("revocation.not-told", partner=network, why=str(error))
            await self.clock.sleep(pause_s)
            pause_s *= 2

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------------------------- by the partner

    async def offered(self, offer: Offer, sender: Partner) -> Runner | list[Refusal]:
        """An offer has come: answer it; the same offer again gets the same answer."""
        contract = self.negotiation.read(offer, sender, self.permissions.keys)
        if isinstance(contract, list):
            return contract
        runner = self._runners.get(offer.migration_id)
        if runner is None:
            host = self.deployments.host(contract.service) if contract.source == self.network else None
            store_id = host.store_id if host is not None else ""
            runner = await self._create(offer, contract, sender.network, store_id=store_id)
        elif runner.partner != sender.network or runner.contract.digest != contract.digest:
            sentence = f"There is another migration {offer.migration_id}."
            return [Refusal("MIGRATION_EXISTS", sentence, {"migrationId": offer.migration_id}, status=409)]
        await runner.until(lambda row: row.phase is not Phase.NEGOTIATING, limits.ABORT_ANSWER_MS)
        ended = runner.row.ending
        if runner.row.phase in (Phase.ABORTING, Phase.ABORTED) and ended is not None:
            return runner.record.refusals or [Refusal(ended.cause, ended.sentence)]
        return runner

    async def exchange(self, runner: Runner, given: Exchange) -> Exchange:
        """Home gives the others' permissions; judge, and give ours with every reason against."""
        contract = runner.contract
        others = [party for party in contract.parties if party != self.network]
        presented = await self.permissions.take(given, runner.partner, *others)
        verdict = self.permissions.judge(contract, runner.record.manifest, instances=1, presented=presented)
        changes = {}
        if contract.onward:
            unsigned = self._not_signed_by_all(contract, given.contract)
            if unsigned:
                verdict = [*unsigned, *(verdict if isinstance(verdict, list) else [])]
            changes["contract"] = given.contract
        own = self.permissions.exchange(runner.record.service)
        if runner.row.phase is not Phase.PERMITTING:
            return own if Fact.PERMITTED in runner.row.facts else Exchange(refusals=runner.record.refusals)
        if isinstance(verdict, list):  # a human is asked only about what nothing else is against
            verdict = [*verdict, *(await runner.judged(Action.SIGN)).told(self.network)]
        elif against := await runner.allowed(Action.SIGN):
            verdict = against
        if isinstance(verdict, list):
            first = verdict[0]
            await runner.tell(machine.Judged(runner.ending(first.code, first.sentence)), refusals=verdict)
            return Exchange(own.permissions, own.revocations, verdict)
        await runner.tell(machine.Judged(), **changes)
        return own

    def _not_signed_by_all(self, contract: Contract, envelope: str | None) -> list[Refusal]:
        """Why the contract is not one that all three have signed; the giver signs it before the target does."""
        signed = statements.read_contract((envelope or "").encode(), self.permissions.keys)
        if isinstance(signed, list):
            return signed
        if signed.digest == contract.digest:
            return []
        return [Refusal("CONTRACT_CHANGED", "The contract that all have signed is not the one that was offered here.")]

    def _undecided(self, runner: Runner) -> Refusal | None:
        """Where UEs may have gone onward, home does not know which of them a store had, nor at which epoch."""
        contract = runner.contract
        onward = runner if contract.onward else self._onward(contract.service, contract.target)
        if onward is None:
            return None
        return Refusal(
            "ONWARD_UNDECIDED",
            f"UEs go from {onward.contract.source} to {onward.contract.target} in {onward.id}: what a lost store of "
            "either had cannot be told from here.",
            {"migrationId": onward.id},
            f"`outrider migration return {onward.id}` first brings back what can be.",
            status=409,
        )


def _not_deployed(wanted: Wanted, network: str, home: str | None) -> Refusal:
    service = wanted.service
    if home is not None:
        return Refusal(
            "NOT_HOME",
            f"{service} belongs to {home}, and is hosted here only.",
            {"home": home},
            f"The operator of {home} starts its migrations: `outrider migration start {service} --from "
            f"{wanted.source or network} --to {wanted.target}`.",
            status=409,
        )
    return Refusal(
        "SERVICE_UNKNOWN",
        f"No service {service} is deployed at this network.",
        {"service": service},
        "`outrider service deploy PACKAGE` deploys one.",
        status=404,
    )


def _not_lost(runner: Runner, store_id: str) -> Refusal | None:
    """Why a store cannot be declared lost, as far as the migration tells."""
    row, known = runner.row, runner.record.peer.store_id if runner.record.peer is not None else ""
    if not row.role.leads:
        return Refusal(
            "NOT_HOME",
            f"{runner.record.service} is hosted here only: what its copies are worth is home's to say.",
            {"home": runner.contract.home},
            f"The operator of {runner.contract.home} declares it.",
            status=409,
        )
    if row.phase in machine.BEFORE or row.phase in ENDS or Fact.HOME in row.facts:
        return Refusal(
            "NOTHING_LOST",
            f"The migration is {row.phase.value}: every UE is at {runner.contract.home}.",
            {"phase": row.phase.value},
            status=409,
        )
    if store_id != known:
        return Refusal(
            "STORE_UNKNOWN",
            f"The migration is not with store {store_id}.",
            {"store": store_id, "known": known},
            f"It is with store {known} of {runner.partner}.",
            status=409,
        )
    return None


def _not_hosting(service: str, network: str, hosting: Runner | None) -> Refusal:
    if hosting is not None:
        return Refusal(
            "SOURCE_NOT_SERVING",
            f"{network} does not serve UEs of {service} yet, or any more: {hosting.id} is {hosting.row.phase.value}.",
            {"source": network, "migrationId": hosting.id, "phase": hosting.row.phase.value},
            "The service goes onward while that migration is RELOCATING or SETTLED.",
            status=409,
        )
    return Refusal(
        "SOURCE_NOT_HOSTING",
        f"{network} does not host {service}.",
        {"source": network, "service": service},
        f"Bring it there first, or leave `--from` away: `outrider migration start {service} --to NETWORK`.",
        status=409,
    )


def _no_partner(network: str) -> Refusal:
    return Refusal(
        "PARTNER_UNKNOWN",
        f"{network} is no partner of this network.",
        {"network": network},
        f"Exchange cards: `outrider partner invite {network}`, and `outrider partner add` with theirs.",
        status=404,
    )


def _migrating(runner: Runner) -> Refusal:
    return Refusal(
        "SERVICE_MIGRATING",
        f"{runner.record.service} is in migration {runner.id} already ({runner.row.phase.value}).",
        {"migrationId": runner.id, "phase": runner.row.phase.value},
        "Wait for its end, abort it, or bring the service back first.",
        status=409,
    )
