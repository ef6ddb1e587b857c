"""How much one partner may ask of this network: requests per second, and requests and bytes at a time."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from outrider.core import limits
from outrider.core.refusal import Refusal


@dataclass(slots=True)
class Meter:
    """A token bucket of one second for control requests, and a count of what is open; one per partner."""

    requests_per_s: int = limits.PARTNER_REQUESTS_PER_S
    in_flight_limit: int = limits.PARTNER_IN_FLIGHT
    in_flight_bytes_limit: int = limits.PARTNER_IN_FLIGHT_BYTES
    now_s: Callable[[], float] = time.monotonic
    in_flight: int = 0
    in_flight_bytes: int = 0
    passed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _tokens: float = 0.0
    _at_s: float | None = None

    def enter(self, size: int, *, paced: bool) -> Refusal | None:
        """Take a place for a request of this size, to be given back by `leave`; a refusal takes none."""
        if self.in_flight >= self.in_flight_limit or self.in_flight_bytes + size > self.in_flight_bytes_limit:
            return Refusal(
                "NF_CONGESTION_RISK",
                f"The partner has {self.in_flight} requests with {self.in_flight_bytes} bytes open here already.",
                remedy="Wait for answers before sending more.",
                status=429,
            )
        if not paced and not self._take():
            return Refusal(
                "NF_CONGESTION_RISK",
                f"The partner sends more than {self.requests_per_s} requests per second.",
                remedy="Send again after a second.",
                status=429,
            )
        self.in_flight += 1
        self.in_flight_bytes += size
        self.passed += 1
        self.bytes_in += size
        return None

    def leave(self, size: int, answered: int) -> None:
        """Give the place back; `answered` is the size of the answer."""
        self.in_flight -= 1
        self.in_flight_bytes -= size
        self.bytes_out += answered

    def _take(self) -> bool:
        now = self.now_s()
        past = now - self._at_s if self._at_s is not None else 1.0
        self._tokens = min(float(self.requests_per_s), self._tokens + past * self.requests_per_s)
        self._at_s = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
