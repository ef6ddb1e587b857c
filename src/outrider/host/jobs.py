"""Jobs: requests, timers and messages on their way to the one place where they may run."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from outrider.protocol.messages import Answer, Carried

SAFE_METHODS = ("GET", "HEAD")
"""Methods that ask for nothing to be changed (RFC 9110 §9.2.1)."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The job was not run here; the key (where it is known) is at (`epoch`, `owner`), as far as this network knows."""

    key: bytes | None
    epoch: int
    owner: str
    cause: str


class Job(msgspec.Struct, eq=False):
    """One unit of work to be. `reply` gets the answer exactly once; `deadline_s` is in loop time.

    `seen_epoch` is the highest epoch of the key that anybody told this job of; `hops` counts how often it was re-aimed.
    `sent` says that it may have run elsewhere: from then on only an answer, or 504, is honest.
    """

    carried: Carried
    deadline_s: float
    reply: "asyncio.Future[Answer | Elsewhere]"
    arrived_s: float
    identity: str | None = None
    creates: bool = False
    keep_answer: bool = False
    origin: str | None = None
    """The network that forwarded it; None for this network's own."""
    sender: bytes | None = None
    """Key whose outbox a message comes from."""
    seen_epoch: int = 0
    hops: int = 0
    sent: bool = False
    waited: Literal["", "held", "arrival"] = ""
    timer_id: str | None = None
    writes: bool = False
    """It changes something, whatever its method says."""

    @property
    def reads(self) -> bool:
        """It changes nothing, so it may run beside other things of its key."""
        return self.carried.kind == "request" and self.carried.method in SAFE_METHODS and not self.writes

    @property
    def stays(self) -> bool:
        """It belongs to this host as owner (a timer, an arrival): it is dropped, not forwarded, when the key goes."""
        return self.carried.kind in ("timer", "arrival")


@dataclass(slots=True)
class Waits:
    """Waits that a migration added to requests, in milliseconds, by cause; the last `KEEP` of each."""

    held: deque[float] = field(default_factory=lambda: deque(maxlen=Waits.KEEP))
    arrival: deque[float] = field(default_factory=lambda: deque(maxlen=Waits.KEEP))
    counts: dict[str, int] = field(default_factory=lambda: {"held": 0, "arrival": 0})

    KEEP = 100_000

    def note(self, cause: Literal["held", "arrival"], wait_ms: float) -> None:
        """Add one wait."""
        getattr(self, cause).append(wait_ms)
        self.counts[cause] += 1

    def summary(self) -> dict[str, dict[str, float]]:
        """p50, p99, max and count of each cause."""
        out = {}
        for cause in ("held", "arrival"):
            values = sorted(getattr(self, cause))
            n = len(values)
            out[cause] = {
                "p50": round(values[n // 2], 3) if n else 0.0,
                "p99": round(values[min(n - 1, n * 99 // 100)], 3) if n else 0.0,
                "max": round(values[-1], 3) if n else 0.0,
                "count": self.counts[cause],
            }
        return out
