"""Disks: how long a sync takes, when they fail, and what of a write a crash leaves.

The store and its committer are those of production, on real files. What is simulated is when a write happens: a batch
begins when it is handed over, is on the disk and seen by readers one sync later, and is told a moment after that. A
crash in the middle leaves all of the batch, nothing of it, or a torn write-ahead log, which SQLite has to see through.
"""

import shutil
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from outrider.protocol.messages import LaneBatch
from outrider.store.committer import GroupCommitter, _Item
from outrider.store.port import Operation, Outcome, StoreFault
from outrider.store.sqlite import SqliteStore

_FRAME_BYTES = 4096
"""Less than the last frame of a commit in the write-ahead log: without it there is no commit."""


class Watcher(Protocol):
    """Whoever looks at every commit of every network."""

    def committed(
        self, network: str, store: "DiskStore", operations: Sequence[Operation], outcomes: Sequence[Outcome]
    ) -> None:
        """These operations are durable at that network."""

    def sent(self, network: str, batch: LaneBatch) -> None:
        """These messages leave that network."""


class Disk:
    """One network's disk: `full` and `broken` make the next commit fail, `slow` makes each sync take longer."""

    def __init__(self, network: str, chance: Random, watcher: Watcher) -> None:
        self.network = network
        self.watcher = watcher
        self.chance = chance
        self.full = False
        self.broken = False
        self.slow = 1.0

    def sync_s(self) -> float:
        """How long the next sync takes: mostly a part of a millisecond, seldom many."""
        usual_s = 0.0002 + self.chance.random() * 0.001
        return usual_s * self.slow * (40 if self.chance.random() < 0.01 else 1)


class DiskStore(SqliteStore):
    """The production store, whose commits can fail and are watched."""

    disk: Disk
    torn = False

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """As in production, if the disk can."""
        if self.disk.full:
            raise StoreFault(f"the disk of {self.disk.network} is full")
        outcomes = super().commit(operations)
        if self.torn:
            return outcomes
        self.disk.watcher.committed(self.disk.network, self, operations, outcomes)
        if self.disk.broken:  # the sync failed, though its bytes have reached the platter
            raise StoreFault(f"the disk of {self.disk.network} failed at a sync")
        return outcomes


class VirtualCommitter(GroupCommitter):
    """The production committer with instants of virtual time in the place of its thread."""

    def __init__(self, store: DiskStore, *, on_fault: Callable[[StoreFault], None]) -> None:
        self._disk = store.disk
        self._live = store
        self._collected: deque[_Item] = deque()
        self._under_way: deque[_Item] = deque()
        super().__init__(store, on_fault=on_fault)

    def _begin(self) -> None:
        """There is no thread."""

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        idle = not self._under_way
        self._collected.extend(turn)
        if idle:
            self._next()

    def _next(self) -> None:
        if not self._under_way:
            self._under_way, self._collected = self._collected, deque()
        if self._under_way:
            self._loop.call_later(self._disk.sync_s(), self._synced)

    def _synced(self) -> None:
        self._write_next(self._under_way)
        self._next()

    def crash(self, into: Path) -> str:
        """The machine goes down; `into` is what is found on the disk afterwards. Returns what became of the write."""
        live = self._live.path
        left = self._disk.chance.choice(("lost", "kept", "torn")) if self._under_way else "no write was under way"
        wal = Path(f"{live}-wal")
        before = wal.stat().st_size
        if left == "kept":
            self._write_next(self._under_way)
        elif left == "torn":
            self._live.torn = True
            self._write_next(self._under_way)
        after = wal.stat().st_size
        into.mkdir()
        for file in sorted(live.parent.iterdir()):
            if file.suffix != ".lock" and not file.name.endswith("-shm"):
                shutil.copy(file, into / file.name)
        if left == "torn":
            self._tear(into, before, after)
        self._live.close()
        return left

    def _tear(self, into: Path, before: int, after: int) -> None:
        copy = into / f"{self._live.path.name}-wal"
        if after > before:
            with copy.open("r+b") as file:
                file.truncate(self._disk.chance.randint(before, max(before, after - _FRAME_BYTES)))
