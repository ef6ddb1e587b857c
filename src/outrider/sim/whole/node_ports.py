"""What stands at the ports of a simulated LMSF: the ways to partners, NRF and keeper, hosts, and packages.

Nothing here decides anything for the LMSF, and nothing outlives its node, as in production.
"""

import asyncio
import contextvars
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Protocol

import apsw
import msgspec

from outrider.core import limits
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal
from outrider.functions.lmsf.ports import Host, HostFailed, HostSpec, Partner, Stores, Verified
from outrider.network.inner import bodied
from outrider.sbi import headers as names
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Handler, Request, Response
from outrider.sim.whole.keeper import Keeper
from outrider.sim.whole.link import Door, Wires
from outrider.store.image import StoreFacts
from outrider.store.port import StoreMark

NRF_ROOT = "http://nrf"
_PORT = 1
_LOCAL_S = 0.001
"""A request inside a network takes up to so long to arrive, and its answer as long."""


class VirtualPartners:
    """Stands where `network.adapters.NodePartners` stands: to the nodes of other networks, through both borders."""

    def __init__(
        self, network: str, keys: Mapping[str, bytes], doors: Mapping[str, Door], wires: Wires, watch: "Watch"
    ) -> None:
        self._network = network
        self._keys = keys
        self._doors = doors
        self._wires = wires
        self._watch = watch

    def get(self, network: str) -> Partner | None:
        """The partner with this identity."""
        known = network != self._network and network in self._keys
        return Partner(network, "", (self._keys[network],)) if known else None

    def list(self) -> Sequence[Partner]:
        """Every partner."""
        return [partner for network in self._keys if (partner := self.get(network)) is not None]

    async def request(
        self,
        network: str,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = msgspec.UNSET,
        bulk: bool = False,
        timeout_s: float = 5.0,
    ) -> Response:
        """Send to the partner's LMSF."""
        sent, body = bodied(headers, body, json)
        own = [(names.ORIGINATING_NETWORK_ID, self._network), ("authorization", f"LMSF {self._network}")]
        self._watch.says(self._network, path, body)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        request = Request(method, path, headers=dict([*sent, *own]), body=body)
        self._wires.post(self._network, network, request, answer, door=self._doors[network])
        bound_ms = limits.PARTNER_LIMIT_MS if bulk else limits.FORWARD_LIMIT_MS
        try:
            async with asyncio.timeout(min(timeout_s, bound_ms / 1000)):
                return await answer
        except TimeoutError:
            raise Unreachable(f"{network} does not answer", not_sent=False) from None


class Watch(Protocol):
    """Whoever looks at what an LMSF says and does."""

    def says(self, network: str, path: str, body: bytes) -> None:
        """It tells a partner something, or answers it."""

    def orders(self, network: str, method: str, path: str) -> None:
        """It asks something of its keeper."""

    def registers(self, network: str, method: str, body: bytes) -> None:
        """It asks something of its NRF."""

    def removes(self, network: str) -> None:
        """It deletes the store of its host."""


class VirtualInner:
    """Stands where `network.inner.Inner` stands: to the own NRF, which is part of the node, and to the own keeper."""

    def __init__(self, network: str, nrf: Handler, keeper: Keeper, chance: Random, watch: Watch) -> None:
        self._network = network
        self._nrf = nrf
        self._keeper = keeper
        self._chance = chance
        self._watch = watch

    async def request(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        target_nf_type: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = msgspec.UNSET,
        timeout_s: float = 5.0,
    ) -> Response:
        """Send to a function of this network."""
        sent, body = bodied(headers, body, json)
        where, _, path = url.removeprefix("http://").partition("/")
        path, _, query = path.partition("?")
        request = Request(method, f"/{path}", query, dict([*sent, ("authorization", f"LMSF {self._network}")]), body)
        await asyncio.sleep(self._chance.random() * _LOCAL_S)
        if f"http://{where}" == NRF_ROOT:
            self._watch.registers(self._network, method, body)
            return await self._nrf(request)
        self._watch.orders(self._network, method, request.path)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask_keeper(request)
        except TimeoutError:
            raise Unreachable("the keeper does not answer", not_sent=False) from None

    async def _ask_keeper(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response | None] = loop.create_future()
        here = contextvars.copy_context()

        def answered(response: Response | None) -> None:
            loop.call_later(self._chance.random() * _LOCAL_S, _give, answer, response, context=here)

        if not self._keeper.take(request, answered):
            raise Unreachable("the keeper does not listen", not_sent=True)
        response = await answer
        if response is None:
            raise Unreachable("the keeper broke the connection", not_sent=False)
        return response


