"""Clocks: the real one, the timestamp header of TS 29.500, and how far the partner's clock is from ours.

Timers of a UE are due at an absolute time, so two networks whose clocks differ fire them visibly early or late
(PROTOCOL.md §5). Nothing about ownership depends on a clock.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Iterable
from typing import NamedTuple

from outrider.core import limits
from outrider.core.refusal import Refusal

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """UTC, milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def format_timestamp(at_ms: int) -> str:
    """`3gpp-Sbi-Sender-Timestamp` (TS 29.500 §5.2.3.2.3): an HTTP date with milliseconds, in no local language."""
    at = dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC)
    day = f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year}"
    return f"{day} {at:%H:%M:%S}.{at_ms % 1000:03} GMT"


def parse_timestamp(text: str) -> int | None:
    """The inverse, in milliseconds; None if it is none."""
    try:
        day, month, year, clock, zone = text.split(", ", 1)[1].split(" ")
        time_of_day, _, fraction = clock.partition(".")
        hour, minute, second = (int(part) for part in time_of_day.split(":"))
        at = dt.datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=dt.UTC)
        if zone != "GMT":
            return None
        return int(at.timestamp()) * 1000 + (int(fraction[:3].ljust(3, "0")) if fraction else 0)
    except (ValueError, IndexError, TypeError):
        return None


class Sample(NamedTuple):
    """One exchange: sent and received by our clock, answered by theirs."""

    sent_ms: int
    theirs_ms: int
    received_ms: int

    @property
    def rtt_ms(self) -> int:
        """Round trip."""
        return max(0, self.received_ms - self.sent_ms)

    @property
    def skew_ms(self) -> int:
        """Their clock minus ours, supposing that both ways take as long; wrong by half the round trip at most."""
        return self.theirs_ms - (self.sent_ms + self.received_ms) // 2


def judge_skew(samples: Iterable[Sample], partner: str) -> int | Refusal:
    """The skew by the quickest exchange, or a refusal if it is certainly above the bound."""
    best = min(samples, key=lambda s: s.rtt_ms, default=None)
    if best is None:
        return Refusal(
            "CLOCK_UNKNOWN",
            f"{partner} does not say what time it has, so timers could fire early or late.",
            remedy=f"{partner} sends 3gpp-Sbi-Sender-Timestamp in its answers.",
        )
    if abs(best.skew_ms) - best.rtt_ms // 2 > limits.CLOCK_SKEW_LIMIT_MS:
        return Refusal(
            "CLOCK_SKEW",
            f"The clocks of the two networks differ by {abs(best.skew_ms)} ms; timers would fire visibly "
            f"{'early' if best.skew_ms > 0 else 'late'}.",
            {"skewMs": str(best.skew_ms), "rttMs": str(best.rtt_ms), "limitMs": str(limits.CLOCK_SKEW_LIMIT_MS)},
            "Set both clocks by NTP or PTP.",
        )
    return best.skew_ms
