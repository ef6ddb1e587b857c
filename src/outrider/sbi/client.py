"""The HTTP/2 client of every function: h2c with prior knowledge, or HTTP/2 with mutual TLS 1.3."""

import asyncio
import atexit
import functools
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from msgspec import UNSET
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import DetailedPyreqwestError
from pyreqwest.response import ResponseBodyReader

from outrider.core import limits
from outrider.sbi.http import Response
from outrider.sbi.problem import JSON

CONNECT_LIMIT_S = 2.0
"""A connection that is not there by then is given up: the request had no effect, so the caller may try elsewhere."""

PING_INTERVAL_S = 3.0
PING_LIMIT_S = 5.0
"""A peer that does not answer a ping so long while requests are open is gone, and a new connection is made.

Without it a cut link leaves TCP in its retransmission back-off for minutes after the link is whole again.
"""

ANSWER_BYTES = limits.FRAME_BYTES
"""Longest answer that is read: a peer's largest frame. More is dropped, so that no peer can fill the memory."""

SETTLE_S = 0.05
"""Pause at the end of the process.

pyreqwest's thread drops Python objects a moment after a request or `close` has returned. If the interpreter ends in
that moment it aborts, and a command that has done its work exits with 134: about one in ten did.
"""

_encoder = msgspec.json.Encoder()


class ClientTls(NamedTuple):
    """What the client shows to the peer, and the authority that it trusts for the peer."""

    cert_pem: bytes
    key_pem: bytes
    ca_pem: bytes


class Unreachable(Exception):
    """No answer came. `not_sent` is True only if the request certainly had no effect: there was no connection."""

    def __init__(self, sentence: str, *, not_sent: bool) -> None:
        super().__init__(sentence)
        self.not_sent = not_sent


class SbiClient:
    """One connection pool: a connection per origin, its requests as streams of it."""

    def __init__(
        self,
        *,
        tls: ClientTls | None = None,
        timeout_s: float = 5.0,
        bulk: bool = False,
        resolve: tuple[str, str] | None = None,
    ) -> None:
        """`resolve` is a DNS name of URLs and the IP address that it stands for, whatever DNS says: a partner's
        certificate names its border, and the operator knows where that is reached."""
        _settle_at_exit()
        self._client = _build(tls, timeout_s, bulk, resolve)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections; open requests fail."""
        await self._client.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = UNSET,
        timeout_s: float | None = None,
    ) -> Response:
        """Send a request and read the answer whole; `Unreachable` if none came, `ValueError` on a malformed URL."""
        builder = self._client.request(method, url)
        if json is not UNSET:
            body = _encoder.encode(json)
            # A caller that sends another JSON media type (a JSON Patch) says so itself.
            if not any(name.lower() == "content-type" for name, _ in headers):
                builder = builder.header("content-type", JSON)
        if headers:
            builder = builder.headers(headers)
        if body:
            builder = builder.body_bytes(body)
        if timeout_s is not None:
            builder = builder.timeout(timedelta(seconds=timeout_s))
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task is not None else 0
        try:
            async with builder.build_streamed() as answer:
                content = await _bounded(answer.body_reader)
                status, received = answer.status, list(answer.headers.items())
        except DetailedPyreqwestError as error:
            raise _unreachable(method, url, error) from None
        finally:
            # pyreqwest loses a cancellation that meets an answer, and whoever waits for the task would wait for ever.
            if task is not None and task.cancelling() > cancelled_before:
                raise asyncio.CancelledError
        if content is None:
            raise Unreachable(f"{method} {url} was answered with more than {ANSWER_BYTES} bytes", not_sent=False)
        return Response(status, received, content)


async def _bounded(reader: ResponseBodyReader) -> bytes | None:
    """The whole body, or None once it is over the limit."""
    parts: list[bytes] = []
    size = 0
    while (part := await reader.read_chunk()) is not None:
        size += len(part)
        if size > ANSWER_BYTES:
            return None
        parts.append(part.to_bytes())
    return b"".join(parts)


@functools.cache
def _settle_at_exit() -> None:
    """Once for the process: exit handlers run before the interpreter begins to end; sleeping lets go of its lock."""
    atexit.register(time.sleep, SETTLE_S)


def _unreachable(method: str, url: str, error: DetailedPyreqwestError) -> Unreachable:
    causes = [cause["message"] for cause in error.details.get("causes") or ()]
    # The class of the exception does not tell: pyreqwest raises ConnectError for a connection that broke after the
    # request was sent, and ConnectTimeoutError for any answer that was late. Only this cause of the layer below does.
    not_sent = "client error (Connect)" in causes
    said = ": ".join(causes[1:]) or error.message
    return Unreachable(f"{method} {url} had no answer: {said}", not_sent=not_sent)


def _build(tls: ClientTls | None, timeout_s: float, bulk: bool, resolve: tuple[str, str] | None) -> Client:
    builder = (
        ClientBuilder()
        .http2_prior_knowledge()  # h2c on http://, and HTTP/2 alone in the ALPN of https://
        .no_proxy()  # never through a proxy of the environment
        .follow_redirects(False)  # a redirect is the caller's decision (TS 29.500 §6.10.9)
        .gzip(False)
        .brotli(False)
        .zstd(False)  # frames are compressed by us; else the client would undo it and hide it
        .deflate(False)
        .user_agent("outrider")
        .timeout(timedelta(seconds=timeout_s))
        .connect_timeout(timedelta(seconds=min(CONNECT_LIMIT_S, timeout_s)))
        .http2_keep_alive_interval(timedelta(seconds=PING_INTERVAL_S))
        .http2_keep_alive_timeout(timedelta(seconds=PING_LIMIT_S))
        .tcp_nodelay(True)
    )
    if bulk:
        # 16 MiB windows and 1 MiB frames carry 4 to 12 times the bytes per second of the defaults.
        builder = (
            builder.http2_initial_stream_window_size(1 << 24)
            .http2_initial_connection_window_size(1 << 24)
            .http2_max_frame_size(1 << 20)
        )
    if resolve is not None:
        builder = builder.resolve(*resolve, 0)  # the port is the URL's
    if tls is not None:
        builder = builder.https_only(True).min_tls_version("TLSv1.3").identity_pem(tls.key_pem + b"\n" + tls.cert_pem)
        return _build_trusting_only(builder, tls.ca_pem)
    return builder.build()


def _build_trusting_only(builder: ClientBuilder, ca_pem: bytes) -> Client:
    """A client that trusts one authority.

    pyreqwest adds authorities to the system's and offers no way to leave the system's out: any public authority, or
    any that an administrator installed, could then speak for a partner. It reads the system's when a client is built,
    from where this variable says.
    """
    with tempfile.NamedTemporaryFile(suffix=".pem") as only:
        only.write(ca_pem)
        only.flush()
        before = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
        os.environ["SSL_CERT_FILE"] = only.name
        os.environ.pop("SSL_CERT_DIR", None)
        try:
            return builder.build()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
