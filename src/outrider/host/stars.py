"""Flips of whole partitions: `*p` at this host (PROTOCOL.md §1, folding).

While `*p` is held, every actor of the partition stands still, and the flip waits until what was open has ended. So
the rows that the fold reads are the rows that the commit meets. A flip holds 1/256 of the UEs for the time of one
commit here; what waited is then forwarded, behind the grant, in order. What the grant says of the content is looked up
beside that commit: it is fixed from the moment that nothing is open.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import structlog

from outrider.core.ids import partition_of, partition_range
from outrider.core.record import Head, LogEntry
from outrider.host.actor import Actor
from outrider.protocol import messages, ownership
from outrider.protocol.ownership import Row
from outrider.protocol.partition import Fold, fold, set_apart, unfold
from outrider.store.port import Follow, PartitionSum, SetRow, Take

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()


class Stars:
    """Which partitions stand still, and how much is open in each."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._frozen: set[int] = set()
        self._busy: dict[int, int] = {}
        self._drained: dict[int, asyncio.Event] = {}

    def frozen(self, key: bytes) -> bool:
        """Whether the key's partition is being flipped, so that nothing of it may start."""
        return key[:1] == b"u" and bool(self._frozen) and key[1] in self._frozen

    @contextmanager
    def busy(self, key: bytes) -> Iterator[None]:
        """Something of the key is open."""
        if key[:1] != b"u":
            yield
            return
        self.open(key)
        try:
            yield
        finally:
            self.closed(key)

    def open(self, key: bytes) -> None:
        """Count something open."""
        if key[:1] == b"u":
            self._busy[key[1]] = self._busy.get(key[1], 0) + 1

    def closed(self, key: bytes) -> None:
        """Count it out."""
        if key[:1] != b"u":
            return
        left = self._busy[key[1]] - 1
        if left:
            self._busy[key[1]] = left
            return
        del self._busy[key[1]]
        event = self._drained.get(key[1])
        if event is not None:
            event.set()

    async def freeze(self, partition: int) -> None:
        """Let nothing of the partition start, and wait until nothing is open."""
        self._frozen.add(partition)
        self._host.units.send_back(b"u" + bytes([partition]))
        while partition in self._busy:
            event = self._drained.setdefault(partition, asyncio.Event())
            event.clear()
            await event.wait()

    def thaw(self, partition: int) -> None:
        """Let the partition go on."""
        if partition in self._frozen:
            self._frozen.discard(partition)
            self._drained.pop(partition, None)
            self._host.wake_partition(partition)


class _Content(NamedTuple):
    """What a grant says of a partition: count and Σ, and the entries that the peer may lack (None: no copy there)."""

    total: PartitionSum
    entries: list[LogEntry] | None


