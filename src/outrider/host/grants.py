"""What rides in a grant: the content, as little of it as certainly suffices (PROTOCOL.md §7)."""

from typing import TYPE_CHECKING, Literal

import structlog

from outrider.core import limits
from outrider.core.ids import key_text
from outrider.host.jobs import Job
from outrider.protocol import messages, ownership

if TYPE_CHECKING:
    from outrider.host.actor import Actor
    from outrider.host.host import Host

log = structlog.get_logger()


class Grants:
    """Builds the grants that this host sends, and keeps those that it has received until they are decided."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self.pending: dict[tuple[bytes, int], messages.Grant] = {}
        """Grants received and not decided yet, by key and epoch."""
        self._givers: dict[tuple[bytes, int], str] = {}
        self._recalled: dict[tuple[bytes, int], list[bytes]] = {}
        self.sent_bodies = {"full": 0, "delta": 0, "same": 0}

    def send(self, actor: "Actor", peer: str, x: int, mig: str, held: list[tuple[int, Job]], *, full: bool) -> None:
        """Send GRANT(x) of a key. The content is frozen since GRANTED is durable, so it may be read at leisure.

        SAME or DELTA where the peer's copy is certainly as new as the entries that are added; FULL for the rest, and
        whenever the peer has asked for it. A wrong guess costs a NEED and a round trip, never correctness.
        """
        host = self._host
        context = host.store.context(actor.key)
        lag, entries = host.followers.lag_of(peer, actor.key)
        size = sum(len(r.body) for r in context.records)
        body: Literal["full", "delta", "same"] = "full"
        if not full and lag == "same":
            body = "same"
        elif not full and lag == "delta" and size > limits.FULL_BYTES:
            body = "delta"
        self.sent_bodies[body] += 1
        now_s = host.now_s()
        host.send(
            peer,
            messages.Grant(
                mig=mig,
                key=actor.key,
                x=x,
                to_store=host.peers.store_of(peer, mig),
                head=context.head,
                body=body,
                records=context.records if body == "full" else [],
                entries=entries if body == "delta" else [],
                held=[(i, j.carried, max(1, int((j.deadline_s - now_s) * 1000))) for i, j in held],
                identity=host.store.identity_of(actor.key) if self._may_name(actor, peer, mig, held) else None,
            ),
        )

    def _may_name(self, actor: "Actor", peer: str, mig: str, held: list[tuple[int, Job]]) -> bool:
        """Whether a grant says who the UE is: to home, and where the UE is; a sweep alone moves contexts, not UEs.

        A request that rides in the grant says it in any case.
        """
        migration = self._host.migrations.get(mig)
        swept = migration is not None and migration.sweep == "all" and peer != self._host.config.home_id
        return not swept or actor.asked_for or bool(held)

    def recalled(self, peer: str, recall: messages.Recall) -> None:
        """A recall has come: keep what it does not speak of, and tell the key's actor."""
        self._recalled[recall.key, recall.x] = recall.excepted
        here = recall.to_store in ("", self._host.store.identity.store_id)
        self._host.actor(recall.key).event(ownership.Recall(peer, recall.x, recall.mig, here))

    def excepted(self, key: bytes, x: int) -> list[bytes]:
        """The UEs that the grant or recall of a `*p` does not speak of."""
        grant = self.pending.get((key, x))
        return grant.excepted if grant is not None else self._recalled.get((key, x), [])

    def received(self, peer: str, grant: messages.Grant) -> None:
        """A grant has come: keep it and tell the key's actor."""
        host = self._host
        self.pending[grant.key, grant.x] = grant
        self._givers[grant.key, grant.x] = peer
        cause = host.migrations.why_not_take(grant.mig, peer)
        if cause:
            log.info("grant.not-admitted", key=key_text(grant.key), peer=peer, cause=cause)
        host.actor(grant.key).event(
            ownership.Grant(
                peer,
                grant.x,
                grant.mig,
                to_this_store=grant.to_store in ("", host.store.identity.store_id),
                admitted=cause is None,
                cause=cause or "",
            )
        )

    def giver(self, key: bytes, x: int) -> str:
        """The network that a grant which is not decided yet has come from."""
        return self._givers[key, x]

    def forget(self, key: bytes) -> None:
        """Nothing will be decided of what has come for this key."""
        for pending in [p for p in self.pending if p[0] == key]:
            del self.pending[pending]
            self._givers.pop(pending, None)

    def done(self, key: bytes, x: int) -> messages.Grant | None:
        """The grant is decided; returns it, if it was seen."""
        self._recalled.pop((key, x), None)
        self._givers.pop((key, x), None)
        return self.pending.pop((key, x), None)
