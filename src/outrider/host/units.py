"""Runs one unit of work: records to the worker, its proposal into one commit, and only then the answer.

A unit reads what is durable, because units of one key run one at a time and each waits for its commit. It changes one
key. Its writes, its answer (found again by the idempotency key), timers and outgoing messages become durable together
or not at all; an answer of 400 and above commits nothing. When the commit finds that the key is not owned here any
more, nothing has happened, and the *request* goes to the owner.

The first unit after a key has come from another network runs the package's `on_arrival` before it, in the same
commit. So the rewriting of network-bound fields is never seen half done, and a worker that hangs blocks no
relocation: taking a key needs no worker.
"""

import hashlib
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from outrider.core import limits
from outrider.core.ids import key_text
from outrider.core.record import Answered, Change, Kind, OutboxBody, Record, TimerBody, outbox_id
from outrider.host import answers
from outrider.host.failpoints import reach
from outrider.host.jobs import Job
from outrider.host.marks import hide, show
from outrider.host.places import Places
from outrider.host.workers import WorkerFault
from outrider.protocol.messages import Answer
from outrider.protocol.ownership import Row
from outrider.sdk import wire
from outrider.store.port import AnsweredBefore, Context, Done, Failed, Misused, NotTheOwner, Work

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

_SENDER = "m/"
"""Idempotency records of messages: one for each sender, with the id of the last message applied."""

_msgpack = msgspec.msgpack.Encoder()
_timer = msgspec.msgpack.Decoder(TimerBody)
_answered = msgspec.msgpack.Decoder(Answered)


