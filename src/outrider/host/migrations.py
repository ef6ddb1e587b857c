"""The migrations that this host takes part in, as far as a host must know them, durably.

The LMSF negotiates, permits and drives; a host knows who the peer is, which way the keys go, and whether the
migration is aborted. An abort is durable here before it is answered, so no grant is made or taken afterwards.
"""

from typing import TYPE_CHECKING, Literal

import msgspec
import structlog

from outrider.core.refusal import Refusal
from outrider.protocol import ownership
from outrider.protocol.ownership import Ownership
from outrider.store.port import SetValue

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()


class HostMigration(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One migration at one host. `sweep`: only UEs that have arrived move, or all of them.

    `role` is "home" where keys move between two other networks: home follows, gives the target those UEs that it has,
    and may have every UE back. `peer` is the target then; at the target it is the network that gives, beside home.
    """

    migration_id: str
    role: Literal["source", "target", "home"]
    peer: str
    home: str
    mode: Literal["async"] = "async"
    move_all: bool = False
    arrival_evidence: str = "target-asserted"
    peer_store_id: str | None = None
    relocating: bool = False
    sweep: Literal["arrived", "all"] = "arrived"
    settled: bool = False
    """A sweep of all has given everything away."""
    aborted: str | None = None
    finished: bool = False


class Migrations:
    """The migrations of this host, from the store and kept there."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._all: dict[str, HostMigration] = {}
        for value in host.store.values("mig:").values():
            migration = msgspec.json.decode(value, type=HostMigration)
            self._all[migration.migration_id] = migration

    def get(self, migration_id: str) -> HostMigration | None:
        """One migration, if it is known here."""
        return self._all.get(migration_id)

    @property
    def all(self) -> list[HostMigration]:
        """All that this host has taken part in."""
        return list(self._all.values())

    @property
    def active(self) -> list[HostMigration]:
        """Those that are neither aborted nor finished."""
        return [m for m in self._all.values() if m.aborted is None and not m.finished]

    async def put(self, migration: HostMigration) -> None:
        """Keep a migration, durably."""
        self._all[migration.migration_id] = migration
        name = f"mig:{migration.migration_id}"
        await self._host.committer.submit(SetValue(name, msgspec.json.encode(migration)))
        self._host.progress.news()

    async def change(self, migration_id: str, **changes: object) -> HostMigration | Refusal:
        """Change some fields, durably."""
        migration = self._all.get(migration_id)
        if migration is None:
            return Refusal("MIGRATION_UNKNOWN", f"this host knows no migration {migration_id}", status=404)
        changed: HostMigration = msgspec.structs.replace(migration, **changes)
        await self.put(changed)
        return changed

    async def abort(self, migration_id: str, cause: str) -> HostMigration | Refusal:
        """Abort: no new hold, grant or acceptance; held keys are let go, granted ones recalled (PROTOCOL.md §3.9)."""
        migration = await self.change(migration_id, aborted=cause)
        if isinstance(migration, Refusal):
            return migration
        for actor in list(self._host.actors.values()):
            if actor.vol.held is not None and actor.vol.held.mig == migration_id:
                actor.event(ownership.Aborted(migration_id))
        granted = self._host.store.rows_in(Ownership.GRANTED)
        for key in (k for k, row in granted.items() if row.mig == migration_id):
            self._host.actor(key).event(ownership.Aborted(migration_id))
        log.info("migration.aborted", migration=migration_id, cause=cause)
        return migration

    def aborted(self, migration_id: str) -> bool:
        """Whether it gives nothing any more, so that what is in doubt is recalled: aborted, over, or unknown here."""
        migration = self._all.get(migration_id)
        return migration is None or migration.aborted is not None or migration.finished

    def peer_store(self, peer: str) -> str | None:
        """The store of that peer that a migration which is not over is with. An aborted one may have keys there."""
        known = [m for m in self._all.values() if m.peer == peer and m.peer_store_id and not m.finished]
        return min(known, key=lambda m: m.aborted is not None).peer_store_id if known else None

    def speaks_with(self, peer: str) -> bool:
        """Whether this host has anything to do with that network's."""
        return any(peer in (m.peer, m.home) for m in self._all.values())

    def open_with(self, peer: str) -> bool:
        """Whether a migration with that network, or one of a service of its own, is not finished."""
        return any(peer in (m.peer, m.home) and not m.finished for m in self._all.values())

    def inbound(self, peer: str) -> str | None:
        """The migration under which keys of that peer may come here, if there is one."""
        return next((m.migration_id for m in self.active if m.role == "target" and peer in (m.peer, m.home)), None)

    def between(self, peer: str) -> str | None:
        """The migration with that peer, whichever way its keys go: a UE that turns back goes the other way."""
        found = (m.migration_id for m in self.active if m.peer == peer)
        return next(found, None) or self.inbound(peer)

    def evidence(self, migration_id: str) -> dict[str, str]:
        """What a WANT of this migration carries."""
        migration = self._all[migration_id]
        return {"kind": migration.arrival_evidence, "network": self._host.me}

    def proved(self, migration_id: str, evidence: dict[str, str]) -> bool:
        """Whether the evidence of a WANT is what the contract asks for."""
        migration = self._all.get(migration_id)
        return migration is not None and evidence.get("kind") == migration.arrival_evidence

    def may_give(self, migration_id: str, peer: str) -> bool:
        """Whether a key may be given to that peer under that migration now."""
        m = self._all.get(migration_id)
        if m is None or m not in self.active:
            return False
        if m.role == "target":
            return peer == m.home  # home may always have a UE back
        return m.relocating and peer == m.peer

    def why_not_take(self, migration_id: str, peer: str) -> str | None:
        """The cause for which a grant of that migration is refused; None if it is taken."""
        m = self._all.get(migration_id)
        if m is None or not (peer == m.peer or (m.role == "target" and peer == m.home)):
            return "MIGRATION_UNKNOWN"
        if m.aborted is not None:
            return "MIGRATION_ABORTED"
        if m.finished:
            return "MIGRATION_OVER"
        if not self._host.permitted:
            return "PERMISSION_REVOKED"
        return None
