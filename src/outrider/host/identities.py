"""From the identity in a request (SUPI or GPSI) to the key of the UE's context.

Home issues keys and keeps the map. Another network learns one entry, when that UE is there: its first request waits
here while the key is asked for by identity, and goes on under the key that the grant names.
"""

import os
from collections import deque
from typing import TYPE_CHECKING

import structlog

from outrider.core import limits
from outrider.core.ids import ue_key
from outrider.host import answers
from outrider.host.jobs import Job
from outrider.protocol import messages, ownership
from outrider.protocol.ownership import Ownership
from outrider.store.port import BindIdentity

if TYPE_CHECKING:
    from outrider.host.actor import Actor
    from outrider.host.host import Host

log = structlog.get_logger()

_MAX_LEARNT = 100_000


class Identities:
    """Sends jobs to their key's actor; keeps those whose key is being asked for."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._new: dict[str, bytes] = {}
        self._new_keys: dict[bytes, str] = {}
        self._learnt: dict[str, bytes] = {}
        self._asking: dict[str, deque[Job]] = {}
        self._no_want_until_s: dict[str, float] = {}

    def submit(self, job: Job) -> None:
        """Send a job on its way by its identity."""
        actor = self.actor_of(job)
        if actor is not None:
            actor.submit(job)

    def actor_of(self, job: Job) -> "Actor | None":
        """The actor that a job goes to by its identity; None if it is answered, or waits for its key, or has left."""
        assert job.identity is not None
        key = self.key_of(job.identity)
        if key is not None:
            return self._host.actor(key)
        if self._host.config.is_home:
            return self._create(job, job.identity)
        self._ask(job, job.identity)
        return None

    def key_of(self, identity: str) -> bytes | None:
        """The key that is bound to an identity, or about to be, as far as this network knows."""
        return self._host.store.key_of(identity) or self._new.get(identity) or self._learnt.get(identity)

    def kept_key_of(self, identity: str) -> bytes | None:
        """The key of an identity that another network may be told of: not one that is only about to be bound, because
        it would go without its identity, and nobody would know it any more."""
        return self._host.store.key_of(identity) or self._learnt.get(identity)

    def learn(self, identity: str, key: bytes) -> None:
        """The owner has told which key it is; kept in memory only, until the UE's context comes."""
        if len(self._learnt) >= _MAX_LEARNT:
            self._learnt.clear()
        self._learnt[identity] = key

    def arrived(self, identity: str, key: bytes) -> None:
        """The context of that UE is here now: what waited for its key goes on."""
        self._learnt.pop(identity, None)
        for job in self._asking.pop(identity, ()):
            self._host.actor(key).submit(job)

    def registered(self, identity: str) -> None:
        """The UE has registered with this network: ask for its context, if it is somewhere else under a migration."""
        key = self.key_of(identity)
        if key is not None:
            row = self._host.store.row(key)
            owner = self._host.route(key, row)[1]
            mig = self._host.migrations.between(owner)
            if row.state is Ownership.FOREIGN and mig is not None:
                self._host.actor(key).event(ownership.Demand(mig))
        elif not self._host.config.is_home and identity not in self._asking:
            self._want(identity, deque())

    def not_given(self, peer: str, message: messages.NotOwner) -> None:
        """The key was asked for by identity and is not given: what waits is served by its owner."""
        identity = message.identity
        if identity is None:
            return
        if message.key is not None:
            self.learn(identity, message.key)
        if message.key is not None and message.owner not in (self._host.me, peer):
            mig = self._host.migrations.inbound(message.owner)
            if mig is not None:  # home has named the network that has it: that one is asked, by key
                actor = self._host.actor(message.key)
                for job in self._asking.pop(identity, ()):
                    actor.submit(job)
                actor.event(ownership.Demand(mig))
                return
        if message.cause != "UE_UNKNOWN":
            self._no_want_until_s[identity] = self._host.now_s() + limits.WANT_BACKOFF_MS / 1000
        self._send_on(identity, message.owner if message.owner != self._host.me else peer)

    def not_taken(self, identity: str, key: bytes, peer: str) -> None:
        """The UE's context came and was refused here: what waits for it is served by the network that offered it."""
        self.learn(identity, key)
        self._send_on(identity, peer)

    async def keep(self, identity: str | None, key: bytes) -> bool:
        """At home: keep for good which key an identity has, before another network hears of it; False if it is kept."""
        host = self._host
        if identity is None or not host.config.is_home or host.store.key_of(identity) is not None:
            return False
        await host.committer.submit(BindIdentity(identity, key))
        return True

    def forget(self, key: bytes) -> None:
        """A key's actor ends; an identity that it was to be bound to and was not is free again."""
        identity = self._new_keys.pop(key, None)
        if identity is not None:
            del self._new[identity]

    def _create(self, job: Job, identity: str) -> "Actor | None":
        if not job.creates:
            answers.give(job, answers.problem(404, "CONTEXT_NOT_FOUND", "no context of this UE exists"))
            return None
        key = ue_key(os.urandom(16))
        self._new[identity] = key
        self._new_keys[key] = identity
        return self._host.actor(key)

    def _ask(self, job: Job, identity: str) -> None:
        host = self._host
        if job.origin is not None:
            host.not_owner(job, None, 0, host.config.home_id)
            return
        asking = self._asking.get(identity)
        if asking is not None:
            if len(asking) < limits.QUEUE_PER_KEY:
                asking.append(job)
                self._wait_in_time(identity, job)
            else:
                answers.turn_away(job, "the queue of this UE is full")
            return
        if host.now_s() < self._no_want_until_s.get(identity, 0.0) or not self._want(identity, deque([job])):
            host.forwards.send(job, None, host.config.home_id, 0)
        else:
            job.waited = "arrival"
            self._wait_in_time(identity, job)

    def _wait_in_time(self, identity: str, job: Job) -> None:
        """A job waits for its key, but not longer than until its own deadline."""

        def overdue() -> None:
            asking = self._asking.get(identity)
            if asking is not None and job in asking:
                asking.remove(job)
                answers.turn_away(job, "the deadline passed before its key was known")

        self._host.loop.call_at(job.deadline_s, overdue)

    def _want(self, identity: str, jobs: deque[Job]) -> bool:
        """Ask home for a UE by identity, under a migration to this network; False if there is none."""
        host = self._host
        migration = next((m for m in host.migrations.active if m.role == "target"), None)
        if migration is None:
            return False
        self._asking[identity] = jobs
        evidence = host.migrations.evidence(migration.migration_id)
        host.send(migration.home, messages.Want(migration.migration_id, None, identity, evidence))
        host.later(limits.WANT_LIMIT_MS, lambda: self._send_on(identity, migration.home))
        return True

    def _send_on(self, identity: str, peer: str) -> None:
        key = self.key_of(identity)
        for job in self._asking.pop(identity, ()):
            self._host.forwards.send(job, key, peer, 0)
