"""Whose store a peer has, and how far it was: another one, or an older state of it, is lost (PROTOCOL.md §9)."""

from typing import Any


class StoreLost(Exception):
    """The peer's store is another than the one known, or an older state of it (§9): no traffic."""


class Outlived(StoreLost):
    """A late frame of an earlier incarnation of the peer: no sign of anything, but nobody may act on it."""


class PeerStore:
    """What was heard of a peer's store, over all its lanes: a slow one is not to be held against what another told."""

    def __init__(self) -> None:
        self.store_id: str | None = None
        self.high_lsn = 0
        self._incarnation = 0

    def known(self, store_id: str, high_lsn: int) -> None:
        """Which store the peer has, and how far it was known to be durable (from durable state)."""
        self.store_id = store_id
        self.high_lsn = max(self.high_lsn, high_lsn)

    def hear(self, batch: Any) -> None:
        """Note whose batch this is, and how far its sender was. Raises `StoreLost`."""
        if self.store_id is not None and batch.store_id != self.store_id:
            raise StoreLost(f"store {batch.store_id} is not the known store {self.store_id}")
        if batch.incarnation < self._incarnation:
            raise Outlived(f"incarnation {batch.incarnation} of a store that is at {self._incarnation}")
        # Of one incarnation it only means that the batch has been on its way for long.
        if batch.durable_lsn < self.high_lsn and batch.incarnation != self._incarnation:
            raise StoreLost(f"store {batch.store_id} is at {batch.durable_lsn}, but was at {self.high_lsn}")
        self.store_id, self._incarnation = batch.store_id, batch.incarnation
        self.high_lsn = max(self.high_lsn, batch.durable_lsn)
