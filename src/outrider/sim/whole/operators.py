"""What the LMSFs ask of their hosts, in the order in which they do: out, back, abort, onward, declare lost.

As an LMSF does, each step is tried until the host has answered it: it may be down, or be killed in the middle. Every
step may be repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from outrider.core.refusal import Refusal
from outrider.host.host import Host
from outrider.host.migrations import HostMigration
from outrider.protocol.ownership import Ownership
from outrider.sim.whole.keeper import Down, Keeper
from outrider.sim.whole.scenario import HOME, Act
from outrider.sim.whole.trace import Trace
from outrider.store.port import StoreFault

_AGAIN_S = 0.1


class Operators:
    """All LMSFs of a world; one migration at a time, and its way back."""

    def __init__(self, keepers: dict[str, Keeper], trace: Trace) -> None:
        self._keepers = keepers
        self._trace = trace
        self._count = 0
        self._open: list[HostMigration] = []
        """Ways out that are not over, each as its source has it."""
        self._source: dict[str, str] = {}
        self.doing = "nothing"
        self.home_whole = False
        """The last way back has ended: home owns every key."""

    async def do(self, act: Act) -> None:
        """Do one act to its end."""
        self.doing = f"{act.deed} {act.target}"
        self._trace.say("operators", f"begin: {act.deed} {act.target} {act.sweep}")
        self.home_whole = False
        match act.deed:
            case "out":
                await self._out(HOME, act)
            case "onward":
                await self._onward(act)
            case "back":
                await self._back(abort=False)
            case "abort":
                await self._back(abort=True)
            case "lose" | "reborn":
                raise ValueError(f"no operator does it: {act.deed}")
            case "declare":
                await self._declare()
        self._trace.say("operators", f"done: {act.deed} {act.target}")
        self.doing = "nothing"

    async def _ask(self, network: str, do: Callable[[Host], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await self._keepers[network].ask(do)
            except (Down, StoreFault):
                await asyncio.sleep(_AGAIN_S)

    async def _until(self, network: str, holds: Callable[[Host], bool]) -> None:
        async def look(host: Host) -> bool:
            return holds(host)

        while not await self._ask(network, look):
            await asyncio.sleep(_AGAIN_S)

    # ------------------------------------------------------------------------------------------- ways

    async def _begin(self, name: str, network: str, role: Literal["source", "target", "home"], peer: str) -> None:
        async def store_id(host: Host) -> str:
            return host.store.identity.store_id

        theirs = await self._ask(peer, store_id)
        made = HostMigration(migration_id=name, role=role, peer=peer, home=HOME, peer_store_id=theirs)

        async def begin(host: Host) -> None:
            if host.migrations.get(name) is None:
                await host.begin(made)

        await self._ask(network, begin)

    async def _relocate(self, name: str, source: str, sweep: str) -> None:
        async def relocate(host: Host) -> None:
            changed = await host.migrations.change(name, relocating=True, sweep=sweep)
            if not isinstance(changed, Refusal):
                host.mover.start(changed)

        await self._ask(source, relocate)

    async def _out(self, source: str, act: Act) -> None:
        self._count += 1
        name = f"m{self._count}"
        await self._begin(name, act.target, "target", source)
        await self._begin(name, source, "source", act.target)
        self._open.append(HostMigration(migration_id=name, role="source", peer=act.target, home=HOME))
        self._source[name] = source
        if act.waits:
            await self._relocate(name, source, "arrived")
            await self._until(source, lambda host: host.followers.durable(name))
        await self._relocate(name, source, act.sweep)

    async def _onward(self, act: Act) -> None:
        """From where the UEs are to a third network; home hears of it, follows, and forwards."""
        await self._begin(f"m{self._count + 1}", HOME, "home", act.target)
        await self._out(self._open[-1].peer, act)

    async def _back(self, *, abort: bool) -> None:
        """Everything goes home by ways of its own; the way out is ended, or aborted, first."""
        for m in list(reversed(self._open)):
            for network in (self._source[m.migration_id], m.peer):
                await self._stop(network, m.migration_id, abort=abort)
        for m in list(reversed(self._open)):
            name = f"{m.migration_id}-back"
            await self._begin(name, HOME, "target", m.peer)
            await self._begin(name, m.peer, "source", HOME)
            await self._until(m.peer, lambda host, name=name: host.followers.durable(name))  # type: ignore[misc]
            await self._relocate(name, m.peer, "all")
        for m in list(reversed(self._open)):
            await self._until(m.peer, _empty)
        await self._until(HOME, _whole)
        for m in list(reversed(self._open)):
            for network in (HOME, m.peer):
                await self._stop(network, f"{m.migration_id}-back", abort=False)
                if not abort:
                    await self._stop(network, m.migration_id, abort=False)
        self._open.clear()
        self.home_whole = True

    async def _stop(self, network: str, name: str, *, abort: bool) -> None:
        async def stop(host: Host) -> None:
            if host.migrations.get(name) is not None:
                await (host.abort(name, "ABORTED") if abort else host.finish(name))

        await self._ask(network, stop)

    async def _declare(self) -> None:
        for m in self._open:
            name = m.migration_id

            async def declare(host: Host, name: str = name) -> Any:
                known = host.migrations.get(name)
                assert known is not None
                return await host.lost.declare(known, known.peer_store_id or "")

            loss = await self._ask(HOME, declare)
            self._trace.say("operators", f"declared lost: {loss.ues} UEs, {loss.shadow}")
        await self._until(HOME, _whole)
        self._open.clear()
        self.home_whole = True


def _whole(host: Host) -> bool:
    return all(row.state is Ownership.OWNED for row in host.store.own_rows(b"", b"\xff").values())


def _empty(host: Host) -> bool:
    return all(row.state is Ownership.FOREIGN for row in host.store.own_rows(b"", b"\xff").values())
