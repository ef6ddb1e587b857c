"""One network's node over its starts and its deaths: production's LMSF and NRF on this network's disk, ways and clock.

Its keeper ends with it, as a child process of a node does, and is started again by the LMSF of the next one.
"""

import asyncio
import functools
from collections.abc import Coroutine, Mapping
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from outrider.core.ids import NetworkId
from outrider.functions.lmsf.engine import Lmsf, LmsfConfig
from outrider.functions.lmsf.faces import Faces
from outrider.functions.lmsf.journal import Kind
from outrider.functions.lmsf.ports import Clock
from outrider.functions.lmsf.signer import KeySigner
from outrider.functions.nrf.clock import Clock as NrfClock
from outrider.functions.nrf.nrf import Nrf
from outrider.sbi import headers
from outrider.sbi.http import Handler, Request, Response
from outrider.sim.whole.disk import Disk
from outrider.sim.whole.journal import VirtualJournal
from outrider.sim.whole.keeper import Keeper, Verifier
from outrider.sim.whole.link import Door, Wires
from outrider.sim.whole.loop import VirtualLoop, context
from outrider.sim.whole.node_ports import (
    NRF_ROOT,
    VirtualHosts,
    VirtualInner,
    VirtualPartners,
    VirtualSoftware,
    Watch,
)
from outrider.sim.whole.papers import operator_key
from outrider.sim.whole.port import Answered, Port
from outrider.sim.whole.trace import Trace

NF_TYPES = frozenset({"SMF"})


class Watcher(Watch, Protocol):
    """Whoever looks at all that LMSFs write down, say and do."""

    def kept(self, network: str, kind: Kind, name: str, body: bytes | None) -> None:
        """A document of a journal is durable, or dropped."""


