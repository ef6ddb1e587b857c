"""A unit of work as a handler sees it: its key's records, timers and outgoing effects, committed at once or not at all.

The rule for failures: **an answer of 400 or more, or an exception, keeps nothing** of what the unit wrote, armed or
sent. For a call to a sibling the same holds for the call alone: its answer comes back to the caller, who decides how
the whole unit ends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar, overload

import msgspec

from outrider.sdk import wire

T = TypeVar("T")

CALL_DEPTH_LIMIT = 16
"""Siblings that call each other in a circle end here, with an error that says so."""

_canonical = msgspec.json.Encoder(order="sorted")
_current: ContextVar["Unit"] = ContextVar("outrider.unit")


class NoUnit(RuntimeError):
    """There is no unit of work here: at import, in the lifespan, or in a task that outlived its unit."""


class Reject(Exception):
    """Ends the handler with this ProblemDetails answer; nothing that it wrote, armed or sent is kept.

    In a timer's or message's handler it means: this was dealt with and changes nothing, do not try it again; but 429
    and 5xx, like any other exception there, mean that it is to be tried again.
    """

    def __init__(
        self,
        status: int,
        cause: str,
        detail: str = "",
        *,
        title: str = "",
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError("a rejection has a status from 400 to 599")
        super().__init__(f"{status} {cause}" + (f": {detail}" if detail else ""))
        self.status = status
        self.headers = [("content-type", "application/problem+json"), *headers]
        problem = {"status": status, "cause": cause, "detail": detail, "title": title}
        self.body = _canonical.encode({k: v for k, v in problem.items() if v})


class Serving(msgspec.Struct, frozen=True):
    """Who serves: the network (with its NID if it is an SNPN) and the NF instance of this NF service there."""

    plmn_id: dict[str, str]
    nf_instance_id: str
    nid: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """A sibling's answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether what the sibling did is kept, should the unit end well."""
        return self.status < 400

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, *, type: type[T]) -> T: ...
    def json(self, *, type: Any = Any) -> Any:
        """The body, decoded and checked as `type`."""
        return msgspec.json.decode(self.body, type=type)


class Replica:
    """This NF service's records of a shared object, as this network last saw them; maybe a little old."""

    def __init__(self, records: dict[str, bytes]) -> None:
        self._records = records

    @overload
    def get(self, name: str) -> Any: ...
    @overload
    def get(self, name: str, *, type: type[T]) -> T | None: ...
    def get(self, name: str, *, type: Any = Any) -> Any:
        """The value under a name; None if there is none."""
        body = self._records.get(name)
        return None if body is None else msgspec.json.decode(body, type=type)

    def get_bytes(self, name: str) -> bytes | None:
        """The bytes under a name; None if there are none."""
        return self._records.get(name)

    def names(self) -> list[str]:
        """The names of the records, sorted."""
        return sorted(self._records)


class Frame:
    """What one handler has proposed so far; a call to a sibling gets a frame of its own, merged if it answers well."""

    __slots__ = ("depth", "lock", "over", "parent", "records", "sends", "timers")

    def __init__(self, parent: "Frame | None" = None) -> None:
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.records: dict[tuple[str, str], bytes | None] = {}
        self.timers: dict[tuple[str, str], tuple[int | None, bytes]] = {}
        self.sends: list[wire.Send] = []
        self.lock: asyncio.Lock | None = None
        self.over = False

    def merge(self, child: "Frame") -> None:
        """Take over what a sibling's call proposed."""
        self.records.update(child.records)
        self.timers.update(child.timers)
        self.sends.extend(child.sends)


class Calls(NamedTuple):
    """What a unit needs from whoever runs it."""

    read: Callable[[str], Awaitable[list[tuple[str, str, bytes]]]]
    """The records of a shared object."""
    sibling: Callable[["Work", Frame, str, str, str, list[tuple[str, str]], bytes], Awaitable[Reply]]
    """Run a request to a sibling in the given frame of this unit."""
    handles: Callable[[str, str, str], bool]
    """Whether an NF service has a handler for (`timer` or `message`, its name)."""


