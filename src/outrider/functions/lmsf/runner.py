"""One migration at this network: the one task that decides, and what it sets to work.

Events go into an inbox; one task takes them out, steps the machine (`protocol.migration`), journals the new row and
only then gives the commands to the task that does them. New commands replace the old ones: whatever was under way is
cancelled, which is safe because every command may be repeated. Two more tasks only watch and report: one tells the
partner where this side stands (`teller`), one looks at clocks, permissions and progress. Neither decides anything.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import structlog

from outrider.core import limits
from outrider.core.contract import Contract
from outrider.core.refusal import Refusal, Refused
from outrider.decide.policy.decision import Decision
from outrider.decide.policy.request import Action
from outrider.functions.lmsf import audited, judging
from outrider.functions.lmsf.catalogue import Catalogue
from outrider.functions.lmsf.deployments import Deployments, host_failed
from outrider.functions.lmsf.journal import Journal, Logged
from outrider.functions.lmsf.keepers import Keepers
from outrider.functions.lmsf.negotiation import Negotiation, terms_of, uncovered
from outrider.functions.lmsf.permissions import Permissions
from outrider.functions.lmsf.policies import Case, Policies
from outrider.functions.lmsf.ports import Clock, HostFailed, Partners, Signer
from outrider.functions.lmsf.record import Migration, Progress, View, role_of
from outrider.functions.lmsf.teller import Teller
from outrider.protocol import migration as machine
from outrider.protocol.migration import MIGRATION
from outrider.protocol.phase import Command, Ending, Fact, Phase, Role, Row, over, waiting_for
from outrider.sbi.client import Unreachable

log = structlog.get_logger(__name__)

_REASONS = 16
"""Reasons of the partner that are kept."""

_RETRY_MIN_S, _RETRY_MAX_S = 0.05, 5.0

_JOURNAL_RETRY_S = 1.0
"""A disk that was full may have room by then."""

PHASE_LIMITS_MS = {
    Phase.NEGOTIATING: limits.OFFER_LIMIT_MS,
    Phase.PERMITTING: limits.OFFER_LIMIT_MS,
    Phase.PREPARING: limits.PREPARE_LIMIT_MS,
}
"""Phases that end by themselves or are stopped; the others wait for people, UEs or the contract's deadline."""

WAY_BACK = frozenset(
    {
        Command.STOP_GRANTING,
        Command.CHECK_DECIDED,
        Command.TAKE_BACK,
        Command.CHECK_WHOLE,
        Command.DECLARE_LOST,
        Command.GIVE_BACK,
        Command.CHECK_EMPTY,
        Command.FINISH,
        Command.CLEAR,
        Command.CLOSE,
        Command.MAKE_DISCOVERABLE,
    }
)
"""Commands that are tried for ever: giving up on one of them would leave UEs or software behind."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a migration works with: the other parts of this LMSF."""

    network: str
    journal: Journal
    clock: Clock
    signer: Signer
    partners: Partners
    keepers: Keepers
    catalogue: Catalogue
    permissions: Permissions
    policies: Policies
    negotiation: Negotiation
    deployments: Deployments
    onward: Callable[[str, str], str | None]
    """The network to which a service goes onward from another one that hosts it, if it does."""
    hosting: Callable[[str, str], bool]
    """Whether a network hosts a service of this one."""
    entered: Callable[["Runner"], None]
    """A migration has entered a phase: its partners counter-sign the head of the audit log."""


class Noted:
    """No event of the machine; something is to be journalled."""


class _Entry(NamedTuple):
    event: object
    changes: dict[str, Any]
    done: asyncio.Future[None] | None


Act = Callable[["Runner"], Awaitable[None]]


