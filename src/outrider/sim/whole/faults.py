"""Breaks what a scenario says, when it says so, and mends it again."""

import asyncio
from collections.abc import Callable, Mapping

from outrider.sim.whole.keeper import Keeper
from outrider.sim.whole.link import Way, Wires
from outrider.sim.whole.loop import PROCESS, VirtualLoop, context
from outrider.sim.whole.node import Node
from outrider.sim.whole.scenario import Fault
from outrider.sim.whole.trace import Trace


class Breaker:
    """Does the faults of one world."""

    def __init__(
        self, loop: VirtualLoop, keepers: dict[str, Keeper], nodes: Mapping[str, Node], wires: Wires, trace: Trace
    ) -> None:
        self._loop = loop
        self._keepers = keepers
        self._nodes = nodes
        self._wires = wires
        self._trace = trace
        self.disturbed = False
        """A process was stopped or a disk was slow: then waits have no bound."""
        self._places: dict[str, list[tuple[Fault, int]]] = {}
        """Where keepers are to be killed, and how often they still have to come there."""

    def heal(self) -> None:
        """Nothing breaks any more."""
        self._places.clear()

    def reached(self, place: str) -> None:
        """A keeper has come to a fail-point."""
        network = PROCESS.get().partition("#")[0]
        waiting = self._places.get(network, [])
        for i, (fault, times) in enumerate(waiting):
            if fault.place == place:
                waiting[i] = (fault, times - 1)
                if times == 1:
                    del waiting[i]
                    self._trace.say("faults", f"{network} has come to {place}")
                    self._keepers[network].kill_here(f"kill -9 at {place}")
                    self._loop.call_later(fault.for_s, self._keepers[network].again, context=context(""))
                return

    async def do(self, fault: Fault) -> None:
        """Break something; returns when it is whole again."""
        keeper = self._keepers[fault.network]
        elsewhere = fault.trouble in _WAYS or fault.trouble in _OF_NODES
        if not keeper.wanted and not (self._nodes and elsewhere):
            return
        where = f"{fault.network} → {fault.other}" if fault.trouble in _WAYS else fault.network
        at = f", at {fault.place} for the {fault.times}. time" if fault.place else ""
        self._trace.say("faults", f"{fault.trouble} at {where} for {fault.for_s:.3f} s{at}")
        if fault.trouble in _WAYS:
            await self._on_the_way(fault)
            return
        if fault.trouble in _OF_NODES:
            await self._at_the_node(self._nodes[fault.network], fault)
            return
        match fault.trouble:
            case "kill":
                keeper.kill("kill -9")
                await asyncio.sleep(fault.for_s)
                keeper.again()
            case "kill-at":
                self._places.setdefault(fault.network, []).append((fault, fault.times))
            case "pause":
                self.disturbed = True
                self._loop.pause(keeper.process, self._loop.time() + fault.for_s)
            case "clock-jump":
                keeper.clock.skew_ms += int(fault.by)
            case "disk-full" | "disk-broken" | "slow-disk":
                await self._on_the_disk(keeper, fault)
            case "worker-hangs":
                keeper.worker.hangs = True
                await asyncio.sleep(fault.for_s)
                keeper.worker.hangs = False
            case "worker-dies":
                keeper.worker.dead = True
                await asyncio.sleep(fault.for_s)
                keeper.worker.dead = False
            case "revoke":
                await self._revoke(keeper, fault)

    async def _on_the_way(self, fault: Fault) -> None:
        there, back = self._wires.way(fault.network, fault.other), self._wires.way(fault.other, fault.network)
        change, mend, both = _WAYS[fault.trouble]
        ways = [there, back] if both else [there]
        for way in ways:
            change(way, fault.by)
        await asyncio.sleep(fault.for_s)
        for way in ways:
            mend(way)

    async def _at_the_node(self, node: Node, fault: Fault) -> None:
        match fault.trouble:
            case "node-kill":
                node.kill("kill -9")
                await asyncio.sleep(fault.for_s)
                node.start()
            case "node-kill-at":
                node.dies_at = fault.times
            case "node-pause":
                self.disturbed = node.disturbed = True
                self._loop.pause(node.process, self._loop.time() + fault.for_s)
            case "node-disk-full":
                node.disturbed = node.disk.full = True
                self._trace.excused.add(node.where)
                await asyncio.sleep(fault.for_s)
                node.disk.full = False
            case "node-slow-disk":
                node.disturbed = True
                node.disk.slow = fault.by
                await asyncio.sleep(fault.for_s)
                node.disk.slow = 1.0

    async def _on_the_disk(self, keeper: Keeper, fault: Fault) -> None:
        disk = keeper.disk
        if fault.trouble == "slow-disk":
            self.disturbed = True
            if (node := self._nodes.get(fault.network)) is not None:
                node.disturbed = True  # what was decided before a revocation may be durable long after it
            disk.slow = fault.by
            await asyncio.sleep(fault.for_s)
            disk.slow = 1.0
            return
        name = "full" if fault.trouble == "disk-full" else "broken"
        setattr(disk, name, True)
        await asyncio.sleep(fault.for_s)
        setattr(disk, name, False)

    async def _revoke(self, keeper: Keeper, fault: Fault) -> None:
        for valid in (False, True):
            if keeper.host is not None:
                await keeper.ask(lambda host, valid=valid: host.permit(valid))  # type: ignore[misc]
            if not valid:
                await asyncio.sleep(fault.for_s)


def _cut(way: Way, _: float) -> None:
    way.cut = True


def _whole(way: Way) -> None:
    way.cut = way.refused = way.no_answers = False
    way.slow = 1.0


def _copy_late(way: Way, by: float) -> None:
    way.copy_late_s = by / 1000


def _copy_in_time(way: Way) -> None:
    way.copy_late_s = 0.0


def _refuse(way: Way, _: float) -> None:
    way.refused = True


def _silence(way: Way, _: float) -> None:
    way.no_answers = True


def _slow(way: Way, by: float) -> None:
    way.slow = by


_OF_NODES = ("node-kill", "node-kill-at", "node-pause", "node-disk-full", "node-slow-disk")

_Change = tuple[Callable[[Way, float], None], Callable[[Way], None], bool]

_WAYS: dict[str, _Change] = {
    "cut": (_cut, _whole, True),
    "cut-one-way": (_cut, _whole, False),
    "refuse": (_refuse, _whole, False),
    "no-answers": (_silence, _whole, False),
    "slow-link": (_slow, _whole, True),
    "slow-copy": (_copy_late, _copy_in_time, False),
}
"""What changes on a way, and whether in both directions."""
