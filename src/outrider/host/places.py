"""Places that units take, so many at a time, the oldest request first; and how long one waits for a place."""

import asyncio
import heapq
import itertools
from typing import Literal, NamedTuple

_ENOUGH = 32
"""So many have had to be served for their pace to mean something."""


_LOOK_S = 0.02
"""How late it may be noticed that somebody's time is up."""

Turn = Literal["place", "late", "back"]
"""What came of waiting: a place, or no time left, or that there is no reason to wait here any more."""


class _Waiting(NamedTuple):
    arrived_s: float
    number: int
    since_s: float
    until_s: float
    key: bytes | None
    turn: asyncio.Future[Turn]


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
        self._looking = False

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

    async def wait(self, arrived_s: float, until_s: float, key: bytes | None = None) -> Turn:
        """Wait for a place, behind all requests that came before, and take it; `key` is what it is wanted for."""
        now_s = self._loop.time()
        if not self._waiting:
            self._since_s, self._served = now_s, 0
            self._look_later()
        turn: asyncio.Future[Turn] = self._loop.create_future()
        heapq.heappush(self._waiting, _Waiting(arrived_s, next(self._numbers), now_s, until_s, key, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result() == "place":
                self.leave()  # its turn had come at that moment
            raise

    def send_back(self, prefix: bytes) -> None:
        """Nobody who wants a place for a key that begins so waits any longer: nothing of it has begun."""
        self._end([w for w in self._waiting if w.key is not None and w.key.startswith(prefix)], "back")

    def _look(self) -> None:
        """Send away those whose time is up: all together, because a timer for each would cost more than the wait."""
        now_s = self._loop.time()
        self._end([waiting for waiting in self._waiting if waiting.until_s <= now_s], "late")
        self._looking = False
        if self._waiting:
            self._look_later()

    def _end(self, ended: list[_Waiting], turn: Turn) -> None:
        for waiting in ended:
            if not waiting.turn.done():
                waiting.turn.set_result(turn)
        if ended:
            self._waiting = [waiting for waiting in self._waiting if not waiting.turn.done()]
            heapq.heapify(self._waiting)

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    def leave(self) -> None:
        """Leave a place to the first that waits, or to whoever comes."""
        while self._free >= 0 and self._waiting:
            turn = heapq.heappop(self._waiting).turn
            if not turn.done():
                self._served += 1
                turn.set_result("place")
                return
        self._free += 1
