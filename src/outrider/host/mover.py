"""Gives keys away at a source: those that are asked for, those that a sweep moves, and shared objects.

UEs that arrive at the target are asked for by the target and need nothing here, not even a copy. A sweep (move all, or
the way back) gives the rest, when the copy is durable: whole partitions where this host owns `*p`, single UEs where it
owns only those, a bounded number at a time so that what is held stays small. Shared objects follow their members: one
is given away when most of those that write to it are served by the peer.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

import structlog

from outrider.core import limits
from outrider.core.ids import PARTITIONS, partition_key
from outrider.host.migrations import HostMigration
from outrider.protocol import ownership
from outrider.protocol.ownership import Ownership

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()


class Mover:
    """One task for each migration that gives keys away."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """With the sweep that each does."""
        self._moved: dict[bytes, asyncio.Event] = {}
        self._given: dict[bytes, asyncio.Event] = {}
        self._held = asyncio.Semaphore(limits.FLIPS_HELD)
        self._members: dict[bytes, dict[bytes, str]] = {}

    def start(self, m: HostMigration) -> None:
        """Begin to give keys away for a migration that is relocating; with another sweep than so far, from now on."""
        sweep, task = self._tasks.get(m.migration_id, ("", None))
        if sweep == m.sweep or m.settled or m not in self._host.migrations.active:
            return
        if task is not None:
            task.cancel()
        task = asyncio.create_task(self._run(m), name=f"mover {m.migration_id}")
        task.add_done_callback(self._host.ended)
        self._tasks[m.migration_id] = m.sweep, task

    async def stop(self, migration_id: str) -> None:
        """Give no more away for a migration."""
        _, task = self._tasks.pop(migration_id, ("", None))
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Stop all."""
        for migration_id in list(self._tasks):
            await self.stop(migration_id)

    def given(self, key: bytes) -> None:
        """The grant of a key has left: nothing waits for it here any more."""
        event = self._given.pop(key, None)
        if event is not None:
            event.set()

    def moved(self, key: bytes) -> None:
        """The peer has taken a key."""
        self.given(key)
        event = self._moved.pop(key, None)
        if event is not None:
            event.set()

    def wrote(self, shared: bytes, sender: bytes, network: str) -> None:
        """A member of a shared object has written to it from that network."""
        self._members.setdefault(shared, {})[sender] = network

    # -------------------------------------------------------------------------------------- the sweep

    async def _run(self, m: HostMigration) -> None:
        while not self._host.followers.durable(m.migration_id):
            await asyncio.sleep(0.05)
        if m.sweep == "all":
            await self._sweep(m)
            await self._host.migrations.change(m.migration_id, settled=True)
            log.info("sweep.settled", migration=m.migration_id)
            return
        while True:
            await asyncio.sleep(0.25)
            for shared in self._leaning(m.peer):
                await self._move(shared, m, nullcontext())

    async def _sweep(self, m: HostMigration) -> None:
        host = self._host
        while True:
            stars = [partition_key(p) for p in range(PARTITIONS) if self._owned(partition_key(p))]
            await self._move_all(stars, m, limits.FLIPS, self._held)
            single = [k for k, row in host.store.own_rows(b"u", b"v").items() if row.state is Ownership.OWNED]
            shared = [k for k, *_ in host.store.heads(b"s", b"t") if self._owned(k)]
            await self._move_all([*single, *shared], m, limits.GRANT_BATCH_KEYS)
            rows = host.store.own_rows(b"", b"\xff").values()
            left = [r for r in rows if r.state is Ownership.GRANTED]  # one refused by another network comes back here
            if not stars and not single and not shared and not left:
                return
            if not (stars or single or shared) or not host.migrations.may_give(m.migration_id, m.peer):
                await asyncio.sleep(0.05)  # grants without an answer yet are resent, not decided here

    def _owned(self, key: bytes) -> bool:
        return self._host.store.row(key).state is Ownership.OWNED

    async def _move_all(
        self, keys: list[bytes], m: HostMigration, at_once: int, held: AbstractAsyncContextManager[None] | None = None
    ) -> None:
        waiting = iter(keys)

        async def one_after_another() -> None:
            for key in waiting:
                await self._move(key, m, held or nullcontext())

        await asyncio.gather(*(one_after_another() for _ in range(min(at_once, len(keys)))))

    async def _move(self, key: bytes, m: HostMigration, held: AbstractAsyncContextManager[None]) -> None:
        """Give one key away: until the peer has it, or it is in doubt, or that was put off, so that others go first.

        `held` is entered for as long as requests of the key may have to wait here.
        """
        host = self._host
        if not self._owned(key) or not host.migrations.may_give(m.migration_id, m.peer):
            return
        given, moved = asyncio.Event(), asyncio.Event()
        self._given[key], self._moved[key] = given, moved
        try:
            async with held, asyncio.timeout(limits.HOLD_LIMIT_MS / 1000):
                host.actor(key).event(ownership.Want(m.peer, m.migration_id))
                await given.wait()
            async with asyncio.timeout(2 * limits.HOLD_LIMIT_MS / 1000):
                await moved.wait()
        except TimeoutError:
            log.info("relocation.put-off", key=key.hex(), state=host.store.row(key).state.value)
        self._moved.pop(key, None)
        self._given.pop(key, None)

    def _leaning(self, peer: str) -> list[bytes]:
        """Shared objects of this host most of whose members are served by the peer."""
        found = []
        for shared, members in self._members.items():
            there = sum(1 for network in members.values() if network == peer)
            if 2 * there > len(members) and self._owned(shared):
                found.append(shared)
        return found
