"""Who follows this host's log: targets while a migration copies, and home once this network owns keys of it.

Copy (PROTOCOL.md §7). One pass over the key space in chunks of whole UEs, and behind it the ordered log, for UEs
already sent only (the cursor filter); both on one bulk lane, in order. There are no rounds: a UE is sent once, and
then each of its changes once. When the pass is over a seal makes the copy durable at the target, and marks compare
counts and digests. Chunks are read by another process (`store.bulk_process`), one ahead of the one that is sent.

Shadow. From the first acceptance on, an owner that is not home sends its log to home over the control lane. So the
way back needs only what home does not have yet.

`lag_of` is what both are for: which entries of a key the peer may not have durably. From it a grant knows whether
SAME or DELTA certainly suffices.
"""

import asyncio
import functools
from collections import deque
from typing import TYPE_CHECKING, Literal

import structlog

from outrider.core import limits
from outrider.core.ids import PARTITIONS, partition_key, partition_range
from outrider.core.record import LogEntry
from outrider.host.failpoints import reach
from outrider.host.lanes import Lane
from outrider.protocol import messages
from outrider.protocol.ownership import Ownership
from outrider.store.bulk_work import Scanned
from outrider.store.packed import pack_log
from outrider.store.port import ContextStore, PartitionSum, SetValue

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

Lag = Literal["same", "delta", "unknown"]

COPIED = (b"s", b"v")
"""The range of what is copied: the shared objects and then the UEs."""


def _sum(start: bytes, stop: bytes, without: list[bytes], store: ContextStore) -> PartitionSum:
    return store.partition_sum(start, stop, without)


class Pending:
    """Entries of this host's log that a follower may not have durably, by key and partition."""

    def __init__(self, host: "Host", after_lsn: int) -> None:
        self._host = host
        self.acked_lsn = after_lsn
        self.read_lsn = after_lsn
        self._order: deque[tuple[int, bytes]] = deque()
        self._parts: dict[bytes, dict[bytes, deque[LogEntry]]] = {}
        self._latest: dict[bytes, int] = {}

    def read(self, limit: int = limits.LOG_BATCH) -> list[LogEntry]:
        """The next entries of the log."""
        self.read_lsn = max(self.read_lsn, self.acked_lsn)
        return self._took(self._host.store.log(self.read_lsn, limit))

    async def read_aside(self, limit: int = limits.LOG_BATCH) -> list[LogEntry]:
        """As `read`, in a thread: the event loop does not wait for a bulk read that is under way."""
        self.read_lsn = after = max(self.read_lsn, self.acked_lsn)
        if self._host.store.last_lsn() <= after:
            return []
        entries = await self._host.reading(lambda store: store.log(after, limit))
        return self._took([e for e in entries if e.lsn > self.read_lsn])  # others may have been read meanwhile

    def _took(self, entries: list[LogEntry]) -> list[LogEntry]:
        for entry in entries:
            self._order.append((entry.lsn, entry.key))
            self._parts.setdefault(entry.key[:2], {}).setdefault(entry.key, deque()).append(entry)
            self._latest[entry.key[:2]] = entry.lsn
        if entries:
            self.read_lsn = entries[-1].lsn
        return entries

    def of(self, key: bytes) -> list[LogEntry]:
        """The entries of a key, in order."""
        return list(self._parts.get(key[:2], {}).get(key, ()))

    def written_since(self, part: bytes, lsn: int) -> bool:
        """Whether a key that begins with these two bytes has an entry after an lsn, acknowledged or not."""
        return self._latest.get(part, 0) > lsn

    def within(self, start: bytes, stop: bytes) -> list[LogEntry]:
        """The entries of a range of keys, in log order."""
        parts = [keys for part, keys in self._parts.items() if start[:2] <= part < stop or part == stop[:2]]
        found = [e for keys in parts for key, entries in keys.items() if start <= key < stop for e in entries]
        return sorted(found, key=lambda e: e.lsn)

    def acked(self, lsn: int) -> None:
        """The follower has everything up to here durably."""
        self.acked_lsn = max(self.acked_lsn, lsn)
        while self._order and self._order[0][0] <= lsn:
            _, key = self._order.popleft()
            part = self._parts[key[:2]]
            entries = part[key]
            entries.popleft()
            if not entries:
                del part[key]

    @property
    def lag(self) -> int:
        """Entries not acknowledged yet."""
        return self._host.store.last_lsn() - self.acked_lsn


