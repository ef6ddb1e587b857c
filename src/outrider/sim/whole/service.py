"""The service that simulated UEs use, and the worker that runs it: a book of operations, timers, messages, notes.

Each operation writes its own name into the UE's book, in the commit of its unit, and its answer tells how long the
book was then. So where an operation stands in the order of all that happened to its UE is known from its answer, and
at the end from the book itself.
"""

import asyncio
from random import Random
from typing import Any, Literal

import msgspec

from outrider.core.manifest import KeyRule, Manifest, NfServiceSpec
from outrider.host.workers import WorkerFault
from outrider.sdk import wire

NF = "nsmf-sim"
ROOT = f"/{NF}/v1/ues"
GROUP = "group:g"
SINK = "http://sink"
_DELAYS_MS = (1, 3, 5, 8, 13, 30, 100, 300, 700, 1_500)
BALLAST_BYTES = 20_000
"""A context with it is too large to ride whole in a grant."""

MANIFEST = Manifest(
    service="sim",
    version="1",
    vendor="simulation",
    nf_services=[
        NfServiceSpec(
            name=NF,
            nf_type="SMF",
            app="sim:app",
            keys=[
                KeyRule(path=ROOT, at="body:/supi", methods=["POST"], creates=True),
                KeyRule(path=ROOT + "/{supi}{/rest*}", at="path:supi"),
            ],
        )
    ],
)

Kind = Literal["create", "add", "put", "tell", "note", "arm", "read"]


class Order(msgspec.Struct, frozen=True):
    """Body of a request: the operation's number at its UE and what it does."""

    supi: str
    seq: int
    kind: Kind
    value: int = 0
    heavy: bool = False


class Said(msgspec.Struct, frozen=True):
    """Body of an answer: how many operations the book had then, the register, and which operation came before."""

    n: int
    register: int
    previous: int | None = None


class Ticks(msgspec.Struct, frozen=True):
    """A UE's timer: how often it was armed while none was, by what last, and which firings were committed.

    `wrong` are firings of another arming than the last one.
    """

    armed: int = 0
    again: int = 0
    by: str = ""
    fired: list[str] = []
    wrong: list[str] = []


class Sent(msgspec.Struct, frozen=True):
    """Body of a message or notification: the number that it has among those of its UE, and what it is of."""

    ue: str
    seq: int
    by: str


class Heard(msgspec.Struct, frozen=True):
    """What the group has of one member: how many messages, and which did not follow the one before."""

    count: int = 0
    wrong: list[int] = []


class Book(msgspec.Struct, frozen=True):
    """All that a UE's context says, decoded."""

    seqs: list[int]
    register: int
    told: int
    noted: int
    ticks: Ticks


def read_book(records: list[tuple[str, str, bytes]]) -> Book:
    """A context's records as what they mean."""
    found = {name: body for _, name, body in records}
    return Book(
        msgspec.json.decode(found.get("book", b"[]"), type=list[int]),
        int(found.get("register", b"0")),
        int(found.get("told", b"0")),
        int(found.get("noted", b"0")),
        msgspec.json.decode(found.get("ticks", b"{}"), type=Ticks),
    )


def read_group(records: list[tuple[str, str, bytes]]) -> dict[str, Heard]:
    """What the group has heard, by member."""
    return {name: msgspec.json.decode(body, type=Heard) for _, name, body in records}


