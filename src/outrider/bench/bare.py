"""The benchmark's service without a host: the same app on granian, its contexts in a dictionary.

`granian --interface asgi outrider.bench.bare:app`. What a host adds (a token, a worker behind a socket, ownership, a
durable commit) is all that differs from `outrider bench serve`'s other side.
"""

from contextvars import ContextVar
from typing import Any, ClassVar

import msgspec

import outrider.sdk
from outrider.bench.shapes import SHAPES, module_of
from outrider.demo.stage import HOME

_SHAPE = SHAPES["session"]
_canonical = msgspec.json.Encoder(order="sorted")
_contexts: dict[str, bytes] = {}
_current: ContextVar["_Unit"] = ContextVar("unit")


class _Unit:
    """As much of the SDK's unit as the service uses, of one UE."""

    network: ClassVar = dict(zip(("mcc", "mnc"), HOME.split("-"), strict=True))

    def __init__(self, supi: str) -> None:
        self._supi = supi

    def get_bytes(self, _: str) -> bytes:
        """The context as it stands; that of a UE which nobody has asked for yet is what a seeded one would be."""
        known = _contexts.get(self._supi)
        return _SHAPE.value(int(self._supi[-10:])) if known is None else known

    def put(self, _: str, value: object) -> None:
        """As the SDK encodes it."""
        _contexts[self._supi] = _canonical.encode(value)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The service's own app, with the UE of the path."""
    if scope["type"] == "http":
        _current.set(_Unit(scope["path"].split("/")[4]))
    await _session.app(scope, receive, send)


outrider.sdk.unit = _current.get  # type: ignore[assignment]
_session = module_of(_SHAPE.service, "bench_counter.session")
