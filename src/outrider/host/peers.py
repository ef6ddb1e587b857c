"""The lanes between this host and the keepers of the same service at partners, and whose stores they are with."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outrider.core.compress import compress
from outrider.host.landing import Landing
from outrider.host.lanes import Lane, Receiver
from outrider.host.peer_store import PeerStore
from outrider.protocol import messages
from outrider.protocol.messages import BulkBatch, LaneBatch, encode
from outrider.store.port import SetValue

if TYPE_CHECKING:
    from outrider.host.host import Host


class Peers:
    """One control lane in each direction, and one for bulk frames, for each partner that this host speaks with."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._lanes: dict[str, Lane] = {}
        self._bulk_lanes: dict[str, Lane] = {}
        """The last one to each peer: the next one's numbers go on behind it."""
        self._stores: dict[str, PeerStore] = {}
        self._receivers: dict[str, Receiver] = {}
        self._landings: dict[str, tuple[Landing, Receiver]] = {}

    async def close(self) -> None:
        """Stop sending."""
        for lane in self._lanes.values():
            await lane.close()

    def has(self, peer: str) -> bool:
        """Whether this host speaks with that peer."""
        return peer in self._lanes

    def store(self, peer: str) -> str:
        """The peer's store, where it is known."""
        lane = self._lanes.get(peer)
        return (lane.peer_store if lane is not None else None) or ""

    def store_of(self, peer: str, mig: str) -> str:
        """The peer's store that a migration is with, pinned at its start: a reborn one must not take its grants."""
        migration = self._host.migrations.get(mig)
        pinned = migration.peer_store_id if migration is not None and migration.peer == peer else None
        return pinned or self.store(peer)

    def lane(self, peer: str) -> Lane:
        """The control lane to a peer."""
        lane = self._lanes.get(peer)
        return self.open(peer, None) if lane is None else lane

    def open(self, peer: str, peer_store: str | None) -> Lane:
        """The control lane to a peer, to that store of it; to whichever answers first where none is known."""
        lane = self._lanes.get(peer)
        if lane is None:

            async def encoded(batch: LaneBatch) -> bytes:
                return compress(encode(batch))

            lane = self._lanes[peer] = Lane(
                peer,
                self._host.hello,
                lambda body: self._host.link.post(peer, body, bulk=False),
                LaneBatch,
                encoded,
                durable_lsn=self._host.store.last_lsn,
                on_peer_restart=lambda: self._host.peer_restarted(peer),
                on_store_lost=lambda why: self._host.store_lost(peer, why),
                patient=messages.PATIENT,
            )
            lane.peer_store = peer_store or self._host.migrations.peer_store(peer)
        return lane

    async def meet(self, peer: str, peer_store: str | None) -> None:
        """The LMSFs have agreed on a migration with that store of the peer: an older store of it is history.

        Only a new migration may say so. Without one, another store is a lost one (PROTOCOL.md §9).
        """
        known = {self._stores[peer].store_id} if peer in self._stores else set()
        if peer in self._lanes:
            known.add(self._lanes[peer].peer_store)
        if peer_store is not None and known - {None, peer_store}:
            await self.part(peer)

    async def part(self, peer: str) -> None:
        """Speak no more with the store that a peer had."""
        self._stores.pop(peer, None)
        self._receivers.pop(peer, None)
        self._landings.pop(peer, None)
        lane = self._lanes.pop(peer, None)
        if lane is not None:
            await lane.close()

    def bulk_lane(
        self, peer: str, on_ack: Callable[[messages.LaneAck], None], on_peer_restart: Callable[[], None]
    ) -> Lane:
        """A lane for bulk frames; they never stand before control messages."""
        self.open(peer, None)

        async def encoded(batch: BulkBatch) -> bytes:
            return encode(batch)  # its content is compressed already

        before = self._bulk_lanes.get(peer)
        lane = self._bulk_lanes[peer] = Lane(
            peer,
            self._host.hello,
            lambda body: self._host.link.post(peer, body, bulk=True),
            BulkBatch,
            encoded,
            durable_lsn=self._host.store.last_lsn,
            on_ack=on_ack,
            on_peer_restart=on_peer_restart,
            on_store_lost=lambda why: self._host.store_lost(peer, why),
            window=4,
            batch_messages=1,
            through=before.through + before.waiting if before is not None else 0,
        )
        return lane

    def receiver(self, peer: str) -> Receiver:
        """What takes the control lane of a peer."""
        receiver = self._receivers.get(peer)
        if receiver is None:

            async def handle(message: Any) -> None:
                await self._host.reception.take(peer, message)

            receiver = self._receivers[peer] = Receiver(handle, self.heard(peer))
        return receiver

    def heard(self, peer: str) -> PeerStore:
        """What is known of a peer's store: nothing of another than the one that the migration is with is taken."""
        if peer not in self._stores:
            store = self._stores[peer] = PeerStore()
            known = self._host.migrations.peer_store(peer)
            if known is not None:
                store.known(known, int(self._host.store.value(_high_lsn(peer, known)) or 0))
        return self._stores[peer]

    def landing(self, peer: str) -> tuple[Landing, Receiver]:
        """What takes the bulk lane of a peer."""
        if peer not in self._landings:
            landing = Landing(self._host, peer)
            self._landings[peer] = landing, Receiver(landing.take, self.heard(peer))
        return self._landings[peer]

    async def discard(self, peer: str, migration_id: str) -> None:
        """Forget what the copy of a migration has brought."""
        if peer in self._landings:
            await self._landings[peer][0].discard(migration_id)

    async def keep(self) -> None:
        """Keep how far each peer's store was seen."""
        for peer, store in list(self._stores.items()):  # a peer may come while this waits
            if store.high_lsn and store.store_id is not None:
                name = _high_lsn(peer, store.store_id)
                await self._host.committer.submit(SetValue(name, str(store.high_lsn).encode()))


def _high_lsn(peer: str, store_id: str) -> str:
    """Name of the value that keeps how far a peer's store was seen to be durable; another store begins anew."""
    return f"high-lsn:{peer}:{store_id}"
