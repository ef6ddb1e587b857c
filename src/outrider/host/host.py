"""A host: everything that one communication service has at one network, put together.

This is the room in the middle: it owns the store, the worker, one actor per busy key and one lane per partner, and
hands what arrives to the part that it belongs to. It decides nothing itself.
"""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from outrider.core import limits
from outrider.core.compress import compress
from outrider.core.ids import NetworkId, key_text
from outrider.core.manifest import Manifest
from outrider.core.record import Change, Kind
from outrider.core.refusal import Refusal
from outrider.host import answers, stars
from outrider.host.actor import Actor
from outrider.host.config import KeeperConfig
from outrider.host.followers import Followers
from outrider.host.forwards import Forwards
from outrider.host.grants import Grants
from outrider.host.identities import Identities
from outrider.host.jobs import Elsewhere, Job, Waits
from outrider.host.landing import Landing
from outrider.host.lanes import Hello, Lane, Receiver
from outrider.host.link import Link
from outrider.host.migrations import HostMigration, Migrations
from outrider.host.mover import Mover
from outrider.host.outbox import Outbox
from outrider.host.stars import StarActor, Stars
from outrider.host.timers import Timers
from outrider.host.units import Units
from outrider.host.workers import Worker
from outrider.protocol import messages, ownership
from outrider.protocol.messages import Answer, BulkBatch, Carried, LaneBatch, encode
from outrider.protocol.ownership import Ownership, Row
from outrider.sbi.client import SbiClient
from outrider.store.bulk_process import Bulk, BulkBeside
from outrider.store.committer import GroupCommitter
from outrider.store.port import ContextStore, Erase, Follow, Followed, Replace, SetValue
from outrider.store.sqlite import SqliteStore

log = structlog.get_logger()

T = TypeVar("T")


