"""Planted faults: production code with one rule of safety taken out, to see that the checks find what it breaks.

A simulation that finds nothing proves little until it has been seen to find something. Each fault is a small twin of
one function of production code, put in its place for one run; none of them is reachable otherwise.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import msgspec

from outrider.core.record import Change, Kind, OutboxBody, Record
from outrider.host import answers, outbox, reads, reception, timers, units
from outrider.host.actor import Actor
from outrider.host.followers import Followers
from outrider.host.forwards import Forwards
from outrider.host.lanes import Lane
from outrider.protocol import messages, ownership
from outrider.protocol.ownership import Ownership, Row
from outrider.sim.whole.planted_lmsf import PLANTED_LMSF
from outrider.sim.whole.planting import Planted, Put
from outrider.store import staging
from outrider.store import timers as due
from outrider.store.operations import Operations
from outrider.store.port import Done, Replace, SetRow, Take, Work


def _grant_before_disk(put: Put) -> None:
    commit = Actor._commit

    async def twin(self: Actor, before: Row, after: Row, event: Any) -> Any:
        if after.state is Ownership.GRANTED and before.state is Ownership.OWNED:
            self.host.committer.submit(self._give_operation(before, after))
            return Done()
        return await commit(self, before, after, event)

    put(Actor, "_commit", twin)


def _accepted_before_disk(put: Put) -> None:
    commit = Actor._commit

    async def twin(self: Actor, before: Row, after: Row, event: Any) -> Any:
        if isinstance(event, ownership.Grant) and after.state is Ownership.OWNED:
            self.host.send(event.peer, messages.Accepted(self.key, event.x, event.x, self.host.me))
        return await commit(self, before, after, event)

    put(Actor, "_commit", twin)


def _refused_before_disk(put: Put) -> None:
    commit = Actor._commit

    async def twin(self: Actor, before: Row, after: Row, event: Any) -> Any:
        if isinstance(event, ownership.Grant | ownership.Recall) and after.state is Ownership.FOREIGN:
            self.host.send(event.peer, messages.Refused(self.key, event.x, "EARLY"))
        return await commit(self, before, after, event)

    put(Actor, "_commit", twin)


def _stale_refused(put: Put) -> None:
    do = Actor._do

    async def twin(self: Actor, command: Any, row: Row) -> None:
        if isinstance(command, ownership.SendAccepted) and row.epoch > command.x:
            command = ownership.SendRefused(command.peer, command.x, "STALE")
        await do(self, command, row)

    put(Actor, "_do", twin)


def _stale_taken_anew(put: Put) -> None:
    take = Actor._take

    async def twin(self: Actor, event: Any) -> None:
        row = self.host.store.row(self.key)
        if isinstance(event, ownership.Grant) and row.state is Ownership.FOREIGN and event.x <= row.epoch:
            grant = self.host.grants.pending.get((self.key, event.x))
            if grant is not None and grant.body == "full":
                taken = Row(Ownership.OWNED, event.x, mig=row.mig)
                await self.host.committer.submit(
                    Take(self.key, row, taken, grant.head, records=grant.records, identity=grant.identity)
                )
        await take(self, event)

    put(Actor, "_take", twin)


def _takes_back_alone(put: Put) -> None:
    take = Actor._take

    async def twin(self: Actor, event: Any) -> None:
        row = self.host.store.row(self.key)
        if isinstance(event, ownership.Resend) and self._resend_ms > 1_000 and row.state is Ownership.GRANTED:
            event = ownership.Refused(row.peer or "", row.epoch, "SILENCE")
        await take(self, event)

    put(Actor, "_take", twin)


def _units_over_a_grant(put: Put) -> None:
    """The unit that is under way when a key is given is not waited for, and its commit asks nobody."""
    run = units.Units.run

    async def beside(self: units.Units, key: bytes, row: Row, job: Any) -> bool:
        if job.carried.kind == "request":
            self._host.keep(asyncio.create_task(run(self, key, row, job)))
            return True
        return await run(self, key, row, job)

    _commit_unchecked(put)
    put(units.Units, "run", beside)


def _commit_unchecked(put: Put) -> None:
    unit = Operations._unit

    def unchecked(self: Operations, op: Work, changes: Any, row: Row, overlay: Any, log: Any) -> Any:
        return unit(self, op, changes, Row(Ownership.OWNED, op.epoch), overlay, log)

    put(Operations, "_unit", unchecked)


def _digest_unchecked(put: Put) -> None:
    put(Followers, "lag_of", lambda self, peer, key: ("same", []))

    def believed(self: Operations, op: Take) -> bool:
        if op.records is not None:
            self._content.install(op.key, op.head, op.records)
        elif op.entries:
            after = self._content.after(op.key, op.entries)
            if after is not None:
                self._content.install(op.key, *after)
        return True

    put(Operations, "_take_content", believed)


def _content_after_row(put: Put) -> None:
    commit = Actor._commit

    async def twin(self: Actor, before: Row, after: Row, event: Any) -> Any:
        if isinstance(event, ownership.Grant) and after.state is Ownership.OWNED and self.key[:1] == b"u":
            outcome = await self.host.committer.submit(SetRow(self.key, before, after))
            if not isinstance(outcome, Done):
                return outcome
            before = after
        return await commit(self, before, after, event)

    put(Actor, "_commit", twin)


def _answers_left_behind(put: Put) -> None:
    run = units.Units.run

    async def twin(self: units.Units, key: bytes, row: Row, job: Any) -> bool:
        context = self._host.store.context(key)
        if context.head.n and context.head.epoch < row.epoch and job.carried.kind == "request":
            job.keep_answer = False
        return await run(self, key, row, job)

    put(units.Units, "run", twin)


def _answer_before_disk(put: Put) -> None:
    commit = units.Units._commit

    async def twin(self: units.Units, key: bytes, row: Row, job: Any, *rest: Any) -> bool:
        answers.give(job, rest[2])
        return await commit(self, key, row, job, *rest)

    put(units.Units, "_commit", twin)


def _delivered_before_disk(put: Put) -> None:
    commit = units.Units._commit

    async def twin(self: units.Units, key: bytes, row: Row, job: Any, context: Any, changes: Any, *rest: Any) -> bool:
        for change in changes:
            if change.kind == Kind.OUTBOX and change.body is not None:
                body = msgspec.msgpack.decode(change.body, type=OutboxBody)
                if body.uri is not None:
                    outbox_ = self._host.outbox
                    await outbox.Outbox._notify(outbox_, key, _entry(key, change), body.uri, body.body)
        return await commit(self, key, row, job, context, changes, *rest)

    put(units.Units, "_commit", twin)


def _entry(key: bytes, change: Change) -> Any:
    return Record(key, change.kind, change.nf, change.id, change.body or b"", 0)


def _messages_repeated(put: Put) -> None:
    put(units.Units, "_message_seen", staticmethod(lambda context, job: None))


def _generation_ignored(put: Put) -> None:
    def twin(self: units.Units, context: Any, job: Any) -> Any:
        for record in context.records:
            if record.kind == Kind.TIMER and record.nf == job.carried.nf and record.id == job.carried.name:
                return record
        return None

    put(units.Units, "_timer_of", twin)


def _shadow_timers(put: Put) -> None:
    """Timers of copies fire too, where they are; the commit does not ask who owns the key."""
    for name in ("_PASSED", "_IN_RANGE", "_STILL"):
        put(due, name, getattr(due, name).replace(f" AND {due._OWNED}", ""))
    fire = timers.Timers._fire
    serve = Actor._serve

    def anywhere(self: timers.Timers, record: Any) -> None:
        with mock.patch.object(type(self._host.store), "row", return_value=Row(Ownership.OWNED, 1)):
            fire(self, record)

    async def served(self: Actor) -> bool:
        job = self.queue[0]
        row = self.host.store.row(self.key)
        if job.timer_id is not None and row.state is not Ownership.OWNED:
            self.queue.popleft()
            await self.host.units.run(self.key, row, job)
            return True
        return await serve(self)

    put(timers.Timers, "_fire", anywhere)
    put(Actor, "_serve", served)
    _commit_unchecked(put)


def _withdrawn_unsent(put: Put) -> None:
    withdraw = Lane.withdraw

    def twin(self: Lane, number: int) -> bool:
        withdraw(self, number)
        return True

    put(Lane, "withdraw", twin)


def _unknown_is_503(put: Put) -> None:
    put(answers, "timed_out", lambda: answers.busy("nobody has answered"))


def _forward_without_key(put: Put) -> None:
    job = reception.Reception._job

    def twin(self: reception.Reception, carried: Any, remaining_ms: int) -> Any:
        made = job(self, carried, remaining_ms)
        made.keep_answer = made.sender is not None
        return made

    put(reception.Reception, "_job", twin)


def _stale_read(put: Put) -> None:
    put(reads, "_owned", lambda row, epoch: True)
    put(Actor, "_serve", _reads_anywhere(Actor._serve))


def _reads_anywhere(serve: Any) -> Any:
    async def twin(self: Actor) -> bool:
        job = self.queue[0]
        row = self.host.store.row(self.key)
        if job.reads and row.state is Ownership.GRANTED and not self.host.worker_starting:
            self.queue.popleft()
            self.reading += 1
            self.host.keep(asyncio.create_task(reads.read(self.host, self, job)))
            return True
        done: bool = await serve(self)
        return done

    return twin


def _given_jobs_run_here(put: Put) -> None:
    """Requests that ride in a grant are run by the giver as well, when it hears that the key was taken."""
    do = Actor._do

    async def twin(self: Actor, command: Any, row: Row) -> None:
        given = [job for _, job in self._given] if isinstance(command, ownership.BecomeShadow) else []
        await do(self, command, row)
        for job in given:
            if not job.reply.done():
                carried = msgspec.structs.replace(job.carried, answer_id=job.carried.answer_id + "/again")
                self.host.forwards.send(msgspec.structs.replace(job, carried=carried), self.key, row.peer or "", 0)

    put(Actor, "_do", twin)


def _forwards_repeated_blind(put: Put) -> None:
    """A forward is sent again under another key when its peer has restarted."""

    def twin(self: Forwards, peer: str) -> None:
        for fwd_id, entry in list(self._pending.items()):
            if entry.peer == peer and entry.lane is not None:
                carried = msgspec.structs.replace(
                    entry.job.carried, answer_id=f"{entry.job.carried.answer_id}/{fwd_id}"
                )
                message = self._message(fwd_id, entry.job, entry.key)
                entry.lane.send(msgspec.structs.replace(message, request=carried))

    put(Forwards, "repeat", twin)


def _staging_wins(put: Put) -> None:
    carried = staging._CARRIED
    put(staging, "_CARRIED", carried[: carried.index("WHERE")] + "WHERE staged.k IS NULL")


def _chunk_over_owned(put: Put) -> None:
    def twin(self: Operations, op: Replace) -> Done:
        self._content.remove(key for key, *_ in self._many.heads(op.start, op.stop))
        self._content.add(op.heads, op.records)
        return Done()

    put(Operations, "_replace", twin)


PLANTED: dict[str, Planted] = {
    "grant-before-disk": Planted("GRANT leaves before GRANTED is durable.", "§3.2", _grant_before_disk),
    "accepted-before-disk": Planted("ACCEPTED leaves before OWNED is durable.", "§3.4", _accepted_before_disk),
    "refused-before-disk": Planted("REFUSED leaves before the refusal is durable.", "§3.4", _refused_before_disk),
    "stale-refused": Planted("A question about an old epoch is answered REFUSED.", "§3.6", _stale_refused),
    "stale-taken-anew": Planted("A grant of an old epoch is taken once more.", "§3.6", _stale_taken_anew),
    "source-decides-alone": Planted("The giver takes the key back when it hears nothing.", "§3.3", _takes_back_alone),
    "units-over-a-grant": Planted(
        "Units stay open over a grant, and their commit does not ask who owns the key.", "§3.2, §4.1",
        _units_over_a_grant,
    ),
    "digest-unchecked": Planted(
        "A grant says SAME on a guess, and what is taken is served before its digest is compared.", "§3.4, §7",
        _digest_unchecked,
    ),
    "content-after-row": Planted("OWNED is durable one commit before the content.", "§3.4", _content_after_row),
    "staging-wins": Planted(
        "What a copy has brought takes the place of what came early by a grant.", "§7", _staging_wins
    ),
    "chunk-over-owned": Planted("A chunk replaces what is owned here.", "§7", _chunk_over_owned),
    "answers-left-behind": Planted("Stored answers do not count at the new owner.", "§4.3", _answers_left_behind),
    "answer-before-disk": Planted("A request is answered before its unit is durable.", "§4.1", _answer_before_disk),
    "delivered-before-disk": Planted(
        "A notification leaves before its unit is durable.", "§5", _delivered_before_disk
    ),
    "messages-repeated": Planted("A message that comes again is applied again.", "§6", _messages_repeated),
    "generation-ignored": Planted("A timer that was armed anew fires for the old arming.", "§5", _generation_ignored),
    "shadow-timers": Planted("Timers of copies fire where the key is not owned.", "§5", _shadow_timers),
    "withdrawn-unsent": Planted(
        "A forward that may have arrived counts as never sent.", "§4.7", _withdrawn_unsent
    ),
    "unknown-is-503": Planted("What may have run elsewhere is answered 503.", "§4.7", _unknown_is_503),
    "forward-without-key": Planted("Forwarded requests keep no answer.", "§4.3", _forward_without_key),
    "forward-under-another-key": Planted(
        "A forward is repeated to a restarted peer under another key.", "§4.3, §4.7", _forwards_repeated_blind
    ),
    "stale-read": Planted("A key that is given away is read here all the same.", "§3.1", _stale_read),
    **PLANTED_LMSF,
}  # fmt: skip


def needs_lmsfs(name: str | None) -> bool | None:
    """Whether worlds have LMSFs that are to catch this fault; None where no name is given: as their seeds say."""
    return None if name is None else PLANTED[name].lmsfs


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Production code with this fault in it; without any where no name is given."""
    with ExitStack() as stack:

        def put(owner: Any, attribute: str, twin: Any) -> None:
            stack.enter_context(mock.patch.object(owner, attribute, twin))

        if name is not None:
            PLANTED[name].plant(put)
        yield
