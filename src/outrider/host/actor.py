"""One key at this host: the only place where its requests run and its ownership changes.

An actor is one task per key that has something to do. It takes what has come for the key one thing at a time: first
events of the ownership protocol, then jobs in the order in which they came. So writes of one key run one at a time, a
key is never given away while one of its units is open, and nothing here needs a lock.

What an event does is decided by `protocol.ownership.OWNERSHIP` alone. The actor looks up the facts, makes the new row
durable, and then does what the commands say, in that order.

What a job does depends on the row that is effective when its turn comes:

=========  =====================================================================================
OWNED      it runs here, unless the key is held: then it waits, and may ride in the grant, or it
           only reads, and runs at once (`reads`)
GRANTED    it is forwarded to the network that the key was given to
FOREIGN    under a migration to this network: the key is asked for (WANT) and the job waits a
           bounded time; else it is forwarded to the owner ("served remotely")
=========  =====================================================================================
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from outrider.core import limits
from outrider.core.ids import key_text
from outrider.host import answers, reads
from outrider.host.failpoints import reach
from outrider.host.jobs import Job
from outrider.protocol import messages, ownership
from outrider.protocol.ownership import NO_VOL, OWNERSHIP, Ownership, Row
from outrider.protocol.requests import at_acceptance, in_place, waits_for_grant
from outrider.store.port import DoesNotFit, Done, RowChanged, SetRow, Take

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()


class Actor:
    """Everything volatile about one key; a crash loses it, and nothing else."""

    def __init__(self, host: "Host", key: bytes) -> None:
        self.host = host
        self.key = key
        self.vol = NO_VOL
        self.queue: deque[Job] = deque()
        self.deliveries = 0
        """Outbox deliveries of this key under way: open work, so they keep it from being given away."""
        self.reading = 0
        """Reads under way beside this task; they keep nothing."""
        self.asked_as: dict[str, str] = {}
        """The identity by which a network without the key has asked for it: an answer by key would tell it nothing."""
        self.asked_for = False
        """Another network says that the UE is there, so a grant may say who the UE is."""
        self._inbox: deque[Any] = deque()
        self._task: asyncio.Task[None] | None = None
        self._given: list[tuple[int, Job]] = []
        self._hold_until_s = 0.0
        self._want_until_s = 0.0
        self._no_want_until_s = 0.0
        self._resend_ms = limits.RESEND_MIN_MS
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # ------------------------------------------------------------------------------------- coming in

    def event(self, event: Any) -> None:
        """Something of the ownership protocol has happened."""
        self._inbox.append(event)
        if self._task is not None:
            self.host.units.send_back(self.key)
        self.wake()

    def submit(self, job: Job) -> None:
        """A job has come; a full queue answers it 503 at once, with no effect."""
        if self._enter(job):
            self.wake()

    def serve(self, job: Job) -> Awaitable[object]:
        """A job has come. Where the key is owned and nothing of it goes on, it runs in the caller's task, to spare one.

        Only its own unit does: whatever else happens to the key, a job is answered without it when its time is up.
        """
        alone = self._task is None and not self._inbox and not self.queue
        if self._enter(job):
            if alone and not self._inbox and self.host.store.row(self.key).state is Ownership.OWNED:
                self._task = asyncio.current_task(self.host.loop)
                return self._run(once=True)
            self.wake()
        return job.reply

    def _enter(self, job: Job) -> bool:
        if len(self.queue) + self.reading >= limits.QUEUE_PER_KEY:
            answers.turn_away(job, "the queue of this UE is full")
            return False
        if self.vol.held is not None and self._read(job, self.queue):
            return False
        if job.carried.kind == "emergency":
            # An emergency takes the UE back while that is still possible, and goes first (PROTOCOL.md §4.9).
            self.queue.appendleft(job)
            if self.vol.held is not None:
                self._inbox.append(ownership.HoldEnded())
        elif job.hops:
            self._place([job])
        else:
            self.queue.append(job)
        if self._task is not None:
            self._wait_in_time()  # behind a unit that may take as long as units may
        return True

    def _place(self, back: Iterable[Job]) -> None:
        self.queue = deque(in_place(back, self.queue, _came_later))

    def wake(self) -> None:
        """Make sure that the task runs."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=key_text(self.key))

    async def close(self) -> None:
        """Stop; what is volatile is lost, as in a crash."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self._inbox.clear()
        self.queue.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def came_with_partition(self) -> None:
        """The key has come with its `*p`, which proves that an own grant without an answer had been taken."""
        self._cancel("resend")
        self._given = []
        self.forwards_back()

    def forwards_back(self) -> None:
        """The key is this network's with its `*p`: own forwards without an answer run here."""
        self._place(self.host.forwards.take_back(self.key))
        self.wake()

    def peer_restarted(self, peer: str) -> None:
        """A question that this peer had and has not answered is lost: ask it now, not when its time comes."""
        row = self.host.store.row(self.key)
        if "resend" in self._timers and row.peer == peer:
            self._cancel("resend")
            self._resend_ms = limits.RESEND_MIN_MS
            aborted = row.mig is not None and self.host.migrations.aborted(row.mig)
            self.event(ownership.Resend(aborted))

    def moved_with_partition(self) -> None:
        """Its `*p` has come or was given away: a hold or WANT of the key itself is over."""
        self.vol = NO_VOL
        self._cancel("hold")
        self._cancel("want")

    def delivery_ended(self) -> None:
        """An outbox delivery is over; the last one lets a held key go."""
        self.deliveries -= 1
        if self.vol.held is not None and not self.deliveries:
            self.event(self._drained())
        self.rest()

    @property
    def idle(self) -> bool:
        """Nothing is left that must be remembered."""
        under_way = self.deliveries or self.reading or self._timers
        return not (self._inbox or self.queue or self._given or under_way or self.vol != NO_VOL)

    def rest(self) -> None:
        """Be forgotten, if nothing is left."""
        if self._task is None and self.idle:
            self.host.forget(self)

    # ----------------------------------------------------------------------------------------- the task

    async def _run(self, *, once: bool = False) -> None:
        """Do what there is, or one thing of it; until the first job has to wait."""
        stars, waits = self.host.stars, False
        try:
            while (self._inbox or self.queue) and not waits:
                if stars.frozen(self.key):
                    self._hold_back()
                    break
                stars.open(self.key)
                try:
                    if self._inbox:
                        await self._take(self._inbox.popleft())
                    else:
                        waits = not await self._serve()
                finally:
                    stars.closed(self.key)
                if once:
                    break
            self._wait_in_time()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.host.fault(f"actor of {key_text(self.key)}", error)
        finally:
            self._task = None
            if (self._inbox or (once and self.queue and not waits)) and not stars.frozen(self.key):
                self.wake()
            self.rest()

    async def _take(self, event: Any) -> None:
        """Run one event through the table: the row becomes durable, then the commands are done."""
        if isinstance(event, ownership.Grant) and (self.key, event.x) not in self.host.grants.pending:
            return  # a repetition of one that was decided, or answered NEED, meanwhile
        while True:
            row = self.host.store.row(self.key)
            step = OWNERSHIP.step(row, self.vol, event)
            if step.row == row:
                break
            outcome = await self._commit(row, step.row, event)
            if isinstance(outcome, Done):
                self.host.progress.rows_changed()
                log.info("ownership", key=key_text(self.key), state=step.row.state.value, epoch=step.row.epoch,
                         peer=step.row.peer, why=step.why)  # fmt: skip
                break
            if isinstance(outcome, DoesNotFit):
                event = replace(event, fit="wrong" if outcome.full else "need")
            elif not isinstance(outcome, RowChanged):
                raise RuntimeError(f"the store answered {outcome}")
        self.vol = step.vol
        for command in step.commands:
            await self._do(command, step.row)

    async def _commit(self, before: Row, after: Row, event: Any) -> Any:
        if isinstance(event, ownership.Grant) and after.state is Ownership.OWNED:
            reach("accept-before-commit")
            outcome = await self.host.committer.submit(self._take_operation(before, after, event))
            reach("accept-durable")
            return outcome
        if after.state is Ownership.GRANTED and before.state is Ownership.OWNED:
            reach("grant-before-commit")
            outcome = await self.host.committer.submit(self._give_operation(before, after))
            reach("grant-durable")
            return outcome
        if isinstance(event, ownership.Grant | ownership.Recall):
            return await self.host.committer.submit(self._refuse_operation(before, after, event))
        return await self.host.committer.submit(SetRow(self.key, before, after))

    def _refuse_operation(self, before: Row, after: Row, event: ownership.Grant | ownership.Recall) -> SetRow:
        return SetRow(self.key, before, after)

    def _excepted(self) -> list[bytes]:
        """The UEs that a message about this key does not speak of; there are some only for `*p`."""
        return []

    def _give_operation(self, before: Row, after: Row) -> SetRow:
        return SetRow(self.key, before, after)

    def _take_operation(self, before: Row, after: Row, event: ownership.Grant) -> Take:
        grant = self.host.grants.pending[self.key, event.x]
        match grant.body:
            case "full":
                return Take(self.key, before, after, grant.head, records=grant.records, identity=grant.identity)
            case "delta":
                return Take(self.key, before, after, grant.head, entries=grant.entries, identity=grant.identity)
            case _:
                return Take(self.key, before, after, grant.head, identity=grant.identity)

    # --------------------------------------------------------------------------------------- commands

    async def _do(self, command: Any, row: Row) -> None:
        host, c = self.host, command
        match c:
            case ownership.Hold():
                reach("hold")
                self._hold_until_s = host.now_s() + limits.HOLD_LIMIT_MS / 1000
                self._later("hold", limits.HOLD_LIMIT_MS, ownership.HoldEnded())
                self._hold_back()
                self._held()
            case ownership.Release():
                self._released(row)
            case ownership.ForwardQueue(peer):
                self._cancel("want")
                self._no_want_until_s = host.now_s() + limits.WANT_BACKOFF_MS / 1000
                self._later("want again", limits.WANT_BACKOFF_MS, None)  # so long the actor is there to remember it
                self._forward_all(peer, row)
            case ownership.SendWant(_, mig):
                peer = host.route(self.key, row)[1]  # a hint may know better than the row
                self._want_until_s = host.now_s() + limits.WANT_LIMIT_MS / 1000
                self._later("want", limits.WANT_LIMIT_MS, ownership.NotOwner(peer, 0))
                host.send(peer, messages.Want(mig, self.key, None, host.migrations.evidence(mig)))
            case ownership.SendGrant(peer, x, full):
                self._cancel("hold")
                self.asked_as.clear()
                self._hand_over(peer, row)
                await self._send_grant(peer, x, row.mig or "", full=full)
                host.mover.given(self.key)
                reach("grant-sent")
                self._resend_later()
            case ownership.SendRecall(peer, x):
                mig = row.mig or ""
                host.send(peer, messages.Recall(mig, self.key, x, host.peers.store_of(peer, mig), self._excepted()))
                self._resend_later()
            case ownership.SendAccepted(peer, x, epoch, owner):
                host.grants.done(self.key, x)
                host.send(peer, messages.Accepted(self.key, x, epoch, owner or host.me))
                reach("accepted-sent")
            case ownership.SendRefused(peer, x, cause):
                refused = host.grants.done(self.key, x)
                host.send(peer, messages.Refused(self.key, x, cause))
                if refused is not None and refused.identity is not None:
                    host.identities.not_taken(refused.identity, self.key, peer)
            case ownership.SendNeed(peer, x):
                host.grants.pending.pop((self.key, x), None)  # not decided: what a recall does not speak of stays known
                host.send(peer, messages.Need(self.key, x))
            case ownership.SendNotOwner(peer, epoch, owner, cause):
                identity = self.asked_as.pop(peer, None)
                host.send(peer, messages.NotOwner(self.key, epoch, owner or host.me, cause, identity=identity))
            case ownership.Install():
                self._installed()
            case ownership.BecomeShadow():
                reach("settled")
                self._cancel("resend")
                self.asked_for = False
                self._given = []
                host.moved_away(self.key)
            case ownership.StoreLost(peer):
                host.grants.forget(self.key)
                host.store_lost(peer, "a grant is for another store than this one")
            case ownership.Alarm(sentence):
                host.grants.forget(self.key)
                log.error("ownership.alarm", key=key_text(self.key), sentence=sentence)
            case _:
                raise NotImplementedError(f"{type(c).__name__} in an async-mode host")

    async def _send_grant(self, peer: str, x: int, mig: str, *, full: bool) -> None:
        self.host.grants.send(self, peer, x, mig, self._given, full=full)

    def _held(self) -> None:
        if not self.deliveries:
            self._inbox.append(self._drained())

    def _drained(self) -> ownership.Drained:
        held = self.vol.held
        aborted = held is not None and self.host.migrations.aborted(held.mig)
        return ownership.Drained(in_time=self.host.now_s() < self._hold_until_s, aborted=aborted)

    def _released(self, row: Row) -> None:
        """The key is this network's (again): what was handed over and not run comes back in front, in order."""
        self._cancel("hold")
        self._cancel("resend")
        self._cancel("want")
        self.asked_for = False
        given, self._given = self._given, []
        back = [job for fwd_id, job in given if self.host.forwards.withdraw(fwd_id)]
        self._place(self.host.forwards.take_back(self.key))
        self.queue.extendleft(reversed(back))
        self.host.timers.look()
        self.host.outbox.kick(self.key)

    def _installed(self) -> None:
        """Order at acceptance (PROTOCOL.md §4.5): requests of the grant, own unanswered forwards, the queue."""
        grant = self.host.grants.pending[self.key, self.host.store.row(self.key).epoch]
        rode = [self.host.reception.job_from_grant(grant, fwd_id, carried, ms) for fwd_id, carried, ms in grant.held]
        own = self.host.forwards.take_back(self.key)
        self.queue = deque(at_acceptance(rode, own, self.queue, _came_later))
        self.host.arrived(self.key, grant.identity)

    def _hand_over(self, peer: str, row: Row) -> None:
        """Jobs that wait at the moment of the grant ride in it by value; the peer's own it runs from its own copies."""
        if self._given or row.state is not Ownership.GRANTED:
            return
        self._resend_ms = limits.RESEND_MIN_MS
        for job in self.queue:
            if job.stays:
                answers.give(job, answers.busy("the key is served elsewhere"))
            elif job.origin is None:
                self._given.append((self.host.forwards.enter(job, self.key, peer), job))
            else:
                self.host.not_owner(job, self.key, row.epoch, peer)
        self.queue.clear()

    # -------------------------------------------------------------------------------------------- jobs

    async def _serve(self) -> bool:
        """Do what the row allows for the first job; False when it has to wait."""
        host = self.host
        job = self.queue[0]
        if job.reply.done() or host.now_s() >= job.deadline_s:
            self.queue.popleft()
            answers.turn_away(job, "the deadline passed in the queue")
            return True
        row = host.store.row(self.key)
        if row.state is Ownership.OWNED:
            return await self._serve_here(job, row)
        if job.stays:
            self.queue.popleft()
            answers.give(job, answers.busy("the key is served elsewhere"))  # the record that it is for has moved too
            return True
        if await host.identities.keep(job.identity, self.key):
            return True  # a UE that begins elsewhere; its key is home's to remember
        epoch, owner = host.route(self.key, row)
        if job.origin is not None:
            return self._serve_forwarded(job, row, epoch, owner)
        if row.state is Ownership.FOREIGN and self._may_want(owner):
            if not self.vol.wanted:
                job.waited = "arrival"
                mig = host.migrations.inbound(owner)
                assert mig is not None
                await self._take(ownership.Demand(mig))
            return False
        self.queue.popleft()
        host.forwards.send(job, self.key, owner, epoch)
        return True

    def _wait_in_time(self) -> None:
        """Jobs wait for a unit before them, a grant or the end of a hold: none longer than until its own deadline."""
        if not self.queue:
            if self._timers:
                self._cancel("deadline")
            return
        now_s = self.host.now_s()
        for job in [job for job in self.queue if now_s >= job.deadline_s]:
            self.queue.remove(job)
            answers.turn_away(job, "the deadline passed in the queue")
        if self.queue:
            self._later("deadline", (min(job.deadline_s for job in self.queue) - now_s) * 1000, None)

    async def _serve_here(self, job: Job, row: Row) -> bool:
        host = self.host
        if self.vol.held is not None:
            self._hold_back()
            return False
        if not host.permitted:
            self.queue.popleft()
            answers.turn_away(job, "the permission for this service is not valid", "PERMISSION_REVOKED")
            return True
        if host.worker_starting:
            return self._await_worker(job)
        self.queue.popleft()
        if not await host.units.run(self.key, row, job):
            self.queue.appendleft(job)  # nothing happened; if the key was given away under it, it goes to the owner
        return True

    def _await_worker(self, job: Job) -> bool:
        """There is no worker yet. The job waits in the queue, bounded: a relocation does not wait for it there."""
        now_s = self.host.now_s()
        until_s = min(job.deadline_s, job.arrived_s + limits.WORKER_WAIT_MS / 1000)
        if now_s < until_s:
            self._later("worker", (until_s - now_s) * 1000, None)
            return False
        self.queue.popleft()
        answers.turn_away(job, "the service's software is being started", "WORKER_STARTING")
        return True

    def _hold_back(self) -> None:
        """The key, or its partition, is held: what reads runs at once, what writes waits for the end of the hold."""
        waiting: list[Job] = []
        for job in self.queue:
            if not self._read(job, waiting):
                job.waited = job.waited or "held"
                waiting.append(job)
        self.queue.clear()
        self.queue.extend(waiting)

    def _read(self, job: Job, before: Iterable[Job]) -> bool:
        """Run a job of a held key beside this task, if it only reads; False if it has to wait, behind those before."""
        host = self.host
        if job.keep_answer and any(job.carried.answer_id == other.carried.answer_id for other in before):
            return False
        if not job.reads or job.reply.done() or host.now_s() >= job.deadline_s:
            return False
        if not host.permitted or host.worker_starting:
            return False
        if host.store.row(self.key).state is not Ownership.OWNED:
            return False
        self.reading += 1
        host.keep(asyncio.create_task(reads.read(host, self, job), name=f"read of {key_text(self.key)}"))
        return True

    def _serve_forwarded(self, job: Job, row: Row, epoch: int, owner: str) -> bool:
        """A FORWARD is never forwarded on: it waits, bounded, for a grant its sender knows of, or is told where."""
        if (
            waits_for_grant(job.seen_epoch, row.epoch)
            and self.host.now_s() < job.arrived_s + limits.WANT_LIMIT_MS / 1000
        ):
            self._later("forwarded", limits.WANT_LIMIT_MS, None)
            return False
        self.queue.popleft()
        self.host.not_owner(job, self.key, epoch, owner)
        return True

    def _may_want(self, owner: str) -> bool:
        if self.vol.wanted:
            return True
        return (
            self.key[:1] == b"u"
            and self.host.now_s() >= self._no_want_until_s
            and self.host.migrations.inbound(owner) is not None
        )

    def _forward_all(self, peer: str, row: Row) -> None:
        epoch, owner = self.host.route(self.key, row)
        if owner == self.host.me:
            owner = peer
        for job in list(self.queue):
            if job.origin is None:
                self.queue.remove(job)
                self.host.forwards.send(job, self.key, owner, epoch)

    # ------------------------------------------------------------------------------------------ timers

    def _resend_later(self) -> None:
        self._resend_ms = min(2 * self._resend_ms, limits.RESEND_MAX_MS)
        mig = self.host.store.row(self.key).mig
        aborted = mig is not None and self.host.migrations.aborted(mig)
        self._later("resend", self._resend_ms, ownership.Resend(aborted))

    def _later(self, name: str, delay_ms: float, event: Any) -> None:
        self._cancel(name)
        self._timers[name] = asyncio.get_running_loop().call_later(delay_ms / 1000, self._fire, name, event)

    def _fire(self, name: str, event: Any) -> None:
        self._timers.pop(name, None)
        if name == "deadline":
            self._wait_in_time()
        if event is not None:
            self._inbox.append(event)
        self.wake()

    def _cancel(self, name: str) -> None:
        handle = self._timers.pop(name, None)
        if handle is not None:
            handle.cancel()


def _came_later(other: Job, job: Job) -> bool:
    """Whether a waiting job stands behind an own one that comes back; an emergency never does."""
    if other.carried.kind == "emergency":
        return False
    return other.origin is not None or other.arrived_s > job.arrived_s