def _give(answer: "asyncio.Future[Response | None]", response: Response | None) -> None:
    if not answer.done():
        answer.set_result(response)


class VirtualHosts:
    """Stands where `network.hosts.NodeHosts` stands, with this network's simulated keeper as its only host."""

    def __init__(self, keeper: Keeper, watch: Watch, begin: Callable[[Any], None]) -> None:
        """`begin` starts a task of the node."""
        self._keeper = keeper
        self._watch = watch
        self._begin = begin
        self._spec: HostSpec | None = None
        self._store_id = ""
        self._lock = asyncio.Lock()

    async def start(self, spec: HostSpec, stores: Stores) -> Host:
        """Run the host unless it runs already with this spec, and wait until it is ready and its store is noted."""
        async with self._lock:
            if self._spec != spec:
                self._end()
                await self._spawn(spec, stores)
            return self._host(spec.service)

    async def _spawn(self, spec: HostSpec, stores: Stores) -> None:
        keeper = self._keeper
        keeper.config = msgspec.structs.replace(
            keeper.config,
            service=spec.service,
            home_id=spec.home,
            nf_instance_ids=dict(spec.nf_instance_ids),
            keeper_instance_id=spec.keeper_instance_id,
            digest_key=spec.digest_key,
            known_stores=stores.known(spec.service),
        )
        ready = keeper.launch()
        try:
            async with asyncio.timeout(60.0):
                mark = await ready
            await stores.note(spec.service, mark)
        except BaseException as error:
            self._end()
            if isinstance(error, TimeoutError | ChildProcessError):
                raise HostFailed(f"The keeper of {spec.service} did not start: {error}.") from None
            raise
        self._spec, self._store_id = spec, mark.store_id

        def up_again(mark: StoreMark) -> None:
            self._begin(self._seen(spec, stores, mark))

        keeper.on_ready = up_again
        self._begin(self._look(spec, stores))

    async def _look(self, spec: HostSpec, stores: Stores) -> None:
        """Hear now and then how far the store is."""
        while True:
            await asyncio.sleep(limits.STORE_NOTE_MS / 1000)
            if self._spec is not spec:
                return
            if self._keeper.host is not None:
                await self._seen(spec, stores, self._keeper.host.store.mark)

    async def _seen(self, spec: HostSpec, stores: Stores, mark: StoreMark) -> None:
        """The keeper is up again, or has told how far its store is."""
        with suppress(apsw.Error):  # the older mark stands
            await stores.note(spec.service, mark)
        self._store_id = mark.store_id
        known = stores.known(spec.service)
        self._keeper.config = msgspec.structs.replace(self._keeper.config, known_stores=known)

    def _host(self, service: str) -> Host:
        return Host(service, "127.0.0.1", _PORT, 1, self._store_id)

    def get(self, service: str) -> Host | None:
        """The host, if it is to run: also while its keeper is being restarted."""
        return None if self._spec is None or self._spec.service != service else self._host(service)

    async def stop(self, service: str) -> None:
        """End the host's process; its files stay."""
        async with self._lock:
            self._end()

    def _end(self) -> None:
        self._spec = None
        self._keeper.stop("its node has ended it")

    async def remove(self, service: str) -> None:
        """End the host and delete its store."""
        async with self._lock:
            self._end()
            self._watch.removes(self._keeper.network)
            self._keeper.remove()

    async def close(self) -> None:
        """End the host."""
        self._end()

    async def set_aside(self, service: str) -> Path | None:
        """No operator of a world gives up a store of home."""
        raise NotImplementedError

    async def save(self, service: str, into: Path) -> StoreFacts:
        """No operator of a world saves a service."""
        raise NotImplementedError

    async def restore(self, service: str, store: Path) -> None:
        """No operator of a world restores a service."""
        raise NotImplementedError


class VirtualSoftware:
    """Stands where `functions.lmsf.software.PackageSoftware` stands: a package is its manifest, as JSON."""

    def verify(self, archive: Path) -> Verified | Refusal:
        """What the archive holds."""
        data = archive.read_bytes()
        return Verified(
            manifest=msgspec.json.decode(data, type=Manifest),
            digest=hashlib.sha256(data).hexdigest(),
            sbom_digest=hashlib.sha256(b"SBOM of " + data).hexdigest(),
            size_bytes=len(data),
        )

    def install(self, archive: Path, folder: Path) -> Path | Refusal:
        """Lay it below a folder."""
        data = archive.read_bytes()
        installed = folder / hashlib.sha256(data).hexdigest()
        installed.mkdir(parents=True, exist_ok=True)
        (installed / "manifest.json").write_bytes(data)
        return installed
