"""Simulated UEs: each asks the network that it is in, retries as a consumer does, and writes down what it was told."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import cast

import msgspec

from outrider.core import limits
from outrider.demo.histories import Attempt, Outcome
from outrider.host.front import EMERGENCY_PRIORITY
from outrider.sbi import headers
from outrider.sbi.http import Request, Response
from outrider.sim.whole.link import Door
from outrider.sim.whole.loop import BEGIN_S, PROCESS, VirtualLoop, context
from outrider.sim.whole.scenario import UePlan
from outrider.sim.whole.service import NF, ROOT, Kind, Order, Said
from outrider.sim.whole.trace import Trace

_WAY_S = 0.0005
_AT_ONCE = 3
"""Requests that a UE has open at most."""

_KINDS: tuple[Kind, ...] = ("add", "add", "add", "put", "put", "read", "read", "tell", "note", "arm")


@dataclass
class Operation:
    """One operation of one UE, over all its tries."""

    ue: str
    order: Order
    keyed: bool
    """It has an idempotency key, so it may be tried again."""
    invoked_s: float
    ended_s: float = math.inf
    outcome: Outcome = "unknown"
    status: int | None = None
    said: Said | None = None
    network: str = ""
    served_by: str = ""
    attempts: list[Attempt] = field(default_factory=list)


class Consumer:
    """One UE and its history."""

    def __init__(self, plan: UePlan, home: str, doors: Mapping[str, Door], seed: str, trace: Trace) -> None:
        self.supi = plan.supi
        self.network = home
        self.history: list[Operation] = []
        self.created = False
        self.late: list[str] = []
        """Tries that had no answer long after their time was up."""
        self._plan = plan
        self._doors = doors
        self._chance = Random(f"{seed}/{plan.supi}")
        self._trace = trace
        self._loop = cast(VirtualLoop, asyncio.get_running_loop())
        self._outside = context("")

    async def run(self) -> None:
        """Create the UE's context, then do operations until there are none left."""
        PROCESS.set(self.supi)
        await asyncio.sleep(self._plan.start_s)
        await self._do(Order(self.supi, 1, "create", heavy=self._plan.heavy), keyed=True, patience_s=math.inf)
        self.created = self.history[0].outcome == "ok"
        if not self.created:
            return
        under_way: set[asyncio.Task[None]] = set()
        for seq in range(2, self._plan.operations + 2):
            await asyncio.sleep(self._chance.expovariate(1.0) * self._plan.pace_s)
            while len(under_way) >= _AT_ONCE:
                await asyncio.sleep(0.05)
            order = Order(self.supi, seq, self._chance.choice(_KINDS), self._chance.randint(1, 10_000))
            keyed = self._chance.random() < 0.8
            task = asyncio.create_task(self._do(order, keyed=keyed, patience_s=self._chance.uniform(1.0, 10.0)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            if self._chance.random() < 0.7:
                await task
        while under_way:
            await asyncio.sleep(0.05)

    async def _do(self, order: Order, *, keyed: bool, patience_s: float) -> None:
        now_s = self._loop.time()
        done = Operation(self.supi, order, keyed, now_s, network=self.network)
        self.history.append(done)
        maybe = False
        strange = order.kind == "read" and self._chance.random() < 0.25
        elsewhere = self._chance.choice(sorted(self._doors)) if strange else None  # an AF may ask any network
        while True:
            network = elsewhere or self.network
            sent_s = self._loop.time()
            response, not_sent = await self._try(network, order, f"{self.supi}-{order.seq}" if keyed else None)
            status = response.status if response is not None else None
            done.status = status
            done.attempts.append(Attempt(sent_s, self._loop.time(), network, status, not_sent))
            if response is not None and 200 <= response.status < 300:
                done.outcome, done.said = "ok", msgspec.json.decode(response.body, type=Said)
                done.served_by = (response.header(headers.PRODUCER_ID) or "").rpartition(" ")[2]
                break
            if status is not None and status not in (429, 503, 504):
                said = f"{order.kind} {order.seq} of {self.supi} was answered {status} "
                self._trace.violation("answer", said + (response.body.decode() if response else ""))
                break
            maybe = maybe or not (not_sent or status in (429, 503))
            if not keyed or self._loop.time() - now_s > patience_s:
                done.outcome = "unknown" if maybe else "failed"
                break
            await asyncio.sleep(self._chance.uniform(0.02, 0.5))
        if done.outcome != "unknown":
            done.ended_s = self._loop.time()
        said = f"count {done.said.n}, register {done.said.register}" if done.said else f"{done.status}"
        self._trace.say(self.supi, f"{order.kind} {order.seq} at {done.attempts[-1].network}: {done.outcome}, {said}")

    async def _try(self, network: str, order: Order, key: str | None) -> tuple[Response | None, bool]:
        """One try: its answer, and whether it certainly had no effect because there was no connection."""
        limit_ms = self._chance.choice((400, 1_500, 5_000, 5_000))
        head = dict([headers.with_max_rsp_time(limit_ms)]) | {"authorization": f"{self.supi} {network}"}
        if key is not None:
            head |= dict([headers.with_idempotency_key(key)])
        if self._chance.random() < 0.03:
            head[headers.MESSAGE_PRIORITY] = EMERGENCY_PRIORITY
        request = self._request(order, head)
        answer: asyncio.Future[Response | None] = self._loop.create_future()

        def answered(response: Response | None) -> None:
            self._loop.call_later(_WAY_S, _give, answer, response, context=self._outside)

        await asyncio.sleep(_WAY_S)
        if not self._doors[network].take(request, answered):
            return None, True
        begun_s = self._loop.time()
        limit_s = min(limit_ms, limits.REQUEST_LIMIT_MS) / 1000 + 1.0
        try:
            async with asyncio.timeout(limit_s):
                return await answer, False
        except TimeoutError:
            self.late.append(f"{order.kind} {order.seq} of {self.supi}, sent to {network} at {begun_s - BEGIN_S:.3f} s")
            return None, False

    def _request(self, order: Order, head: dict[str, str]) -> Request:
        if order.kind == "create":
            return Request("POST", ROOT, headers=head, body=msgspec.json.encode(order))
        if order.kind == "read":
            return Request("GET", f"/{NF}/v1/ues/{self.supi}", headers=head)
        return Request("POST", f"/{NF}/v1/ues/{self.supi}/orders", headers=head, body=msgspec.json.encode(order))


def _give(answer: "asyncio.Future[Response | None]", response: Response | None) -> None:
    if not answer.done():
        answer.set_result(response)
