"""Where a copy lands at its target (PROTOCOL.md §7).

While this host has no copies of its own, a copy lands in a staging file in bulk-load mode, and the seal makes that
file the live one. A host that has copies already (home, after a visit) takes chunks into the live file. UEs that come
early are granted whole into the live file and win over what the staging file says of them.

Either way records are compared with the head that they claim before they are put in place, and entries with the digest
that they lead to. So a head that is here is proved, and equal sums of heads prove equal content (PROTOCOL.md I4).
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

import structlog

from outrider.core.ids import star_of
from outrider.host.copying import COPIED
from outrider.host.failpoints import reach
from outrider.protocol import messages
from outrider.protocol.ownership import Ownership
from outrider.store.bulk_process import Bulk
from outrider.store.bulk_work import Loaded
from outrider.store.packed import unpack_chunk, unpack_log
from outrider.store.port import DoesNotFit, Follow, Followed, Replace, Staging, StagingBroken

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

Range = tuple[bytes, bytes]
T = TypeVar("T")


class Landing:
    """Takes the bulk lane of one peer; `need` are the ranges that it asks for again."""

    def __init__(self, host: "Host", peer: str) -> None:
        self._host = host
        self._peer = peer
        self._copy = ("", 0)
        """Migration and generation of what is staged."""
        self._one = asyncio.Lock()
        """Held while a frame is taken, so that nothing is dropped under it."""
        self._staging: Staging | None = None
        self._bulk: Bulk | None = None
        """Loads into the staging file."""
        self.need: list[Range] = []
        self.ues = 0
        self.marks = {"equal": 0, "wrong": 0}

    async def take(self, message: messages.BulkMessage) -> None:
        """Take one frame; when it returns, the frame is in the staging file, or durable in the live one."""
        async with self._one:
            migration = self._host.migrations.get(message.mig)
            if migration is None or migration.peer != self._peer or migration not in self._host.migrations.active:
                log.info("landing.dropped", migration=message.mig, peer=self._peer)
                return
            match message:
                case messages.Chunk():
                    await self._chunk(message)
                case messages.Log():
                    await self._log(message)
                case messages.Mark():
                    await self._mark(message)
                case messages.Seal():
                    await self._seal()

    async def discard(self, migration_id: str) -> None:
        """Drop what a copy has brought that will not be finished: its migration is aborted or over."""
        async with self._one:
            if migration_id == self._copy[0]:
                await self._discard()

    async def _discard(self) -> None:
        if self._staging is not None:
            staging, self._staging = self._staging, None
            with contextlib.suppress(StagingBroken):
                await self._close()
            await self._host.committer.run(staging.discard)

    async def _chunk(self, chunk: messages.Chunk) -> None:
        if (chunk.mig, chunk.gen) != self._copy:
            await self._discard()
            self._copy, self.ues = (chunk.mig, chunk.gen), 0
            if chunk.start == COPIED[0]:  # what is sent once more, also after a restart of this host, is never sealed
                await self._stage(f"{chunk.mig}-{chunk.gen}")
        if self._bulk is not None:
            loaded = await self._staged(self._bulk.load(chunk.content)) or Loaded(0, [])
        else:
            loaded = await self._replace(chunk)
        if loaded.unproved:
            log.error("chunk.refused", keys=len(loaded.unproved), first=loaded.unproved[0].hex(), peer=self._peer)
            self.need.append((chunk.start, chunk.stop))
        self.ues += loaded.keys
        reach("chunk-loaded")

    async def _replace(self, chunk: messages.Chunk) -> Loaded:
        """Take a chunk into the live file."""
        try:
            heads, records = await asyncio.to_thread(unpack_chunk, chunk.content)
        except ValueError as error:
            log.error("chunk.unreadable", why=str(error), peer=self._peer)
            return Loaded(0, [chunk.start])
        replaced = await self._host.committer.submit(Replace(chunk.start, chunk.stop, heads, records))
        return Loaded(0, [chunk.start]) if isinstance(replaced, DoesNotFit) else Loaded(len(heads), [])

    async def _staged(self, work: Awaitable[T]) -> T | None:
        """Work on the staging file; where that file breaks, the copy goes on in the live one."""
        try:
            return await work
        except StagingBroken as broken:
            log.error("staging.broken", why=str(broken))
            await self._discard()
            self.need.append(COPIED)
            return None

    async def _stage(self, name: str) -> None:
        """Begin a staging file, if there may be one, and let it be loaded beside the event loop."""
        host = self._host
        if host.followers.copies():
            return  # what reads the live file for a copy of its own would not notice that another takes its place
        try:
            self._staging = staging = await host.committer.run(lambda: host.store.stage(name))
        except ValueError:
            return
        await host.committer.run(staging.release)
        self._bulk = host.bulk()
        await self._staged(self._bulk.stage(name, host.store.identity.digest_key))

    async def _close(self) -> None:
        """Let the other process close the staging file."""
        bulk, self._bulk = self._bulk, None
        if bulk is not None:
            await bulk.close()

    async def _log(self, frame: messages.Log) -> None:
        if not frame.content:
            return
        if self._bulk is not None:
            followed = await self._staged(self._bulk.follow(frame.content)) or Followed(0, 0, [])
        else:
            followed = await self._follow(frame)
        self.need += [(key, key + b"\x00") for key in followed.need]

    async def _follow(self, frame: messages.Log) -> Followed:
        """Apply entries to the live file. Entries that cannot be read leave gaps, which the next ones show."""
        try:
            entries = await asyncio.to_thread(unpack_log, frame.content)
        except ValueError as error:
            log.error("log.unreadable", why=str(error), peer=self._peer)
            return Followed(0, 0, [])
        outcome = await self._host.committer.submit(Follow(entries))
        assert isinstance(outcome, Followed)
        return outcome

    async def _mark(self, mark: messages.Mark) -> None:
        host = self._host
        if self._came(mark):
            return
        total = await host.reading(lambda store: store.partition_sum(mark.start, mark.stop, mark.without))
        if (total.ues, total.digest) == (mark.ues, mark.digest):
            self.marks["equal"] += 1
            return
        if self._came(mark):
            return
        self.marks["wrong"] += 1
        log.warning("mark.wrong", partition=mark.start.hex(), here=total.ues, there=mark.ues)
        self.need.append((mark.start, mark.stop))

    def _came(self, mark: messages.Mark) -> bool:
        """Whether keys of the range have come here meanwhile: their grants proved them, and they are written to."""
        store = self._host.store
        if store.row(star_of(mark.start) or mark.start).state is not Ownership.FOREIGN:
            return True
        return any(k not in mark.without for k in store.own_rows(mark.start, mark.stop))

    async def _seal(self) -> None:
        if self._staging is None:
            return
        async with self._host.followers.exchange:
            if self._host.followers.reading:  # a copy has begun meanwhile, and reads the live file: see `_stage`
                await self._discard()
                self.need.append(COPIED)
                return
            staging, self._staging = self._staging, None
            if await self._staged(self._adopt(staging)) is None:
                self._staging = staging
                await self._discard()
                return
        reach("staging-adopted")
        log.info("staging.adopted", ues=self.ues)

    async def _adopt(self, staging: Staging) -> bool:
        host = self._host
        assert self._bulk is not None
        await self._bulk.flush()  # else commits here, of UEs that came early, would wait for the disk to have all of it
        await self._close()
        await host.committer.run(staging.regain)
        await host.committer.run(lambda: host.store.adopt(staging))
        return True
