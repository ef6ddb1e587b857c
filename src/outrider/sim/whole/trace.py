"""The story of a run: what happened, when and where, in sentences; and one hash over all of it.

Two runs with the same hash did the same, down to the bytes of every frame between the networks.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import structlog

from outrider.sim.whole.loop import BEGIN_S, PROCESS

_DULL = frozenset({"event", "exc_info"})


class Event(NamedTuple):
    """Something that happened; `where` is a network, a consumer, or the world."""

    at_s: float
    where: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.at_s:9.4f} s  {self.where:<10} {self.sentence}"


class Violation(NamedTuple):
    """Something happened that must not: the invariant, and what of it."""

    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


class Trace:
    """Collects the events of one world, and what was wrong."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.violations: list[Violation] = []
        self._hash = hashlib.blake2b(digest_size=16)
        self.violated = asyncio.Event()
        self.excused: set[str] = set()
        """Nodes whose disk was full at some time: what they could not do then is a fault of that disk."""

    @property
    def hash(self) -> str:
        """Of everything so far."""
        return self._hash.hexdigest()

    def say(self, where: str, sentence: str) -> None:
        """Something happened."""
        event = Event(asyncio.get_running_loop().time() - BEGIN_S, where, sentence)
        self.events.append(event)
        self._hash.update(repr(event).encode())

    def frame(self, sender: str, receiver: str, body: bytes) -> None:
        """A frame has left; it counts in the hash and is not told."""
        self._hash.update(repr((asyncio.get_running_loop().time(), sender, receiver)).encode() + body)

    def violation(self, rule: str, sentence: str) -> None:
        """Something happened that must not."""
        self.say("CHECK", f"{rule}: {sentence}")
        self.violations.append(Violation(rule, sentence))
        self.violated.set()

    # ----------------------------------------------------------------------------- what the hosts log

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What production code logs is part of the story while this runs."""
        before = structlog.get_config()
        structlog.configure(processors=[self._heard])
        try:
            yield
        finally:
            structlog.configure(**before)

    def _heard(self, _logger: Any, level: str, event: Any) -> NoReturn:
        said = ", ".join(f"{name} {value}" for name, value in event.items() if name not in _DULL)
        process = PROCESS.get().partition("#")[0]
        self.say(process or "world", f"{event['event']}: {said}" if said else str(event["event"]))
        if event["event"] in ("ownership.alarm", "partition.rows-disagree"):
            self.violation("alarm", f"{process}: {event['event']}: {said}")
        fault = event.get("exc_info") or event["event"] == "handler failed"
        if process.endswith("/node") and fault and process not in self.excused:
            self.violation("fault", f"{process}: {event['event']}: {said} {event.get('exc_info')!r}")
        raise structlog.DropEvent
