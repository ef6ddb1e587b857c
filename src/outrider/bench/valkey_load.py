"""The load of `load`, for a pair of Valkey servers: the same bodies, rate, bounds and measures, in its own process.

A write is a `SET` of the whole context with its count and sequence number, as the service stores it. The client
follows `MOVED`, and goes to the server it was sent to from then on; there is one connection to each server, so the
answers of a server come in the order in which it served.

Takes orders on stdin: `fill`, `load`, `stop`, `read` (a sample, at the second server), `end`.
"""

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from outrider.bench.draw import drawer
from outrider.bench.openloop import LIMIT_MS, Answer, Fate, OpenLoop
from outrider.bench.resp import ReplyError, Resp
from outrider.bench.shapes import SHAPES, supi
from outrider.demo.orders import orders, say

HOST = "127.0.0.1"
REDIRECTS = 5
FILL_AT_ONCE = 1_000

_SEQ = re.compile(rb'"lastSeq":(\d+)')


class Config(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the process is told: the source's port and the target's."""

    ports: tuple[int, int]
    contexts: int
    writes_per_s: float
    history: str
    shape: str = "session"
    skew: float = 0.0
    seed: int = 1


class ValkeyLoad:
    """The writer, and what it saw."""

    def __init__(self, config: Config, servers: list[Resp]) -> None:
        self.config = config
        self.outcomes: Counter[str] = Counter()
        self._servers = servers
        self._at = 0
        self._acknowledged: tuple[dict[int, int], dict[int, int]] = ({}, {})
        """By server, the sequence number of the last write of each UE that it acknowledged."""
        self._unknown: set[int] = set()
        self._last_by_source_s: float | None = None
        self._shape = SHAPES[config.shape]
        draw = drawer(config.contexts, config.skew, random.Random(config.seed))
        self._loop = OpenLoop(config.writes_per_s, self._write, draw)

    async def fill(self) -> int:
        """Put every context into the source; the bytes of their bodies."""
        numbers, total = iter(range(1, self.config.contexts + 1)), 0
        while chunk := list(islice(numbers, FILL_AT_ONCE)):
            bodies = [self._shape.value(ue) for ue in chunk]
            total += sum(map(len, bodies))
            pairs = zip(chunk, bodies, strict=True)
            replies = await asyncio.gather(*(self._servers[0].call("SET", supi(ue), b) for ue, b in pairs))
            if wrong := next((r for r in replies if isinstance(r, ReplyError)), None):
                raise RuntimeError(f"the server did not take a context: {wrong}")
        return total

    def start(self) -> None:
        """Begin to write."""
        self._loop.start()

    async def stop(self) -> None:
        """Begin nothing new, and wait for what is on its way."""
        await self._loop.stop()
        self._loop.history.write(Path(self.config.history))

    async def _write(self, number: int, ue: int) -> Answer:
        at, key, value = self._at, supi(ue), _written(self._shape.value(ue), number + 1)
        for _ in range(REDIRECTS + 1):
            try:
                async with asyncio.timeout(LIMIT_MS / 1000):
                    reply = await self._servers[at].call("SET", key, value)
            except (TimeoutError, ConnectionError, asyncio.CancelledError) as error:
                self._unknown.add(ue)
                self.outcomes["no answer"] += 1
                if isinstance(error, asyncio.CancelledError):
                    raise
                return Answer(Fate.UNANSWERED)
            if not isinstance(reply, ReplyError):
                self._acknowledged[at][ue] = number + 1
                self.outcomes["ok"] += 1
                if at == 0:
                    self._last_by_source_s = time.monotonic()
                return Answer(Fate.SERVED, place=at + 1)
            word, *rest = str(reply).split()
            if word != "MOVED":
                self.outcomes[word] += 1
                return Answer(Fate.REFUSED)
            self.outcomes["redirected"] += 1
            at = self._at = self.config.ports.index(int(rest[-1].rpartition(":")[2]))
        self.outcomes["redirected for ever"] += 1
        return Answer(Fate.REFUSED)

    async def read(self, sample: int) -> dict[str, int]:
        """Read UEs at the target: each must have the write that was acknowledged last."""
        source, target = self._acknowledged
        last = {**source, **target}
        chosen = random.Random(self.config.seed).sample(sorted(last), min(sample, len(last)))
        found = Counter[str]()
        for ue in chosen:
            value = await self._servers[1].call("GET", supi(ue))
            if not isinstance(value, bytes):
                found["unread"] += 1
                continue
            seq = _SEQ.search(value)
            found["read"] += 1
            found["lost"] += (seq is None or int(seq[1]) != last[ue]) and ue not in self._unknown
        return dict(found)

    def progress(self) -> dict[str, Any]:
        """Where the load stands."""
        return {"outcomes": dict(self.outcomes), "lastBySourceS": self._last_by_source_s}


def _written(value: bytes, seq: int) -> bytes:
    """The context of a UE after a write."""
    return value.replace(b'"count":0,', b'"count":1,', 1).replace(b'"lastSeq":0,', b'"lastSeq":%d,' % seq, 1)


async def _obey(load: ValkeyLoad) -> None:
    async for order in orders():
        match order.get("do"):
            case "fill":
                say({"done": "fill", "bytes": await load.fill()})
            case "load":
                load.start()
                say({"done": "load"})
            case "stop":
                await load.stop()
                say({"done": "stop", "progress": load.progress()})
            case "read":
                say({"done": "read", "found": await load.read(order["sample"])})
            case "end":
                return
            case other:
                say({"error": f"{other!r} is not an order"})


async def _main(config: Config) -> int:
    try:
        load = ValkeyLoad(config, [await Resp.connect(HOST, port) for port in config.ports])
        say({"ready": True})
        await _obey(load)
    except (OSError, RuntimeError) as error:
        say({"error": str(error)})
        return 1
    return 0


def main() -> None:
    """Run the load generator until stdin ends or `end` is ordered."""
    parser = argparse.ArgumentParser(prog="outrider.bench.valkey_load", description="Writes at a fixed rate.")
    parser.add_argument("config", type=Path, help="a JSON file")
    config = msgspec.json.decode(parser.parse_args().config.read_bytes(), type=Config)
    sys.exit(uvloop.run(_main(config)))


if __name__ == "__main__":
    main()
