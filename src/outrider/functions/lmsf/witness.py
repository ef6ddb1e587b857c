"""Heads of the audit log: given to the partners at each phase of each migration, and counter-signed for them.

What is given follows from the log alone: the event by which a migration entered a phase, its sequence and its digest.
So nothing has to be remembered before it is sent, a retry sends the same bytes, and a restart asks for what is missing.
Both sides keep what both have signed. No phase waits for it: a partner that cannot be reached stops no way home, and
what it has not signed yet it is asked for later.
"""

import asyncio
from typing import Protocol

import msgspec
import structlog

from outrider.core import limits
from outrider.core.audit import AUDIT_HEAD_TYPE, LMSF, Actor, Entry, Head, read_event, refused
from outrider.core.canonical import sha256_hex
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.audit_log import AuditLog, Recorded
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.permissions import Permissions
from outrider.functions.lmsf.ports import Clock, Partners, Signer
from outrider.functions.lmsf.record import Envelope
from outrider.package import statements
from outrider.sbi.client import Unreachable
from outrider.sbi.problem import refusal_from

log = structlog.get_logger(__name__)

SCOPE = "nlmsf-audit"
_CLAUSE = "audit log, heads counter-signed at every phase"


class SignedHead(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Body of the request and of its answer: the same head, which has one more signature in the answer."""

    head: Envelope


class Side(Protocol):
    """One migration at this network (`runner.Runner`)."""

    @property
    def id(self) -> str:
        """The migration's id."""

    @property
    def partners(self) -> list[str]:
        """All networks that this side tells."""

    @property
    def over(self) -> bool:
        """Nothing is left to do but to tell the partner."""


class Witness:
    """Asks partners to counter-sign heads of this network's log, and counter-signs theirs."""

    def __init__(
        self,
        network: str,
        journal: Journal,
        signer: Signer,
        partners: Partners,
        permissions: Permissions,
        clock: Clock,
    ) -> None:
        self._network = network
        self._journal = journal
        self._signer = signer
        self._partners = partners
        self._permissions = permissions
        self._clock = clock
        self._due: dict[str, dict[str, Side]] = {}
        """By partner: the migrations of which it may not have signed all."""
        self._news: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # ------------------------------------------------------------------------------------------- the own log

    def news(self, side: Side) -> None:
        """A migration has entered a phase, or is found at the start."""
        for partner in side.partners:
            self._due.setdefault(partner, {})[side.id] = side
            self._news.setdefault(partner, asyncio.Event()).set()
            if partner not in self._tasks:
                self._tasks[partner] = asyncio.create_task(self._run(partner), name=f"witness {partner}")

    async def stop(self) -> None:
        """Ask no more; the log knows what is missing."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, partner: str) -> None:
        pause_ms = float(limits.TELL_RETRY_MIN_MS)
        news = self._news[partner]
        while True:
            await news.wait()
            news.clear()
            done = True
            for side in list(self._due[partner].values()):
                try:
                    if await self._give_all(side, partner):
                        self._due[partner].pop(side.id, None)
                    else:
                        done = False
                except Exception:
                    log.exception("audit.witness-failed", migration=side.id, partner=partner)
                    self._due[partner].pop(side.id, None)
            if done:
                pause_ms = limits.TELL_RETRY_MIN_MS
            else:
                await self._clock.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, limits.TELL_RETRY_MAX_MS)
                news.set()

    async def _give_all(self, side: Side, partner: str) -> bool:
        """Give a partner every head of a migration that it has not signed, in order; whether nothing is left."""
        if self._partners.get(partner) is None:
            return True
        since_ms = self._clock.now_ms() - limits.AUDIT_WITNESS_MS
        for recorded in await self._journal.audited(lambda log: self._missing(log, side.id, partner)):
            head = self._head(recorded, partner)
            if head.at_ms < since_ms:
                continue
            try:
                if not await self._give(head, side, partner):
                    return False
            except Refused as error:
                if error.refusal.code == "AUDIT_UNWRITABLE":
                    return False  # the own disk is full: it is not the partner that refuses
                self._alarm(error.refusal, partner, head)
                once = f"head/{partner}/{head.sequence}/{error.refusal.code}"
                await self._journal.record(refused(Actor("partner", partner), error.refusal, side.id, once=once))
                return True
            except (Unreachable, msgspec.DecodeError) as error:
                log.info("audit.head-not-given", migration=side.id, partner=partner, why=str(error))
                return False
        return True

    def _missing(self, log: AuditLog, migration: str, partner: str) -> list[Recorded]:
        phases = log.phases(migration)
        return [r for r in phases if log.kept(self._network, partner, r.sequence) is None]

    def _head(self, recorded: Recorded, partner: str) -> Head:
        event = read_event(recorded.body)
        return Head(
            network=self._network,
            sequence=recorded.sequence,
            hash=recorded.hash,
            at_ms=event.at_ms,
            given_to=partner,
            migration=event.migration,
            phase=event.facts.get("phase", ""),
        )

    async def _give(self, head: Head, side: Side, partner: str) -> bool:
        """Give one head; whether it is settled. `Refused` says why the partner does not sign it."""
        signed = self._signer.sign(head.encode(), AUDIT_HEAD_TYPE).decode()
        path = f"/nlmsf-audit/v1/migrations/{side.id}/heads"
        try:
            response = await self._partners.request(partner, "PUT", path, scope=SCOPE, json=SignedHead(signed))
        except Refused as error:  # no token for it, or no partner at the moment: it has said nothing of the head
            raise Unreachable(str(error), not_sent=True) from None
        if response.status == 404:
            return side.over  # the offer has not come yet; or it never will
        if response.status != 200:
            refusal = refusal_from(response, f"{partner} answers {response.status}.")
            if refusal.code.startswith("AUDIT_HEAD"):
                raise Refused(refusal)
            return False
        envelope = msgspec.json.decode(response.body, type=SignedHead).head
        read = statements.read_head(envelope.encode(), self._permissions.keys, [self._network, partner])
        if isinstance(read, Refusal):
            raise Refused(read)
        if read != head:
            raise Refused(_not_this("another head than the one that it was given", head))
        entry = _entry(head, envelope, Actor("partner", partner))
        await self._journal.audited(lambda log: log.keep(self._clock.now_ms(), head, envelope.encode(), entry))
        return True

    def _alarm(self, refusal: Refusal, partner: str, head: Head) -> None:
        log.error(
            "audit.head-refused", partner=partner, sequence=head.sequence, cause=refusal.code, why=refusal.sentence
        )

    # -------------------------------------------------------------------------------------- a partner's log

    async def countersign(self, given: SignedHead, side: Side, partner: str) -> SignedHead:
        """Sign the head of a partner's log and keep it; `Refused` if it is none, or contradicts one that is kept."""
        if len(given.head) > limits.AUDIT_HEAD_BYTES:
            sentence = f"A signed head has at most {limits.AUDIT_HEAD_BYTES} bytes."
            raise Refused(Refusal("AUDIT_HEAD_MALFORMED", sentence, {"bytes": str(len(given.head))}, status=400))
        head = statements.read_head(given.head.encode(), self._permissions.keys, [partner])
        if isinstance(head, Refusal):
            raise Refused(head)
        if (head.network, head.given_to, head.migration) != (partner, self._network, side.id):
            raise Refused(_not_this(f"the head that {partner} gives to {self._network} in {side.id}", head))

        def keep(log: AuditLog) -> bytes | Refusal:
            contradicted = _contradicted(log, head, self._network)
            if contradicted is not None:
                return contradicted
            envelope = self._signer.countersign(given.head.encode(), AUDIT_HEAD_TYPE)
            if isinstance(envelope, Refusal):
                return envelope
            return log.keep(self._clock.now_ms(), head, envelope, _entry(head, envelope.decode(), LMSF))

        envelope = await self._journal.audited(keep)
        if isinstance(envelope, Refusal):
            if envelope.code in ("AUDIT_HEAD_FORKED", "AUDIT_HEAD_BEHIND"):
                self._alarm(envelope, partner, head)
            raise Refused(envelope)
        return SignedHead(envelope.decode())


def _contradicted(log: AuditLog, head: Head, network: str) -> Refusal | None:
    """Why a head cannot be of the same log as those that its network gave before."""
    facts = {"network": head.network, "sequence": str(head.sequence)}
    known = log.kept(head.network, network, head.sequence)
    if known is not None:
        if (known.hash, known.migration) == (head.hash, head.migration):
            return None
        return Refusal(
            "AUDIT_HEAD_FORKED",
            f"{head.network} has given another event {head.sequence} before: its log was written anew.",
            facts | {"known": known.hash, "given": head.hash},
            f"`outrider audit verify` with an export of {head.network} says from where on.",
            status=409,
        )
    given = log.given(head.network, head.migration)
    if given and given[-1].sequence > head.sequence:
        return Refusal(
            "AUDIT_HEAD_BEHIND",
            f"{head.network} gives head {head.sequence} after head {given[-1].sequence}: its log was cut.",
            facts | {"known": str(given[-1].sequence)},
            f"`outrider audit verify` with an export of {head.network} says what is missing.",
            status=409,
        )
    if len(given) >= limits.AUDIT_HEADS_PER_MIGRATION:
        return Refusal(
            "AUDIT_HEADS_TOO_MANY",
            f"{len(given)} heads of {head.network} are kept for {head.migration} already.",
            facts | {"limit": str(limits.AUDIT_HEADS_PER_MIGRATION)},
        )
    return None


def _entry(head: Head, envelope: Envelope, actor: Actor) -> Entry:
    return Entry(
        actor,
        "head",
        f"{head.given_to} has counter-signed head {head.sequence} ({head.phase}) of the log of {head.network}.",
        _CLAUSE,
        head.migration,
        {"head": head.hash, "statement": sha256_hex(envelope.encode())},
        {
            "network": head.network,
            "givenTo": head.given_to,
            "sequence": str(head.sequence),
            "phase": head.phase,
        },
    )


def _not_this(what: str, head: Head) -> Refusal:
    return Refusal(
        "AUDIT_HEAD_MISMATCH",
        f"This is not {what}.",
        {"network": head.network, "givenTo": head.given_to, "sequence": str(head.sequence)},
    )
