"""To partners: requests of this network's own functions and keepers, over mutual TLS, on the channel they belong to."""

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.functions.n32 import checks, paths
from outrider.functions.n32.inbound import unreachable
from outrider.sbi import headers as names
from outrider.sbi.client import ClientTls, SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import problem

LOOKUP_S = 30.0
"""How long an address that DNS gave for a partner's border is used before DNS is asked again."""

_log = structlog.get_logger(__name__)


class Address(NamedTuple):
    """Where a partner's border is reached."""

    host: str
    control_port: int
    bulk_port: int


@dataclass(slots=True)
class Link:
    """What is known of the way to a partner, for people."""

    state: str = "unused"
    why: str = ""
    since_s: float = 0.0

    def note(self, partner: NetworkId, state: str, why: str = "") -> None:
        """Remember and log a change."""
        if state != self.state:
            _log.info("border.link", partner=str(partner), state=state, why=why)
            self.state, self.since_s = state, time.time()
        self.why = why


class _Channel:
    """A connection pool to one listener of a partner; its name is pinned to the address that the operator gave."""

    def __init__(self, name: str, host: str, port: int, tls: ClientTls, *, bulk: bool) -> None:
        self._name = name
        self._host = host
        self._tls = tls
        self._bulk = bulk
        self.root = f"https://{name}:{port}"
        self._client: SbiClient | None = None
        self._ip = ""
        self._looked_up_s = 0.0
        self._lock = asyncio.Lock()

    async def client(self) -> SbiClient:
        """The client; made anew if the border's name has another address now."""
        now = time.monotonic()
        if self._client is not None and now - self._looked_up_s < LOOKUP_S:
            return self._client
        async with self._lock:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise Unreachable(f"{self._host} has no address: {error}", not_sent=True) from None
            ip = str(found[0][4][0])
            if self._client is None or ip != self._ip:
                await self.close()
                self._client, self._ip = SbiClient(tls=self._tls, bulk=self._bulk, resolve=(self._name, ip)), ip
            self._looked_up_s = now
            return self._client

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


class Outbound:
    """The way to one partner."""

    def __init__(self, own: NetworkId, partner: NetworkId, address: Address, tls: ClientTls, in_flight: int) -> None:
        self.partner = partner
        self.link = Link()
        self.bytes_out = 0
        self.bytes_in = 0
        self.requests = 0
        self._own = own
        self._limit = in_flight
        self._open = 0
        name = f"sepp.{partner.domain}"
        self._channels: dict[paths.Channel, _Channel] = {
            "control": _Channel(name, address.host, address.control_port, tls, bulk=False),
            "bulk": _Channel(name, address.host, address.bulk_port, tls, bulk=True),
        }

    async def forward(self, request: Request) -> Response:
        """Send a request of an own function on; the answer, or ProblemDetails that say whether it had an effect."""
        channel = paths.channel_of(request.method, request.path)
        if paths.way(channel, request.method, request.path) is None:
            return problem(403, "PATH_NOT_ALLOWED", f"{request.method} {request.path} does not leave this network.")
        path = request.path + (f"?{request.query}" if request.query else "")
        limit_ms = names.max_rsp_time_ms(request.headers.get(names.MAX_RSP_TIME))
        try:
            return await self.request(
                request.method,
                path,
                headers=checks.onward(request.headers, self._own),
                body=request.body,
                bulk=channel == "bulk",
                timeout_s=None if limit_ms is None else limit_ms / 1000,
            )
        except Unreachable as error:
            return unreachable(f"The border of {self.partner} did not answer.", error)

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        bulk: bool = False,
        timeout_s: float | None = None,
    ) -> Response:
        """Send with these headers (which name the own network already); `Unreachable` if no answer came."""
        if self._open >= self._limit:
            raise Unreachable(f"{self._open} requests to {self.partner} wait for answers already", not_sent=True)
        channel = self._channels["bulk" if bulk else "control"]
        bound_s = (limits.PARTNER_LIMIT_MS if bulk else limits.FORWARD_LIMIT_MS) / 1000
        self._open += 1
        try:
            client = await channel.client()
            response = await client.request(
                method,
                channel.root + path,
                headers=headers,
                body=body,
                timeout_s=bound_s if timeout_s is None else min(bound_s, timeout_s),
            )
        except Unreachable as error:
            self.link.note(self.partner, "down", str(error))
            raise
        finally:
            self._open -= 1
        self.link.note(self.partner, "up")
        self.requests += 1
        self.bytes_out += len(body)
        self.bytes_in += len(response.body)
        return Response(response.status, checks.backward(response.headers), response.body)

    async def close(self) -> None:
        """End the connections."""
        for channel in self._channels.values():
            await channel.close()
