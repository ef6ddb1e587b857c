"""A world with LMSFs: each network has its node, which starts the host, and operators ask their LMSFs."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from random import Random

from outrider.sbi.http import Request
from outrider.sim.whole.desks import Desks
from outrider.sim.whole.disk import Disk
from outrider.sim.whole.keeper import Keeper
from outrider.sim.whole.link import Door
from outrider.sim.whole.node import Node
from outrider.sim.whole.notary import Notary
from outrider.sim.whole.port import Answered
from outrider.sim.whole.scenario import HOME, Act
from outrider.sim.whole.trace import Violation
from outrider.sim.whole.world import World

_LOOK_S = 0.5
"""What a consumer has found of the service it goes by for so long."""


class Finding:
    """What consumers in one network ask: the service there, if its NRF shows it, and home's if it does not."""

    def __init__(self, node: Node, here: Keeper, home: Keeper) -> None:
        self._node = node
        self._here = here
        self._home = home
        self._loop = asyncio.get_running_loop()
        self._looked_s = 0.0
        self._found = False

    def take(self, request: Request, answered: Answered) -> bool:
        """A request of a consumer."""
        now_s = self._loop.time()
        if now_s - self._looked_s > _LOOK_S and (shown := self._node.shows()) is not None:
            self._looked_s, self._found = now_s, shown
        return (self._here if self._found else self._home).take(request, answered)


class NodesWorld(World):
    """See the module."""

    def _prepare(self, directory: Path) -> None:
        self._notary = Notary(self._ledger, self._keepers, self.trace)
        nodes: dict[str, Node] = {}
        for network, keeper in self._keepers.items():
            keeper.wanted = False
            place = directory / f"{network}-node"
            place.mkdir()
            disk = Disk(network, Random(f"{self._plan.seed}/{network}/node-disk"), self._ledger)
            nodes[network] = Node(network, place, self._plan.seed, disk, keeper, self._wires, self._notary, self.trace)
        keys = {network: node.public_pem for network, node in nodes.items()}
        for node in nodes.values():
            node.partner_keys, node.doors = keys, nodes
        self._nodes = self._notary.nodes = nodes
        self._desks = Desks(self._plan, nodes, self._notary, self.trace)

    def _doors(self) -> Mapping[str, Door]:
        home = self._keepers[HOME]
        return {n: Finding(self._nodes[n], keeper, home) for n, keeper in self._keepers.items()}

    def close(self) -> None:
        """Let go of the files."""
        for node in self._nodes.values():
            node.close()
        super().close()

    async def _begin(self) -> None:
        for node in self._nodes.values():
            node.start()
        await self._desks.prepare()

    async def _act(self, act: Act) -> None:
        if act.deed == "lose":
            self._ledger.lost(act.target)
            self._excused |= self._ledger.adrift
            keeper = self._keepers[act.target]
            keeper.lose()
            self._loop.call_later(0.5, keeper.again)
        else:
            await self._desks.do(act)

    async def _mend(self) -> None:
        for node in self._nodes.values():
            node.dies_at = None
            node.disk.full = False
            node.disk.slow = 1.0
            node.start()

    def _doing(self) -> str:
        return self._desks.doing

    def _all_home(self) -> bool:
        return self._desks.home_whole

    def _judge_networks(self) -> list[Violation]:
        found = self._notary.judge(self._desks.begun)
        if not self._desks.home_whole:
            return found
        for network, node in self._nodes.items():
            store = ["its store"] if self._keepers[network].store is not None else []
            if network != HOME and (left := node.left + store):
                found.append(Violation("cleared", f"{network} still has {', '.join(left)} after everything"))
        return found