class Units:
    """Runs jobs of keys that this host owns."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._unit = 0
        self._network = host.network.plmn_id()
        self._places = Places(limits.WORKER_IN_FLIGHT // 4)
        self.run_count = 0
        self.replayed_count = 0

    def congested(self) -> bool:
        """Whether a request that comes now would only wait: for the worker, or for the disk."""
        if self._host.committer.waiting > 2 * limits.COMMIT_BATCH:
            return True
        if not self._places:
            return False
        return len(self._places) >= limits.UNITS_WAITING or self._places.expected_s() * 1000 > limits.UNIT_WAIT_MS

    async def run(self, key: bytes, row: Row, job: Job) -> bool:
        """Run one job to its answer; False if nothing has happened, and the job is to be looked at anew: the key is not
        owned here any more, or something has come for it while the job only waited for its turn.
        """
        host = self._host
        context = host.store.context(key)
        digest = self._digest(job) if job.keep_answer else b""
        before = self._message_seen(context, job) or self._answer_of(context, job, digest)
        if before is not None:
            self.replayed_count += 1
            answers.give(job, before)
            return True
        if job.origin is not None and job.carried.kind == "request" and self.congested():
            # Another network's, which no door has turned away; only now is it known that it has not run before.
            answers.give(job, answers.busy("too many requests wait here"))
            return True
        timer = self._timer_of(context, job)
        if job.timer_id is not None and timer is None:
            answers.give(job, Answer(204, [], b""))  # re-armed or disarmed since: this generation is over
            return True
        changes: list[Change] = []
        if context.head.n and context.head.epoch < row.epoch:
            arrival = await self._arrive(context, job, key)
            if arrival is None:
                return False
            if isinstance(arrival, WorkerFault):
                self.failed(key, job, arrival)
                return True
            changes = arrival
            context = _applied(context, arrival)
        if job.waited:  # from here on it costs what every request costs; `on_arrival` is the migration's
            host.waits.note(job.waited, (host.now_s() - job.arrived_s) * 1000)
            job.waited = ""
        if job.carried.kind == "arrival":
            return await self._commit(key, row, job, context, changes, Answer(204, [], b""), digest)
        proposal = await self._ask(context, job, key)
        if proposal is None:
            return False
        if isinstance(proposal, WorkerFault):
            self.failed(key, job, proposal)
            return True
        answer = Answer(proposal.status, proposal.headers, proposal.body)
        consumed = timer is not None and 400 <= proposal.status < 500 and proposal.status != 429
        if proposal.status >= 400 and not consumed:
            answers.give(job, answer)
            return True
        changes += self._changes(context, proposal, timer)
        if job.sender is not None:
            seen = Answered(job.carried.answer_id.encode(), 204, [], b"", host.utc_ms())
            changes.append(Change(Kind.IDEMPOTENCY, "", _SENDER + job.sender.hex(), _msgpack.encode(seen)))
        return await self._commit(key, row, job, context, changes, answer, digest)

    def answered(self, context: Context, job: Job) -> Answer | None:
        """What a job is answered with because its idempotency key is known in this context: again, or 422."""
        return self._answer_of(context, job, self._digest(job)) if job.keep_answer else None

    async def look(self, context: Context, job: Job) -> wire.Proposal | WorkerFault:
        """What the worker proposes for a job, on a context that the caller has read; nothing is committed."""
        if context.head.n and context.head.epoch < context.row.epoch:
            arrival = await self._arrive(context, job)
            assert arrival is not None
            if isinstance(arrival, WorkerFault):
                return arrival
            context = _applied(context, arrival)
        proposal = await self._ask(context, job)
        assert proposal is not None
        return proposal

    @staticmethod
    def failed(key: bytes, job: Job, fault: WorkerFault) -> None:
        """The worker proposed nothing: certainly no effect."""
        log.warning("unit.fault", key=key_text(key), cause=fault.cause, why=fault.sentence)
        status = 500 if fault.cause in ("HANDLER_FAILED", "PROPOSAL_REFUSED") else 503
        retry = [("retry-after", "1")] if status == 503 else []
        answers.give(job, answers.problem(status, fault.cause, f"{fault.sentence}; nothing was done", *retry))

    async def _commit(
        self, key: bytes, row: Row, job: Job, context: Context, changes: list[Change], answer: Answer, digest: bytes
    ) -> bool:
        host = self._host
        stored: Answered | None = None
        if job.keep_answer and job.sender is None and job.carried.method not in ("GET", "HEAD"):
            stored = self._stored(answer, digest, job.identity)
        bind = job.identity if job.identity and host.store.key_of(job.identity) is None else None
        if changes or stored or bind or job.carried.kind == "arrival":
            changes += self._expired(context)
            reach("unit-before-commit")
            work = Work(key, row.epoch, changes, job.carried.answer_id if stored else None, stored, bind)
            outcome = await host.committer.submit(work)
            reach("unit-durable")
            match outcome:
                case Done():
                    host.committed(key, changes)
                case NotTheOwner():
                    return False
                case AnsweredBefore(answer=earlier):
                    answers.give(job, self._replay(earlier, job.identity))
                    return True
                case Misused():
                    answers.give(job, _misused())
                    return True
                case Failed(sentence):
                    answers.give(job, answers.problem(500, "UNSPECIFIED_NF_FAILURE", f"{sentence}; nothing was done"))
                    return True
                case _:
                    raise RuntimeError(f"the store answered {outcome}")
        self.run_count += 1
        answers.give(job, answer)
        return True

    # --------------------------------------------------------------------------------------- the worker

    def _next_unit(self) -> int:
        self._unit += 1
        return self._unit

    def _ask(
        self, context: Context, job: Job, key: bytes | None = None
    ) -> Awaitable[wire.Proposal | WorkerFault | None]:
        host, c = self._host, job.carried
        run = wire.Run(
            unit=self._next_unit(),
            kind="request" if c.kind == "emergency" else c.kind,
            nf=c.nf,
            key=key_text(context.key),
            now_ms=host.utc_ms(),
            records=_data(context),
            timers=_timers(context),
            identity=job.identity,
            network=self._network,
            instances=host.config.nf_instance_ids,
            method=c.method,
            path=c.path,
            query=c.query,
            headers=c.headers,
            body=c.body,
            name=c.name,
            entry_id=c.answer_id,
        )
        return self._propose(run, job, key)

    def send_back(self, prefix: bytes) -> None:
        """Let no unit of a key that begins so wait for its turn any longer. It has not begun, so nothing has to wait
        for it: under overload a relocation would, for as long as the queue before the worker is.
        """
        if self._places:
            self._places.send_back(prefix)

    async def _propose(self, run: wire.Run, job: Job, key: bytes | None) -> wire.Proposal | WorkerFault | None:
        """Hand a unit to the worker; one too many waits here for its turn, instead of being refused, or until it is
        sent back (None), if `key` is given.

        What its job has waited for that turn is gone. With next to nothing left the worker would only be cut off.
        """
        if not self._places.take(first=job.carried.kind == "emergency"):
            turn = await self._places.wait(job.arrived_s, job.deadline_s, key)
            if turn == "back":
                return None
            if turn == "late":
                return WorkerFault("WORKER_BUSY", "Its time was up before its turn came")
        try:
            left_ms, least_ms = float(limits.UNIT_LIMIT_MS), 0.0
            if run.kind != "arrival":
                left_ms = min(left_ms, (job.deadline_s - self._host.now_s()) * 1000)
                least_ms = min(limits.UNIT_LEAST_MS, (job.deadline_s - job.arrived_s) * 1000 / 10)
            if left_ms < least_ms:
                return WorkerFault("WORKER_BUSY", f"{max(0.0, left_ms):.0f} ms were left when its turn came")
            return await self._host.worker.run(run, limit_ms=left_ms, read_shared=self._host.read_shared)
        finally:
            self._places.leave()

    async def _arrive(self, context: Context, job: Job, key: bytes | None = None) -> list[Change] | WorkerFault | None:
        """Run `on_arrival` of all NF services; what it changes goes into the job's commit."""
        host = self._host
        run = wire.Run(
            unit=self._next_unit(),
            kind="arrival",
            nf="",
            key=key_text(context.key),
            now_ms=host.utc_ms(),
            records=_data(context),
            timers=_timers(context),
            identity=job.identity,
            network=self._network,
            instances=host.config.nf_instance_ids,
        )
        proposal = await self._propose(run, job, key)
        if proposal is None or isinstance(proposal, WorkerFault):
            return proposal
        return self._changes(context, proposal, None)

    # ------------------------------------------------------------------------------------------ changes

    def _changes(self, context: Context, proposal: wire.Proposal, fired: Record | None) -> list[Change]:
        """A worker's proposal as changes of records; a timer that fired is gone unless it was armed again."""
        host, n = self._host, context.head.n + 1
        changes = [Change(Kind.DATA, nf, name, body) for nf, name, body in proposal.records]
        armed = (
            {}
            if not proposal.timers
            else {(r.nf, r.id): _timer.decode(r.body).generation for r in context.records if r.kind == Kind.TIMER}
        )
        named = set()
        for nf, name, delay_ms, data in proposal.timers:
            named.add((nf, name))
            if delay_ms is None:
                changes.append(Change(Kind.TIMER, nf, name, None))
                continue
            due_ms = host.utc_ms() + delay_ms
            body = TimerBody(name, armed.get((nf, name), context.head.n) + 1, due_ms, data)
            changes.append(Change(Kind.TIMER, nf, name, _msgpack.encode(body), due_ms))
        if fired is not None and (fired.nf, fired.id) not in named:
            changes.append(Change(Kind.TIMER, fired.nf, fired.id, None))
        for i, send in enumerate(proposal.sends):
            to_key = b"s" + send.shared.encode() if send.shared is not None else None
            out = OutboxBody(to_key, send.nf, send.name, send.uri, send.body)
            changes.append(Change(Kind.OUTBOX, send.nf, outbox_id(n, i), _msgpack.encode(out)))
        return changes

    def _timer_of(self, context: Context, job: Job) -> Record | None:
        if job.timer_id is None:
            return None
        for record in context.records:
            if record.kind == Kind.TIMER and record.nf == job.carried.nf and record.id == job.carried.name:
                current = f"t/{record.nf}/{record.id}/{_timer.decode(record.body).generation}"
                return record if current == job.timer_id else None
        return None

    def _expired(self, context: Context) -> list[Change]:
        """Answers older than the retry window go with an owner's write, never otherwise (PROTOCOL.md §4.3)."""
        kept = [r for r in context.records if r.kind == Kind.IDEMPOTENCY and not r.id.startswith(_SENDER)]
        if not kept:
            return []
        oldest = self._host.utc_ms() - limits.IDEMPOTENCY_WINDOW_MS
        return [Change(Kind.IDEMPOTENCY, r.nf, r.id, None) for r in kept if _answered.decode(r.body).at_ms < oldest]

    # -------------------------------------------------------------------------------------- idempotency

    def _digest(self, job: Job) -> bytes:
        """Of the request without the identity: a target has the key, the digest and the rest, and would try SUPIs."""
        c = job.carried
        h = hashlib.blake2b(digest_size=16, key=self._host.store.identity.digest_key)
        for part in (c.method.encode(), *(hide(p, job.identity) for p in (c.path.encode(), c.query.encode(), c.body))):
            h.update(len(part).to_bytes(4, "big") + part)
        return h.digest()

    @staticmethod
    def _message_seen(context: Context, job: Job) -> Answer | None:
        """Messages come in order per sender, so the last id applied is enough to know a repeated one."""
        if job.sender is None:
            return None
        name = _SENDER + job.sender.hex()
        for record in context.records:
            if record.kind == Kind.IDEMPOTENCY and record.id == name:
                seen = _answered.decode(record.body).request_digest.decode() >= job.carried.answer_id
                return Answer(204, [], b"") if seen else None
        return None

    def _answer_of(self, context: Context, job: Job, digest: bytes) -> Answer | None:
        if not job.keep_answer:
            return None
        for record in context.records:
            if record.kind == Kind.IDEMPOTENCY and record.id == job.carried.answer_id:
                answered = _answered.decode(record.body)
                if answered.request_digest != digest:
                    return _misused()
                return self._replay(answered, job.identity)
        return None

    def _stored(self, answer: Answer, digest: bytes, identity: str | None) -> Answered:
        headers = [(name, hide(value.encode(), identity).decode()) for name, value in answer.headers]
        return Answered(digest, answer.status, headers, hide(answer.body, identity), self._host.utc_ms())

    def _replay(self, answered: Answered, identity: str | None) -> Answer:
        headers = [(name, show(value.encode(), identity).decode()) for name, value in answered.headers]
        return Answer(answered.status, headers, show(answered.body, identity))


def _misused() -> Answer:
    detail = "this idempotency key belongs to another request"
    return answers.problem(422, "IDEMPOTENCY_KEY_MISUSED", detail)


def _data(context: Context) -> list[tuple[str, str, bytes]]:
    return [(r.nf, r.id, r.body) for r in context.records if r.kind == Kind.DATA]


def _timers(context: Context) -> list[tuple[str, str, int]]:
    return [(r.nf, r.id, r.due_ms or 0) for r in context.records if r.kind == Kind.TIMER]


def _applied(context: Context, changes: Sequence[Change]) -> Context:
    """The context as it will be after these changes, for the unit that commits them with its own."""
    records = {(r.kind, r.nf, r.id): r for r in context.records}
    for c in changes:
        if c.body is None:
            records.pop((c.kind, c.nf, c.id), None)
        else:
            records[c.kind, c.nf, c.id] = Record(context.key, c.kind, c.nf, c.id, c.body, context.head.n + 1, c.due_ms)
    return Context(context.key, context.row, context.own, context.head, list(records.values()))
