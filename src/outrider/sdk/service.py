"""An NF service as its author writes it: an ASGI app, and what to do at timers, messages and on arrival."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

import msgspec

from outrider.sdk.asgi import AsgiApp, not_found

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True):
    """A message to a shared object, applied once. `id` is its sender's, the same if it is ever delivered again."""

    name: str
    body: bytes
    id: str

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, *, type: type[T]) -> T: ...
    def json(self, *, type: Any = Any) -> Any:
        """The value that was sent, decoded and checked as `type`."""
        return msgspec.json.decode(self.body, type=type)


class Timer(msgspec.Struct, frozen=True):
    """A timer that has fired; it is gone unless the handler arms it again."""

    name: str
    body: bytes = b""

    @property
    def data(self) -> Any:
        """The value that it was armed with; None if there was none."""
        return msgspec.json.decode(self.body) if self.body else None

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, *, type: type[T]) -> T: ...
    def json(self, *, type: Any = Any) -> Any:
        """`data`, checked as `type`."""
        return msgspec.json.decode(self.body or b"null", type=type)


TimerHandler = Callable[[Timer], Awaitable[None]]
MessageHandler = Callable[[Message], Awaitable[None]]
ArrivalHandler = Callable[[], Awaitable[None]]


class NfService:
    """Wraps an ASGI app and adds handlers that are set off by something else than a request.

    It is an ASGI app itself. A manifest may also name a bare ASGI app: then it has no timers, messages or arrival.
    """

    def __init__(self, app: AsgiApp | None = None) -> None:
        self.app: AsgiApp = app or not_found
        self.timers: dict[str, TimerHandler] = {}
        self.messages: dict[str, MessageHandler] = {}
        self.arrivals: list[ArrivalHandler] = []

    def on_timer(self, name: str) -> Callable[[TimerHandler], TimerHandler]:
        """The coroutine function that runs when timer `name` of a key fires."""

        def register(handler: TimerHandler) -> TimerHandler:
            _once(self.timers, name, "timer")
            self.timers[name] = handler
            return handler

        return register

    def on_message(self, name: str) -> Callable[[MessageHandler], MessageHandler]:
        """The coroutine function that runs, in the unit of a shared object, for each message `name` sent to it."""

        def register(handler: MessageHandler) -> MessageHandler:
            _once(self.messages, name, "message")
            self.messages[name] = handler
            return handler

        return register

    def on_arrival(self, handler: ArrivalHandler) -> ArrivalHandler:
        """The coroutine function that rewrites network-bound fields when a key has come to this network.

        It runs before anything else of the key does, and what it writes is committed with the acceptance itself.
        """
        self.arrivals.append(handler)
        return handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Be the ASGI app that is wrapped."""
        await self.app(scope, receive, send)


def _once(handlers: dict[str, Any], name: str, what: str) -> None:
    if name in handlers:
        raise ValueError(f"there is already a handler for {what} {name!r}")


def as_service(app: object) -> NfService:
    """What a manifest names, as an `NfService`; `TypeError` if it is no ASGI app."""
    if isinstance(app, NfService):
        return app
    if not callable(app):
        raise TypeError(f"{type(app).__name__} is not an ASGI app")
    return NfService(app)
