"""An own service whose store is lost begins anew, with nothing, on its operator's word.

A store that begins as the owner of everything is safe only where nobody else can own anything. The journal knows: a
migration that has let its keeper grant may have keys at the partner until every key was at home and the partner had
nothing more to give. Till then it is refused, whatever the operator accepts: two networks would serve the same UEs.
"""

from collections.abc import Callable, Iterable

import msgspec
import structlog

from outrider.core.audit import Actor, Entry
from outrider.core.refusal import Refusal
from outrider.functions.lmsf.deployments import Deployments
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.ports import Clock
from outrider.functions.lmsf.record import BegunAnew, Deployment
from outrider.functions.lmsf.runner import Runner
from outrider.protocol.phase import Fact, Phase, may_have_moved

log = structlog.get_logger(__name__)


class Anew:
    """Whether a service whose store is lost may have another one, and what was lost so far."""

    def __init__(
        self,
        network: str,
        journal: Journal,
        deployments: Deployments,
        clock: Clock,
        migrations: Callable[[], Iterable[Runner]],
    ) -> None:
        self._network = network
        self._journal = journal
        self._deployments = deployments
        self._clock = clock
        self._migrations = migrations
        self._all = [msgspec.json.decode(body, type=BegunAnew) for body in journal.all("anew")]

    def of(self, service: str) -> list[BegunAnew]:
        """Every time that a service has begun anew here."""
        return [begun for begun in self._all if begun.service == service]

    def why_not(self, service: str) -> Refusal | None:
        """Why a new store of a service must not own everything; None if nobody else can own a key."""
        for r in self._migrations():
            if r.record.service == service and not _ended(r):
                return _away(r) if may_have_moved(r.row) else _under_way(r)
        return None

    async def begin(self, service: str, *, by: str, sentence: str) -> Deployment | Refusal:
        """Give up the lost store of a service and begin with an empty one; journalled before anything is given up."""
        deployment = self._deployments.get(service)
        if deployment is None:
            return Refusal("SERVICE_UNKNOWN", f"No service {service} runs at this network.", status=404)
        if deployment.state != "STORE_LOST" or deployment.refusal is None:
            return _not_lost(deployment)
        if deployment.migration_id is not None:
            return _hosted(deployment)
        refusal = self.why_not(service)
        if refusal is not None:
            return refusal
        known = self._deployments.stores.known(service)
        begun = BegunAnew(
            service=service,
            at_ms=self._clock.now_ms(),
            by=by,
            network=self._network,
            sentence=sentence,
            lost=known[-1] if known else None,
            why=deployment.refusal.sentence,
        )
        decided = Entry(
            Actor("operator", self._network),
            "decision",
            f"{service} begins anew with nothing, because its store is lost: {begun.why}",
            "PROTOCOL.md §9 (lost stores)",
            facts={"service": service, "by": by, "reason": sentence}
            | ({"storeId": begun.lost.store_id} if begun.lost is not None else {}),
        )
        body = msgspec.json.encode(begun)
        await self._journal.put("anew", f"{service} {begun.at_ms}", body, audit=[decided])
        self._all.append(begun)
        log.warning("store.begun-anew", **msgspec.to_builtins(begun))
        return await self._deployments.begin_anew(service)


def _ended(r: Runner) -> bool:
    """Whether every key is home for good: no grant is to be asked about that only the lost store could answer."""
    row = r.row
    back = Fact.HOME in row.facts and (Fact.RETURNED in row.peer_facts or Fact.LOST in row.facts)
    return r.over or row.phase is Phase.RETIRED or back


def _away(r: Runner) -> Refusal:
    return Refusal(
        "UES_AWAY",
        f"{r.partner} may own UEs of {r.record.service} (migration {r.id}, {r.row.phase.value}): "
        "a new store here would own them too.",
        {"migrationId": r.id, "partner": r.partner, "phase": r.row.phase.value},
        f"Put the newest store back and start the node again; then `outrider migration return {r.id}`. "
        f"Until then {r.partner} serves on what it owns.",
        status=409,
    )


def _under_way(r: Runner) -> Refusal:
    return Refusal(
        "SERVICE_MIGRATING",
        f"{r.record.service} is in migration {r.id} with {r.partner} ({r.row.phase.value}); no UE has moved.",
        {"migrationId": r.id, "partner": r.partner, "phase": r.row.phase.value},
        f"`outrider migration abort {r.id}` first.",
        status=409,
    )


def _not_lost(deployment: Deployment) -> Refusal:
    return Refusal(
        "STORE_NOT_LOST",
        f"The store of {deployment.service} is not lost: the service is {deployment.state}.",
        {"service": deployment.service, "state": deployment.state},
        f"`outrider service remove {deployment.service}` deletes a service with its state.",
        status=409,
    )


def _hosted(deployment: Deployment) -> Refusal:
    return Refusal(
        "SERVICE_HOSTED",
        f"{deployment.service} belongs to {deployment.home} and is hosted here under a migration.",
        {"home": deployment.home, "migrationId": deployment.migration_id or ""},
        f"Put the newest store back; if it is gone for good, the operator of {deployment.home} declares it lost.",
        status=409,
    )
