"""Where a copy lands at its target (PROTOCOL.md §7).

While this host has no copies of its own, a copy lands in a staging file in bulk-load mode, and the seal makes that
file the live one. A host that has copies already (home, after a visit) takes chunks into the live file. UEs that come
early are granted whole into the live file and win over what the staging file says of them.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import structlog

from outrider.core.ids import star_of
from outrider.host.failpoints import reach
from outrider.host.followers import COPIED
from outrider.protocol import messages
from outrider.protocol.ownership import Ownership
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
        self._staging: Staging | None = None
        self.need: list[Range] = []
        self.ues = 0
        self.marks = {"equal": 0, "wrong": 0}

    async def take(self, message: messages.BulkMessage) -> None:
        """Take one frame; when it returns, the frame is in the staging file, or durable in the live one."""
        migration = self._host.migrations.get(message.mig)
        if migration is None or migration.peer != self._peer or migration.aborted is not None:
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

    async def discard(self) -> None:
        """Drop a staging file that will not be finished (abort)."""
        if self._staging is not None:
            staging, self._staging = self._staging, None
            await self._host.committer.run(staging.discard)

    async def _chunk(self, chunk: messages.Chunk) -> None:
        if (chunk.mig, chunk.gen) != self._copy:
            await self.discard()
            self._copy, self.ues = (chunk.mig, chunk.gen), 0
            self._staging = await self._stage(chunk.gen)
        if self._staging is not None:
            await self._staged(functools.partial(self._staging.load, chunk.heads, chunk.records))
        else:
            replace = Replace(chunk.start, chunk.stop, chunk.heads, chunk.records)
            if isinstance(await self._host.committer.submit(replace), DoesNotFit):
                self.need.append((chunk.start, chunk.stop))
        self._host.stars.unproved(chunk.start, chunk.stop)
        self.ues += len(chunk.heads)
        reach("chunk-loaded")

    async def _staged(self, work: Callable[[], T]) -> T | None:
        """Work on the staging file, in a thread; where that file breaks, the copy goes on in the live one."""
        try:
            return await asyncio.to_thread(work)
        except StagingBroken as broken:
            log.error("staging.broken", why=str(broken))
            await self.discard()
            self.need.append(COPIED)
            return None

    async def _stage(self, gen: int) -> Staging | None:
        try:
            return await self._host.committer.run(lambda: self._host.store.stage(gen))
        except ValueError:
            return None

    async def _log(self, entry_frame: messages.Log) -> None:
        if not entry_frame.entries:
            return
        if self._staging is not None:
            staged = await self._staged(functools.partial(self._staging.follow, entry_frame.entries))
            followed = staged or Followed(0, 0, [])
        else:
            outcome = await self._host.committer.submit(Follow(entry_frame.entries))
            assert isinstance(outcome, Followed)
            followed = outcome
        self.need += [(key, key + b"\x00") for key in followed.need]

    async def _mark(self, mark: messages.Mark) -> None:
        host = self._host
        if self._came(mark):
            return
        total = await host.reading(lambda store: store.prove(mark.start, mark.stop, mark.without))
        if (total.ues, total.digest) == (mark.ues, mark.digest):
            self.marks["equal"] += 1
            host.stars.proved(mark.start)
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
        staging, self._staging = self._staging, None
        await self._host.committer.run(lambda: self._host.store.adopt(staging))
        reach("staging-adopted")
        log.info("staging.adopted", ues=self.ues)
