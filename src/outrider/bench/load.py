"""A consumer that writes at a fixed rate, to UEs drawn uniformly from all, in a process of its own.

Open loop: when a request is due is decided before, and its latency counts from then, so a service that stands still
for a moment is seen by every request that was due in that moment. A request is sent once and never again. The consumer
knows its network only: it discovers the service there, with real tokens, and follows a redirect.

Started with a JSON config file, it takes orders on stdin: `load`, `stop`, `read` (a sample, at either network), `end`.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from outrider.bench.seed import ROOT, SESSION, supi
from outrider.core.refusal import Refused
from outrider.demo.access import Access, NetworkAt, NoProducer
from outrider.demo.orders import orders, say
from outrider.sbi import headers
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource

IN_FLIGHT = 2_000
"""Requests open at a time; what is due beyond waits here, and its latency counts on."""

LIMIT_MS = 5_000
REFRESH_S = 1.0
"""How often discovery and token are asked for, which are cached as long as the NRF says."""

PROGRESS_S = 1.0


class Config(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the process is told. `networks[0]` is where it writes."""

    networks: list[NetworkAt]
    contexts: int
    writes_per_s: float
    nf_instance_id: str
    history: str
    seed: int = 1


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
        self.due_s = array("d")
        self.latency_ms = array("d")
        self.good = array("b")
        self._root = ""
        self._headers: list[tuple[str, str]] = []
        self._stopping = False
        self._open: set[asyncio.Task[None]] = set()
        self._writing: asyncio.Task[None] | None = None

    async def enter(self) -> None:
        """Register as a consumer in each network."""
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
        root = await self.access[0].find(SESSION)
        bearer = await self.tokens[0].bearer(scope=SESSION.name, target_nf_type=SESSION.nf_type)
        self._root = root + ROOT
        self._headers = [
            ("authorization", bearer),
            headers.with_max_rsp_time(LIMIT_MS),
            ("content-type", "application/json"),
        ]

    async def start(self) -> None:
        """Begin to write."""
        await self.aim()
        self._writing = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Begin nothing new, and wait for what is on its way."""
        self._stopping = True
        if self._writing is not None:
            await self._writing
        if self._open:
            await asyncio.wait(self._open)
        self._save()

    async def _write(self) -> None:
        chance = random.Random(self.config.seed)
        rate, contexts = self.config.writes_per_s, self.config.contexts
        start, seq = time.monotonic(), 0
        while not self._stopping:
            due = int((time.monotonic() - start) * rate) + 1
            while seq < due and len(self._open) < IN_FLIGHT:
                task = asyncio.create_task(self._one(seq, start + seq / rate, chance.randrange(contexts) + 1))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
                seq += 1
            await asyncio.sleep(0.001)

    async def _one(self, seq: int, due_s: float, ue: int) -> None:
        good = False
        try:
            response = await self._post(f"/{supi(ue)}/transactions", b'{"seq":%d}' % seq)
            good = response.status == 200
            if good:
                self.acknowledged[ue] += 1
                self.outcomes["ok"] += 1
            else:
                self.outcomes[f"{response.status} {_cause(response)}"] += 1
                if response.status in (500, 502, 504):
                    self.unknown.add(ue)
        except Unreachable as error:
            self.outcomes["not sent" if error.not_sent else "no answer"] += 1
            if not error.not_sent:
                self.unknown.add(ue)
        self.due_s.append(due_s)
        self.latency_ms.append((time.monotonic() - due_s) * 1000)
        self.good.append(good)

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
        """Read UEs at a network and compare with what was acknowledged: every write of those, and no more."""
        access, found = self.access[network], Counter[str]()
        written = sorted(self.acknowledged)
        chosen = random.Random(self.config.seed).sample(written, min(sample, len(written)))
        places = asyncio.Semaphore(64)

        async def one(ue: int) -> None:
            async with places:
                try:
                    response = await access.send(SESSION, "GET", f"{ROOT}/{supi(ue)}")
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
            served = said["servedBy"]
            by = "-".join(served[part] for part in ("mcc", "mnc", "nid") if part in served)
            found["served"] += by == access.network.id

        await asyncio.gather(*(one(ue) for ue in chosen))
        return dict(found)

    def progress(self) -> dict[str, Any]:
        """Where the load stands."""
        return {"outcomes": dict(self.outcomes), "open": len(self._open)}

    def _save(self) -> None:
        with Path(self.config.history).open("wb") as file:
            for column in (self.due_s, self.latency_ms, self.good):
                file.write(len(column).to_bytes(8, "little"))
                column.tofile(file)


class History(msgspec.Struct, frozen=True):
    """What the load generator saw of each request: when it was due, how long it took, whether it was served."""

    due_s: "array[float]"
    latency_ms: "array[float]"
    good: "array[int]"

    @classmethod
    def read(cls, path: Path) -> "History":
        """From the file that `Load` writes."""
        due_s, latency_ms, good = array("d"), array("d"), array("b")
        with path.open("rb") as file:
            for column in (due_s, latency_ms, good):
                column.fromfile(file, int.from_bytes(file.read(8), "little"))
        return cls(due_s, latency_ms, good)

    def between(self, from_s: float, to_s: float) -> tuple[list[float], int]:
        """Latencies of the requests that were due then and were served, and how many were not."""
        served = [
            ms
            for at, ms, good in zip(self.due_s, self.latency_ms, self.good, strict=True)
            if good and from_s <= at < to_s
        ]
        failed = sum(1 for at, good in zip(self.due_s, self.good, strict=True) if not good and from_s <= at < to_s)
        return served, failed


def _cause(response: Response) -> str:
    try:
        return str(response.json().get("cause", ""))
    except (msgspec.DecodeError, AttributeError):
        return ""


# ------------------------------------------------------------------------------------------- as a process


async def _obey(load: Load) -> None:
    async for order in orders():
        match order.get("do"):
            case "load":
                await load.start()
                say({"done": "load", "atS": time.monotonic()})
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
