"""The HTTP/2 server of every function: granian embedded in the running event loop, h2c or mutual TLS 1.3."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP2Settings
from granian.server.embed import Server as _Embedded

from outrider.core import limits
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import problem
from outrider.sbi.router import guarded

STREAMS_PER_CONNECTION = 4_096
"""Requests open on one connection.

Requests that wait for a grant occupy streams; with granian's 200 they would shut out the message that ends the wait.
"""

CONNECTIONS = 16_384
"""Connections accepted at a time; granian counts them against its `backpressure`, which is 128 unless set."""

HEADER_BYTES = 64 * 1024
"""Header bytes of a request (431 beyond); granian's default of 16 MiB is a gift to an attacker."""

BACKLOG = 1_024
"""Connections that the kernel completes before we accept them."""

STOP_LIMIT_S = 3.0
"""How long open requests may take to finish when the server stops; then they are cancelled."""

_log = structlog.get_logger(__name__)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._~!$&'()*+,;=:@-]*")
_PATH_SAFE = "/~!$&'()*+,;=:@"


Refuse = Callable[[str, Callable[[str], str | None]], Response | None]
"""From a path, and what looks a header up, to the answer of a request that is not even read; None lets it in."""


class ServerTls(NamedTuple):
    """The server's certificate and key (PKCS#8), and the one authority whose clients may connect."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path


class SbiServer:
    """One listener that answers with a handler. `port` is the real one once `start` has returned.

    `refuse` is asked before a request is read: what it answers is the answer, at a fraction of a request's cost.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTls | None = None,
        bulk: bool = False,
        body_limit_bytes: int = limits.REQUEST_BYTES,
        refuse: Refuse | None = None,
    ) -> None:
        self.port = port
        self._refuse = refuse
        self._handler = handler
        self._host = host
        self._tls = tls
        self._bulk = bulk
        self._body_limit_bytes = body_limit_bytes
        self._open: set[asyncio.Task[Any]] = set()
        self._listener: _Listener | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; `OSError` if the port is taken, `ssl.SSLError` if a certificate or key cannot be used."""
        if self._serving is not None:
            raise RuntimeError("the server has been started")
        if self._tls is not None:
            # granian reads the authority in a thread of its own, where an error would be lost.
            ssl.create_default_context(cafile=str(self._tls.client_ca_file))
        self._loop = asyncio.get_running_loop()
        listening = _bind(self._host, self.port)
        self.port = listening.getsockname()[1]
        try:
            self._listener = _Listener(self._answer, listening, self._tls, self._bulk)
        except BaseException:
            listening.close()
            raise
        self._serving = asyncio.create_task(self._listener.serve(), name=f"sbi-server:{self.port}")

    async def stop(self) -> None:
        """Take no more connections, let open requests finish for a bounded time, then cancel them."""
        if self._serving is None or self._listener is None:
            return
        serving, self._serving = self._serving, None
        stop: Callable[[], None] = self._listener.stop
        stop()
        done, _ = await asyncio.wait({serving}, timeout=STOP_LIMIT_S)
        if not done:
            for task in tuple(self._open):
                task.cancel()
            await asyncio.wait({serving}, timeout=STOP_LIMIT_S)

    async def _answer(self, scope: Any, proto: Any) -> None:
        """Answer one request; granian calls it as a task of its own.

        granian does not cancel it when the client goes: what has been started ends, and the answer goes nowhere.
        """
        if self._refuse is not None and (refused := self._refuse(scope.path, scope.headers.get)) is not None:
            proto.response_bytes(refused.status, refused.headers, refused.body)
            return
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._open.add(task)
        try:
            request = await self._read(scope, proto)
            response = request if isinstance(request, Response) else await guarded(self._handler, request)
        except asyncio.CancelledError:  # only `stop` cancels
            response = problem(500, "UNSPECIFIED_NF_FAILURE", "The function stopped before it had the answer.")
        finally:
            self._open.discard(task)
        if response.body:
            proto.response_bytes(response.status, response.headers, response.body)
        else:
            proto.response_empty(response.status, response.headers)

    async def _read(self, scope: Any, proto: Any) -> Request | Response:
        """The request, or the answer to one that cannot be read."""
        pairs = scope.headers.items()
        headers = dict(pairs)
        if len(headers) != len(pairs):
            headers = _joined(pairs)
        method = scope.method
        body = b""
        if method != "GET" or "content-length" in headers:
            try:
                length = headers.get("content-length")
                if length is None:
                    whole = await self._parts(proto)
                elif int(length) > self._body_limit_bytes:
                    whole = None
                else:
                    whole = await proto() if length != "0" else b""  # no more arrives than was announced
            except Exception as error:
                # The client reset the stream or broke its promise about the length; nobody hears this answer.
                _log.debug("request body lost", path=scope.path, error=str(error))
                return problem(400, "INCORRECT_LENGTH", "The body did not arrive whole.")
            if whole is None:
                return problem(413, "PAYLOAD_TOO_LARGE", f"The body may have {self._body_limit_bytes} bytes.")
            body = whole
        path = scope.path
        if not _PLAIN_PATH.fullmatch(path):
            # granian gives the path decoded; `Request.path` is encoded, so that it can be sent on. An encoded slash
            # inside a segment is lost here: no SBI identifier has one.
            path = quote(path, safe=_PATH_SAFE)
        return Request(method, path, scope.query_string, headers, body)

    async def _parts(self, proto: Any) -> bytes | None:
        """A body of unknown length, or None if it is over the limit; what is over is never held in memory."""
        parts: list[bytes] = []
        size = 0
        async for part in proto:
            size += len(part)
            if size > self._body_limit_bytes:
                return None
            parts.append(part)
        return b"".join(parts)


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Headers as a mapping, repeated ones joined with commas (RFC 9110 §5.3)."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket that is ours alone.

    granian would bind with SO_REUSEPORT: a second node on the same port would start and silently take half of the
    requests. The socket listens before `start` returns, so that no connection is refused while granian starts.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. granian sets none, and a window update before an answer would hold the answer
        # back for the 40 ms of a delayed acknowledgement (every fifth request with a body of 1 MB).
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


class _Listener(_Embedded):
    """granian's embedded server on a socket that is already listening, and silent."""

    def __init__(self, target: Any, listening: socket.socket, tls: ServerTls | None, bulk: bool) -> None:
        http2 = HTTP2Settings(max_concurrent_streams=STREAMS_PER_CONNECTION, max_headers_size=HEADER_BYTES)
        if bulk:
            # 16 MiB windows and 1 MiB frames carry 4 to 12 times the bytes per second of the defaults.
            http2.initial_stream_window_size = http2.initial_connection_window_size = 1 << 24
            http2.max_frame_size = 1 << 20
        super().__init__(
            target,
            interface=Interfaces.RSGI,
            http=HTTPModes.http2,
            websockets=False,
            backlog=BACKLOG,
            backpressure=CONNECTIONS,
            http2_settings=http2,
            # granian configures logging for the whole process, which would drop every handler set before.
            # "incremental" makes it change the levels of its own loggers and nothing else.
            log_enabled=False,
            log_dictconfig={"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}},
            ssl_protocol_min=SSLProtocols.tls13,
            ssl_cert=tls.cert_file if tls else None,
            ssl_key=tls.key_file if tls else None,
            ssl_ca=tls.client_ca_file if tls else None,
            ssl_client_verify=tls is not None,
        )
        self._listening = listening

    def _init_shared_socket(self) -> None:
        # The worker owns and closes the descriptor from here on, hence `detach`. The stub knows no constructor.
        holder: Any = SocketHolder
        self._shd = holder(self._listening.detach(), False, BACKLOG)
