"""Fail-points: named places where a test makes this process die or stop, with proof that it did.

A test sets `OUTRIDER_FAILPOINT=NAME:ACTION[:COUNT]` and `OUTRIDER_FAILPOINT_REPORT=FILE`. When the place is reached
for the COUNT-th time, a line is appended to the file and synced, and then the action happens: `kill` (SIGKILL to
itself), `stop` (SIGSTOP to itself) or `error` (an exception). Without the variable a fail-point costs one comparison.

Where processes run for long and are restarted, a test sets `OUTRIDER_FAILPOINT_ORDER=FILE` instead, and writes
`NAME:ACTION:COUNT` into the file whenever it likes. The order is obeyed once: the file is gone when it has fired. The
node's environment is that of its keepers, so these variables reach them.
"""

import os
import signal
from contextlib import suppress

_NAME, _ACTION, _COUNT = [*os.environ.get("OUTRIDER_FAILPOINT", "::").split(":"), "1", "1"][:3]
_REPORT = os.environ.get("OUTRIDER_FAILPOINT_REPORT")
_ORDER = os.environ.get("OUTRIDER_FAILPOINT_ORDER")
_seen = 0
_ordered = ("", 0)
"""The order that is being counted, and how often its place was reached."""

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
    if _ORDER is not None:
        _obey(place, _ORDER)
    if place != _NAME:
        return
    _seen += 1
    if _seen == int(_COUNT or "1"):
        _fire(place, _ACTION)


def _obey(place: str, file: str) -> None:
    """Do what the order in the file says, if it is for this place and this is the time."""
    global _ordered
    with suppress(FileNotFoundError), open(file, encoding="utf-8") as order:
        text = order.read().strip()
        name, action, count = [*text.split(":"), "1", "1"][:3]
        if name != place:
            return
        _ordered = (text, _ordered[1] + 1 if _ordered[0] == text else 1)
        if _ordered[1] == int(count):
            os.unlink(file)
            _ordered = ("", 0)
            _fire(place, action)


def _fire(place: str, action: str) -> None:
    if _REPORT:
        with open(_REPORT, "a", encoding="utf-8") as report:
            report.write(f"{place}:{action}:{os.getpid()}\n")
            report.flush()
            os.fsync(report.fileno())
    if action == "error":
        raise FailPoint(place)
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
