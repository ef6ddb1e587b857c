"""A consumer that writes at a fixed rate, to UEs drawn from all, in a process of its own.

Open loop and bounded (`openloop`). A request is sent once and never again. The consumer knows its network only: it
discovers the service there, with real tokens, and follows a redirect.

Started with a JSON config file, it takes orders on stdin: `probe` (how many writes a second are served, closed loop),
`load`, `arrive` (a group comes to the second network, `arrivals`), `change` (some UEs there), `stop`, `read` (a sample,
at either network), `end`.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from outrider.bench.arrivals import Group, arrive
from outrider.bench.draw import drawer, scattered
from outrider.bench.openloop import LIMIT_MS, Answer, Fate, OpenLoop
from outrider.bench.shapes import SHAPES, supi
from outrider.core.refusal import Refused
from outrider.demo.access import Access, NetworkAt, NoProducer
from outrider.demo.orders import orders, say
from outrider.sbi import headers
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource

REFRESH_S = 1.0
"""How often discovery and token are asked for, which are cached as long as the NRF says."""

PROBE_AT_A_TIME = 128
"""Writers of the closed loop: enough that a commit is shared by many, and more make it no faster."""

PROGRESS_S = 1.0
CHANGE_AT_A_TIME = 64

LOAD, ARRIVALS = "load.bin", "arrivals.bin"
"""Files with the history of the writer, and of the group that has arrived."""


class Config(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the process is told. `networks[0]` is where it writes. Histories are files in the directory."""

    networks: list[NetworkAt]
    contexts: int
    writes_per_s: float
    nf_instance_id: str
    directory: str
    shape: str = "session"
    skew: float = 0.0
    bare: str = ""
    """Root of a server that needs neither discovery nor token; none, as a rule."""
    seed: int = 1


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a transaction."""

    count: int
    served_by: dict[str, str]


_said = msgspec.json.Decoder(Said)


class Load:
    """The writer, and what it saw."""

    def __init__(self, config: Config, client: SbiClient) -> None:
        self.config = config
        self.client = client
        self.tokens = [TokenSource(client, n.nrf_root, config.nf_instance_id, "AF") for n in config.networks]
        self.access = [
            Access(client, n, t, config.nf_instance_id) for n, t in zip(config.networks, self.tokens, strict=True)
        ]
        self.acknowledged: Counter[int] = Counter()
        self.unknown: set[int] = set()
        """UEs with a request whose fate the consumer does not know."""
        self.outcomes: Counter[str] = Counter()
        self.shape = SHAPES[config.shape]
        self._networks = [n.id for n in config.networks]
        self._root = ""
        self._headers: list[tuple[str, str]] = []
        self._draw = drawer(config.contexts, config.skew, random.Random(config.seed))
        self._loop = OpenLoop(config.writes_per_s, self._write, self._draw)

    async def enter(self) -> None:
        """Register as a consumer in each network."""
        if not self.config.bare:
            for access in self.access:
                await access.register()

    async def refresh(self) -> None:
        """Keep to what discovery says, and hold a valid token."""
        while True:
            with contextlib.suppress(NoProducer, Refused, Unreachable):
                await self.aim()
            await asyncio.sleep(REFRESH_S)

    async def aim(self) -> None:
        """Discover the service, and hold a token for it."""
        session = self.shape.session
        fields = [headers.with_max_rsp_time(LIMIT_MS), ("content-type", "application/json")]
        if self.config.bare:
            self._root, self._headers = self.config.bare + self.shape.root, fields
            return
        root = await self.access[0].find(session)
        bearer = await self.tokens[0].bearer(scope=session.name, target_nf_type=session.nf_type)
        self._root, self._headers = root + self.shape.root, [("authorization", bearer), *fields]

    async def probe(self, seconds: float) -> float:
        """Writes served a second if each of a few writers sends its next when the last is answered."""
        await self.aim()
        # The service's worker starts with its first request.
        while (await self._write(0, self._draw())).fate is not Fate.SERVED:
            await asyncio.sleep(0.1)
        start_s = time.monotonic()
        until_s, served = start_s + seconds, 0

        async def one() -> None:
            nonlocal served
            while time.monotonic() < until_s:
                answer = await self._write(0, self._draw())  # before the sum is looked at: there are many of us
                served += answer.fate is Fate.SERVED

        await asyncio.gather(*(one() for _ in range(PROBE_AT_A_TIME)))
        self.outcomes.clear()
        return served / (time.monotonic() - start_s)

    async def start(self) -> None:
        """Begin to write."""
        await self.aim()
        self._loop.start()

    async def stop(self) -> None:
        """Begin nothing new, and wait for what is on its way."""
        await self._loop.stop()
        self._loop.history.write(Path(self.config.directory) / LOAD)

    async def arrive(self, ues: int, seconds: float, requests: int) -> None:
        """Let so many UEs come to the second network, and write what became of their requests."""
        scatter = scattered(self.config.contexts)
        group = Group([scatter(n) for n in range(ues)], seconds, requests)
        history = await arrive(group, self._write_there)
        history.write(Path(self.config.directory) / ARRIVALS)

    async def change(self, ues: int) -> int:
        """One request for each of so many UEs, at the second network; how many were served."""
        scatter = scattered(self.config.contexts)
        places = asyncio.Semaphore(CHANGE_AT_A_TIME)

        async def one(ue: int) -> bool:
            async with places:
                return (await self._write_there(ue, 0)).fate is Fate.SERVED

        return sum(await asyncio.gather(*(one(scatter(n)) for n in range(ues))))

    async def _write(self, number: int, ue: int) -> Answer:
        return await self._judged(ue, self._post(f"/{supi(ue)}/transactions", b'{"seq":%d}' % number))

    async def _write_there(self, ue: int, number: int) -> Answer:
        """At the second network; in the way of one who is served home routed while nobody serves him there."""
        path = f"{self.shape.root}/{supi(ue)}/transactions"
        try:
            return await self._judged(ue, self.access[1].send(self.shape.session, "POST", path, json={"seq": number}))
        except (NoProducer, Refused):
            self.outcomes["home routed"] += 1
            return await self._write(number, ue)

    async def _judged(self, ue: int, sent: Coroutine[Any, Any, Response]) -> Answer:
        """What became of a request, noted."""
        try:
            response = await sent
        except Unreachable as error:
            self.outcomes["no connection" if error.not_sent else "no answer"] += 1
            if not error.not_sent:
                self.unknown.add(ue)
            return Answer(Fate.UNANSWERED)
        except asyncio.CancelledError:
            self.outcomes["given up"] += 1
            self.unknown.add(ue)
            raise
        if response.status == 200:
            self.acknowledged[ue] += 1
            self.outcomes["ok"] += 1
            said = _said.decode(response.body)
            return Answer(Fate.SERVED, said.count, 1 + self._networks.index(_network(said.served_by)))
        self.outcomes[f"{response.status} {_cause(response)}"] += 1
        if response.status in (500, 502, 504):
            self.unknown.add(ue)
        return Answer(Fate.REFUSED)

    async def _post(self, path: str, body: bytes) -> Response:
        limit_s = LIMIT_MS / 1000 + 1
        response = await self.client.request(
            "POST", self._root + path, headers=self._headers, body=body, timeout_s=limit_s
        )
        if response.status in (307, 308) and (location := response.header("location")):
            self.outcomes["redirected"] += 1
            response = await self.client.request("POST", location, headers=self._headers, body=body, timeout_s=limit_s)
        return response

    async def read(self, network: int, sample: int) -> dict[str, int]:
        """Read UEs at a network and compare with what was acknowledged: every write of those, and no more.

        They are among those that were written to; where none was, among all.
        """
        access, found = self.access[network], Counter[str]()
        written = sorted(self.acknowledged) or range(1, self.config.contexts + 1)
        chosen = random.Random(self.config.seed).sample(written, min(sample, len(written)))
        places = asyncio.Semaphore(64)

        async def one(ue: int) -> None:
            async with places:
                try:
                    response = await access.send(self.shape.session, "GET", f"{self.shape.root}/{supi(ue)}")
                except (Unreachable, NoProducer, Refused):
                    found["unread"] += 1
                    return
            if response.status != 200:
                found["unread"] += 1
                return
            said = response.json()
            found["read"] += 1
            found["lost"] += said["count"] < self.acknowledged[ue]
            found["doubled"] += said["count"] > self.acknowledged[ue] and ue not in self.unknown
            found["torn"] += len(set(said.get("counts", [0]))) > 1
            found["served"] += _network(said["servedBy"]) == access.network.id

        await asyncio.gather(*(one(ue) for ue in chosen))
        return dict(found)

    def progress(self) -> dict[str, Any]:
        """Where the load stands."""
        return {"outcomes": dict(self.outcomes), "open": self._loop.open}


def _network(served_by: dict[str, str]) -> str:
    return "-".join(served_by[part] for part in ("mcc", "mnc", "nid") if part in served_by)


def _cause(response: Response) -> str:
    try:
        return str(response.json().get("cause", ""))
    except (msgspec.DecodeError, AttributeError):
        return ""


# ------------------------------------------------------------------------------------------- as a process


async def _obey(load: Load) -> None:
    async for order in orders():
        match order.get("do"):
            case "probe":
                say({"done": "probe", "perS": await load.probe(order["seconds"])})
            case "load":
                await load.start()
                say({"done": "load", "atS": time.monotonic()})
            case "arrive":
                await load.arrive(order["ues"], order["seconds"], order["requests"])
                say({"done": "arrive"})
            case "change":
                say({"done": "change", "served": await load.change(order["ues"])})
            case "stop":
                await load.stop()
                say({"done": "stop", "progress": load.progress()})
            case "read":
                say({"done": "read", "found": await load.read(order["network"], order["sample"])})
            case "end":
                return
            case other:
                say({"error": f"{other!r} is not an order"})


async def _report(load: Load) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        say({"progress": load.progress()})


async def _main(config: Config) -> int:
    async with SbiClient() as client:
        load = Load(config, client)
        try:
            await load.enter()
            await load.aim()
            beside = [asyncio.create_task(load.refresh()), asyncio.create_task(_report(load))]
            say({"ready": True})
            await _obey(load)
        except (Unreachable, Refused, NoProducer) as error:
            say({"error": str(error)})
            return 1
        for task in beside:
            task.cancel()
    return 0


def main() -> None:
    """Run the load generator until stdin ends or `end` is ordered."""
    parser = argparse.ArgumentParser(prog="outrider.bench.load", description="Writes at a fixed rate.")
    parser.add_argument("config", type=Path, help="a JSON file")
    config = msgspec.json.decode(parser.parse_args().config.read_bytes(), type=Config)
    sys.exit(uvloop.run(_main(config)))


if __name__ == "__main__":
    main()
