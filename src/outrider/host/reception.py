"""What the keepers of partners say: each message of a lane goes to the part of this host that it is for.

Per key this keeps the lane's order, because actors queue. Whatever a message claims, only the table of the key decides.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from outrider.host import stars
from outrider.host.jobs import Elsewhere, Job
from outrider.protocol import messages, ownership
from outrider.protocol.messages import Answer, Carried
from outrider.protocol.ownership import Ownership
from outrider.store.port import Done, Follow, Followed, Replace

if TYPE_CHECKING:
    from outrider.host.host import Host


class Reception:
    """Takes the messages of all control lanes of one host."""

    def __init__(self, host: "Host") -> None:
        self._host = host

    async def take(self, peer: str, m: Any) -> None:
        """One message, in the order of its lane."""
        host = self._host
        match m:
            case messages.Want():
                self.want(peer, m)
            case messages.Grant(key=key) if key[:1] == b"p":
                stars.received(host, peer, m)
            case messages.Grant():
                host.grants.received(peer, m)
            case messages.Need(key, x):
                if self._stands_alone(key):
                    host.actor(key).event(ownership.Need(peer, x))
            case messages.Accepted(key, x, epoch, owner):
                host.note_route(key, epoch, owner)
                if self._stands_alone(key):
                    host.actor(key).event(ownership.Accepted(peer, x))
            case messages.Refused(key, x, cause):
                if self._stands_alone(key):
                    host.actor(key).event(ownership.Refused(peer, x, cause))
            case messages.Recall():
                host.grants.recalled(peer, m)
            case messages.NotOwner():
                self._not_owner(peer, m)
            case messages.Forward():
                self._forward(peer, m)
            case messages.Answered():
                if m.key is not None and m.epoch and self._in_doubt_alone(m.key):
                    host.actor(m.key).event(ownership.Accepted(peer, m.epoch))
                host.forwards.answered(peer, m)
            case messages.Void():
                pass
            case messages.Shadow(lsn, entries):
                host.keep(asyncio.create_task(self._shadow(peer, lsn, entries)))
            case messages.ShadowAck():
                if host.followers.shadow is not None:
                    host.followers.shadow.acked(m)
            case messages.ShadowFull(key, head, records):
                whole = Replace(key, key + b"\x00", [(key, head.epoch, head.n, head.digest)], records)
                host.keep(asyncio.create_task(self._whole(key, whole)))

    def _stands_alone(self, key: bytes) -> bool:
        """Whether the key has a row of its own. An answer about a UE that follows a granted `*p` is about no grant of
        that UE: taking it for one would let this network decide about `*p` by itself."""
        return key in self._host.store.own_rows(key, key + b"\x00")

    def _in_doubt_alone(self, key: bytes) -> bool:
        own = self._host.store.own_rows(key, key + b"\x00").get(key)
        return own is not None and own.state is Ownership.GRANTED

    async def _whole(self, key: bytes, whole: Replace) -> None:
        if isinstance(await self._host.committer.submit(whole), Done):
            self._host.lost.whole_came(key)

    async def _shadow(self, peer: str, lsn: int, entries: list[Any]) -> None:
        outcome = await self._host.committer.submit(Follow(entries))
        assert isinstance(outcome, Followed)
        self._host.lost.shadow_came(peer, lsn, outcome.need)
        self._host.send(peer, messages.ShadowAck(lsn, outcome.need))

    def want(self, peer: str, m: messages.Want) -> None:
        """A peer says that a UE has arrived there. What needs no decision of the key is answered here."""
        host = self._host
        key = m.key if m.key is not None else host.identities.kept_key_of(m.identity or "")
        if key is None:
            host.send(peer, messages.NotOwner(None, 0, host.me, "UE_UNKNOWN", identity=m.identity))
            return
        row = host.store.row(key)
        if m.identity is not None and row.state is not Ownership.OWNED:
            epoch, owner = host.route(key, row)
            host.send(peer, messages.NotOwner(key, epoch, owner, identity=m.identity))
            return
        proved = host.migrations.proved(m.mig, m.evidence)
        allowed = host.migrations.may_give(m.mig, peer) and not host.dwells(key)
        if m.identity is not None and not (proved and allowed):
            cause = "RELOCATION_NOT_RUNNING" if proved else "ARRIVAL_NOT_PROVED"
            host.send(peer, messages.NotOwner(key, row.epoch, host.me, cause, identity=m.identity))
            return
        if row.state is Ownership.OWNED and proved and allowed and not self._may_assert(peer, m):
            host.send(peer, messages.NotOwner(key, row.epoch, host.me, "ARRIVAL_RATE", identity=m.identity))
            return
        actor = host.actor(key)
        if m.identity is not None:
            actor.asked_as[peer] = m.identity
        actor.asked_for = proved and allowed
        actor.event(ownership.Want(peer, m.mig, proved, allowed))

    def _may_assert(self, peer: str, m: messages.Want) -> bool:
        """Whether the target's word for an arrival is taken once more. Home may have any UE back, and where the
        contract moves all, an arrival proves nothing that the target could gain by."""
        migration = self._host.migrations.get(m.mig)
        if migration is None or peer == migration.home or migration.move_all or migration.sweep == "all":
            return True
        if m.evidence.get("kind") != "target-asserted":
            return True
        ues = cast(int, self._host.followers.progress(m.mig)["totalUes"])
        return self._host.asserted.passes(m.mig, peer, ues, self._host.now_s())

    def _not_owner(self, peer: str, m: messages.NotOwner) -> None:
        host = self._host
        newer = False
        if m.key is not None:
            newer = m.epoch > host.route(m.key, host.store.row(m.key))[0]
            host.note_route(m.key, m.epoch, m.owner)
        if m.fwd_id:
            host.forwards.not_owner(peer, m)
        elif m.identity is not None:
            host.identities.not_given(peer, m)
        elif m.key is not None and m.key in host.actors and host.actors[m.key].vol.wanted:
            mig = host.migrations.between(m.owner) if newer and m.owner not in (host.me, peer) else None
            if mig is not None:  # another network has it by now, of which it may be had: that one is asked
                host.send(m.owner, messages.Want(mig, m.key, None, host.migrations.evidence(mig)))
                return
            host.actor(m.key).event(ownership.NotOwner(m.owner if m.owner != host.me else peer, m.epoch))

    def _forward(self, peer: str, m: messages.Forward) -> None:
        host = self._host
        job = self._job(m.request, m.remaining_ms)
        job.identity = m.identity
        job.origin = peer
        job.seen_epoch = m.seen_epoch
        job.creates = m.request.kind in ("request", "emergency")
        self._answer_to(peer, m.fwd_id, job)
        if m.request.kind == "message":
            host.mover.wrote(m.key or b"", job.sender or b"", peer)
        if m.key is not None:
            host.actor(m.key).submit(job)
        elif m.identity is not None:
            host.identities.submit(job)

    def job_from_grant(self, grant: messages.Grant, fwd_id: int, carried: Carried, remaining_ms: int) -> Job:
        """A request that rode in a grant: it runs here, and its answer goes back to the giver."""
        giver = self._host.grants.giver(grant.key, grant.x)
        job = self._job(carried, remaining_ms)
        job.identity = grant.identity
        job.origin = giver
        job.waited = "held"
        self._answer_to(giver, fwd_id, job)
        return job

    def _job(self, carried: Carried, remaining_ms: int) -> Job:
        now_s = self._host.now_s()
        reply: asyncio.Future[Answer | Elsewhere] = asyncio.get_running_loop().create_future()
        sender = bytes.fromhex(carried.consumer) if carried.kind == "message" else None
        return Job(carried, now_s + remaining_ms / 1000, reply, now_s, keep_answer=True, sender=sender)

    def _answer_to(self, peer: str, fwd_id: int, job: Job) -> None:
        host = self._host

        def done(reply: asyncio.Future[Answer | Elsewhere]) -> None:
            answer = reply.result()
            if isinstance(answer, Elsewhere):
                host.send(peer, messages.NotOwner(answer.key, answer.epoch, answer.owner, answer.cause, fwd_id))
                return
            key = None if job.identity is None else host.store.key_of(job.identity)
            row = host.store.row(key) if key is not None else None
            epoch = row.epoch if row is not None and row.state is Ownership.OWNED else 0
            host.send(peer, messages.Answered(fwd_id, key, epoch, answer))

        job.reply.add_done_callback(done)