class Runner:
    """The life of one migration at this network."""

    def __init__(self, record: Migration, tools: Tools, acts: dict[Command, Act]) -> None:
        self.record = record
        self.tools = tools
        self.contract: Contract = terms_of(record.contract)
        self.progress: Progress | None = record.back or record.last
        self.trouble = ""
        """What the last try of the current command met; empty when all goes well."""
        self.awaited: Refusal | None = None
        """That a human has to decide before the current command goes on."""
        self.tellers = [Teller(self, partner, tools.partners, tools.clock) for partner in self.partners]
        self._counted_ms = 0
        self._giver_gone = False
        self._acts = acts
        self._inbox: asyncio.Queue[_Entry] = asyncio.Queue()
        self._doing: asyncio.Task[None] | None = None
        self._unkept: dict[type, _Entry] = {}
        """Posted events that could not be journalled."""
        self._repeating: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --------------------------------------------------------------------------------------- from outside

    @property
    def id(self) -> str:
        """The migration's id."""
        return self.record.id

    @property
    def row(self) -> Row:
        """Where this side stands."""
        return self.record.row

    @property
    def partner(self) -> str:
        """The other network."""
        return self.record.partner

    @property
    def partners(self) -> list[str]:
        """All networks that this side tells: the partner, and for home of a migration between two others the giver."""
        return [self.partner, *([self.contract.source] if self.row.role is Role.HOME else [])]

    @property
    def silent(self) -> list[str]:
        """Those that do not answer."""
        return [teller.partner for teller in self.tellers if teller.silent_since_ms is not None]

    @property
    def told(self) -> bool:
        """All have the end of this side, or are not told any more."""
        return all(teller.done for teller in self.tellers)

    @property
    def over(self) -> bool:
        """Nothing is left to do but to tell the partner."""
        return over(self.row)

    def start(self, *, resume: bool) -> None:
        """Set the tasks to work; after a restart, with what the journalled row demands."""
        tellers = [(teller.run(), f"teller to {teller.partner}") for teller in self.tellers]
        loops = ((self._own(), "owner"), (self._watch(), "watcher"), *tellers)
        self._tasks = [asyncio.create_task(loop, name=f"{name} of {self.id}") for loop, name in loops]
        self.post(machine.Resume() if resume else machine.Begin())

    async def stop(self) -> None:
        """Stop working; the journal has everything to go on."""
        tasks = [*self._tasks, *(task for task in (self._doing, self._repeating) if task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def post(self, event: object, **changes: Any) -> None:
        """Something has happened; `changes` of the record are journalled with it."""
        self._inbox.put_nowait(_Entry(event, changes, None))

    async def tell(self, event: object, **changes: Any) -> None:
        """Something has happened; wait until it is journalled and its commands are under way."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(_Entry(event, changes, done))
        await done

    async def note(self, **changes: Any) -> None:
        """Journal changes of the record that are no event."""
        await self.tell(Noted(), **changes)

    async def until(self, reached: Callable[[Row], bool], limit_ms: float) -> bool:
        """Wait until the row is as it should be; False if that takes longer."""
        try:
            async with asyncio.timeout(limit_ms / 1000):
                while not reached(self.row):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def reached(self, reached: Callable[[Row], bool]) -> None:
        """Wait until the row is as it should be, however long that takes."""
        while not await self.until(reached, limits.KEEPER_WAIT_MS):
            pass

    def heard(self, view: View) -> None:
        """The partner has told where it stands; refused if the view is not of its side of this migration."""
        teller = next((t for t in self.tellers if t.partner == view.network), None)
        if view.migration_id != self.id or teller is None or view.role is not role_of(view.network, self.contract):
            sentence = f"{view.network} tells of another side than its own of migration {self.id}."
            raise Refused(Refusal("VIEW_MISMATCH", sentence, {"network": view.network, "role": view.role.value}))
        teller.answered()
        said: dict[str, Any] = {} if self.record.refusals else {"refusals": view.refusals[:_REASONS]}
        giver = view.role is Role.GIVER
        said["giver" if giver else "peer"] = view
        if not self.row.role.leads and view.other_store_id:
            said["other_store_id"] = view.other_store_id
        self.post(machine.PeerIs(view.phase, view.facts, view.ending, giver), **said)

    def ending(self, cause: str, sentence: str, *, by: str | None = None) -> Ending:
        """Why it ends; decided by this network unless said otherwise."""
        return Ending(cause, sentence, by or self.tools.network, self.row.phase)

    def undo(self, sentence: str) -> None:
        """Remember what was undone; journalled with the event that follows."""
        if sentence not in self.record.undone:
            self.record = msgspec.structs.replace(self.record, undone=[*self.record.undone, sentence])

    def view(self, partner: str) -> View:
        """What that partner is told."""
        record, lead, home = self.record, self.record.role.leads, self.record.role is Role.HOME
        target = record.peer.store_id if record.peer is not None else ""
        return View(
            migration_id=self.id,
            network=self.tools.network,
            role=record.role,
            phase=self.row.phase,
            facts=self.row.facts,
            ending=self.row.ending,
            refusals=record.refusals,
            sentence=self.row.phase.sentence,
            waiting_for=self.waiting_for(),
            progress=self.progress,
            store_id=record.store_id,
            other_store_id=(record.other_store_id if partner == self.partner else target) if home else "",
            giver_gone=home and not self.tools.hosting(record.service, self.contract.source),
            digest_key=record.digest_key if lead else None,
            receipt=record.receipt if not lead else None,
            patient_until_ms=self.patient_for(partner),
            at_ms=self.tools.clock.now_ms(),
        )

    def patient_for(self, partner: str) -> int:
        """Until when a human may decide, as a partner is told: followers hear of each other from the lead.

        The lead tells nobody who may not have had the offer yet; while the target has it, the giver has answered.
        """
        own = self.tools.policies.approvals.waits_until_ms(self.id)
        if not self.row.role.leads:
            return own
        views = (self.record.peer, self.record.giver)
        heard = {view.network: view.patient_until_ms for view in views if view is not None and view.network != partner}
        if self.row.phase is Phase.NEGOTIATING:
            return heard.get(self.partner, 0)
        return max([own, *heard.values()])

    def waiting_for(self) -> str:
        """What has to happen next, and what is in its way."""
        waiting = waiting_for(self.row)
        if (own := self._own_store_lost()) and not self.over:
            return f"{waiting}; STORE_LOST: {own}"
        if self.trouble and not self.over:
            return f"{waiting} ({self.trouble})"
        if (lost := self.lost()) and not self.over:
            return f"{waiting}; STORE_LOST: {lost}"
        if (silent := " and ".join(self.silent)) and waiting != "nothing":
            return f"{waiting}; {silent} {'do' if len(self.silent) > 1 else 'does'} not answer"
        return waiting

    def _own_store_lost(self) -> str:
        """That the store of this network is lost, in words that the partner may read too; empty if it is not."""
        deployment = self.tools.deployments.get(self.record.service)
        if deployment is None or deployment.refusal is None or not deployment.store_lost:
            return ""
        return f"{deployment.refusal.sentence} `outrider service show {self.record.service}` says what helps"

    def lost(self) -> str:
        """That a store of this migration is lost, and what can be done about it; empty if none is."""
        record, progress = self.record, self.progress
        if Fact.LOST in record.row.facts | record.row.peer_facts:
            return ""  # it was declared so
        if record.role is Role.HOME and progress is not None and progress.store_lost:
            return f"{self.partner} has another store than the one that took UEs ({progress.store_lost})"
        if record.role is Role.SOURCE and progress is not None and progress.store_lost and record.peer is not None:
            command = f"outrider migration declare-lost {self.id} --store {record.peer.store_id}"
            lost = f"{self.partner} has another store than the one that took UEs ({progress.store_lost})"
            return f"{lost}. If that one is gone for good, `{command}` brings back what it had"
        host = self.tools.deployments.host(record.service)
        if record.store_id and host is not None and host.store_id and host.store_id != record.store_id:
            return f"the store of {record.service} here is {host.store_id}; the migration is with {record.store_id}"
        return ""

    # ------------------------------------------------------------------------------------------ the owner

    async def _own(self) -> None:
        while True:
            entry = await self._inbox.get()
            try:
                await self._step(entry.event, entry.changes)
            except Exception as error:
                # The row on the disk is the old one: the event did not happen, and whoever told it learns that.
                refused = isinstance(error, Refused)
                if refused:
                    log.warning("migration.not-journalled", migration=self.id, why=str(error))
                else:
                    log.exception("migration.event-failed", migration=self.id, told=type(entry.event).__name__)
                if entry.done is None:
                    self._repeat(entry)
                elif not entry.done.done():
                    entry.done.set_exception(error if refused else RuntimeError("the event could not be journalled"))
                continue
            if entry.done is not None and not entry.done.done():
                entry.done.set_result(None)

    def _repeat(self, entry: _Entry) -> None:
        """Post it again in a moment, the latest of its kind: nobody waits for it, and what has found it out is done."""
        self._unkept[type(entry.event)] = entry
        if self._repeating is None or self._repeating.done():
            self._repeating = asyncio.create_task(self._post_again(), name=f"repeater of {self.id}")

    async def _post_again(self) -> None:
        await self.tools.clock.sleep(_JOURNAL_RETRY_S)
        unkept, self._unkept = self._unkept, {}
        for entry in unkept.values():
            self._inbox.put_nowait(entry)

    async def _step(self, event: object, changes: dict[str, Any]) -> None:
        before = self.record
        step = MIGRATION.step(before.row, None, event)
        phases = dict(before.phases)
        phases.setdefault(step.row.phase.value, self.tools.clock.now_ms())
        record: Migration = msgspec.structs.replace(before, row=step.row, phases=phases, **changes)
        if step.row != before.row:
            record = msgspec.structs.replace(record, why=step.why, **self._numbers(record))
        if _kept(record) != _kept(before):
            logged = Logged(self.tools.clock.now_ms(), _text(event), step.row.phase.value, step.why)
            keys = self.tools.permissions.keys if record.contract != before.contract else {}
            audit = audited.stepped(self.tools.network, before, record, event, self.contract, step.why, keys)
            body = msgspec.json.encode(record)
            await self.tools.journal.put("migration", self.id, body, event=(self.id, logged), audit=audit)
        # `undone` may have grown while the journal was written.
        self.record = msgspec.structs.replace(record, undone=self.record.undone)
        if step.row != before.row:
            log.info("migration", migration=self.id, phase=step.row.phase.value, why=step.why)
            self.trouble, self.awaited = "", None
            self._changed.set()
            if step.row.phase is not before.row.phase:
                self.tools.entered(self)
        if step.commands:
            self._do(step.commands)

    def _numbers(self, record: Migration) -> dict[str, Any]:
        if self.progress is None:
            return {}
        doubt = {"in_doubt": self.progress.in_doubt}
        return doubt | ({"back": self.progress} if self.progress.returning else {"last": self.progress})

    # ------------------------------------------------------------------------------------------- the doer

    def _do(self, commands: tuple[Command, ...]) -> None:
        before, self._doing = self._doing, None
        if before is not None:
            before.cancel()
        self._doing = asyncio.create_task(self._run(commands, before), name=f"doer of {self.id}")

    async def _run(self, commands: tuple[Command, ...], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        for command in commands:
            if command is Command.TELL_PARTNER:
                for teller in self.tellers:
                    teller.news()
            elif not await self._try(command):
                return

    async def _try(self, command: Command) -> bool:
        """Do a command until it is done; False if it was refused and the migration is told so."""
        pause_s = _RETRY_MIN_S
        while True:
            try:
                await self._acts[command](self)
                self.trouble, self.awaited = "", None
                return True
            except Unreachable as error:
                self.trouble = str(error)
            except (Refused, HostFailed) as error:
                failed = (host_failed(self.record.service, error),) if isinstance(error, HostFailed) else error.refusals
                if command not in WAY_BACK and not _passing(error):
                    return self._give_up(*failed)
                self.trouble = str(failed[0])
                self.awaited = failed[0] if failed[0].code == "APPROVAL_PENDING" else None
            except Exception as error:
                log.exception("migration.fault", migration=self.id, command=command.name)
                if command not in WAY_BACK:
                    return self._give_up(Refusal("UNSPECIFIED_NF_FAILURE", f"{command.value}: {error!r}", status=500))
                self.trouble = f"a fault of this network: {error!r}"
            log.warning("migration.again", migration=self.id, command=command.name, why=self.trouble)
            await self.tools.clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _RETRY_MAX_S)

    def _give_up(self, refusal: Refusal, *more: Refusal) -> bool:
        self.post(machine.Failed(self.ending(refusal.code, refusal.sentence)), refusals=[refusal, *more])
        return False

    # ---------------------------------------------------------------------------------------- the watcher

    async def _watch(self) -> None:
        """Look at the clock, the permissions and the keeper's numbers."""
        while not self.over:
            try:
                with contextlib.suppress(Unreachable, Refused):  # whoever needs the keeper now says so
                    await self.look()
            except Exception:
                log.exception("migration.watch-failed", migration=self.id)
            await self.tools.clock.sleep(limits.PERMIT_CHECK_MS / 1000)

    async def look(self) -> None:
        """One look: deadlines, permissions and the policy first, then progress."""
        self._look_at_clock()
        await self._look_at_permissions()
        await self._look_at_policy()
        old = self.tools.clock.now_ms() - self._counted_ms >= limits.KEEPER_WAIT_MS
        if old and self.row.phase.rank >= Phase.COPYING.rank:
            await self.refresh()
        self._look_at_ues()
        await self._look_at_giver()

    def _look_at_clock(self) -> None:
        now_ms, phase, contract = self.tools.clock.now_ms(), self.row.phase, self.contract
        limit_ms = PHASE_LIMITS_MS.get(phase)
        entered_ms = self.record.phases.get(phase.value, now_ms)
        patient_ms = self.patient_until_ms and self.patient_until_ms + limits.OFFER_LIMIT_MS
        if limit_ms is not None and now_ms > max(entered_ms + limit_ms, patient_ms):
            sentence = f"{phase.value} took longer than {limit_ms // 1000} s: {self.waiting_for()}"
            self.post(machine.Overdue(phase, self.ending("PHASE_OVERDUE", sentence)))
        elif now_ms >= contract.window.end_ms:
            self.post(machine.TermsEnded(self.ending("STAY_ENDED", "the contract's window has ended")))
        elif now_ms >= contract.deadline_ms:
            passed = self.ending("DEADLINE_PASSED", "the contract's deadline has passed")
            if phase in machine.BEFORE:
                self.post(machine.TermsEnded(passed))
            elif phase is Phase.COPYING or (phase is Phase.RELOCATING and self.row.move_all):
                self.post(machine.StopAsked(passed))

    async def _look_at_permissions(self) -> None:
        """Without every permission nothing starts, and nothing goes on serving at the target."""
        if self.row.phase.rank < Phase.PREPARING.rank or self.over:
            return
        permitted = self.tools.permissions.judge(self.contract, self.record.manifest, instances=1)
        # A permission is over the software as it was trusted then; revoked software has none, whoever signed.
        verdict = self.tools.catalogue.revoked(self.contract.package_digest)
        verdict += permitted if isinstance(permitted, list) else []
        if not verdict:
            return
        first = verdict[0]
        ended = machine.TermsEnded(self.ending(first.code, first.sentence, by=first.facts.get("network")))
        if self.row.phase in (*machine.BEFORE, *machine.SERVING):
            self.post(ended, refusals=verdict)
        if self.record.role is Role.TARGET:
            await self.tools.keepers.permit(self.record.service, False)

    async def _look_at_policy(self) -> None:
        """Whether this operator's policy, as it is now, lets it go on; if not, what becomes of it is the policy's."""
        if self.row.phase.rank < Phase.PREPARING.rank or self.row.phase not in (*machine.BEFORE, *machine.SERVING):
            return
        stop = False
        try:
            decision = await self.judged(Action.STAY)
            reasons = [*await judging.software(self.tools.catalogue, self._case()), *decision.told(self.tools.network)]
            stop = decision.outcome == "abort"
        except Refused as refused:  # the facts cannot be had, so it cannot be allowed
            reasons = list(refused.refusals)
        if not reasons:
            return
        ending = self.ending(reasons[0].code, reasons[0].sentence)
        self.post(machine.StopAsked(ending) if stop else machine.TermsEnded(ending), refusals=reasons)

    async def judged(self, action: Action) -> Decision:
        """What this operator's policy says to an action of this migration, now."""
        return await self.tools.policies.judge(action, self._case())

    async def allowed(self, action: Action, terms: Sequence[Refusal] = ()) -> list[Refusal]:
        """What this operator has against an action (`judging`), once a human has decided where its policy asks for one.

        Raises:
            Refused: nobody has decided yet (503); to be tried again.
        """
        return await judging.against(self.tools.catalogue, self.tools.policies, self._case(), action, terms)

    def _case(self) -> Case:
        return Case(self.id, self.contract, self.record.manifest, self.row.role, self.row.phase)

    @property
    def patient_until_ms(self) -> int:
        """Until when a human, here or at another party, may decide about it; 0 if nobody has to."""
        own = self.tools.policies.approvals.waits_until_ms(self.id)
        return max(
            [own, *(view.patient_until_ms for view in (self.record.peer, self.record.giver) if view is not None)]
        )

    def _look_at_ues(self) -> None:
        """Whether the service has more UEs by now than the contract covers; then it does not stay there."""
        if not self.record.role.leads or self.progress is None:
            return
        too_many = uncovered(self.contract, self.progress.ues)
        if too_many is not None and self.row.phase in (*machine.BEFORE, *machine.SERVING):
            self.post(machine.TermsEnded(self.ending(too_many.code, too_many.sentence)), refusals=[too_many])

    async def _look_at_giver(self) -> None:
        """Target: a giver that hosts the service no more answers nothing; what was thought to be there is home's."""
        gone = self.row.role is Role.TARGET and self.record.peer is not None and self.record.peer.giver_gone
        if gone and not self._giver_gone:
            await self.tools.keepers.gone(self.record.service, self.contract.source, self.contract.home)
            self._giver_gone = True

    async def refresh(self) -> None:
        """Ask the own keeper for its numbers: those of the way back once that has begun."""
        back = self.row.phase.rank >= Phase.RETURNING.rank
        for name, returning in ((self.record.return_id, True), (self.id, False)):
            if returning and not back:
                continue
            known = await self.tools.keepers.migration(self.record.service, name, returning=returning)
            if known is not None:
                self.counted(known[1])
                return

    def counted(self, progress: Progress) -> None:
        """The own keeper has told its numbers."""
        self.progress = progress
        self._counted_ms = self.tools.clock.now_ms()


def _passing(error: Refused | HostFailed) -> bool:
    """Whether a "no" may be a "yes" soon: the other side is busy, starting, or has new keys."""
    return isinstance(error, Refused) and (error.refusal.status in (401, 429) or error.refusal.status >= 500)


def _kept(record: Migration) -> Migration:
    """The record without what may change without being journalled: where the partner stands in its own words."""
    dull = {
        name: msgspec.structs.replace(view, at_ms=0, progress=None, sentence="", waiting_for="")
        for name, view in (("peer", record.peer), ("giver", record.giver))
        if view is not None
    }
    return msgspec.structs.replace(record, **dull)


def _text(event: object) -> str:
    """An event for people."""
    match event:
        case machine.PeerIs():
            facts = ", ".join(sorted(fact.value for fact in event.facts))
            return f"{'Giver' if event.giver else 'Peer'}Is {event.phase.value} [{facts}]"
        case _:
            ending: Ending | None = getattr(event, "ending", None) or getattr(event, "refused", None)
            return type(event).__name__ + (f" {ending.cause}" if ending is not None else "")
