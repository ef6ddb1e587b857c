"""The border of one network: the listeners and the ways out of all its partners."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import structlog
from cryptography import x509

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.functions.n32 import paths
from outrider.functions.n32.inbound import Inbound, Keepers
from outrider.functions.n32.meter import Meter
from outrider.functions.n32.outbound import Address, Outbound
from outrider.sbi import headers as names
from outrider.sbi.client import ClientTls, SbiClient, Unreachable
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import problem
from outrider.sbi.server import SbiServer, ServerTls

_log = structlog.get_logger(__name__)


class BorderTls(NamedTuple):
    """The border's certificate and key (PKCS#8), used as server and as client."""

    cert_file: Path
    key_file: Path


class Peer(NamedTuple):
    """One partner, ready to be linked: the CA that it proves itself by, where it is, where it finds us."""

    network: NetworkId
    ca_pem: str
    address: Address
    listen_control: int
    listen_bulk: int


class _Side(NamedTuple):
    peer: Peer
    servers: tuple[SbiServer, SbiServer]
    doors: tuple[Inbound, Inbound]
    outbound: Outbound
    meter: Meter


class Border:
    """Opens and closes links as partners change; sends out; tells how each link is."""

    def __init__(
        self,
        network: NetworkId,
        tls: BorderTls,
        *,
        keepers: Keepers,
        local: Callable[[NetworkId], Handler],
        ca_dir: Path,
        listen: str = "127.0.0.1",
        requests_per_s: int = limits.PARTNER_REQUESTS_PER_S,
        in_flight: int = limits.PARTNER_IN_FLIGHT,
    ) -> None:
        """`local` gives this node's functions as one partner sees them; `keepers` the apiRoot of a service's keeper.

        The TLS server reads a partner's CA from a file; those are written to `ca_dir`.
        """
        self._network = network
        self._tls = tls
        self._keepers = keepers
        self._local = local
        self._listen = listen
        self._requests_per_s = requests_per_s
        self._in_flight = in_flight
        self._sides: dict[NetworkId, _Side] = {}
        self._inner = SbiClient(bulk=True)
        self._ca_dir = ca_dir

    @property
    def partners(self) -> Sequence[NetworkId]:
        """The partners whose links are open."""
        return list(self._sides)

    async def update(self, peers: Iterable[Peer]) -> dict[NetworkId, OSError]:
        """Open links that are new, close those that are gone, reopen those that changed; the others go on.

        Returns the links that could not be opened, because a port is taken: one partner must not shut out the others.
        """
        wanted = {p.network: p for p in peers}
        for network, side in list(self._sides.items()):
            if wanted.get(network) != side.peer:
                await self._close(network)
        failed: dict[NetworkId, OSError] = {}
        for network, peer in wanted.items():
            if network not in self._sides:
                try:
                    await self._open(peer)
                except OSError as error:
                    failed[network] = error
        return failed

    async def stop(self) -> None:
        """Close all links."""
        await asyncio.gather(*(self._close(network) for network in list(self._sides)))
        await self._inner.close()

    async def _open(self, peer: Peer) -> None:
        ca_file = self._ca_dir / f"{peer.network}.pem"
        self._ca_dir.mkdir(parents=True, exist_ok=True)
        ca_file.write_text(peer.ca_pem)
        meter = Meter(self._requests_per_s, self._in_flight)
        local = self._local(peer.network)
        channels: tuple[paths.Channel, paths.Channel] = ("control", "bulk")
        control, bulk = (
            Inbound(
                peer.network,
                channel,
                own=self._network,
                keepers=self._keepers,
                local=local,
                client=self._inner,
                meter=meter,
            )
            for channel in channels
        )
        servers: list[SbiServer] = []
        try:
            for door, port in ((control, peer.listen_control), (bulk, peer.listen_bulk)):
                server = SbiServer(
                    door,
                    host=self._listen,
                    port=port,
                    tls=ServerTls(self._tls.cert_file, self._tls.key_file, ca_file),
                    bulk=door is bulk,
                    body_limit_bytes=limits.FRAME_BYTES,
                )
                await server.start()
                servers.append(server)
        except BaseException:
            for server in servers:
                await server.stop()
            raise
        tls = ClientTls(self._tls.cert_file.read_bytes(), self._tls.key_file.read_bytes(), peer.ca_pem.encode())
        outbound = Outbound(self._network, peer.network, peer.address, tls, self._in_flight)
        self._sides[peer.network] = _Side(peer, (servers[0], servers[1]), (control, bulk), outbound, meter)
        _log.info(
            "border.open",
            partner=str(peer.network),
            control=servers[0].port,
            bulk=servers[1].port,
            toward=f"{peer.address.host}:{peer.address.control_port}",
        )

    async def _close(self, network: NetworkId) -> None:
        side = self._sides.pop(network)
        for door in side.doors:
            door.closed = True
        await asyncio.gather(*(server.stop() for server in side.servers), side.outbound.close())
        _log.info("border.closed", partner=str(network))

    def ports(self, partner: NetworkId) -> tuple[int, int]:
        """The control and the bulk port that really listen for a partner; `KeyError` if none do."""
        control, bulk = self._sides[partner].servers
        return control.port, bulk.port

    def partner_of(self, api_root: str) -> NetworkId | None:
        """The partner that a `3gpp-Sbi-Target-apiRoot` belongs to, by its domain."""
        host = (urlsplit(api_root).hostname or "").lower()
        return next((n for n in self._sides if host == n.domain or host.endswith(f".{n.domain}")), None)

    async def forward(self, request: Request) -> Response:
        """Send a request with `3gpp-Sbi-Target-apiRoot` to the partner that it names."""
        root = request.headers.get(names.TARGET_API_ROOT, "")
        partner = self.partner_of(root)
        if partner is None:
            return problem(404, "TARGET_NETWORK_UNKNOWN", f"{root!r} belongs to no partner whose link is open.")
        return await self._sides[partner].outbound.forward(request)

    async def request(
        self,
        partner: NetworkId,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        bulk: bool = False,
        timeout_s: float | None = None,
    ) -> Response:
        """Send to a partner's border from within this process; `Unreachable` if no answer came."""
        side = self._sides.get(partner)
        if side is None:
            raise Unreachable(f"{partner} is no partner whose link is open", not_sent=True)
        kept = [(k, v) for k, v in headers if k.lower() != names.ORIGINATING_NETWORK_ID]
        kept.append(names.with_originating_network(self._network))
        return await side.outbound.request(method, path, headers=kept, body=body, bulk=bulk, timeout_s=timeout_s)

    def status(self) -> list[Mapping[str, Any]]:
        """Each link: its state in a word and a sentence, and what has crossed it."""
        out: list[Mapping[str, Any]] = []
        for network, side in self._sides.items():
            ca = x509.load_pem_x509_certificate(side.peer.ca_pem.encode())
            link = side.outbound.link
            out.append(
                {
                    "network": str(network),
                    "link": link.state,
                    "why": link.why,
                    "sinceS": link.since_s,
                    "listen": {"control": side.servers[0].port, "bulk": side.servers[1].port},
                    "toward": side.peer.address._asdict(),
                    "caUntil": ca.not_valid_after_utc.isoformat(),
                    "in": {
                        "requests": side.meter.passed,
                        "bytes": side.meter.bytes_in,
                        "open": side.meter.in_flight,
                        "refused": dict(side.meter.refused),
                    },
                    "out": {"requests": side.outbound.requests, "bytes": side.outbound.bytes_out},
                }
            )
        return out
