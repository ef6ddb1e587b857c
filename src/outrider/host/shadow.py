"""The log of an owner that is not home, on its way to home.

From the first acceptance on it goes over the control lane. So the way back needs only what home does not have yet, and
what home has survives the loss of this store.
"""

import asyncio
from typing import TYPE_CHECKING

from outrider.core import limits
from outrider.core.record import LogEntry
from outrider.host.pending import Lag, Pending
from outrider.protocol import messages
from outrider.store.port import SetValue

if TYPE_CHECKING:
    from outrider.host.host import Host


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

    async def keep(self) -> None:
        """Note how far home has the log; what is older than this note is sent again after a crash, and passed over."""
        if self.pending.acked_lsn > self._saved_lsn:
            self._saved_lsn = self.pending.acked_lsn
            await self._host.committer.submit(SetValue("shadow-acked", str(self._saved_lsn).encode()))

    async def _run(self) -> None:
        host = self._host
        while True:
            while self._sent_lsn - self.pending.acked_lsn < 4 * limits.LOG_BATCH:
                entries = host.store.log(self._sent_lsn, limits.LOG_BATCH)
                if not entries:
                    break
                self._sent_lsn = entries[-1].lsn
                host.send(self.home, messages.Shadow(self._sent_lsn, entries))
            full = self._sent_lsn - self.pending.acked_lsn >= 4 * limits.LOG_BATCH
            await host.next_commit(host.store.last_lsn() if full else self._sent_lsn)
            await asyncio.sleep(limits.FOLLOW_PACE_MS / 1000)