class VirtualWorker:
    """Stands where `host.workers.Worker` stands; may be slow, hang, or be dead."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.hangs = False
        self.dead = False

    async def run(self, run: wire.Run, *, limit_ms: float, read_shared: Any) -> wire.Proposal | WorkerFault:
        """Propose what the service does, after a while."""
        if self.dead:
            return WorkerFault("WORKER_DIED", "The worker is being started again.")
        takes_ms = self._chance.expovariate(1.0) * (200 if self._chance.random() < 0.02 else 1)
        if self.hangs or takes_ms > limit_ms:
            await asyncio.sleep(limit_ms / 1000)
            return WorkerFault("UNIT_TIMEOUT", "The unit took too long")
        await asyncio.sleep(takes_ms / 1000)
        if self.dead:
            return WorkerFault("WORKER_DIED", "The worker ended during the unit")
        return propose(run)

    def status(self) -> dict[str, bool]:
        """Whether there is one."""
        return {"alive": not self.dead}


def propose(run: wire.Run) -> wire.Proposal:
    """What the service makes of one unit."""
    match run.kind:
        case "arrival":
            return wire.Proposal(run.unit, records=[(NF, "place", msgspec.json.encode(run.network))])
        case "timer":
            return _fired(run)
        case "message":
            return _heard(run)
        case _:
            return _served(run)


def _served(run: wire.Run) -> wire.Proposal:
    book = read_book(run.records)
    if run.method == "GET":
        return wire.Proposal(run.unit, body=msgspec.json.encode(Said(len(book.seqs), book.register, _last(book))))
    order = msgspec.json.decode(run.body, type=Order)
    records: list[tuple[str, str, bytes | None]] = [(NF, "book", msgspec.json.encode([*book.seqs, order.seq]))]
    sends: list[wire.Send] = []
    timers: list[tuple[str, str, int | None, bytes]] = []
    register = book.register
    if order.heavy:
        records.append((NF, "ballast", bytes(BALLAST_BYTES)))
    match order.kind:
        case "put":
            register = order.value
            records.append((NF, "register", str(register).encode()))
        case "tell":
            records.append((NF, "told", str(book.told + 1).encode()))
            sends.append(wire.Send(NF, "heard", _sent(run, book.told + 1, str(order.seq)), shared=GROUP))
        case "note":
            records.append((NF, "noted", str(book.noted + 1).encode()))
            sends.append(wire.Send(NF, "noted", _sent(run, book.noted + 1, str(order.seq)), uri=f"{SINK}/notes"))
        case "arm":
            pending = any(name == "tick" for _, name, _ in run.timers)
            ticks = msgspec.structs.replace(
                book.ticks, armed=book.ticks.armed + (not pending), again=order.value % 3, by=str(order.seq)
            )
            records.append((NF, "ticks", msgspec.json.encode(ticks)))
            timers.append((NF, "tick", _DELAYS_MS[order.value % len(_DELAYS_MS)], ticks.by.encode()))
    said = Said(len(book.seqs) + 1, register, _last(book))
    return wire.Proposal(run.unit, body=msgspec.json.encode(said), records=records, sends=sends, timers=timers)


def _last(book: Book) -> int | None:
    return book.seqs[-1] if book.seqs else None


def _sent(run: wire.Run, seq: int, by: str) -> bytes:
    return msgspec.json.encode(Sent(run.key, seq, by))


def _fired(run: wire.Run) -> wire.Proposal:
    """A firing: written down, told to the sink, and the timer armed again while it is to be."""
    book = read_book(run.records)
    ticks = book.ticks
    again = ticks.again > 0
    right = run.body.decode() == ticks.by
    after = Ticks(
        ticks.armed + again,
        max(0, ticks.again - 1),
        f"{ticks.by}+" if again else ticks.by,
        [*ticks.fired, run.entry_id],
        ticks.wrong if right else [*ticks.wrong, run.entry_id],
    )
    return wire.Proposal(
        run.unit,
        records=[
            (NF, "ticks", msgspec.json.encode(after)),
            (NF, "noted", str(book.noted + 1).encode()),
        ],
        timers=[(NF, "tick", 300, after.by.encode())] if again else [],
        sends=[wire.Send(NF, "noted", _sent(run, book.noted + 1, run.entry_id), uri=f"{SINK}/notes")],
    )


def _heard(run: wire.Run) -> wire.Proposal:
    sent = msgspec.json.decode(run.body, type=Sent)
    records = {name: body for _, name, body in run.records}
    before = msgspec.json.decode(records.get(sent.ue, b"{}"), type=Heard)
    wrong = [*before.wrong, sent.seq] if sent.seq != before.count + 1 else before.wrong
    heard = msgspec.json.encode(Heard(before.count + 1, wrong))
    return wire.Proposal(run.unit, status=204, records=[(NF, sent.ue, heard)])
