"""Work that must not be cut in the middle, one at a time for each name.

A migration that is aborted cancels what it was doing. A thread cannot be cancelled, and a process that is just being
started would be forgotten: both would leave something behind after the erasure. So such work goes on when whoever
waits for it is cancelled, and whatever cleans up after it waits for its end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Unbroken:
    """Runs work to its end."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work after what else is under way for that name; a cancelled caller does not stop it."""

        async def one() -> T:
            async with self._locks.setdefault(name, asyncio.Lock()):
                return await work()

        task = asyncio.create_task(one(), name=f"unbroken {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if there still is one

    async def stop(self) -> None:
        """The node ends: cut everything; the next start cleans up."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
