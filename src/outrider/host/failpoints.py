"""Fail-points: named places where a test makes this process die or stop, with proof that it did.

A test sets `OUTRIDER_FAILPOINT=NAME:ACTION[:COUNT]` and `OUTRIDER_FAILPOINT_REPORT=FILE`. When the place is reached
for the COUNT-th time, a line is appended to the file and synced, and then the action happens: `kill` (SIGKILL to
itself), `stop` (SIGSTOP to itself) or `error` (an exception). Without the variable a fail-point costs one comparison.
"""

import os
import signal

_NAME, _ACTION, _COUNT = [*os.environ.get("OUTRIDER_FAILPOINT", "::").split(":"), "1", "1"][:3]
_REPORT = os.environ.get("OUTRIDER_FAILPOINT_REPORT")
_seen = 0

PLACES = (
    "hold",
    "grant-before-commit",
    "grant-durable",
    "grant-sent",
    "accept-before-commit",
    "accept-durable",
    "accepted-sent",
    "settled",
    "unit-before-commit",
    "unit-durable",
    "chunk-sent",
    "chunk-loaded",
    "staging-adopted",
    "timer-fired",
    "notification-sent",
)
"""Every fail-point of a keeper; a test proves that each can fire."""


class FailPoint(Exception):
    """Raised by the action `error`."""


def reach(place: str) -> None:
    """Pass the place; do what the test asked for there."""
    global _seen
    if place != _NAME:
        return
    _seen += 1
    if _seen != int(_COUNT or "1"):
        return
    if _REPORT:
        with open(_REPORT, "a", encoding="utf-8") as report:
            report.write(f"{place}:{_ACTION}:{os.getpid()}\n")
            report.flush()
            os.fsync(report.fileno())
    if _ACTION == "error":
        raise FailPoint(place)
    os.kill(os.getpid(), signal.SIGKILL if _ACTION == "kill" else signal.SIGSTOP)
