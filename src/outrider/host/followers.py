"""Who follows this host's log: targets while a migration copies, and home once this network owns keys of it.

`lag_of` is what both are for: which entries of a key the peer may not have durably. From it a grant knows whether
SAME or DELTA certainly suffices.
"""

import asyncio
from typing import TYPE_CHECKING

from outrider.core.record import LogEntry
from outrider.host.copying import Copy
from outrider.host.pending import Lag
from outrider.host.shadow import Shadow

if TYPE_CHECKING:
    from outrider.host.host import Host


class Followers:
    """All followers of this host's log."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._copies: dict[str, Copy] = {}
        self.shadow: Shadow | None = None
        self.reading: set[Copy] = set()
        """Copies whose process may have the live file open: it cannot be exchanged for another under them."""
        self.exchange = asyncio.Lock()
        """Held while the live file is exchanged, so that no copy begins to read it meanwhile."""

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