class Host:
    """The parts of one host; see the module."""

    def __init__(
        self,
        config: KeeperConfig,
        manifest: Manifest,
        store: SqliteStore,
        committer: GroupCommitter,
        worker: Worker,
        link: Link,
        client: SbiClient,
        *,
        on_fault: Callable[[str], None],
        bulk: Callable[[], Bulk] | None = None,
    ) -> None:
        """`bulk` makes what does the bulk work of one copy; in threads of this process unless told otherwise."""
        self.config = config
        self.manifest = manifest
        self.network = NetworkId.parse(config.network_id)
        self.me = config.network_id
        self.store = store
        self.committer = committer
        self.worker = worker
        self.link = link
        self.client = client
        self.bulk = bulk or (lambda: BulkBeside(store.path))
        self.permitted = store.value("permitted") != b"no"
        self.waits = Waits()
        self.hello = Hello(store.identity.store_id, store.identity.incarnation)
        self.actors: dict[bytes, Actor] = {}
        self.stars = Stars(self)
        self.forwards = Forwards(self)
        self.grants = Grants(self)
        self.units = Units(self)
        self.timers = Timers(self)
        self.outbox = Outbox(self)
        self.identities = Identities(self)
        self.followers = Followers(self)
        self.mover = Mover(self)
        self.migrations = Migrations(self)
        self._on_fault = on_fault
        self._lanes: dict[str, Lane] = {}
        self._receivers: dict[str, Receiver] = {}
        self._landings: dict[str, tuple[Landing, Receiver]] = {}
        self._routes: dict[bytes, tuple[int, str]] = {}
        self._taken_s: dict[bytes, float] = {}
        self._commit_waiters: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stores_lost: dict[str, str] = {}

    # -------------------------------------------------------------------------------------- life cycle

    async def start(self) -> None:
        """Recover from the own disk only (PROTOCOL.md §10), then serve."""
        for migration in self.migrations.active:
            self._open(migration.peer, migration.peer_store_id)
            if migration.role == "source":
                self.followers.start_copy(migration.migration_id, migration.peer)
                if migration.relocating:
                    self.mover.start(migration)
        if not self.config.is_home and self.migrations.all:
            self._open(self.config.home_id, None)
            self.followers.start_shadow()
        for key, row in self.store.own_rows(b"", b"\xff").items():
            if row.state is Ownership.GRANTED and row.peer is not None:
                self._open(row.peer, self.store_of(row.peer, row.mig or "") or None)
                aborted = row.mig is None or self.migrations.aborted(row.mig)
                self.actor(key).event(ownership.Resend(aborted))
        self.timers.start()
        self.outbox.start()
        self.keep(asyncio.create_task(self._trim(), name="trim the log"))

    async def close(self) -> None:
        """Stop all tasks; what is durable is enough to go on."""
        await self.mover.close()
        await self.timers.close()
        await self.outbox.close()
        await self.followers.close()
        for lane in self._lanes.values():
            await lane.close()
        await asyncio.gather(*(actor.close() for actor in list(self.actors.values())))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close()

    def fault(self, where: str, error: BaseException | None) -> None:
        """Something happened that the code does not expect: say so and stop, because a restart recovers."""
        log.error("fault", where=where, error=repr(error), exc_info=error)
        self._on_fault(f"{where}: {error!r}")

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task alive, and stop the process if it fails."""
        self._tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[Any]) -> None:
        """A task of this host is over; if it failed, so has the host."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.fault(task.get_name(), task.exception())

    # --------------------------------------------------------------------------------------- migrations

    async def begin(self, migration: HostMigration) -> None:
        """Take part in a migration."""
        await self._meet(migration.peer, migration.peer_store_id)
        await self.migrations.put(migration)
        self._open(migration.peer, migration.peer_store_id)
        if migration.role == "source":
            self.followers.start_copy(migration.migration_id, migration.peer)

    async def finish(self, migration_id: str) -> HostMigration | Refusal:
        """A migration is over: no more of its streams."""
        await self.mover.stop(migration_id)
        await self.followers.stop_copy(migration_id)
        return await self.migrations.change(migration_id, finished=True, relocating=False)

    async def abort(self, migration_id: str, cause: str) -> HostMigration | Refusal:
        """A migration is aborted: durable first, then its streams end. Keys in doubt are recalled, for ever."""
        changed = await self.migrations.abort(migration_id, cause)
        if not isinstance(changed, Refusal):
            await self.mover.stop(migration_id)
            await self.followers.stop_copy(migration_id)
            if changed.peer in self._landings:
                await self._landings[changed.peer][0].discard()
        return changed

    async def permit(self, valid: bool) -> None:
        """The permission is valid, or not any more; that survives a restart, because revoking must."""
        self.permitted = valid
        await self.committer.submit(SetValue("permitted", b"yes" if valid else b"no"))
        if valid:
            self.outbox.start()

    async def erase(self) -> int | Refusal:
        """Delete every copy of this store; refused while something is owned or in doubt here."""
        rows = self.store.own_rows(b"", b"\xff")
        kept = [k for k, row in rows.items() if row.state is not Ownership.FOREIGN]
        if kept:
            facts = {"keys": str(len(kept)), "first": key_text(kept[0])}
            return Refusal("CONTEXTS_OWNED_HERE", "contexts are owned or in doubt here", facts, status=409)
        keys = await self.reading(lambda store: [key for key, *_ in store.heads(b"", b"\xff")])
        await self.committer.submit(Erase(keys))
        return len(keys)

    # -------------------------------------------------------------------------------- clocks and reading

    @staticmethod
    def now_s() -> float:
        """Time for deadlines: the loop's, which no clock change moves."""
        return asyncio.get_running_loop().time()

    @staticmethod
    def utc_ms() -> int:
        """Time for due times of timers and ages of answers."""
        return int(time.time() * 1000)

    @staticmethod
    def later(delay_ms: float, do: Callable[[], None]) -> None:
        """Do something later."""
        asyncio.get_running_loop().call_later(delay_ms / 1000, do)

    async def reading(self, read: Callable[[ContextStore], T]) -> T:
        """Read much in a thread; bulk reads of the store have a connection that serving does not wait for."""
        return await asyncio.to_thread(read, self.store)

    def read_shared(self, name: str) -> list[tuple[str, str, bytes]]:
        """The replica of a shared object, for a unit that asks for it."""
        records = self.store.context(b"s" + name.encode()).records
        return [(r.nf, r.id, r.body) for r in records if r.kind == Kind.DATA]

    # -------------------------------------------------------------------------------------------- actors

    def actor(self, key: bytes) -> Actor:
        """The actor of a key."""
        actor = self.actors.get(key)
        if actor is None:
            actor = self.actors[key] = StarActor(self, key) if key[:1] == b"p" else Actor(self, key)
        return actor

    def forget(self, actor: Actor) -> None:
        """An actor has nothing left to do."""
        if self.actors.get(actor.key) is actor:
            del self.actors[actor.key]
        self.identities.forget(actor.key)

    def wake_partition(self, partition: int) -> None:
        """Let the actors of a partition look again."""
        for key, actor in list(self.actors.items()):
            if key[:1] == b"u" and key[1] == partition:
                actor.wake()
        self.timers.look()

    def submit(self, job: Job, shared: str | None = None) -> None:
        """A request has come: to its shared object, or to its UE."""
        if shared is not None:
            self.actor(b"s" + shared.encode()).submit(job)
        else:
            self.identities.submit(job)

    async def settle_arrival(self, key: bytes) -> bool:
        """Run `on_arrival` of a key that has come and not run a unit yet; False if that cannot be done now."""
        context = self.store.context(key)
        if key[:1] != b"u" or not context.head.n or context.head.epoch >= context.row.epoch:
            return True
        now_s = self.now_s()
        carried = Carried("POST", "", "", [], b"", "", "", kind="arrival")
        job = Job(carried, now_s + limits.UNIT_LIMIT_MS / 1000, asyncio.get_running_loop().create_future(), now_s)
        self.actor(key).submit(job)
        answer = await job.reply
        return isinstance(answer, Answer) and answer.status < 300

    # -------------------------------------------------------------------------------------------- routes

    def route(self, key: bytes, row: Row) -> tuple[int, str]:
        """Where a key is, as far as is known: the row, or a hint of a strictly higher epoch."""
        hint = self._routes.get(key)
        if hint is not None and hint[0] > row.epoch:
            return hint
        return row.epoch, row.peer or self.config.home_id

    def note_route(self, key: bytes, epoch: int, owner: str) -> None:
        """A hint where a key is; never durable, never an epoch (PROTOCOL.md §1)."""
        if owner != self.me and epoch > self._routes.get(key, (0, ""))[0]:
            self._routes[key] = (epoch, owner)

    def not_owner(self, job: Job, key: bytes | None, epoch: int, owner: str) -> None:
        """Tell whoever forwarded a job that it was not run here, and where the key is."""
        answers.give(job, Elsewhere(key, epoch, owner, "UE_UNKNOWN" if key is None else "NOT_OWNER"))

    # ------------------------------------------------------------------------------- what has happened

    def committed(self, key: bytes, changes: list[Change]) -> None:
        """A unit of this host is durable."""
        if any(c.kind == Kind.OUTBOX and c.body is not None for c in changes):
            self.outbox.kick(key)
        if any(c.kind == Kind.TIMER and c.body is not None for c in changes):
            self.timers.look()
        self.committed_event()

    def committed_event(self) -> None:
        """Wake whoever follows the log."""
        waiters, self._commit_waiters = self._commit_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def next_commit(self, after_lsn: int) -> None:
        """Wait until the log may have got longer than that."""
        if self.store.last_lsn() > after_lsn:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commit_waiters.append(waiter)
        await waiter

    def arrived(self, key: bytes, identity: str | None) -> None:
        """A key has come here."""
        self._taken_s[key] = self.now_s()
        self._routes.pop(key, None)
        if identity is not None:
            self.identities.arrived(identity, key)
        self.followers.start_shadow()
        self.committed_event()

    def _dwells(self, key: bytes) -> bool:
        """Whether the key has come only just now: a UE at the edge of two networks must not make it flap."""
        return self.now_s() < self._taken_s.get(key, 0.0) + limits.DWELL_MS / 1000

    def partition_arrived(self, partition: int) -> None:
        """A whole partition has come here."""
        self.followers.start_shadow()
        self.wake_partition(partition)

    def moved_away(self, key: bytes) -> None:
        """The peer has taken a key."""
        self.mover.moved(key)

    def store_lost(self, peer: str, why: str) -> None:
        """A peer's store is not the one that was known: no traffic until an operator has decided (§9)."""
        if peer not in self._stores_lost:
            log.error("store.lost", peer=peer, why=why)
        self._stores_lost[peer] = why

    # --------------------------------------------------------------------------------------------- lanes

    def has_lane(self, peer: str) -> bool:
        """Whether this host speaks with that peer."""
        return peer in self._lanes

    def peer_store(self, peer: str) -> str:
        """The peer's store, where it is known."""
        lane = self._lanes.get(peer)
        return (lane.peer_store if lane is not None else None) or ""

    def store_of(self, peer: str, mig: str) -> str:
        """The peer's store that a migration is with, pinned at its start: a reborn one must not take its grants."""
        migration = self.migrations.get(mig)
        return (migration.peer_store_id if migration is not None else None) or self.peer_store(peer)

    def send(self, peer: str, message: messages.LaneMessage) -> None:
        """Send a message to a peer's keeper, in order."""
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._open(peer, None)
        lane.send(message)

    def _open(self, peer: str, peer_store: str | None) -> Lane:
        lane = self._lanes.get(peer)
        if lane is None:

            async def encoded(batch: LaneBatch) -> bytes:
                return compress(encode(batch))

            lane = self._lanes[peer] = Lane(
                peer,
                self.hello,
                lambda body: self.link.post(peer, body, bulk=False),
                LaneBatch,
                encoded,
                durable_lsn=self.store.last_lsn,
                on_peer_restart=lambda: self._peer_restarted(peer),
                on_store_lost=lambda why: self.store_lost(peer, why),
            )
            lane.peer_store = peer_store
        return lane

    async def _meet(self, peer: str, peer_store: str | None) -> None:
        """The LMSFs have agreed on a migration with that store of the peer: an older store of it is history.

        Only a new migration may say so. Without one, another store is a lost one (PROTOCOL.md §9).
        """
        lane = self._lanes.get(peer)
        if lane is None or peer_store is None or lane.peer_store in (None, peer_store):
            return
        del self._lanes[peer]
        self._receivers.pop(peer, None)
        self._landings.pop(peer, None)
        self._stores_lost.pop(peer, None)
        await lane.close()

    def open_bulk_lane(
        self, peer: str, on_ack: Callable[[messages.LaneAck], None], on_peer_restart: Callable[[], None]
    ) -> Lane:
        """A lane for bulk frames; they never stand before control messages."""
        self._open(peer, None)

        async def encoded(batch: BulkBatch) -> bytes:
            return encode(batch)  # its content is compressed already

        return Lane(
            peer,
            self.hello,
            lambda body: self.link.post(peer, body, bulk=True),
            BulkBatch,
            encoded,
            durable_lsn=self.store.last_lsn,
            on_ack=on_ack,
            on_peer_restart=on_peer_restart,
            on_store_lost=lambda why: self.store_lost(peer, why),
            window=4,
            batch_messages=1,
        )

    def receiver(self, peer: str) -> Receiver:
        """What takes the control lane of a peer."""
        receiver = self._receivers.get(peer)
        if receiver is None:

            async def handle(message: Any) -> None:
                await self._on_message(peer, message)

            receiver = self._receivers[peer] = Receiver(handle)
            known = next((m.peer_store_id for m in self.migrations.active if m.peer == peer and m.peer_store_id), None)
            if known is not None:
                receiver.known(known, int(self.store.value(_high_lsn(peer, known)) or 0))
        return receiver

    def landing(self, peer: str) -> tuple[Landing, Receiver]:
        """What takes the bulk lane of a peer."""
        if peer not in self._landings:
            landing = Landing(self, peer)
            self._landings[peer] = landing, Receiver(landing.take)
        return self._landings[peer]

    def _peer_restarted(self, peer: str) -> None:
        log.info("peer.restarted", peer=peer)
        if self.followers.shadow is not None and peer == self.followers.shadow.home:
            self.followers.shadow.home_restarted()

    # ------------------------------------------------------------------------------------ lane messages

    async def _on_message(self, peer: str, m: Any) -> None:
        """Hand a lane message to its part; per key this keeps the lane's order, because actors queue."""
        match m:
            case messages.Want():
                self._on_want(peer, m)
            case messages.Grant(key=key) if key[:1] == b"p":
                # A task, so that nothing waits for its commit: what is forwarded behind it waits for the grant itself.
                self.keep(asyncio.create_task(stars.received(self, peer, m)))
            case messages.Grant():
                self.grants.received(peer, m)
            case messages.Need(key, x):
                if self._stands_alone(key):
                    self.actor(key).event(ownership.Need(peer, x))
            case messages.Accepted(key, x, epoch, owner):
                self.note_route(key, epoch, owner)
                if self._stands_alone(key):
                    self.actor(key).event(ownership.Accepted(peer, x))
            case messages.Refused(key, x, cause):
                if self._stands_alone(key):
                    self.actor(key).event(ownership.Refused(peer, x, cause))
            case messages.Recall():
                self.grants.recalled(peer, m)
            case messages.NotOwner():
                self._on_not_owner(peer, m)
            case messages.Forward():
                self._on_forward(peer, m)
            case messages.Answered():
                if m.key is not None and m.epoch and self._in_doubt_alone(m.key):
                    self.actor(m.key).event(ownership.Accepted(peer, m.epoch))
                self.forwards.answered(peer, m)
            case messages.Shadow(lsn, entries):
                self.keep(asyncio.create_task(self._on_shadow(peer, lsn, entries)))
            case messages.ShadowAck():
                if self.followers.shadow is not None:
                    self.followers.shadow.acked(m)
            case messages.ShadowFull(key, head, records):
                whole = Replace(key, key + b"\x00", [(key, head.epoch, head.n, head.digest)], records)
                self.keep(asyncio.create_task(self._submit(whole)))

    def _stands_alone(self, key: bytes) -> bool:
        """Whether the key has a row of its own. An answer about a UE that follows a granted `*p` is about no grant of
        that UE: taking it for one would let this network decide about `*p` by itself."""
        return key in self.store.own_rows(key, key + b"\x00")

    def _in_doubt_alone(self, key: bytes) -> bool:
        own = self.store.own_rows(key, key + b"\x00").get(key)
        return own is not None and own.state is Ownership.GRANTED

    async def _submit(self, operation: Any) -> None:
        await self.committer.submit(operation)

    async def _on_shadow(self, peer: str, lsn: int, entries: list[Any]) -> None:
        outcome = await self.committer.submit(Follow(entries))
        assert isinstance(outcome, Followed)
        self.send(peer, messages.ShadowAck(lsn, outcome.need))

    def _on_want(self, peer: str, m: messages.Want) -> None:
        key = m.key if m.key is not None else self.identities.key_of(m.identity or "")
        if key is None:
            self.send(peer, messages.NotOwner(None, 0, self.me, "UE_UNKNOWN", identity=m.identity))
            return
        row = self.store.row(key)
        if m.identity is not None and row.state is not Ownership.OWNED:
            epoch, owner = self.route(key, row)
            self.send(peer, messages.NotOwner(key, epoch, owner, identity=m.identity))
            return
        proved = self.migrations.proved(m.mig, m.evidence)
        allowed = self.migrations.may_give(m.mig, peer) and not self._dwells(key)
        if m.identity is not None and not (proved and allowed):
            cause = "RELOCATION_NOT_RUNNING" if proved else "ARRIVAL_NOT_PROVED"
            self.send(peer, messages.NotOwner(key, row.epoch, self.me, cause, identity=m.identity))
            return
        self.actor(key).event(ownership.Want(peer, m.mig, proved, allowed))

    def _on_not_owner(self, peer: str, m: messages.NotOwner) -> None:
        if m.key is not None:
            self.note_route(m.key, m.epoch, m.owner)
        if m.fwd_id:
            self.forwards.not_owner(peer, m)
        elif m.identity is not None:
            self.identities.not_given(peer, m)
        elif m.key is not None and m.key in self.actors and self.actors[m.key].vol.wanted:
            self.actor(m.key).event(ownership.NotOwner(m.owner if m.owner != self.me else peer, m.epoch))

    def _on_forward(self, peer: str, m: messages.Forward) -> None:
        job = self._job(m.request, m.remaining_ms)
        job.identity = m.identity
        job.origin = peer
        job.seen_epoch = m.seen_epoch
        job.creates = m.request.kind == "request"
        self._answer_to(peer, m.fwd_id, job)
        if m.request.kind == "message":
            self.mover.wrote(m.key or b"", job.sender or b"", peer)
        if m.key is not None:
            self.actor(m.key).submit(job)
        elif m.identity is not None:
            self.identities.submit(job)

    def job_from_grant(self, grant: messages.Grant, fwd_id: int, carried: Carried, remaining_ms: int) -> Job:
        """A request that rode in a grant: it runs here, and its answer goes back to the giver."""
        migration = self.migrations.get(grant.mig)
        assert migration is not None
        job = self._job(carried, remaining_ms)
        job.identity = grant.identity
        job.origin = migration.peer
        job.waited = "held"
        self._answer_to(migration.peer, fwd_id, job)
        return job

    def _job(self, carried: Carried, remaining_ms: int) -> Job:
        now_s = self.now_s()
        reply: asyncio.Future[Answer | Elsewhere] = asyncio.get_running_loop().create_future()
        sender = bytes.fromhex(carried.consumer) if carried.kind == "message" else None
        return Job(carried, now_s + remaining_ms / 1000, reply, now_s, keep_answer=True, sender=sender)

    def _answer_to(self, peer: str, fwd_id: int, job: Job) -> None:
        def done(reply: asyncio.Future[Answer | Elsewhere]) -> None:
            answer = reply.result()
            if isinstance(answer, Elsewhere):
                self.send(peer, messages.NotOwner(answer.key, answer.epoch, answer.owner, answer.cause, fwd_id))
                return
            key = None if job.identity is None else self.store.key_of(job.identity)
            row = self.store.row(key) if key is not None else None
            epoch = row.epoch if row is not None and row.state is Ownership.OWNED else 0
            self.send(peer, messages.Answered(fwd_id, key, epoch, answer))

        job.reply.add_done_callback(done)

    # -------------------------------------------------------------------------------------- maintenance

    async def _trim(self) -> None:
        """Forget the log that nobody needs; keep how far each peer's store was seen."""
        while True:
            await asyncio.sleep(2.0)
            self._taken_s = {key: at_s for key, at_s in self._taken_s.items() if self._dwells(key)}
            needed = self.followers.needed_lsn()
            through = self.store.last_lsn() if needed is None else needed
            await self.committer.run(functools.partial(self.store.trim_log, through))
            for peer, receiver in list(self._receivers.items()):  # a peer may come while this waits
                if receiver.high_lsn and receiver.store_id is not None:
                    name = _high_lsn(peer, receiver.store_id)
                    await self.committer.submit(SetValue(name, str(receiver.high_lsn).encode()))


def _high_lsn(peer: str, store_id: str) -> str:
    """Name of the value that keeps how far a peer's store was seen to be durable; another store begins anew."""
    return f"high-lsn:{peer}:{store_id}"