class _Clock:
    """This network's clock, as the LMSF asks it."""

    def __init__(self, keeper: Keeper) -> None:
        self._clock = keeper.clock

    def now_ms(self) -> int:
        """What the network takes for UTC."""
        return self._clock.utc_ms()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Node:
    """See the module."""

    def __init__(
        self,
        network: str,
        directory: Path,
        seed: str,
        disk: Disk,
        keeper: Keeper,
        wires: Wires,
        watch: Watcher,
        trace: Trace,
    ) -> None:
        self.network = network
        self.disk = disk
        self.key = operator_key(seed, network)
        self.lmsf: Lmsf | None = None
        self.nrf: Nrf | None = None
        self.partner_keys: Mapping[str, bytes] = {}
        self.doors: Mapping[str, Door] = {}
        self.dies_at: int | None = None
        """It is killed when so many more writes of its journal are durable."""
        self.up_since_s = 0.0
        """Since when this process serves."""
        self.disturbed = False
        """It was stopped for a while, or its disk was slow or full: then nothing has a bound there."""
        self._chance = Random(f"{seed}/{network}/node")
        self._directory = directory
        self._keeper = keeper
        self._wires = wires
        self._watch = watch
        self._trace = trace
        self._loop = cast(VirtualLoop, asyncio.get_running_loop())
        self._outside = context("")
        self._starts = 0
        self._running = False
        self._journal: VirtualJournal | None = None
        self._port = Port(self._task, lambda sentence: trace.say(self.where, sentence))
        self.public_pem = KeySigner(self.key).public_pem

    @property
    def where(self) -> str:
        """Its name in stories."""
        return f"{self.network}/node"

    @property
    def process(self) -> str:
        """The name of the process that runs now, or ran last."""
        return f"{self.where}#{self._starts}"

    # --------------------------------------------------------------------------------------- life cycle

    def start(self) -> None:
        """Start a process on what is on the disk."""
        if self._running:
            return
        self._running = True
        self._starts += 1
        self._loop.create_task(self._run(), context=context(self.process))

    async def _run(self) -> None:
        network = NetworkId.parse(self.network)
        clock = _Clock(self._keeper)
        nrf = Nrf(
            network=network,
            nf_instance_id=f"{self._starts:08x}-0000-4000-8000-000000000001",
            signing_key_pem=_nrf_key(),
            api_root=NRF_ROOT,
            client=cast(Any, None),  # nobody subscribes
            clock=NrfClock(wall_s=lambda: clock.now_ms() / 1000, steady_s=self._loop.time),
        )
        await nrf.start()
        lmsf = Lmsf(
            LmsfConfig(network, f"lmsf-{self.network}", NF_TYPES, NRF_ROOT, self._directory),
            partners=VirtualPartners(self.network, self.partner_keys, self.doors, self._wires, self._watch),
            inner=VirtualInner(self.network, nrf.router, self._keeper, self._chance, self._watch),
            hosts=VirtualHosts(self._keeper, self._watch, self._task),
            signer=KeySigner(self.key),
            software=VirtualSoftware(),
            clock=clock,
            journal=self._open,
        )
        self.nrf, self.lmsf = nrf, lmsf
        await lmsf.start()
        self.up_since_s = self._loop.time()
        self._port.listen(self._serving(Faces(lmsf, cast(Any, Verifier()))))
        self._trace.say(self.where, f"is up for the {self._starts}. time")

    def _open(self, path: Path, network: str, clock: Clock) -> VirtualJournal:
        def kept(kind: Kind, name: str, body: bytes | None) -> None:
            self._watch.kept(self.network, kind, name, body)

        self._journal = VirtualJournal(path, network, clock, disk=self.disk, kept=kept, reached=self._reached)
        return self._journal

    def _reached(self) -> None:
        """A write of the journal is durable, and nobody has heard of it yet."""
        if self.dies_at is not None:
            self.dies_at -= 1
            if self.dies_at <= 0:
                self.dies_at = None
                self._loop.kill(self.process)
                self._loop.call_soon(self.kill, "kill -9 after a write of its journal", context=self._outside)
                self._loop.call_later(self._chance.uniform(0.05, 2.0), self.start, context=self._outside)

    def kill(self, why: str) -> None:
        """End the process in the middle of whatever it does, and its keeper with it."""
        if not self._running:
            return
        self._running = False
        self._loop.kill(self.process)
        left = self._journal.crash() if self._journal is not None else "no journal was open"
        self._trace.say(self.where, f"goes down ({why}; {left})")
        self.lmsf = self.nrf = self._journal = None
        self._port.gone()
        self._keeper.orphan()

    def close(self) -> None:
        """Let go of the files, at the end of the world."""
        self._running = False
        self._loop.kill(self.process)
        if self._journal is not None:
            self._journal.close()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of the process; of one that is ended already, nothing."""
        if self._running and not self._loop.killed(self.process):
            self._loop.create_task(work, context=context(self.process))
        else:
            work.close()

    # -------------------------------------------------------------------------------------- being asked

    def take(self, request: Request, answered: Answered) -> bool:
        """A request has come: of a partner, or of this network's operator."""
        return self._port.take(request, answered)

    def _serving(self, faces: Faces) -> Handler:
        partners = {network: faces.partner_router(network) for network in self.doors if network != self.network}

        async def serve(request: Request) -> Response:
            sender = request.headers.get(headers.ORIGINATING_NETWORK_ID)
            if sender is None:
                return await faces.router(request)
            response = await partners[sender](request)
            self._watch.says(self.network, request.path, response.body)
            return response

        return serve

    @property
    def clock_ms(self) -> int:
        """What this network takes for UTC."""
        return self._keeper.clock.utc_ms()

    @property
    def left(self) -> list[str]:
        """What it has of services: deployments, packages, and NF instances."""
        if self.lmsf is None or self.nrf is None:
            return []
        found = [f"deployment {d.service}" for d in self.lmsf.deployments.all()]
        found += [f"package {p.digest[:8]}" for p in self.lmsf.catalogue.all()]
        return found + [f"instance {i.identity}" for i in self.nrf._registry]

    def shows(self) -> bool | None:
        """Whether a consumer of this network finds the service at its NRF; None while that is down."""
        if self.nrf is None:
            return None
        return any(instance.profile.nf_status == "REGISTERED" for instance in self.nrf._registry.of_type("SMF"))


@functools.cache
def _nrf_key() -> bytes:
    """A key for tokens, which nobody asks for here."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption())