class StarActor(Actor):
    """The actor of a `*p`: the same protocol, other content."""

    _fold: Fold | None = None
    _content: asyncio.Task[_Content] | None = None
    """Of the grant that is being made."""
    _dropped: frozenset[bytes] = frozenset()

    @property
    def partition(self) -> int:
        """The partition that this is the row of."""
        partition = partition_of(self.key)
        assert partition is not None
        return partition

    def _held(self) -> None:
        task = asyncio.create_task(self._freeze())
        self.host.keep(task)

    async def _freeze(self) -> None:
        await self.host.stars.freeze(self.partition)
        if self.vol.held is None:
            self.host.stars.thaw(self.partition)
            return
        self.event(self._drained())

    def _drained(self) -> ownership.Drained:
        base = super()._drained()
        rows = self.host.store.own_rows(*partition_range(self.partition))
        self._fold = fold(self.host.store.row(self.key), rows)
        if self.vol.held is not None:
            self._content = asyncio.create_task(self._look_up(self.vol.held.peer, list(self._fold.excepted)))
            self.host.keep(self._content)
        return ownership.Drained(base.in_time, base.aborted, floor=self._fold.floor)

    async def _look_up(self, peer: str, excepted: list[bytes]) -> _Content:
        host, (start, stop) = self.host, partition_range(self.partition)
        entries = await host.followers.lag_of_range(peer, start, stop)
        return _Content(await host.reading(lambda store: store.partition_sum(start, stop, excepted)), entries)

    def _give_operation(self, before: Row, after: Row) -> SetRow:
        assert self._fold is not None
        return SetRow(self.key, before, after, self._fold.dropped, self._fold.kept)

    def _take_operation(self, before: Row, after: Row, event: ownership.Grant) -> Take:
        grant = self.host.grants.pending[self.key, event.x]
        rows = self.host.store.own_rows(*partition_range(self.partition))
        change = unfold(event.x, before, rows, grant.excepted)
        assert not isinstance(change, bytes)
        self._dropped = change.dropped
        return Take(self.key, before, after, grant.head, drop=change.dropped, keep=change.kept)

    def _refuse_operation(self, before: Row, after: Row, event: ownership.Grant | ownership.Recall) -> SetRow:
        """A refusal decides about `*p` too: the UEs that the grant did not speak of keep what was effective."""
        rows = self.host.store.own_rows(*partition_range(self.partition))
        apart = set_apart(before, rows, self.host.grants.excepted(self.key, event.x))
        return SetRow(self.key, before, after, keep=apart)

    def _forget_volatile(self) -> None:
        """What the actors of the UEs that follow `*p` wanted or held was about a row that is gone."""
        apart = self.host.store.own_rows(*partition_range(self.partition))
        for key, actor in list(self.host.actors.items()):
            if key[:1] == b"u" and key[1] == self.partition and key not in apart:
                actor.moved_with_partition()

    def _released(self, row: Row) -> None:
        super()._released(row)
        self._content = None
        self._forget_volatile()
        apart = self.host.store.own_rows(*partition_range(self.partition))
        for key in self.host.forwards.keys_within(*partition_range(self.partition)):
            if key not in apart:
                self.host.actor(key).forwards_back()
        self.host.stars.thaw(self.partition)
        self.host.wake_partition(self.partition)
        self.host.outbox.start()  # messages of its UEs that waited meanwhile, or came with it

    def _installed(self) -> None:
        for key in self._dropped:
            actor = self.host.actors.get(key)
            if actor is not None:
                actor.came_with_partition()
        self.host.partition_arrived(self.partition)

    def _hand_over(self, peer: str, row: Row) -> None:
        """Nothing rides in the grant of a partition: what waits is forwarded behind it, in order."""
        self._forget_volatile()

    def _excepted(self) -> list[bytes]:
        return list(self.host.store.own_rows(*partition_range(self.partition)))

    async def _send_grant(self, peer: str, x: int, mig: str, *, full: bool) -> None:
        """Send GRANT(x) of the partition: entries that the peer may not have yet, and Σ of what it must hold then."""
        host = self.host
        excepted = self._excepted()
        looked_up, self._content = self._content, None
        total, entries = await (looked_up or self._look_up(peer, excepted))
        if full or entries is None:
            if not await host.followers.copy_again(peer, *partition_range(self.partition)):
                # The copy has ended, so what the peer lacks does not come any more: it is to refuse.
                host.send(peer, messages.Recall(mig, self.key, x, host.peers.store_of(peer, mig), excepted))
                host.stars.thaw(self.partition)
                return
            entries = []
        grant = messages.Grant(
            mig=mig,
            key=self.key,
            x=x,
            to_store=host.peers.store_of(peer, mig),
            head=Head(x, total.ues, total.digest),
            body="delta" if entries else "same",
            entries=entries,
            excepted=excepted,
        )
        host.send(peer, grant)
        host.stars.thaw(self.partition)


def received(host: "Host", peer: str, grant: messages.Grant) -> None:
    """A grant of a `*p` has come: apply the entries that ride in it, check the rows, and tell the actor."""
    star = host.store.row(grant.key)
    if star.epoch < grant.x:
        if grant.entries:
            host.committer.submit(Follow(grant.entries))  # nobody waits: what the actor submits is committed after it
        rows = host.store.own_rows(*partition_range(grant.key[1]))
        wrong = unfold(grant.x, star, rows, grant.excepted)
        if isinstance(wrong, bytes):
            log.error("partition.rows-disagree", partition=grant.key[1], key=wrong.hex(), peer=peer)
            host.grants.pending[grant.key, grant.x] = grant
            host.actor(grant.key).event(
                ownership.Grant(peer, grant.x, grant.mig, admitted=False, cause="ROWS_DISAGREE")
            )
            return
    host.grants.received(peer, grant)
