"""Subscriptions to events of UEs, and the notifications for each, in order."""

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from outrider.core.refusal import Refusal
from outrider.sbi import headers as names
from outrider.sbi.client import SbiClient, Unreachable

SUBSCRIPTIONS = 1_000
"""Subscriptions of one NF; each has a queue and a task."""

QUEUE = 10_000
"""Notifications waiting for one subscriber; beyond, the oldest is dropped, since a stale event is worth least."""

ATTEMPTS = 4
BACKOFF_S = 0.2
"""A subscriber that does not answer is tried so often, with doubled pauses; then the notification is dropped."""

_log = structlog.get_logger(__name__)

Report = dict[str, Any]


def utc_now() -> dt.datetime:
    """Now, with its zone."""
    return dt.datetime.now(dt.UTC)


def date_time(at: dt.datetime) -> str:
    """`DateTime` of TS 29.571 (RFC 3339), in milliseconds."""
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Target:
    """The UEs that a subscription is about: one, a group, or all."""

    supi: str | None = None
    group: str | None = None
    any_ue: bool = False

    def __contains__(self, ue: tuple[str, str | None]) -> bool:
        supi, group = ue
        if self.any_ue:
            return True
        return supi == self.supi if self.supi is not None else group is not None and group == self.group


@dataclass(slots=True)
class Subscription:
    """One subscriber: where notifications go, how they are wrapped, and when they end."""

    id: str
    uri: str
    target: Target
    events: frozenset[str]
    callback: str
    wrap: Callable[[Report], object]
    representation: Any
    left: int | None = None
    """Reports until the subscription has done its work; None for no bound."""
    expiry: dt.datetime | None = None
    only: Callable[[Report], bool] = lambda _: True
    queue: asyncio.Queue[Report] = field(default_factory=lambda: asyncio.Queue(QUEUE))

    def over(self, now: dt.datetime) -> bool:
        """Whether nothing more is to be reported."""
        return self.left == 0 or (self.expiry is not None and now >= self.expiry)


def new_id() -> str:
    """An identifier for a subscription that nobody can guess."""
    return str(uuid.uuid4())


class Subscriptions:
    """The subscriptions of one NF; each has a task that delivers its notifications one after the other."""

    def __init__(self, client: SbiClient, now: Callable[[], dt.datetime] = utc_now) -> None:
        self._client = client
        self._now = now
        self._all: dict[str, Subscription] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.delivered = 0
        self.dropped = 0

    def add(self, subscription: Subscription) -> Refusal | None:
        """Take a subscription; refused if there are too many."""
        if len(self._all) >= SUBSCRIPTIONS:
            return Refusal("INSUFFICIENT_RESOURCES", f"There are {SUBSCRIPTIONS} subscriptions already.", status=500)
        self._all[subscription.id] = subscription
        self._tasks[subscription.id] = asyncio.create_task(self._deliver(subscription))
        return None

    def get(self, id_: str) -> Subscription | None:
        """The subscription, unless it is unknown or over."""
        subscription = self._all.get(id_)
        return None if subscription is None or subscription.over(self._now()) else subscription

    def remove(self, id_: str) -> bool:
        """End a subscription; what waits for it is dropped."""
        subscription = self._all.pop(id_, None)
        if subscription is None:
            return False
        self._tasks.pop(id_).cancel()
        return True

    def publish(self, supi: str, group: str | None, reports: Iterable[tuple[str, Report]]) -> None:
        """Queue the reports of one UE, each with its event, for everybody who subscribed to them."""
        now = self._now()
        known = list(reports)
        for subscription in list(self._all.values()):
            if (supi, group) not in subscription.target:
                continue
            for event, report in known:
                if subscription.over(now):
                    break
                if event in subscription.events and subscription.only(report):
                    self._queue(subscription, report)

    def _queue(self, subscription: Subscription, report: Report) -> None:
        if subscription.left is not None:
            subscription.left -= 1
        if subscription.queue.full():
            subscription.queue.get_nowait()
            self.dropped += 1
        subscription.queue.put_nowait(report)

    async def _deliver(self, subscription: Subscription) -> None:
        while not (subscription.over(self._now()) and subscription.queue.empty()):
            wait_s = None
            if subscription.expiry is not None:
                wait_s = max(0.0, (subscription.expiry - self._now()).total_seconds())
            try:
                async with asyncio.timeout(wait_s):
                    report = await subscription.queue.get()
            except TimeoutError:
                continue
            await self._notify(subscription, subscription.wrap(report))
        self._all.pop(subscription.id, None)
        self._tasks.pop(subscription.id, None)

    async def _notify(self, subscription: Subscription, body: object) -> None:
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(BACKOFF_S * 2 ** (attempt - 1))
            try:
                response = await self._client.request(
                    "POST", subscription.uri, headers=[names.with_callback(subscription.callback)], json=body
                )
            except Unreachable as error:
                why = str(error)
                continue
            if response.status < 300:
                self.delivered += 1
                return
            why = f"it answered {response.status}"
            if response.status < 500 and response.status != 429:
                break
        self.dropped += 1
        _log.warning("event.dropped", subscription=subscription.id, uri=subscription.uri, why=why)

    async def close(self) -> None:
        """End all deliveries."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._all.clear()
        self._tasks.clear()
