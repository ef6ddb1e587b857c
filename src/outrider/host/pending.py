"""Entries of this host's log that a follower may not have durably: what a grant has to bring, and what is sent next."""

from collections import deque
from typing import TYPE_CHECKING, Literal

from outrider.core import limits
from outrider.core.record import LogEntry

if TYPE_CHECKING:
    from outrider.host.host import Host

Lag = Literal["same", "delta", "unknown"]
"""What of a key suffices for a follower: nothing, its last entries, or nobody knows."""


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
