"""Delivers notifications: in order per subscription, off the request path, with a bounded number of attempts."""

import asyncio
from collections import deque
from typing import Any

import structlog

from outrider.sbi import headers
from outrider.sbi.client import SbiClient, Unreachable

RETRY_AFTER_S = (0.2, 1.0, 3.0)
"""Pauses before further attempts; then the notification is dropped: the subscriber learns from its next discovery."""

QUEUE = 256
"""Notifications that wait for one subscriber; the oldest is dropped for the next, because later ones say more."""

CALLBACK_LIMIT_S = 2.0
"""How long a subscriber may take to answer."""

CALLBACK_KIND = "Nnrf_NFManagement_NFStatusNotify"

_log = structlog.get_logger(__name__)


class Notifier:
    """One queue and one delivering task per subscription that has something to be told."""

    def __init__(self, client: SbiClient) -> None:
        self._client = client
        self._queues: dict[str, deque[tuple[str, dict[str, Any]]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def push(self, subscription_id: str, uri: str, notification: dict[str, Any]) -> None:
        """Tell a subscriber, later."""
        queue = self._queues.setdefault(subscription_id, deque(maxlen=QUEUE))
        queue.append((uri, notification))
        if subscription_id not in self._tasks:
            self._tasks[subscription_id] = asyncio.create_task(self._deliver(subscription_id, queue))

    def forget(self, subscription_id: str) -> None:
        """The subscription has ended: tell it nothing more."""
        queue = self._queues.get(subscription_id)
        if queue is not None:
            queue.clear()

    async def close(self) -> None:
        """Drop what is not delivered."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, subscription_id: str, queue: deque[tuple[str, dict[str, Any]]]) -> None:
        try:
            while queue:
                uri, notification = queue.popleft()
                if not await self._told(uri, notification):
                    _log.warning("notification dropped", subscription=subscription_id, uri=uri)
        finally:
            # Nothing can be pushed between the last look at the queue and here: there is no await.
            del self._queues[subscription_id], self._tasks[subscription_id]

    async def _told(self, uri: str, notification: dict[str, Any]) -> bool:
        sent = [headers.with_callback(CALLBACK_KIND)]
        for pause_s in (*RETRY_AFTER_S, None):
            try:
                answer = await self._client.request(
                    "POST", uri, headers=sent, json=notification, timeout_s=CALLBACK_LIMIT_S
                )
            except Unreachable:
                pass
            except ValueError:
                return False
            else:
                if answer.status < 300:
                    return True
                if answer.status < 500 and answer.status != 429:
                    return False
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        return False
