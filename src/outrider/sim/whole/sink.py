"""Who is notified: a consumer that answers late, not at all, or with 503, and writes down what it was sent."""

import asyncio
from random import Random
from typing import Any, NamedTuple

import msgspec

from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response
from outrider.sim.whole.service import Sent
from outrider.sim.whole.trace import Trace


class Notified(NamedTuple):
    """A notification that came."""

    ue: str
    seq: int
    by: str
    network: str


class Sink:
    """Receives notifications of all networks."""

    def __init__(self, seed: str, trace: Trace) -> None:
        self.received: list[Notified] = []
        self.trouble = 0.03
        """How many it does not answer as it should."""
        self._chance = Random(f"{seed}/sink")
        self._trace = trace

    async def notify(self, network: str, body: bytes, timeout_s: float) -> Response:
        """One POST; `Unreachable` where no answer comes back."""
        await asyncio.sleep(0.001 + self._chance.expovariate(1.0) * 0.003)
        fate = self._chance.random()
        if fate < self.trouble / 3:
            raise Unreachable("no connection to the sink", not_sent=True)
        if fate < self.trouble * 2 / 3:
            return Response(503)
        sent = msgspec.json.decode(body, type=Sent)
        self.received.append(Notified(sent.ue, sent.seq, sent.by, network))
        self._trace.say("sink", f"notification {sent.seq} of {sent.ue[:9]} from {network}")
        if fate < self.trouble:
            await asyncio.sleep(timeout_s)
            raise Unreachable("the sink does not answer", not_sent=False)
        await asyncio.sleep(0.001 + self._chance.expovariate(1.0) * 0.003)
        return Response(204)


class VirtualClient:
    """Stands where a keeper's HTTP client stands, which it notifies with."""

    def __init__(self, sink: Sink, network: str) -> None:
        self._sink = sink
        self._network = network

    async def request(self, method: str, uri: str, *, headers: Any, body: bytes, timeout_s: float) -> Response:
        """One request to the sink."""
        return await self._sink.notify(self._network, body, timeout_s)
