"""A copy for a migration, at its source (PROTOCOL.md §7).

One pass over the key space in chunks of whole UEs, and behind it the ordered log, for UEs already sent only (the cursor
filter); both on one bulk lane, in order. There are no rounds: a UE is sent once, and then each of its changes once.
When the pass is over a seal makes the copy durable at the target, and marks compare counts and digests. Chunks are read
by another process (`store.bulk_process`), one ahead of the one that is sent.
"""

import asyncio
import functools
from typing import TYPE_CHECKING

import structlog

from outrider.core import limits
from outrider.core.ids import PARTITIONS, partition_key, partition_range
from outrider.core.record import LogEntry
from outrider.host.failpoints import reach
from outrider.host.lanes import Lane
from outrider.host.pending import Lag, Pending
from outrider.protocol import messages
from outrider.protocol.ownership import Ownership
from outrider.store.bulk_work import Scanned
from outrider.store.packed import pack_log
from outrider.store.port import ContextStore, PartitionSum

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

COPIED = (b"s", b"v")
"""The range of what is copied: the shared objects and then the UEs."""


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
        self._host.followers.reading.discard(self)

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
        self.total_ues = await host.reading(lambda store: store.copy_count(b"u", b"v"))
        async with host.followers.exchange:
            host.followers.reading.add(self)
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
            await asyncio.sleep(limits.FOLLOW_PACE_MS / 1000)

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


def _sum(start: bytes, stop: bytes, without: list[bytes], store: ContextStore) -> PartitionSum:
    return store.partition_sum(start, stop, without)
