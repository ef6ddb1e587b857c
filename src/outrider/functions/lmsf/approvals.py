"""What a human has to decide, because this operator's policy says so: asked once a migration, durable, and it expires.

A granted approval is about one migration on its terms, for all that the policy asks about it, as long as it runs.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from outrider.core.contract import Contract
from outrider.core.refusal import Refusal, Refused
from outrider.decide.policy.decision import Decision, Effect
from outrider.decide.policy.request import Action
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.ports import Clock

KEPT = 1_000
"""Approvals that are kept; beyond, the oldest go that are refused, expired or of an ended window."""
WAITING = 100
"""Migrations of one partner that may wait for a human at a time: a partner cannot flood the queue."""


class Approval(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A question to a human, and the answer."""

    migration_id: str
    action: Action
    service: str
    partner: str
    source: str
    target: str
    policy: str
    """The version that asks."""
    reasons: tuple[str, ...]
    """Why: the policy's own sentences, with rule and clause."""
    state: Literal["WAITING", "GRANTED", "REFUSED", "EXPIRED"] = "WAITING"
    asked_ms: int
    expires_ms: int
    """Until when it can be decided."""
    ends_ms: int
    """The end of the terms' window: an approval is worth nothing after it."""
    by: str = ""
    sentence: str = ""
    decided_ms: int = 0


class Approvals:
    """The queue of this operator."""

    def __init__(self, network: str, journal: Journal, clock: Clock) -> None:
        self._network = network
        self._journal = journal
        self._clock = clock
        read = (msgspec.json.decode(body, type=Approval) for body in journal.all("approval"))
        self._known = {approval.migration_id: approval for approval in read}

    def all(self) -> list[Approval]:
        """Every question, the newest first."""
        found = (approval for name in self._known if (approval := self.get(name)) is not None)
        return sorted(found, key=lambda a: -a.asked_ms)

    def get(self, migration_id: str) -> Approval | None:
        """The question about a migration, as it stands now."""
        known = self._known.get(migration_id)
        if known is not None and known.state == "WAITING" and self._clock.now_ms() >= known.expires_ms:
            return msgspec.structs.replace(known, state="EXPIRED")
        return known

    def approved_by(self, migration_id: str) -> str:
        """Who has approved it; empty if nobody has."""
        known = self._known.get(migration_id)
        return known.by if known is not None and known.state == "GRANTED" else ""

    def waits_until_ms(self, migration_id: str) -> int:
        """Until when a migration waits for a human; 0 if it does not."""
        known = self.get(migration_id)
        return known.expires_ms if known is not None and known.state == "WAITING" else 0

    async def ask(
        self, migration_id: str, contract: Contract, partner: str, decision: Decision, wait_ms: int
    ) -> Sequence[Refusal]:
        """What is against it once a human has said so; nothing if it is approved.

        Raises:
            Refused: nobody has decided yet (`APPROVAL_PENDING`, 503); to be asked again.
        """
        known = self.get(migration_id)
        if known is None:
            known = await self._queue(migration_id, contract, partner, decision, wait_ms)
        because = [r for r in decision.told(self._network) if r.code == "POLICY_APPROVAL_NEEDED"]
        facts = {"network": self._network, "migrationId": migration_id}
        if known.state == "WAITING":
            raise Refused(
                Refusal(
                    "APPROVAL_PENDING",
                    f"A human at {self._network} has to approve it.",
                    facts,
                    f"The operator of {self._network}: `outrider approval grant {migration_id}`.",
                    status=503,
                )
            )
        if known.state == "REFUSED":
            why = f": {known.sentence}" if known.sentence else ""
            sentence = f"A human at {self._network} has refused it{why}."
            return [Refusal("APPROVAL_REFUSED", sentence, facts, f"Ask the operator of {self._network}."), *because]
        if known.state == "EXPIRED":
            sentence = f"Nobody at {self._network} has approved it in time."
            return [Refusal("APPROVAL_EXPIRED", sentence, facts, "Begin it again, and tell the operator."), *because]
        return []

    async def _queue(
        self, migration_id: str, contract: Contract, partner: str, decision: Decision, wait_ms: int
    ) -> Approval:
        waiting = sum(a.partner == partner and a.state == "WAITING" for a in self.all())
        if waiting >= WAITING:
            raise Refused(
                Refusal(
                    "APPROVALS_TOO_MANY",
                    f"{waiting} migrations with {partner} wait for a human at {self._network} already.",
                    {"limit": str(WAITING)},
                    "Wait until some are decided.",
                )
            )
        asks = [r for r in decision.against if r.effect is Effect.APPROVAL]
        now_ms = self._clock.now_ms()
        return await self._keep(
            Approval(
                migration_id=migration_id,
                action=decision.action,
                service=contract.service,
                partner=partner,
                source=contract.source,
                target=contract.target,
                policy=decision.policy,
                reasons=tuple(f"{r.rule}: {r.sentence}" + (f" ({r.clause})" if r.clause else "") for r in asks),
                asked_ms=now_ms,
                expires_ms=min(now_ms + wait_ms, contract.deadline_ms),
                ends_ms=contract.window.end_ms,
            )
        )

    async def decide(
        self, migration_id: str, contract: Contract, partner: str, *, grant: bool, by: str, sentence: str
    ) -> Approval:
        """A human decides; also before anybody has asked, so that a stricter policy finds it approved.

        Raises:
            Refused: it was decided before, or the time is over.
        """
        known, now_ms = self.get(migration_id), self._clock.now_ms()
        state: Literal["GRANTED", "REFUSED"] = "GRANTED" if grant else "REFUSED"
        if known is not None and known.state != "WAITING":
            if known.state == state:
                return known
            raise Refused(
                Refusal(
                    "APPROVAL_DECIDED",
                    f"It is {known.state.lower()} already" + (f", by {known.by}." if known.by else "."),
                    {"migrationId": migration_id, "state": known.state},
                    f"`outrider migration abort {migration_id}` stops what runs.",
                    status=409,
                )
            )
        if known is None:
            known = Approval(
                migration_id=migration_id,
                action=Action.STAY,
                service=contract.service,
                partner=partner,
                source=contract.source,
                target=contract.target,
                policy="",
                reasons=(),
                asked_ms=now_ms,
                expires_ms=contract.window.end_ms,
                ends_ms=contract.window.end_ms,
            )
        decided = msgspec.structs.replace(known, state=state, by=by, sentence=sentence, decided_ms=now_ms)
        return await self._keep(decided)

    async def _keep(self, approval: Approval) -> Approval:
        await self._journal.put("approval", approval.migration_id, msgspec.json.encode(approval))
        self._known[approval.migration_id] = approval
        now_ms = self._clock.now_ms()
        over = (a for a in self.all() if a.state in ("REFUSED", "EXPIRED") or now_ms >= a.ends_ms)
        idle = sorted(over, key=lambda a: a.asked_ms)
        for old in idle[: max(0, len(self._known) - KEPT)]:
            del self._known[old.migration_id]
            await self._journal.drop("approval", old.migration_id)
        return approval
