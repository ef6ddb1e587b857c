"""Requests on their way to the owner, and back (PROTOCOL.md §4.4-§4.7).

A forward that may have arrived ends in an answer of the owner, or in 504. The first receiver re-aims it when it is
told of a strictly higher epoch, at most three times and within the request's deadline: so stale routes heal and
nothing goes in circles. When the key itself comes here, own forwards without an answer are taken back and run here:
those that the old owner had run are answered from the idempotency records that came with the key.
"""

import asyncio
from typing import TYPE_CHECKING

from outrider.host import answers
from outrider.host.jobs import Job
from outrider.protocol import messages

if TYPE_CHECKING:
    from outrider.host.host import Host

MAX_HOPS = 3


class Forwards:
    """The forwards of this host that have no answer yet."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._next = 1
        self._pending: dict[int, tuple[Job, bytes | None, str]] = {}
        self._by_key: dict[bytes, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def enter(self, job: Job, key: bytes | None, peer: str) -> int:
        """Remember a job that is about to leave; returns its id. From now on it may have run."""
        fwd_id = self._next
        self._next += 1
        job.sent = job.keep_answer = True
        self._pending[fwd_id] = job, key, peer
        if key is not None:
            self._by_key.setdefault(key, {})[fwd_id] = None
        asyncio.get_running_loop().call_at(job.deadline_s, self._expired, fwd_id)
        return fwd_id

    def send(self, job: Job, key: bytes | None, peer: str, epoch: int) -> None:
        """Send a job to the network that owns its key, as far as is known."""
        if peer == self._host.me or not self._host.has_lane(peer):
            answers.give(job, answers.timed_out() if job.sent else answers.busy(f"no way to {peer}"))
            return
        if job.waited == "held":  # from here on it is a forwarded request like any other
            self._host.waits.note("held", (self._host.now_s() - job.arrived_s) * 1000)
            job.waited = ""
        fwd_id = self.enter(job, key, peer)
        remaining_ms = int((job.deadline_s - self._host.now_s()) * 1000)
        job.seen_epoch = max(job.seen_epoch, epoch)
        self._host.send(peer, messages.Forward(fwd_id, key, job.identity, job.seen_epoch, remaining_ms, job.carried))

    def answered(self, peer: str, message: messages.Answered) -> None:
        """The owner has answered."""
        entry = self._pending.get(message.fwd_id)
        if entry is None or entry[2] != peer:
            return
        self._remove(message.fwd_id)
        answers.give(entry[0], message.response)

    def not_owner(self, peer: str, message: messages.NotOwner) -> None:
        """The receiver did not run it: re-aim it, or say 503, because it certainly had no effect."""
        entry = self._pending.get(message.fwd_id)
        if entry is None or entry[2] != peer:
            return
        self._remove(message.fwd_id)
        job, key, _ = entry
        key = message.key or key
        if key is not None and (message.owner == self._host.me or message.epoch > job.seen_epoch):
            job.hops += 1
            job.seen_epoch = max(job.seen_epoch, message.epoch)
            if job.hops <= MAX_HOPS:
                self._host.note_route(key, message.epoch, message.owner)
                self._host.actor(key).submit(job)
                return
        answers.give(job, answers.busy(f"{peer} does not serve this UE ({message.cause or 'not the owner'})"))

    def withdraw(self, fwd_id: int) -> bool:
        """Forget a forward whose receiver certainly did not run it; False if it is answered already."""
        return self._remove(fwd_id) is not None

    def take_back(self, key: bytes) -> list[Job]:
        """The unanswered forwards of a key that has just come here, in the order in which they left."""
        jobs = []
        for fwd_id in list(self._by_key.get(key, ())):
            entry = self._remove(fwd_id)
            if entry is not None:
                jobs.append(entry[0])
        return jobs

    def _remove(self, fwd_id: int) -> tuple[Job, bytes | None, str] | None:
        entry = self._pending.pop(fwd_id, None)
        if entry is not None and entry[1] is not None:
            ids = self._by_key[entry[1]]
            del ids[fwd_id]
            if not ids:
                del self._by_key[entry[1]]
        return entry

    def _expired(self, fwd_id: int) -> None:
        entry = self._remove(fwd_id)
        if entry is not None:
            answers.give(entry[0], answers.timed_out())
