"""Requests on their way to the owner, and back (PROTOCOL.md §4.4-§4.7).

A forward that may have arrived ends in an answer of the owner, or in 504; one that has not even left when its time is
up is taken out of the lane, and ends in 503. The first receiver re-aims it when it is
told of a strictly higher epoch, at most three times and within the request's deadline: so stale routes heal and
nothing goes in circles. When the key itself comes here, own forwards without an answer are taken back and run here:
those that the old owner had run are answered from the idempotency records that came with the key.
"""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from outrider.host import answers
from outrider.host.jobs import Job
from outrider.host.lanes import Lane
from outrider.protocol import messages
from outrider.protocol.requests import HOPS_MAX, aims_again

if TYPE_CHECKING:
    from outrider.host.host import Host


class _Pending(NamedTuple):
    """A job that has left, or is about to.

    `sent_before`: it may have run elsewhere already, whatever becomes of this. `lane` and `number` are where it stands;
    there is none for a job that rides in a grant.
    """

    job: Job
    key: bytes | None
    peer: str
    sent_before: bool
    lane: Lane | None = None
    number: int = 0

    def withdraw(self) -> bool:
        """Take it out of its lane; False if it may have arrived. Then, and only then, it had no effect by this way."""
        if self.lane is None or not self.lane.withdraw(self.number):
            return False
        self.job.sent = self.sent_before
        return True

    def unknown(self) -> bool:
        """Whether it may have run, although who answers did not run it: at an earlier try, here or there."""
        return self.sent_before or (self.lane is not None and self.lane.doubtful(self.number))


class Forwards:
    """The forwards of this host that have no answer yet."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._next = (host.hello.incarnation << 32) + 1  # an answer to an earlier incarnation is not one to this
        self._pending: dict[int, _Pending] = {}
        self._by_key: dict[bytes, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def enter(self, job: Job, key: bytes | None, peer: str) -> int:
        """Remember a job that is about to leave; returns its id. From now on it may have run."""
        return self._enter(_Pending(job, key, peer, job.sent))

    def _enter(self, pending: _Pending) -> int:
        fwd_id = self._next
        self._next += 1
        pending.job.sent = pending.job.keep_answer = True
        self._pending[fwd_id] = pending
        if pending.key is not None:
            self._by_key.setdefault(pending.key, {})[fwd_id] = None
        asyncio.get_running_loop().call_at(pending.job.deadline_s, self._expired, fwd_id)
        return fwd_id

    def send(self, job: Job, key: bytes | None, peer: str, epoch: int) -> None:
        """Send a job to the network that owns its key, as far as is known."""
        if peer == self._host.me or not self._host.peers.has(peer):
            answers.turn_away(job, f"no way to {peer}")
            return
        if job.waited == "held":  # from here on it is a forwarded request like any other
            self._host.waits.note("held", (self._host.now_s() - job.arrived_s) * 1000)
            job.waited = ""
        job.seen_epoch = max(job.seen_epoch, epoch)
        lane = self._host.peers.lane(peer)
        number = lane.send(self._message(self._next, job, key))
        self._enter(_Pending(job, key, peer, job.sent, lane, number))

    def _message(self, fwd_id: int, job: Job, key: bytes | None) -> messages.Forward:
        remaining_ms = int((job.deadline_s - self._host.now_s()) * 1000)
        return messages.Forward(fwd_id, key, job.identity, job.seen_epoch, remaining_ms, job.carried)

    def repeat(self, peer: str) -> None:
        """The peer has restarted and lost what it had not run: send it again. What it has run, it answers again."""
        for fwd_id, entry in list(self._pending.items()):
            if entry.peer != peer or entry.lane is None or not entry.lane.left(entry.number):
                continue
            number = entry.number
            if number <= entry.lane.through:  # the lane itself sends the others again
                number = entry.lane.send(self._message(fwd_id, entry.job, entry.key))
            self._pending[fwd_id] = entry._replace(number=number, sent_before=True)

    def answered(self, peer: str, message: messages.Answered) -> None:
        """The owner has answered. That it did nothing says nothing of an earlier try, here or there."""
        entry = self._pending.get(message.fwd_id)
        if entry is None or entry.peer != peer:
            return
        unknown = message.response.status == 503 and entry.unknown()
        self._ended(message.fwd_id)
        answers.give(entry.job, answers.timed_out() if unknown else message.response)

    def not_owner(self, peer: str, message: messages.NotOwner) -> None:
        """The receiver did not run it, and does not any more: re-aim it, or say that, where nobody else may have."""
        entry = self._pending.get(message.fwd_id)
        if entry is None or entry.peer != peer:
            return
        job, key = entry.job, message.key or entry.key
        job.sent = entry.unknown()
        self._ended(message.fwd_id)
        if key is not None and aims_again(
            job.seen_epoch, job.hops, message.epoch, to_me=message.owner == self._host.me
        ):
            job.hops += 1
            job.seen_epoch = max(job.seen_epoch, message.epoch)
            self._host.note_route(key, message.epoch, message.owner)
            self._host.actor(key).submit(job)
            return
        if key is None and message.owner not in (peer, self._host.me) and job.hops < HOPS_MAX:
            job.hops += 1  # it knows no such UE; home does, if anybody
            self.send(job, None, message.owner, 0)
            return
        answers.turn_away(job, f"{peer} does not serve this UE ({message.cause or 'not the owner'})")

    def withdraw(self, fwd_id: int) -> bool:
        """Forget a forward whose receiver certainly did not run it; False if it is answered already."""
        entry = self._remove(fwd_id)
        if entry is None:
            return False
        entry.job.sent = entry.sent_before
        return True

    def take_back(self, key: bytes) -> list[Job]:
        """The unanswered forwards of a key that is this network's now."""
        jobs = []
        for fwd_id in list(self._by_key.get(key, ())):
            entry = self._remove(fwd_id)
            if entry is not None:
                entry.withdraw()
                jobs.append(entry.job)
        return jobs

    def keys_within(self, start: bytes, stop: bytes) -> list[bytes]:
        """The keys of a range that have unanswered forwards."""
        return [key for key in self._by_key if start <= key < stop]

    def _ended(self, fwd_id: int) -> None:
        """A forward is answered: what its lane may have to send once more must not be it."""
        entry = self._remove(fwd_id)
        if entry is not None and entry.lane is not None:
            entry.lane.silence(entry.number)

    def _remove(self, fwd_id: int) -> _Pending | None:
        entry = self._pending.pop(fwd_id, None)
        if entry is not None and entry.key is not None:
            ids = self._by_key[entry.key]
            del ids[fwd_id]
            if not ids:
                del self._by_key[entry.key]
        return entry

    def _expired(self, fwd_id: int) -> None:
        entry = self._remove(fwd_id)
        if entry is None:
            return
        entry.withdraw()
        answers.turn_away(entry.job, f"{entry.peer} could not be reached in time")