class Copy:
    """The copy of a migration, at its source."""

    def __init__(self, host: "Host", migration_id: str, peer: str) -> None:
        self._host = host
        self.migration_id = migration_id
        self.peer = peer
        self.gen = host.hello.incarnation << 16  # of this incarnation alone: a target never goes on with an older copy
        self.durable = False
        self.copied_ues = 0
        self.total_ues = 0
        self.state_bytes = 0
        self.marks_wrong = 0
        self.pending = Pending(host, host.store.last_lsn())
        self.unsent: list[LogEntry] = []
        self._ahead: list[LogEntry] = []
        """Entries of UEs not sent yet that a chunk which is being read, or waits to be sent, may not have."""
        self._bulk = host.bulk()
        self._scanning = asyncio.Lock()
        self._closed = False
        self._reading = asyncio.Lock()
        self._cursor = b""
        self._numbers: dict[int, int] = {}
        self._taken_lsn = 0
        self._again: set[tuple[bytes, bytes]] = set()
        self._restart = asyncio.Event()
        self.lane: Lane = host.peers.bulk_lane(peer, self._acked, self._peer_restarted)
        self._task = asyncio.create_task(self._run(), name=f"copy {migration_id}")
        self._task.add_done_callback(host.ended)

    async def close(self) -> None:
        """Stop the stream."""
        self._closed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.lane.close()
        async with self._scanning:  # a partition that is being sent once more reads with it
            await self._bulk.close()

    def lag_of(self, key: bytes) -> tuple[Lag, list[LogEntry]]:
        """Which entries of a key the target may not have durably."""
        if not self.durable:
            return "unknown", []
        while entries := self.pending.read():
            self.unsent += entries
        entries = self.pending.of(key)
        return ("delta" if entries else "same"), entries

    async def lag_of_range(self, start: bytes, stop: bytes) -> list[LogEntry] | None:
        """As `lag_of`, for a range of keys, in log order; None if the copy is not durable."""
        if not self.durable:
            return None
        await self._drain()
        return self.pending.within(start, stop)

    async def again(self, start: bytes, stop: bytes) -> bool:
        """Send a range once more, and wait until the target has it; False if the copy has ended meanwhile."""
        await self.lane.taken(await self._chunks(start, stop))
        return not self._closed

    async def _drain(self) -> None:
        """Read the log up to what is durable now."""
        until = self._host.store.last_lsn()
        async with self._reading:
            while (pending := self.pending).read_lsn < until and (entries := await pending.read_aside()):
                if pending is self.pending:  # else the copy has begun anew meanwhile
                    self.unsent += entries

    # ------------------------------------------------------------------------------------- the stream

    async def _run(self) -> None:
        """Stream; and from the beginning when the target restarts before it has made the copy durable."""
        while True:
            stream = asyncio.create_task(self._stream())
            restart = asyncio.create_task(self._restart.wait())
            try:
                done, _ = await asyncio.wait({stream, restart}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stream.cancel()
                restart.cancel()
            if stream in done:
                await stream
            await asyncio.gather(stream, return_exceptions=True)
            self._restart.clear()
            log.info("copy.again", migration=self.migration_id, why="the target restarted before the copy was durable")

    async def _stream(self) -> None:
        host, self.gen = self._host, self.gen + 1
        self.copied_ues = self.state_bytes = 0
        self._cursor = b""
        self._numbers.clear()
        self._taken_lsn = 0
        self.pending = Pending(host, host.store.last_lsn())
        self.unsent = []
        self._ahead = []
        self.total_ues = (await host.reading(lambda r: r.partition_sum(b"u", b"v"))).ues
        await self._chunks(*COPIED, advance=True)
        await self.lane.taken(self.lane.send(messages.Seal(self.migration_id, self.gen)))
        if self._restart.is_set():
            return  # it was not the one that had the chunks who took the seal
        self.durable = (
            True  # an acknowledged seal makes durable what came before it; so do acknowledgements from now on
        )
        self.pending.acked(self._taken_lsn)
        log.info("copy.durable", migration=self.migration_id, ues=self.copied_ues, lsn=self.pending.acked_lsn)
        host.progress.news()
        await self._mark()
        while True:
            await self._follow()
            for start, stop in list(self._again):
                self._again.discard((start, stop))
                await self._chunks(start, stop)
            await host.next_commit(self.pending.read_lsn)

    async def _chunks(self, start: bytes, stop: bytes, *, advance: bool = False) -> int:
        """Send a range in chunks, the log behind each where the cursor advances; returns the last lane number.

        While one chunk is sent the next is read. What the log gets meanwhile for UEs beyond the cursor is kept
        (`_ahead`) until the chunk that may lack it has been sent; older entries are in every chunk read after them.
        """
        number = self.lane.through
        async with self._scanning:
            if self._closed:
                return number
            scan: asyncio.Task[Scanned] | None = asyncio.create_task(self._scan(start, stop))
            try:
                while scan is not None:
                    chunk = await scan
                    scan = asyncio.create_task(self._scan(chunk.stop, stop)) if chunk.stop < stop else None
                    lacking = [e for e in self._ahead if e.key < chunk.stop and e.lsn > chunk.read_lsn]
                    self._ahead = []
                    await self.lane.room()
                    number = self.lane.send(
                        messages.Chunk(self.migration_id, self.gen, start, chunk.stop, chunk.read_lsn, chunk.content)
                    )
                    reach("chunk-sent")
                    self.state_bytes += chunk.body_bytes
                    self.copied_ues += chunk.ues
                    start = chunk.stop
                    if advance:
                        self._cursor = start
                        await self._send_log(lacking)
                        await self._follow()
            finally:
                if scan is not None:
                    scan.cancel()
        return number

    async def _scan(self, start: bytes, stop: bytes) -> Scanned:
        return await self._bulk.scan(start, stop, limits.CHUNK_RECORDS)

    async def _follow(self) -> None:
        """Send what the log has got, for UEs already sent; what is not sent yet comes with its chunk."""
        await self._drain()
        while self.unsent:
            batch, self.unsent = self.unsent[: limits.LOG_BATCH], self.unsent[limits.LOG_BATCH :]
            self._ahead += [e for e in batch if e.key >= self._cursor]
            lsn = batch[-1].lsn
            self._numbers[await self._send_log([e for e in batch if e.key < self._cursor], lsn)] = lsn
            await self._drain()

    async def _send_log(self, entries: list[LogEntry], lsn: int = 0) -> int:
        """Send entries; up to `lsn`, if given, the target then has all that concerns UEs already sent."""
        await self.lane.room()
        content = await asyncio.to_thread(pack_log, entries) if entries else b""
        return self.lane.send(messages.Log(self.migration_id, self.gen, lsn, content))

    async def _mark(self) -> None:
        """Let the target compare, partition by partition."""
        for partition in range(PARTITIONS):
            start, stop = partition_range(partition)
            if self._host.store.row(partition_key(partition)).state is not Ownership.OWNED:
                continue  # on its way already; its grant proves it
            without = list(self._host.store.own_rows(start, stop))
            acked_lsn = self.pending.acked_lsn
            total = await self._host.reading(functools.partial(_sum, start, stop, without))
            await self._drain()
            if self.pending.written_since(start, acked_lsn):
                continue  # written to just now; the grant's own digest proves it
            self.lane.send(messages.Mark(self.migration_id, self.gen, start, stop, total.ues, total.digest, without))
            await self._follow()
            await self.lane.room()

    # ----------------------------------------------------------------------------------- what comes back

    def _acked(self, ack: messages.LaneAck) -> None:
        for start, stop in ack.need:
            self.marks_wrong += 1
            self._again.add((start, stop))
            self._host.committed_event()
        lsn = 0
        for number in [n for n in self._numbers if n <= self.lane.through]:
            lsn = max(lsn, self._numbers.pop(number))
        self._taken_lsn = max(self._taken_lsn, lsn)
        if self.durable:
            self.pending.acked(self._taken_lsn)

    def _peer_restarted(self) -> None:
        if not self.durable:
            self._restart.set()


class Shadow:
    """This host's log on its way to home."""

    def __init__(self, host: "Host", home: str) -> None:
        self._host = host
        self.home = home
        self.pending = Pending(host, self._acked_before(host))
        self._sent_lsn = self.pending.acked_lsn
        self._saved_lsn = self.pending.acked_lsn
        self._task = asyncio.create_task(self._run(), name="shadow")
        self._task.add_done_callback(host.ended)

    @staticmethod
    def _acked_before(host: "Host") -> int:
        """Up to where home has the log: as it was noted, or further if the log was trimmed since.

        The log is trimmed up to what home has acknowledged, and a crash may come before that is noted.
        """
        last = host.store.last_lsn()
        noted = int(host.store.value("shadow-acked") or 0)
        left = host.store.log(noted, 1)
        return left[0].lsn - 1 if left else max(noted, last)

    async def close(self) -> None:
        """Stop the stream."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def lag_of(self, key: bytes) -> tuple[Lag, list[LogEntry]]:
        """Which entries of a key home may not have durably."""
        while self.pending.read():
            pass
        entries = self.pending.of(key)
        return ("delta" if entries else "same"), entries

    async def lag_of_range(self, start: bytes, stop: bytes) -> list[LogEntry]:
        """As `lag_of`, for a range of keys, in log order."""
        until = self._host.store.last_lsn()
        while self.pending.read_lsn < until and await self.pending.read_aside():
            pass
        return self.pending.within(start, stop)

    async def again(self, start: bytes, stop: bytes) -> bool:
        """Send home every context of a range whole; what is sent afterwards comes behind it."""
        for key, *_ in await self._host.reading(lambda store: store.heads(start, stop)):
            self._whole(key)
        return True

    def _whole(self, key: bytes) -> None:
        context = self._host.store.context(key)
        self._host.send(self.home, messages.ShadowFull(key, context.head, context.records))

    def acked(self, message: messages.ShadowAck) -> None:
        """Home has the log up to there; what it needs whole is sent whole."""
        self.pending.acked(message.lsn)
        for key in message.need:
            self._whole(key)
        self._host.committed_event()

    def home_restarted(self) -> None:
        """Home may have lost what it had taken and not decided: send again from the last durable acknowledgement."""
        self._sent_lsn = self.pending.acked_lsn
        self._host.committed_event()

    async def _run(self) -> None:
        host = self._host
        while True:
            while self._sent_lsn - self.pending.acked_lsn < 4 * limits.LOG_BATCH:
                entries = host.store.log(self._sent_lsn, limits.LOG_BATCH)
                if not entries:
                    break
                self._sent_lsn = entries[-1].lsn
                host.send(self.home, messages.Shadow(self._sent_lsn, entries))
            if self.pending.acked_lsn > self._saved_lsn:
                self._saved_lsn = self.pending.acked_lsn
                await host.committer.submit(SetValue("shadow-acked", str(self._saved_lsn).encode()))
            full = self._sent_lsn - self.pending.acked_lsn >= 4 * limits.LOG_BATCH
            await host.next_commit(host.store.last_lsn() if full else self._sent_lsn)


class Followers:
    """All followers of this host's log."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._copies: dict[str, Copy] = {}
        self.shadow: Shadow | None = None

    def start_copy(self, migration_id: str, peer: str) -> None:
        """Begin to copy for a migration, unless that runs already. Home follows as the shadow: a copy of what is here
        would take the place of its own copies of what other networks own."""
        if not self._host.config.is_home and peer == self._host.config.home_id:
            self.start_shadow()
            return
        if migration_id in self._copies:
            return
        self._copies[migration_id] = Copy(self._host, migration_id, peer)

    async def stop_copy(self, migration_id: str) -> None:
        """End the copy of a migration."""
        copy = self._copies.pop(migration_id, None)
        if copy is not None:
            await copy.close()

    def start_shadow(self) -> None:
        """Begin to send the log home, at a host that is not home."""
        if self.shadow is None and not self._host.config.is_home:
            self.shadow = Shadow(self._host, self._host.config.home_id)

    async def close(self) -> None:
        """End all streams."""
        for migration_id in list(self._copies):
            await self.stop_copy(migration_id)
        if self.shadow is not None:
            await self.shadow.close()

    def _of(self, peer: str) -> Copy | Shadow | None:
        if self.shadow is not None and peer == self.shadow.home:
            return self.shadow
        return next((c for c in self._copies.values() if c.peer == peer), None)

    def lag_of(self, peer: str, key: bytes) -> tuple[Lag, list[LogEntry]]:
        """Which entries of a key that peer may not have durably; "unknown": perhaps not even a copy."""
        follower = self._of(peer)
        return ("unknown", []) if follower is None else follower.lag_of(key)

    async def lag_of_range(self, peer: str, start: bytes, stop: bytes) -> list[LogEntry] | None:
        """As `lag_of`, for a range of keys; None: unknown."""
        follower = self._of(peer)
        return None if follower is None else await follower.lag_of_range(start, stop)

    async def copy_again(self, peer: str, start: bytes, stop: bytes) -> bool:
        """Send a range to a follower once more; False if nothing follows for that peer any more."""
        follower = self._of(peer)
        return follower is not None and await follower.again(start, stop)

    def needed_lsn(self) -> int | None:
        """The log is needed from here on; None if nobody follows."""
        acked = [c.pending.acked_lsn for c in self._copies.values()]
        if self.shadow is not None:
            acked.append(self.shadow.pending.acked_lsn)
        return min(acked, default=None)

    def durable(self, migration_id: str) -> bool:
        """Whether the target has a durable copy, so that SAME, DELTA and `*p` grants may be sent."""
        copy = self._copies.get(migration_id)
        return copy.durable if copy is not None else self.shadow is not None

    def copies(self) -> dict[str, dict[str, object]]:
        """The progress of every copy that runs."""
        return {migration_id: self.progress(migration_id) for migration_id in self._copies}

    def progress(self, migration_id: str) -> dict[str, object]:
        """How far the copy of a migration is."""
        copy = self._copies.get(migration_id)
        link = self._host.link
        if copy is None:
            lag = self.shadow.pending.lag if self.shadow is not None else 0
            return {"copiedUes": 0, "totalUes": 0, "lagEntries": lag, "durable": self.shadow is not None,
                    "bytesSent": link.bytes_sent, "bulkBytesSent": link.bulk_bytes_sent}  # fmt: skip
        return {
            "copiedUes": copy.copied_ues,
            "totalUes": copy.total_ues,
            "lagEntries": copy.pending.lag,
            "durable": copy.durable,
            "marksWrong": copy.marks_wrong,
            "stateBytes": copy.state_bytes,
            "bytesSent": link.bytes_sent,
            "bulkBytesSent": link.bulk_bytes_sent,
        }
