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
from outrider.core.ids import NetworkId, key_text
from outrider.core.manifest import Manifest
from outrider.core.record import Change, Kind
from outrider.core.refusal import Refusal
from outrider.host import answers
from outrider.host.actor import Actor
from outrider.host.asserted import Asserted
from outrider.host.config import KeeperConfig
from outrider.host.followers import Followers
from outrider.host.forwards import Forwards
from outrider.host.grants import Grants
from outrider.host.identities import Identities
from outrider.host.jobs import Elsewhere, Job, Waits
from outrider.host.lanes import Hello
from outrider.host.link import Link
from outrider.host.lost import LostStores
from outrider.host.migrations import HostMigration, Migrations
from outrider.host.mover import Mover
from outrider.host.outbox import Outbox
from outrider.host.peers import Peers
from outrider.host.progress import Progress
from outrider.host.reception import Reception
from outrider.host.stars import StarActor, Stars
from outrider.host.timers import Timers
from outrider.host.units import Units
from outrider.host.workers import Worker
from outrider.protocol import messages, ownership
from outrider.protocol.messages import Answer, Carried
from outrider.protocol.ownership import Ownership, Row
from outrider.sbi.client import SbiClient
from outrider.store.bulk_process import Bulk, BulkBeside
from outrider.store.committer import GroupCommitter
from outrider.store.port import ContextStore, Erase, SetValue
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
        self.loop = asyncio.get_running_loop()
        """Asked for once: Python asks the system for the process's number each time, a tenth of a busy loop."""
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
        self.worker_starting = False
        """There is no worker yet: requests wait for it, and keys change owner all the same."""
        self.waits = Waits()
        self.hello = Hello(store.identity.store_id, store.identity.incarnation)
        self.actors: dict[bytes, Actor] = {}
        self.peers = Peers(self)
        self.reception = Reception(self)
        self.stars = Stars(self)
        self.forwards = Forwards(self)
        self.asserted = Asserted()
        self.grants = Grants(self)
        self.units = Units(self)
        self.timers = Timers(self)
        self.outbox = Outbox(self)
        self.identities = Identities(self)
        self.followers = Followers(self)
        self.progress = Progress(self)
        self.mover = Mover(self)
        self.migrations = Migrations(self)
        self._on_fault = on_fault
        self._routes: dict[bytes, tuple[int, str]] = {}
        self._taken_s: dict[bytes, float] = {}
        self._commit_waiters: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.lost = LostStores(self)

    # -------------------------------------------------------------------------------------- life cycle

    async def start(self) -> None:
        """Recover from the own disk only (PROTOCOL.md §10), then serve."""
        for migration in self.migrations.active:
            self.peers.open(migration.peer, migration.peer_store_id)
            if migration.role == "source" and not migration.settled:
                self.followers.start_copy(migration.migration_id, migration.peer)
                if migration.relocating:
                    self.mover.start(migration)
        if not self.config.is_home and self.migrations.all:
            self.peers.open(self.config.home_id, None)
            self.followers.start_shadow()
        for key, row in self.store.rows_in(Ownership.GRANTED).items():
            if row.peer is not None:
                self.peers.open(row.peer, self.peers.store_of(row.peer, row.mig or "") or None)
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
        await self.peers.close()
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
        await self.peers.meet(migration.peer, migration.peer_store_id)
        await self.migrations.put(migration)
        self.peers.open(migration.peer, migration.peer_store_id)
        if not self.config.is_home:
            self.peers.open(self.config.home_id, None)
        if migration.role == "source":
            self.followers.start_copy(migration.migration_id, migration.peer)

    async def finish(self, migration_id: str) -> HostMigration | Refusal:
        """A migration is over: no more of its streams, also if it ends before its copy is durable."""
        await self.mover.stop(migration_id)
        await self.followers.stop_copy(migration_id)
        changed = await self.migrations.change(migration_id, finished=True, relocating=False)
        if not isinstance(changed, Refusal):
            await self.peers.discard(changed.peer, migration_id)
        return changed

    async def abort(self, migration_id: str, cause: str) -> HostMigration | Refusal:
        """A migration is aborted: durable first, then its streams end. Keys in doubt are recalled, for ever."""
        changed = await self.migrations.abort(migration_id, cause)
        if not isinstance(changed, Refusal):
            await self.mover.stop(migration_id)
            await self.followers.stop_copy(migration_id)
            await self.peers.discard(changed.peer, migration_id)
        return changed

    def worker_started(self) -> None:
        """The worker is there: what waits for it goes on."""
        self.worker_starting = False
        for actor in list(self.actors.values()):
            actor.wake()

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
        behind = self._untold()
        if behind:
            sentence = "home's shadow does not have yet all that was done here"
            return Refusal("SHADOW_BEHIND", sentence, {"messages": str(behind)}, status=409)
        keys = await self.reading(lambda store: [key for key, *_ in store.heads(b"", b"\xff")])
        await self.committer.submit(Erase(keys))
        return len(keys)

    def _untold(self) -> int:
        """What home does not have yet of this host's log; what has gone onward from here is nowhere else (§7).

        Nothing else that waits counts: a home that had not begun the migration takes no message of it, ever.
        """
        shadow = self.followers.shadow
        if shadow is None:
            return 0
        return shadow.pending.lag + self.peers.lane(shadow.home).waiting_of(messages.Shadow, messages.ShadowFull)

    # -------------------------------------------------------------------------------- clocks and reading

    def now_s(self) -> float:
        """Time for deadlines: the loop's, which no clock change moves."""
        return self.loop.time()

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
        actor = self.actor_for(job, shared)
        if actor is not None:
            actor.submit(job)

    def actor_for(self, job: Job, shared: str | None = None) -> Actor | None:
        """The actor that a request goes to; None if it is answered, or waits for its key, or has left."""
        return self.identities.actor_of(job) if shared is None else self.actor(b"s" + shared.encode())

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

    def forget_routes(self, network: str) -> None:
        """That network has no key any more."""
        self._routes = {key: hint for key, hint in self._routes.items() if hint[1] != network}

    def not_owner(self, job: Job, key: bytes | None, epoch: int, owner: str) -> None:
        """Tell whoever forwarded a job that it was not run here, and where the key is."""
        answers.give(job, Elsewhere(key, epoch, owner, "UE_UNKNOWN" if key is None else "NOT_OWNER"))

    # ------------------------------------------------------------------------------- what has happened

    def committed(self, key: bytes, changes: list[Change]) -> None:
        """A unit of this host is durable."""
        kinds = {c.kind for c in changes if c.body is not None}
        if Kind.OUTBOX in kinds:
            self.outbox.kick(key)
        if Kind.TIMER in kinds:
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

    def dwells(self, key: bytes) -> bool:
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
        self.lost.notice(peer, why)

    def send(self, peer: str, message: messages.LaneMessage) -> None:
        """Send a message to a peer's keeper, in order."""
        self.peers.lane(peer).send(message)

    def peer_restarted(self, peer: str) -> None:
        """The peer has lost what it had taken and not decided: ask it again, at once."""
        log.info("peer.restarted", peer=peer)
        for actor in list(self.actors.values()):
            actor.peer_restarted(peer)
        self.forwards.repeat(peer)
        if self.followers.shadow is not None and peer == self.followers.shadow.home:
            self.followers.shadow.home_restarted()

    # -------------------------------------------------------------------------------------- maintenance

    async def _trim(self) -> None:
        """Forget the log that nobody needs; keep how far each peer's store was seen."""
        while True:
            await asyncio.sleep(2.0)
            self._taken_s = {key: at_s for key, at_s in self._taken_s.items() if self.dwells(key)}
            if self.followers.shadow is not None:
                await self.followers.shadow.keep()
            needed = self.followers.needed_lsn()
            through = self.store.last_lsn() if needed is None else needed
            await self.committer.run(functools.partial(self.store.trim_log, through))
            await self.peers.keep()
            await self.lost.look()
