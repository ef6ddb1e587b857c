"""The worker protocol: what a keeper and a worker say to each other, in any language.

A worker is started with one connected stream socket, whose descriptor number is in the environment variable
`OUTRIDER_SOCKET`. Each frame is a 4-byte big-endian length and so many bytes of msgpack: one map with a `t` that
names the message. The keeper sends `run`, `value` and `cancel`; the worker sends `hello` once, then `proposal`,
`failure`, `read` and `log`. Units of different keys run at the same time; a unit's messages carry its number.

The worker proposes, the keeper commits: a proposal has no effect until the keeper has made it durable, so a worker
may be killed, hang or lie at any moment and nothing is lost. A worker sees the records of one key at a time.
"""

import struct
from collections.abc import Iterator

import msgspec

PROTOCOL_VERSION = 1
FRAME_LIMIT_BYTES = 4 * 1024 * 1024
"""A longer frame ends the connection: a worker that floods its keeper is stopped, not served."""

_LENGTH = struct.Struct(">I")


class Run(msgspec.Struct, frozen=True, tag="run", tag_field="t"):
    """Run one unit of work for one key.

    `kind` is what set it off: `request` (an HTTP request for NF service `nf`), `timer` (timer `name` of `nf` fired),
    `message` (message `name` to `nf`, its body in `body`, its id in `entry_id`), or `arrival` (the key has just come
    to this network; every NF service's `on_arrival` runs). `records` are (nf, id, body) of all NF services of the
    package, for calls between siblings; each sees only its own. `timers` are (nf, name, due_ms) now armed. `network`
    is the serving network as JSON (`PlmnId` or `PlmnIdNid`), `instances` the NF instance id of each NF service here.
    `identity` is the UE's SUPI or GPSI where this network knows it: never store it. `now_ms` is UTC.
    """

    unit: int
    kind: str
    nf: str
    key: str
    now_ms: int
    records: list[tuple[str, str, bytes]]
    timers: list[tuple[str, str, int]] = []
    identity: str | None = None
    network: dict[str, str] = {}
    instances: dict[str, str] = {}
    method: str = ""
    path: str = ""
    query: str = ""
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    name: str = ""
    entry_id: str = ""


class Value(msgspec.Struct, frozen=True, tag="value", tag_field="t"):
    """Answer to `read`: the records of a shared object as (nf, id, body); a replica, maybe a little old."""

    unit: int
    call: int
    records: list[tuple[str, str, bytes]]


class Cancel(msgspec.Struct, frozen=True, tag="cancel", tag_field="t"):
    """The unit's time is up; what it proposes is not wanted any more.

    The worker answers with `failure` at once, unless its proposal has crossed this. One that is silent is killed.
    """

    unit: int


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="t"):
    """First frame of a worker: the protocol version, the NF services it runs, and what they have handlers for.

    `timers` and `messages` are (nf, name): a proposal that names another could never be carried out.
    """

    version: int
    nf_services: list[str]
    timers: list[tuple[str, str]] = []
    messages: list[tuple[str, str]] = []


class Send(msgspec.Struct, frozen=True):
    """An outgoing effect of a unit, delivered after it is durable, in order, once per id.

    Either a message `name` to NF service `nf` of the shared object `shared`, or a notification POSTed to `uri`.
    """

    nf: str
    name: str
    body: bytes
    shared: str | None = None
    uri: str | None = None


class Proposal(msgspec.Struct, frozen=True, tag="proposal", tag_field="t"):
    """What a unit wants: the response, records to put (nf, id, body) or delete (body None), timers (nf, name, delay_ms
    or None to disarm, data), and effects. All of it becomes durable at once, or none. A `status` of 400 or more goes
    with nothing else."""

    unit: int
    status: int = 200
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    records: list[tuple[str, str, bytes | None]] = []
    timers: list[tuple[str, str, int | None, bytes]] = []
    sends: list[Send] = []


class Failure(msgspec.Struct, frozen=True, tag="failure", tag_field="t"):
    """The handler raised; nothing is proposed."""

    unit: int
    error: str


class Read(msgspec.Struct, frozen=True, tag="read", tag_field="t"):
    """Ask for the replica of shared object `shared`."""

    unit: int
    call: int
    shared: str


class Log(msgspec.Struct, frozen=True, tag="log", tag_field="t"):
    """A line for the service's log."""

    level: str
    text: str


ToWorker = Run | Value | Cancel
ToKeeper = Hello | Proposal | Failure | Read | Log

_encoder = msgspec.msgpack.Encoder()
to_worker = msgspec.msgpack.Decoder(ToWorker)
to_keeper = msgspec.msgpack.Decoder(ToKeeper)


class FrameTooLong(Exception):
    """The other side announced a frame above the limit."""


def frame(message: ToWorker | ToKeeper) -> bytes:
    """One message, ready to write."""
    body = _encoder.encode(message)
    if len(body) > FRAME_LIMIT_BYTES:
        raise FrameTooLong(f"{len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into frames; raises `FrameTooLong` before it would buffer more than one."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes; yields the frames that are complete."""
        self._buffer += data
        at, end = 0, len(self._buffer)
        try:
            while end - at >= 4:
                (length,) = _LENGTH.unpack_from(self._buffer, at)
                if length > FRAME_LIMIT_BYTES:
                    raise FrameTooLong(f"{length} bytes")
                if end - at < 4 + length:
                    return
                at += 4 + length
                yield bytes(memoryview(self._buffer)[at - length : at])
        finally:
            del self._buffer[:at]
