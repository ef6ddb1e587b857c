"""A connection to a Valkey server: commands go out as they come, and answers return in their order."""

import asyncio
from collections import deque
from typing import Any, cast

import libvalkey

ReplyError = libvalkey.ReplyError
"""An answer of the server that is an error; it is an answer, so it is returned and not raised."""

_NOTHING = object()


class Resp(asyncio.Protocol):
    """One connection; `ConnectionError` for every command whose answer it does not see."""

    def __init__(self) -> None:
        self._reader = libvalkey.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, host: str, port: int) -> "Resp":
        """A connection that is there."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, host, port)
        return protocol

    def call(self, *words: str | int | bytes) -> "asyncio.Future[Any]":
        """Send a command; the answer, later."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            answer.set_exception(ConnectionError("the server has closed the connection"))
        else:
            self._waiting.append(answer)
            self._transport.write(libvalkey.pack_command(words))
        return answer

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answers, or parts of them."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _NOTHING:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """No answer comes any more."""
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(ConnectionError(f"the connection was lost: {error or 'closed'}"))
