"""Numbered lanes between the keepers of two networks (PROTOCOL.md §2).

A lane carries messages in one direction, in order, over POSTs of which several may be under way. Each message has a
number; the receiver takes them in order, drops what it has had, keeps for a moment what came too early, and answers
up to where it has taken the lane. What is not answered is sent again. A lane adds no guarantee that the ownership
protocol needs (that one survives loss, repetition and reordering): it is there so that order is the normal case.

A new incarnation of a sender numbers from 1 again. A receiver that has a new incarnation has lost what it had taken
but not yet decided: `on_peer_restart` tells the sender's owner, who repeats what matters from durable state.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from outrider.core import limits
from outrider.core.refusal import Refused
from outrider.host.peer_store import PeerStore
from outrider.protocol.messages import LaneAck, Void, encode, lane_ack
from outrider.sbi.client import Unreachable

log = structlog.get_logger()

Post = Callable[[bytes], Awaitable[Any]]


class Hello(msgspec.Struct, frozen=True):
    """Who speaks on a lane: this store, its incarnation; `to_store` is the peer's store where it is known."""

    store_id: str
    incarnation: int


class Lane:
    """Sends messages to one peer; `send` never blocks, `room` waits until the window has room."""

    def __init__(
        self,
        peer: str,
        hello: Hello,
        post: Post,
        batch: Callable[..., Any],
        encoded: Callable[[Any], Awaitable[bytes]],
        *,
        durable_lsn: Callable[[], int],
        on_ack: Callable[[LaneAck], None] = lambda _: None,
        on_peer_restart: Callable[[], None] = lambda: None,
        on_store_lost: Callable[[str], None] = lambda _: None,
        window: int = 8,
        batch_messages: int = 256,
        through: int = 0,
        patient: tuple[type, ...] = (),
    ) -> None:
        """Messages of the types in `patient` may wait `LANE_PACE_MS` after a post for others to leave with."""
        self.peer = peer
        self.peer_store: str | None = None
        self.through = through
        """Number up to which the peer has taken the lane."""
        self.connected = False
        self._hello = hello
        self._post = post
        self._batch = batch
        self._encoded = encoded
        self._durable_lsn = durable_lsn
        self._on_ack = on_ack
        self._on_peer_restart = on_peer_restart
        self._on_store_lost = on_store_lost
        self._window = window
        self._batch_messages = batch_messages
        self._patient = patient
        self._hurried = self._resting = False
        self._posted_s = -math.inf
        self._loop = asyncio.get_running_loop()
        self._messages: deque[Any] = deque()  # numbers through+1 …
        self._cursor = 0  # how many of them are under way
        self._left = 0  # number up to which they may have arrived, at some try
        self._doubt = 0  # number up to which such a try has failed
        self._in_flight = 0
        self._failed = self._closed = False
        self._peer_incarnation = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.create_task(self._run(), name=f"lane to {peer}")
        self._posts: set[asyncio.Task[None]] = set()

    def send(self, message: Any) -> int:
        """Queue a message; returns its number."""
        self._messages.append(message)
        if not isinstance(message, self._patient):
            self._hurried = True
            self._wake.set()
        elif not self._resting:
            self._wake.set()
        return self.through + len(self._messages)

    def withdraw(self, number: int) -> bool:
        """Take a message back that has certainly never left; False if it is under way, or may have arrived before.

        Its number stays taken, by a message that says nothing, so no other message moves and nothing is missing.
        """
        if self.left(number):
            return False
        self.silence(number)
        return True

    def left(self, number: int) -> bool:
        """Whether a message is under way, or may have arrived before."""
        return number <= max(self._left, self.through + self._cursor)

    def silence(self, number: int) -> None:
        """Let a message say nothing where it has to be sent again: to a peer that has restarted it would be new."""
        if number > self.through:
            self._messages[number - self.through - 1] = Void()

    def doubtful(self, number: int) -> bool:
        """Whether a message may have been taken at a failed try, by an incarnation of the peer that is gone by now."""
        return self.through < number <= self._doubt

    @property
    def waiting(self) -> int:
        """Messages not yet taken by the peer."""
        return len(self._messages)

    def waiting_of(self, *kinds: type) -> int:
        """As `waiting`, but of these kinds only."""
        return sum(isinstance(message, kinds) for message in self._messages)

    async def room(self) -> None:
        """Wait until fewer messages wait than fill the window."""
        while len(self._messages) >= self._window * self._batch_messages and not self._closed:
            self._room.clear()
            await self._room.wait()

    async def taken(self, number: int) -> None:
        """Wait until the peer has taken the lane up to this number."""
        while self.through < number and not self._closed:
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Stop sending; what waits is dropped (durable state repeats what matters), and who waits for it goes on."""
        self._closed = True
        self._room.set()
        for task in (self._task, *self._posts):
            task.cancel()
        await asyncio.gather(self._task, *self._posts, return_exceptions=True)

    async def _run(self) -> None:
        backoff_ms = limits.RESEND_MIN_MS
        while True:
            if self._failed and not self._in_flight:
                await asyncio.sleep(backoff_ms / 1000)
                backoff_ms = min(2 * backoff_ms, limits.LANE_BACKOFF_MAX_MS)
                self._failed = False
            ready = self._cursor < len(self._messages) and self._in_flight < self._window and not self._failed
            if not ready:
                if self.connected:
                    backoff_ms = limits.RESEND_MIN_MS
                self._wake.clear()
                if self._failed and not self._in_flight:
                    continue
                await self._wake.wait()
                continue
            if not self._hurried and await self._rested():
                continue
            count = min(self._batch_messages, len(self._messages) - self._cursor)
            self._hurried = self._hurried and self._cursor + count < len(self._messages)
            self._posted_s = self._loop.time()
            first = self.through + self._cursor + 1
            messages = [self._messages[self._cursor + i] for i in range(count)]
            self._cursor += count
            self._in_flight += 1
            task = asyncio.create_task(self._one(first, messages))
            self._posts.add(task)
            task.add_done_callback(self._posts.discard)

    async def _rested(self) -> bool:
        """Wait a moment after the last post, so that more leave with the next one; False if there is no need to.

        A post costs six processes a turn each. Alone a message leaves at once; of many each would cost the others more
        than this wait.
        """
        rest_s = self._posted_s + limits.LANE_PACE_MS / 1000 - self._loop.time()
        if rest_s <= 0:
            return False
        self._wake.clear()
        self._resting = True
        timer = self._loop.call_later(rest_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            self._resting = False
            timer.cancel()
        return True

    async def _one(self, first: int, messages: list[Any]) -> None:
        hello, left = self._hello, True
        try:
            base = self.through + 1
            batch = self._batch(
                hello.store_id, hello.incarnation, self.peer_store, self._durable_lsn(), base, first, messages
            )
            response = await self._post(await self._encoded(batch))
            if response.status == 409:
                self._on_store_lost(response.body.decode(errors="replace"))
                raise Unreachable("the peer does not know this store", not_sent=True)
            if response.status != 200:
                raise Unreachable(f"{response.status} {response.body[:300]!r}", not_sent=False)
            self._acked(lane_ack.decode(response.body))
        except (Unreachable, Refused) as error:
            left = not (isinstance(error, Unreachable) and error.not_sent)
            if left:
                self._doubt = max(self._doubt, first + len(messages) - 1)
            if self.connected or not self._failed:
                log.info("lane.down", peer=self.peer, why=str(error))
            self.connected = False
            self._failed = True
        except (msgspec.DecodeError, ValueError) as error:
            log.error("lane.bad-answer", peer=self.peer, why=str(error))
            self._failed = True
        finally:
            if left:
                self._left = max(self._left, first + len(messages) - 1)
            self._in_flight -= 1
            if self._cursor and not self._in_flight:
                # No post carries what is not taken: it came before something that is missing, or to an incarnation of
                # the peer that is gone, whichever post was answered last.
                self._failed = True
            if self._failed and not self._in_flight:
                self._cursor = 0  # all of it is tried again, after a while; until then nothing is under way
            self._wake.set()

    def _acked(self, ack: LaneAck) -> None:
        if self.peer_store is None:
            self.peer_store = ack.store_id
        elif self.peer_store != ack.store_id:
            self._on_store_lost(f"the peer's store is {ack.store_id}, it was {self.peer_store}")
            raise Unreachable("the peer has another store", not_sent=False)
        self.connected = True
        taken = ack.through - self.through
        for _ in range(min(taken, len(self._messages))):
            self._messages.popleft()
            self._cursor = max(0, self._cursor - 1)
            self.through += 1
        if self._peer_incarnation != ack.incarnation and (self._peer_incarnation or self._doubt):
            self._on_peer_restart()
        self._peer_incarnation = ack.incarnation
        self._room.set()
        self._on_ack(ack)


class Receiver:
    """Takes one peer's lane in order and hands each message on."""

    def __init__(self, handle: Callable[[Any], Awaitable[None]], store: PeerStore | None = None) -> None:
        self._handle = handle
        self.store = store or PeerStore()
        self._incarnation = 0
        self._expected = 1
        self._early: dict[int, Any] = {}
        self._busy = asyncio.Lock()

    async def take(self, batch: Any) -> int:
        """Take a batch; returns the number up to which the lane is taken. Raises `StoreLost`."""
        self.store.hear(batch)
        if batch.incarnation > self._incarnation:
            self._incarnation, self._expected = batch.incarnation, batch.base
            self._early.clear()
        self._expected = max(self._expected, batch.base)  # the sender has begun another lane behind an earlier one
        if batch.first + len(batch.messages) - 1 > self._expected + limits.LANE_WINDOW:
            return self._expected - 1
        for number, message in enumerate(batch.messages, batch.first):
            if number >= self._expected:
                self._early[number] = message
        async with self._busy:
            while (message := self._early.pop(self._expected, None)) is not None:
                self._expected += 1
                try:
                    await self._handle(message)
                except BaseException:
                    self._expected -= 1  # else the answer to another batch would say that it was taken
                    raise
        return self._expected - 1


def ack(hello: Hello, through: int, need: list[tuple[bytes, bytes]] | None = None) -> bytes:
    """The answer to a batch."""
    return encode(LaneAck(hello.store_id, hello.incarnation, through, need or []))
