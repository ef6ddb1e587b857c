"""The caller's side of ASGI: one HTTP request into an app and its whole answer out, and the lifespan."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import unquote

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
Event = MutableMapping[str, Any]

_ASGI = {"version": "3.0", "spec_version": "2.4"}
_HOP_BY_HOP = frozenset(
    (b"connection", b"content-length", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
)


class Answer(NamedTuple):
    """A whole HTTP response. Header names are lower-case; those of one connection only are left out."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class NoAnswer(Exception):
    """The app returned without a complete response."""


async def request(
    app: AsgiApp,
    method: str,
    path: str,
    query: str = "",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    state: dict[str, Any] | None = None,
) -> Answer:
    """Send one request to the app; what the app raises passes through, also after it has answered."""
    exchange = _Exchange(body)
    scope = {
        "type": "http",
        "asgi": _ASGI,
        "http_version": "2",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers],
        "client": None,
        "server": None,
        "state": dict(state or {}),
    }
    await app(scope, exchange.receive, exchange.send)
    if not exchange.ended or exchange.status is None:
        raise NoAnswer("the app returned without a complete response")
    return Answer(exchange.status, exchange.headers, b"".join(exchange.parts))


class _Exchange:
    """One request and its response; `receive` reports a disconnect only when the response is complete."""

    def __init__(self, body: bytes) -> None:
        self.body: bytes | None = body
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.parts: list[bytes] = []
        self.ended = False
        self._end: asyncio.Event | None = None

    async def receive(self) -> Event:
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.ended:
            if self._end is None:
                self._end = asyncio.Event()
            await self._end.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        match event["type"]:
            case "http.response.start":
                self.status = int(event["status"])
                self.headers = [
                    (bytes(k).decode("latin-1").lower(), bytes(v).decode("latin-1"))
                    for k, v in event.get("headers", ())
                    if bytes(k).lower() not in _HOP_BY_HOP
                ]
            case "http.response.body":
                if part := event.get("body", b""):
                    self.parts.append(bytes(part))
                if not event.get("more_body", False):
                    self.ended = True
                    if self._end is not None:
                        self._end.set()
            case other:
                raise RuntimeError(f"an NF service answers with a plain HTTP response, not {other!r}")


async def not_found(scope: Any, receive: Any, send: Any) -> None:
    """The app of an NF service that has none: every path is unknown."""
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Lifespan:
    """Runs an app's ASGI lifespan, if it has one; `state` is what the app keeps for its requests."""

    def __init__(self, app: AsgiApp) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._incoming: asyncio.Queue[Event] = asyncio.Queue()
        self._outcome: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the app is ready, or does not speak lifespan; `RuntimeError` if it says that it failed."""
        self._task = asyncio.create_task(self._run())
        if (failure := await self._step("lifespan.startup")) is not None:
            raise RuntimeError(f"the app failed to start: {failure}")

    async def stop(self) -> None:
        """Lets the app shut down."""
        if self._task is None:
            return
        if not self._task.done():
            await self._step("lifespan.shutdown")
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._task

    async def _step(self, event: str) -> str | None:
        self._outcome = asyncio.get_running_loop().create_future()
        self._incoming.put_nowait({"type": event})
        return await self._outcome

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": _ASGI, "state": self.state}
        try:
            await self._app(scope, self._incoming.get, self._send)
        except Exception:
            # By the ASGI specification an app that raises here does not support lifespan; it may still serve.
            pass
        finally:
            self._settle(None)

    async def _send(self, event: Event) -> None:
        self._settle(str(event.get("message", "")) if event["type"].endswith(".failed") else None)

    def _settle(self, outcome: str | None) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)
