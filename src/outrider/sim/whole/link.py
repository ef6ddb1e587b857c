"""The ways between networks: each direction for itself slow, cut, or without connections; answers may be lost alone.

A frame belongs to nobody while it is under way: it arrives though its sender has died, or after that has given up.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from outrider.core import limits
from outrider.core.compress import decompress
from outrider.core.ids import NetworkId
from outrider.protocol.messages import LaneBatch, lane_batch
from outrider.sbi import headers
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Request, Response
from outrider.sim.whole.loop import VirtualLoop, context
from outrider.sim.whole.trace import Trace

_BULK_LIMIT_S = 30.0


class Door(Protocol):
    """Where a request arrives: a process that may be there or not."""

    def take(self, request: Request, answered: Callable[[Response | None], None]) -> bool:
        """Handle a request; False if nobody listens. `answered` gets None if the process ends before it answers."""


@dataclass
class Way:
    """One direction between two networks."""

    cut: bool = False
    """What is sent vanishes."""
    refused: bool = False
    """No connection: the sender learns at once that nothing has left."""
    no_answers: bool = False
    """What is sent arrives, and what is answered does not."""
    slow: float = 1.0
    copy_late_s: float = 0.0
    """Bulk frames take so much longer."""


class Wires:
    """All ways of a world."""

    def __init__(self, loop: VirtualLoop, seed: str, trace: Trace) -> None:
        self.ways: dict[tuple[str, str], Way] = {}
        self.doors: dict[str, Door] = {}
        self.one_way_ms = 8.0
        self.duplicates = 0.01
        self.stragglers = 0.004
        self._loop = loop
        self._chance = Random(f"{seed}/wires")
        self._trace = trace
        self._outside = context("")

    def way(self, sender: str, receiver: str) -> Way:
        """The way from one network to another."""
        return self.ways.setdefault((sender, receiver), Way())

    def heal(self) -> None:
        """All ways are whole, and nothing is late any more."""
        self.ways.clear()
        self.duplicates = self.stragglers = 0.0

    def post(
        self,
        sender: str,
        receiver: str,
        request: Request,
        answer: "asyncio.Future[Response]",
        *,
        door: Door | None = None,
    ) -> None:
        """Send a request to a network, to its keeper unless told otherwise; the future gets its answer,
        `Unreachable`, or nothing at all.
        """
        # What LMSFs say has sets in it, whose order is Python's: of those frames every byte counts, but not its place.
        self._trace.frame(sender, receiver, request.body if door is None else bytes(sorted(request.body)))
        door = door or self.doors[receiver]
        way = self.way(sender, receiver)
        if way.refused:
            self._later(way, lambda: _lose(answer, f"no connection to {receiver}", not_sent=True))
            return
        copies = 2 if self._chance.random() < self.duplicates else 1
        for _ in range(copies):
            late = self._chance.random() * 9.0 if self._chance.random() < self.stragglers else 0.0
            late += way.copy_late_s if request.path.endswith("/bulk") else 0.0
            self._later(way, lambda: self._arrive(sender, receiver, request, answer, door), late)

    def _arrive(
        self, sender: str, receiver: str, request: Request, answer: "asyncio.Future[Response]", door: Door
    ) -> None:
        if self.way(sender, receiver).cut:
            return
        back = self.way(receiver, sender)

        def answered(response: Response | None) -> None:
            def arrives() -> None:
                if back.cut or self.way(sender, receiver).no_answers:
                    return
                if response is None:
                    _lose(answer, f"{receiver} broke the connection", not_sent=False)
                elif not answer.done():
                    answer.set_result(response)

            self._later(back, arrives)

        if not door.take(request, answered) and not back.cut:
            self._later(back, lambda: _lose(answer, f"nobody listens at {receiver}", not_sent=True))

    def _later(self, way: Way, do: Callable[[], None], more_s: float = 0.0) -> None:
        delay_s = self.one_way_ms / 1000 * way.slow * (0.5 + self._chance.expovariate(2.0)) + more_s
        self._loop.call_later(delay_s, do, context=self._outside)


def _lose(answer: "asyncio.Future[Response]", why: str, *, not_sent: bool) -> None:
    if not answer.done():
        answer.set_exception(Unreachable(why, not_sent=not_sent))


class VirtualLink:
    """Stands where `host.link.Link` stands: from one keeper to those of its peers, through both borders."""

    def __init__(self, wires: Wires, network: str, sent: Callable[[str, LaneBatch], None]) -> None:
        self._wires = wires
        self._sent = sent
        self._network = network
        self.bytes_sent = 0
        self.bulk_bytes_sent = 0

    async def post(self, peer: str, body: bytes, *, bulk: bool) -> Response:
        """One POST to the peer's lane."""
        if not bulk:
            self._sent(self._network, lane_batch.decode(decompress(body)))
        request = Request(
            "POST",
            f"/nlmsf-relocation/v1/services/sim/{'bulk' if bulk else 'lane'}",
            headers={headers.ORIGINATING_NETWORK_ID: self._network, "authorization": f"LMSF {self._network}"},
            body=body,
        )
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._wires.post(self._network, peer, request, answer)
        try:
            async with asyncio.timeout(_BULK_LIMIT_S if bulk else limits.FORWARD_LIMIT_MS / 1000):
                response = await answer
        except TimeoutError:
            raise Unreachable(f"{peer} does not answer", not_sent=False) from None
        if response.status in (502, 503, 504):
            raise Unreachable(f"{peer}: {response.status}", not_sent=False)
        self.bytes_sent += len(body)
        if bulk:
            self.bulk_bytes_sent += len(body)
        return response

    async def close(self) -> None:
        """Nothing is open."""


def plmn(network: str) -> dict[str, str]:
    """A network's PLMN ID as a token has it."""
    return NetworkId.parse(network).plmn_id()
