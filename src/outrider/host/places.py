"""Places that units take, so many at a time, the oldest request first; and how long one waits for a place."""

import asyncio
import heapq
import itertools
from typing import NamedTuple

_ENOUGH = 32
"""So many have had to be served for their pace to mean something."""


class _Waiting(NamedTuple):
    arrived_s: float
    number: int
    since_s: float
    turn: asyncio.Future[None]


class Places:
    """So many places. `take` one, or `wait` for it; `leave` it when the unit is over."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = count
        self._waiting: list[_Waiting] = []
        """A heap: what came early and had to wait elsewhere first, for its UE, is not put last again here."""
        self._numbers = itertools.count()
        self._since_s = 0.0
        """Since when somebody has been waiting; `_served` counts those whose turn has come since then."""
        self._served = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def expected_s(self) -> float:
        """How long one that comes now has to wait: as long as the first has already, or longer at the pace so far."""
        while self._waiting and self._waiting[0].turn.done():
            heapq.heappop(self._waiting)  # it has given up
        if not self._waiting:
            return 0.0
        now_s = self._loop.time()
        waited_s = now_s - self._waiting[0].since_s
        if self._served < _ENOUGH:
            return waited_s
        return max(waited_s, len(self._waiting) * (now_s - self._since_s) / self._served)

    def take(self, *, first: bool = False) -> bool:
        """Take a place, if there is one; with `first` also if there is none."""
        if self._free > 0 or first:
            self._free -= 1
            return True
        return False

    async def wait(self, arrived_s: float) -> None:
        """Wait for a place, behind all requests that came before, and take it."""
        now_s = self._loop.time()
        if not self._waiting:
            self._since_s, self._served = now_s, 0
        turn: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, _Waiting(arrived_s, next(self._numbers), now_s, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()  # its turn had come at that moment
            raise

    def leave(self) -> None:
        """Leave a place to the first that waits, or to whoever comes."""
        while self._free >= 0 and self._waiting:
            turn = heapq.heappop(self._waiting).turn
            if not turn.done():
                self._served += 1
                turn.set_result(None)
                return
        self._free += 1
