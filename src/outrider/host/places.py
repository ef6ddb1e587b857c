"""Places that units take in order of arrival, so many at a time; whoever asks hears how long one waits for a place."""

import asyncio
from collections import deque


class Places:
    """So many places. `take` one, or `wait` for it; `leave` it when the unit is over."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = count
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def waited_s(self, now_s: float) -> float:
        """How long the first of those that wait has been waiting."""
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()  # it has given up
        return now_s - self._waiting[0][1] if self._waiting else 0.0

    def take(self, *, first: bool = False) -> bool:
        """Take a place, if there is one; with `first` also if there is none."""
        if self._free > 0 or first:
            self._free -= 1
            return True
        return False

    async def wait(self, now_s: float) -> None:
        """Wait for a place, behind all that wait already, and take it."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((turn, now_s))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()  # its turn had come at that moment
            raise

    def leave(self) -> None:
        """Leave a place to the first that waits, or to whoever comes."""
        while self._free >= 0 and self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
