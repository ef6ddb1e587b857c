"""What two borders say to each other, in clear: a relay between them that ends TLS on both sides.

It has the keys of both networks, which only their test can have. Towards a network's border it is the partner's
border, towards the partner it is that network's, so neither sees a difference, and none of the checks is left out.
"""

import asyncio
from pathlib import Path
from typing import Any

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.demo.stage import Operator, Stage
from outrider.functions.n32.checks import HOP, backward
from outrider.functions.n32.inbound import unreachable
from outrider.network.keys import Keys, border_name
from outrider.sbi.client import ClientTls, SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer, ServerTls
from support.identities import Piece


class _Door:
    """Stands before one listener of a network's border; its partner connects here."""

    def __init__(self, heard: list[Piece], caller: Operator, callee: Operator, port: int, *, bulk: bool) -> None:
        own, partner = Keys(callee.directory / "keys"), Keys(caller.directory / "keys")
        self._heard = heard
        self._way = f"{caller.name} to {callee.name}, {'bulk' if bulk else 'control'}"
        name = border_name(NetworkId.parse(callee.id))
        self._root = f"https://{name}:{port}"
        shown = ClientTls(partner.border_cert.read_bytes(), partner.border_key.read_bytes(), own.ca_cert.read_bytes())
        self._client = SbiClient(tls=shown, bulk=bulk, resolve=(name, "127.0.0.1"), timeout_s=30.0)
        self.server = SbiServer(
            self._pass,
            tls=ServerTls(own.border_cert, own.border_key, partner.ca_cert),
            bulk=bulk,
            body_limit_bytes=limits.FRAME_BYTES,
        )

    async def _pass(self, request: Request) -> Response:
        target = request.path + (f"?{request.query}" if request.query else "")
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP]
        said = f"{self._way}: {request.method} {request.path}"
        self._heard.append(Piece(f"{said}, request", _clear(f"{request.method} {target}", headers, request.body)))
        try:
            answer = await self._client.request(request.method, self._root + target, headers=headers, body=request.body)
        except Unreachable as error:
            return unreachable("The border behind the relay did not answer.", error)
        kept = backward(answer.headers)
        self._heard.append(Piece(f"{said}, response", _clear(str(answer.status), kept, answer.body)))
        return Response(answer.status, kept, answer.body)

    async def close(self) -> None:
        await self.server.stop()
        await self._client.close()


def _clear(first: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode() + body


class RecordedStage(Stage):
    """Two networks whose link is recorded; `heard` is all that has passed, both ways, control and bulk."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, rtt_ms=0)
        self.heard: list[Piece] = []
        self._doors: list[_Door] = []

    async def link(self, ends: list[dict[str, Any]]) -> list[int]:
        """Stand before each listener of both borders."""
        for callee, caller, end in ((self.a, self.b, ends[0]), (self.b, self.a, ends[1])):
            for port, bulk in ((end["controlPort"], False), (end["bulkPort"], True)):
                self._doors.append(_Door(self.heard, caller, callee, port, bulk=bulk))
        await asyncio.gather(*(door.server.start() for door in self._doors))
        return [door.server.port for door in self._doors]

    async def close(self) -> None:
        """End the networks, then the link."""
        await super().close()
        await asyncio.gather(*(door.close() for door in self._doors))
