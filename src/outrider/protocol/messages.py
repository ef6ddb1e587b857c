"""What two networks' hosts say to each other about keys (PROTOCOL.md §2), as typed msgpack.

Lane messages travel in numbered order in each direction, replays allowed; bulk frames travel beside them, with content
that only the store's bulk work opens. Everything here comes from a peer, so it is hostile until it has been decoded:
sizes first, then these types, then meaning.
"""

from typing import Literal

import msgspec

from outrider.core.record import Head, LogEntry, Record


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """An HTTP request on its way to the owner: what its handler sees, and the key of its one true answer."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    answer_id: str
    consumer: str
    """NF instance id of the original consumer, from its verified token."""
    kind: str = "request"
    name: str = ""
    nf: str = ""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """An HTTP response on its way back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Want(msgspec.Struct, frozen=True, tag="want", tag_field="t"):
    """The UE has arrived here: give me its key. By `key`, or by `identity` where the key is not known yet."""

    mig: str
    key: bytes | None
    identity: str | None
    evidence: dict[str, str]
    request_id: int = 0
    """Where the WANT carries the request that triggered it: a `Forward` with this id follows at once."""


class Grant(msgspec.Struct, frozen=True, tag="grant", tag_field="t"):
    """The key is yours at epoch `x`. `body`: `full` (records), `delta` (entries) or `same`.

    For `*p`, `head` carries Σ of the digests and `excepted` the UEs that do not move. `identity` tells the target who
    the UE is, now that it is there. `held` are the requests that the giver queued while it held the key.
    """

    mig: str
    key: bytes
    x: int
    to_store: str
    head: Head
    body: Literal["full", "delta", "same"]
    records: list[Record] = []
    entries: list[LogEntry] = []
    held: list[tuple[int, Carried, int]] = []
    """(fwd_id, request, remaining_ms)"""
    excepted: list[bytes] = []
    identity: str | None = None


class Need(msgspec.Struct, frozen=True, tag="need", tag_field="t"):
    """The grant's body does not fit my copy: send it whole."""

    key: bytes
    x: int


class Accepted(msgspec.Struct, frozen=True, tag="accepted", tag_field="t"):
    """I have taken epoch `x`, durably; the key is now at (`epoch`, `owner`), as far as I know."""

    key: bytes
    x: int
    epoch: int
    owner: str


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="t"):
    """I have refused epoch `x`, durably and for ever."""

    key: bytes
    x: int
    cause: str


class Recall(msgspec.Struct, frozen=True, tag="recall", tag_field="t"):
    """Refuse epoch `x` if you have not accepted it.

    For `*p`, `excepted` are the UEs that the grant did not speak of, as in `Grant`: who refuses without having seen the
    grant must not let the refused epoch become theirs (`partition.set_apart`). `to_store` is the grant's.
    """

    mig: str
    key: bytes
    x: int
    to_store: str = ""
    excepted: list[bytes] = []


class NotOwner(msgspec.Struct, frozen=True, tag="not_owner", tag_field="t"):
    """The key is not mine to give or serve: it is at (`epoch`, `owner`). Answers WANT and FORWARD."""

    key: bytes | None
    epoch: int
    owner: str
    cause: str = ""
    fwd_id: int = 0
    identity: str | None = None


class Forward(msgspec.Struct, frozen=True, tag="forward", tag_field="t"):
    """Run this request for the key's UE, and answer with `fwd_id`. By `identity` where the key is not known here."""

    fwd_id: int
    key: bytes | None
    identity: str | None
    seen_epoch: int
    remaining_ms: int
    request: Carried


class Answered(msgspec.Struct, frozen=True, tag="answered", tag_field="t"):
    """The answer to a forward or a held request; `epoch` is the owner's (a proof that it owns), 0 if not executed."""

    fwd_id: int
    key: bytes | None
    epoch: int
    response: Answer


class Void(msgspec.Struct, frozen=True, tag="void", tag_field="t"):
    """Nothing: what had this number was taken back before it had ever left, or only the answer to it is wanted."""


class Shadow(msgspec.Struct, frozen=True, tag="shadow", tag_field="t"):
    """The owner's log for home's shadow: entries up to `lsn`."""

    lsn: int
    entries: list[LogEntry]


class ShadowAck(msgspec.Struct, frozen=True, tag="shadow_ack", tag_field="t"):
    """Home has everything up to `lsn` durably, but needs these keys whole."""

    lsn: int
    need: list[bytes] = []


class ShadowFull(msgspec.Struct, frozen=True, tag="shadow_full", tag_field="t"):
    """A whole context for home's shadow."""

    key: bytes
    head: Head
    records: list[Record]


LaneMessage = (
    Want
    | Grant
    | Need
    | Accepted
    | Refused
    | Recall
    | NotOwner
    | Forward
    | Answered
    | Void
    | Shadow
    | ShadowAck
    | ShadowFull
)

PATIENT = (Forward, Answered, Shadow, ShadowAck)
"""Messages that come in numbers, and that no change of owner waits for."""


class LaneBatch(msgspec.Struct, frozen=True, array_like=True):
    """One POST to a peer's lane: who speaks (store, incarnation), to which store, messages numbered from `first`.

    A new incarnation starts its numbering anew. `hello` fields let the receiver see a lost or rolled-back store (§9).
    """

    store_id: str
    incarnation: int
    to_store: str | None
    durable_lsn: int
    base: int
    """The lowest number that the sender does not know to be taken: where a restarted receiver begins."""
    first: int
    messages: list[LaneMessage]


class LaneAck(msgspec.Struct, frozen=True, array_like=True):
    """Answer to a lane POST: the receiver's store, and the number up to which it has taken the lane."""

    store_id: str
    incarnation: int
    through: int
    need: list[tuple[bytes, bytes]] = []
    """Bulk lane: ranges whose copy does not agree with a `Mark`, to be sent again."""


class Chunk(msgspec.Struct, frozen=True, tag="chunk", tag_field="t"):
    """Whole UEs of a range as of `read_lsn`: replaces the range. `content` is compressed (`store.packed`)."""

    mig: str
    gen: int
    start: bytes
    stop: bytes
    read_lsn: int
    content: bytes


class Log(msgspec.Struct, frozen=True, tag="log", tag_field="t"):
    """Log entries for UEs already sent, up to `lsn`; `content` is compressed, and empty if there are none."""

    mig: str
    gen: int
    lsn: int
    content: bytes


class Mark(msgspec.Struct, frozen=True, tag="mark", tag_field="t"):
    """Compare: at this place in the stream the range holds, but for `without`, so many UEs with this Σdigest."""

    mig: str
    gen: int
    start: bytes
    stop: bytes
    ues: int
    digest: bytes
    without: list[bytes]


class Seal(msgspec.Struct, frozen=True, tag="seal", tag_field="t"):
    """The prefetch is complete: make it durable. Acknowledged only when it is."""

    mig: str
    gen: int


BulkMessage = Chunk | Log | Mark | Seal


class BulkBatch(msgspec.Struct, frozen=True, array_like=True):
    """As `LaneBatch`, for the bulk lane; not compressed, since what is large in it is."""

    store_id: str
    incarnation: int
    to_store: str | None
    durable_lsn: int
    base: int
    first: int
    messages: list[BulkMessage]


lane_batch = msgspec.msgpack.Decoder(LaneBatch)
bulk_batch = msgspec.msgpack.Decoder(BulkBatch)
lane_ack = msgspec.msgpack.Decoder(LaneAck)
encode = msgspec.msgpack.Encoder().encode
