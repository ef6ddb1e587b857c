"""What a run leaves behind for the checker: one JSON object per line, written by those who saw it happen.

The clients write what they sent and what they were told, the notification sink what it was sent. Times are seconds of
the machine's monotonic clock, which all processes of one machine share; `Clock` relates it to UTC. Nothing here comes
from a keeper.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec


class Clock(msgspec.Struct, frozen=True, tag="clock", tag_field="kind", rename="camel"):
    """First line of a file: the same instant on the monotonic clock and in UTC."""

    monotonic_s: float
    utc_ms: int

    @classmethod
    def now(cls) -> Self:
        """The clocks as they stand."""
        return cls(time.monotonic(), time.time_ns() // 1_000_000)


class Attempt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One try of a request. No `status`: nothing was answered; `not_sent`: and it certainly had no effect."""

    sent: float
    ended: float
    network: str
    status: int | None = None
    not_sent: bool = False


Outcome = Literal["ok", "refused", "failed", "unknown"]
"""`ok`: a 2xx. `refused`: a 4xx, no effect. `failed`: given up, not applied. `unknown`: given up, perhaps applied."""


class Transaction(msgspec.Struct, frozen=True, tag="transaction", tag_field="kind", rename="camel", omit_defaults=True):
    """One transaction of one UE, over all its tries with one idempotency key.

    `network` is where the UE was at the first try, `served_by` the network that the answer names.
    """

    ue: str
    seq: int
    idem: str
    network: str
    scheduled: float
    sent: float
    ended: float
    outcome: Outcome
    attempts: list[Attempt]
    status: int | None = None
    count: int | None = None
    last_seq: int | None = None
    previous_seq: int | None = None
    chained: bool = False
    """The answer says what was applied before (`previous_seq`, which is None for the first)."""
    served_by: str | None = None
    cause: str = ""


class Opened(msgspec.Struct, frozen=True, tag="opened", tag_field="kind", rename="camel", omit_defaults=True):
    """A UE's session was opened, or could not be."""

    ue: str
    group: str
    network: str
    sent: float
    ended: float
    outcome: Outcome
    status: int | None = None
    cause: str = ""


class Subscribed(msgspec.Struct, frozen=True, tag="subscribed", tag_field="kind", rename="camel", omit_defaults=True):
    """A subscription to a group's presence stands since `ended`."""

    group: str
    subscription: str
    sent: float
    ended: float


class Arrived(msgspec.Struct, frozen=True, tag="arrived", tag_field="kind", rename="camel", omit_defaults=True):
    """A UE came to a network: `due` by the track, `registered` when the basic part had it."""

    ue: str
    network: str
    due: float
    registered: float | None = None


class Basic(msgspec.Struct, frozen=True, tag="basic", tag_field="kind", rename="camel", omit_defaults=True):
    """One request to a network's basic part."""

    ue: str
    operation: str
    network: str
    scheduled: float
    sent: float
    ended: float
    status: int | None = None


class Discovered(msgspec.Struct, frozen=True, tag="discovered", tag_field="kind", rename="camel", omit_defaults=True):
    """How many instances of the service a network's NRF named."""

    network: str
    at: float
    instances: int


class Firing(msgspec.Struct, frozen=True, rename="camel"):
    """One firing of a UE's renewal timer, as its policy lists it."""

    sequence: int
    due_ms: int
    fired_ms: int


class FinalSession(msgspec.Struct, frozen=True, rename="camel"):
    """A UE's session at the end; `recent_seqs` are the last transactions applied, oldest first."""

    count: int
    last_seq: int | None
    served_by: str
    recent_seqs: list[int] = []


class FinalPolicy(msgspec.Struct, frozen=True, rename="camel"):
    """A UE's policy at the end: how its renewals went."""

    validity_ms: int
    created_ms: int
    renewals: int
    now_ms: int
    firings: list[Firing]


class FinalPresence(msgspec.Struct, frozen=True, rename="camel"):
    """A UE's presence at the end: under which name, and how much, it told its group."""

    member: str
    group: str
    events: int


class Final(msgspec.Struct, frozen=True, tag="final", tag_field="kind", rename="camel", omit_defaults=True):
    """What was read of a UE when everything was over; what could not be read is None."""

    ue: str
    sent: float
    ended: float
    session: FinalSession | None = None
    policy: FinalPolicy | None = None
    presence: FinalPresence | None = None


class Notified(msgspec.Struct, frozen=True, tag="notified", tag_field="kind", rename="camel", omit_defaults=True):
    """A notification reached the sink, which answered `status`; `id` is its idempotency key."""

    at: float
    id: str
    subscription: str
    group: str
    member: str
    number: int
    status: int
    event: str = ""


Line = Clock | Transaction | Opened | Subscribed | Arrived | Basic | Discovered | Final | Notified

_line = msgspec.json.Decoder(Line)


class HistoryError(Exception):
    """A history file cannot be read: says which line, and why."""


class Writer:
    """Appends lines to a history file; a line is in the file when `write` returns, whatever happens to the process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._encoder = msgspec.json.Encoder()
        self.write(Clock.now())

    def write(self, line: Line) -> None:
        """Append one line."""
        os.write(self._fd, self._encoder.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read(paths: Iterable[Path]) -> Iterator[Line]:
    """The lines of history files. A last line that was cut short (its writer was killed) is left out."""
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    yield _line.decode(line)
                except msgspec.DecodeError as e:
                    raise HistoryError(f"{path}:{number}: {e}") from None


def network_of(served_by: Any) -> str:
    """The network that an answer's `servedBy` names, as `MCC-MNC[-NID]`."""
    plmn = served_by["plmnId"]
    return "-".join(filter(None, (plmn["mcc"], plmn["mnc"], served_by.get("nid"))))