class Work:
    """A unit over all NF services of the package: what the keeper gave, and who answers calls."""

    __slots__ = ("calls", "over", "records", "replicas", "run", "timers")

    def __init__(self, run: wire.Run, calls: Calls) -> None:
        self.run = run
        self.calls = calls
        self.over = False
        self.records = {(nf, name): body for nf, name, body in run.records}
        self.timers = {(nf, name): due_ms for nf, name, due_ms in run.timers}
        self.replicas: dict[str, asyncio.Future[list[tuple[str, str, bytes]]]] = {}

    def close(self) -> None:
        """The unit is over; whatever still holds it can do nothing with it."""
        self.over = True
        for read in self.replicas.values():
            read.cancel()


class Unit:
    """The current unit of work, as one NF service sees it. Get it with `outrider.sdk.unit()`.

    Values are JSON (anything msgspec encodes: dicts, lists, `msgspec.Struct`, dataclasses). `get` gives a new value
    each time; only `put` changes anything. Reads see the writes before them. No NF service sees another's records.
    """

    __slots__ = ("_frame", "_nf", "_work")

    def __init__(self, work: Work, frame: Frame, nf: str) -> None:
        self._work = work
        self._frame = frame
        self._nf = nf

    def _open(self) -> Work:
        if self._work.over or self._frame.over:
            raise NoUnit("the unit of work is over; a task that outlives its handler cannot use it")
        return self._work

    # ---------------------------------------------------------------------------------------- what is going on

    @property
    def kind(self) -> str:
        """What set it off: `request`, `timer`, `message` or `arrival`."""
        return self._work.run.kind

    @property
    def key(self) -> str:
        """The key that it may change: `ue:…` or `shared:…`. Safe in logs."""
        return self._work.run.key

    @property
    def nf_service(self) -> str:
        """The name of this NF service."""
        return self._nf

    @property
    def now_ms(self) -> int:
        """UTC in milliseconds; stands still during the unit."""
        return self._work.run.now_ms

    @property
    def identity(self) -> str | None:
        """The UE's SUPI or GPSI where this network knows it. Never store or log it."""
        return self._work.run.identity

    @property
    def network(self) -> dict[str, str]:
        """The serving network: `mcc`, `mnc` and, for an SNPN, `nid`."""
        return dict(self._work.run.network)

    @property
    def serving(self) -> Serving:
        """The serving network and this NF service's instance there."""
        network = self.network
        nid = network.pop("nid", None)
        return Serving(network, self._work.run.instances.get(self._nf, ""), nid)

    # ------------------------------------------------------------------------------------------------- records

    @overload
    def get(self, name: str) -> Any: ...
    @overload
    def get(self, name: str, *, type: type[T]) -> T | None: ...
    def get(self, name: str, *, type: Any = Any) -> Any:
        """The value of a record, decoded and checked as `type`; None if there is none."""
        body = self.get_bytes(name)
        return None if body is None else msgspec.json.decode(body, type=type)

    def get_bytes(self, name: str) -> bytes | None:
        """The bytes of a record; None if there is none."""
        work = self._open()
        at = (self._nf, name)
        frame: Frame | None = self._frame
        while frame is not None:
            if at in frame.records:
                return frame.records[at]
            frame = frame.parent
        return work.records.get(at)

    def put(self, name: str, value: object) -> None:
        """Write a record."""
        self.put_bytes(name, _canonical.encode(value))

    def put_bytes(self, name: str, body: bytes) -> None:
        """Write a record that is not JSON."""
        self._open()
        if not name:
            raise ValueError("a record has a name")
        self._frame.records[self._nf, name] = bytes(body)

    def delete(self, name: str) -> None:
        """Delete a record, if it is there."""
        self._open()
        self._frame.records[self._nf, name] = None

    def names(self) -> list[str]:
        """The names of this NF service's records, sorted."""
        work = self._open()
        bodies: dict[tuple[str, str], bytes | None] = dict(work.records)
        for frame in _from_root(self._frame):
            bodies.update(frame.records)
        return sorted(name for (nf, name), body in bodies.items() if nf == self._nf and body is not None)

    # -------------------------------------------------------------------------------------------------- timers

    def arm(self, name: str, *, after_ms: int, data: object = None) -> None:
        """Have the `on_timer` handler of that name run once, `after_ms` from `now_ms`, wherever the UE then is.

        Arming it again replaces it.
        """
        work = self._open()
        if after_ms < 0:
            raise ValueError("a timer fires in the future")
        if not work.calls.handles(self._nf, "timer", name):
            raise LookupError(f"{self._nf} has no on_timer handler {name!r}")
        self._frame.timers[self._nf, name] = int(after_ms), b"" if data is None else _canonical.encode(data)

    def disarm(self, name: str) -> None:
        """Have it not fire, if it is armed."""
        self._open()
        self._frame.timers[self._nf, name] = None, b""

    def armed(self, name: str) -> int | None:
        """When it will fire (UTC, ms); None if it is not armed."""
        work = self._open()
        at = (self._nf, name)
        frame: Frame | None = self._frame
        while frame is not None:
            if at in frame.timers:
                after_ms, _ = frame.timers[at]
                return None if after_ms is None else work.run.now_ms + after_ms
            frame = frame.parent
        return work.timers.get(at)

    # ---------------------------------------------------------------------------------------- outgoing effects

    def send(self, shared: str, name: str, value: object = None, *, nf: str | None = None) -> None:
        """Send message `name` to a shared object, to this NF service or to sibling `nf`.

        It is applied after this unit is durable, exactly once, and in order with this key's other messages to it.
        """
        work = self._open()
        receiver = nf or self._nf
        if not work.calls.handles(receiver, "message", name):
            raise LookupError(f"{receiver} has no on_message handler {name!r}")
        self._frame.sends.append(wire.Send(receiver, name, _canonical.encode(value), shared=shared))

    def notify(self, uri: str, value: object) -> None:
        """POST a JSON notification to a consumer after this unit is durable, in order.

        It arrives at least once; a repetition carries the id of the first.
        """
        self._open()
        if not uri.startswith(("http://", "https://")):
            raise ValueError("a notification goes to an http or https URI")
        self._frame.sends.append(wire.Send(self._nf, "", _canonical.encode(value), uri=uri))

    async def shared(self, name: str) -> Replica:
        """This NF service's replica of a shared object; the same throughout the unit."""
        work = self._open()
        if (records := work.replicas.get(name)) is None:
            records = work.replicas[name] = asyncio.ensure_future(work.calls.read(name))
        # Shielded: another waiter of the same unit may still want it.
        rows = await asyncio.shield(records)
        return Replica({id_: body for nf, id_, body in rows if nf == self._nf})

    async def call(
        self,
        nf: str,
        method: str,
        path: str,
        *,
        json: object = msgspec.UNSET,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
    ) -> Reply:
        """Call the API of sibling `nf` inside this unit; `path` may carry a query.

        The sibling sees its own records only. If it answers 400 or more, or raises (a 500 here), nothing of what it
        did is kept; if this unit fails later, nothing at all is. Calls of one handler run one after the other.
        """
        work = self._open()
        if self._frame.depth >= CALL_DEPTH_LIMIT:
            raise RecursionError(f"{CALL_DEPTH_LIMIT} calls between siblings are open; do they call each other?")
        fields = [(k.lower(), v) for k, v in headers]
        if json is not msgspec.UNSET:
            body = _canonical.encode(json)
            if all(k != "content-type" for k, _ in fields):
                fields.append(("content-type", "application/json"))
        if self._frame.lock is None:
            self._frame.lock = asyncio.Lock()
        async with self._frame.lock:
            self._open()
            frame = Frame(self._frame)
            try:
                reply = await work.calls.sibling(work, frame, nf, method, path, fields, body)
            finally:
                frame.over = True
            if reply.ok and not self._frame.over:
                self._frame.merge(frame)
            return reply


def _from_root(frame: Frame) -> list[Frame]:
    frames = [frame]
    while frame.parent is not None:
        frame = frame.parent
        frames.append(frame)
    return frames[::-1]


def entered(unit: Unit) -> "_Entered":
    """Make it the current unit of this task; for whoever runs handlers."""
    return _Entered(unit)


class _Entered:
    __slots__ = ("_token", "_unit")

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def __enter__(self) -> None:
        self._token = _current.set(self._unit)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def unit() -> Unit:
    """The unit of work that the calling code runs in; `NoUnit` outside one."""
    try:
        current = _current.get()
    except LookupError:
        raise NoUnit("there is no unit of work here; state belongs to a UE or a shared object") from None
    current._open()
    return current
