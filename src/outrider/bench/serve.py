"""What a host costs: the benchmark's service in one, with durable commits, beside the same app bare on granian.

Both are asked by the same load generator over HTTP/2 on this machine: first as many writes as 128 writers can have
served one after the other, then, open loop, half of what the slower of the two can, for latencies at the same rate.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from outrider.bench.figures import Bar
from outrider.bench.link import HOST, free_ports
from outrider.bench.load import LOAD, Config
from outrider.bench.openloop import STOP_LIMIT_S, Fate, History
from outrider.bench.relocation import BUILD_LIMIT_S, RUNNING_LIMIT_S
from outrider.bench.seed import seed_file
from outrider.bench.shapes import SHAPES
from outrider.bench.site import ASK_LIMIT_S, running
from outrider.bench.steps import step
from outrider.demo.access import NetworkAt
from outrider.demo.machine import Machine, this_machine
from outrider.demo.processes import ProcessFailed, Running
from outrider.demo.quantiles import Quantiles, quantiles
from outrider.demo.stage import Stage, new_instance_id

SHARE = 0.5
"""Of what the bare app serves; and of the rate at which latencies are taken."""


class Side(msgspec.Struct, frozen=True, rename="camel"):
    """One side, in one round."""

    per_s: float
    latency_ms: Quantiles
    failed: int


class Served(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Both sides, round by round."""

    command: str
    machine: Machine
    contexts: int
    rate_per_s: float
    """At which latencies were taken."""
    hosted: list[Side]
    bare: list[Side]
    bar: Bar


async def run(contexts: int, seconds: float, repeat: int, command: str, say: Callable[[str], None]) -> Served:
    """Measure both in turn, whoever was second first in the next round."""
    directory = Path(tempfile.mkdtemp(prefix="outrider-serve-"))
    stage = Stage(directory, rtt_ms=0.0)
    try:
        await _hosted(stage, contexts, say)
        async with _bare(directory) as root:
            ways = {"hosted": stage.a.nrf_root, "bare": root}
            rate_per_s = SHARE * min([await _capacity(stage, ways, way, contexts, seconds) for way in ways])
            found: dict[str, list[Side]] = {way: [] for way in ways}
            for round_ in range(repeat):
                for way in sorted(ways, reverse=bool(round_ % 2)):
                    found[way].append(await _side(stage, ways, way, contexts, seconds, rate_per_s))
                    say(f"{way}: {found[way][-1].per_s:.0f} requests/s")
    finally:
        await stage.close()
        shutil.rmtree(directory, ignore_errors=True)
    return Served(
        command=command,
        machine=this_machine(),
        contexts=contexts,
        rate_per_s=round(rate_per_s, 1),
        hosted=found["hosted"],
        bare=found["bare"],
        bar=judged(found["hosted"], found["bare"]),
    )


def judged(hosted: list[Side], bare: list[Side]) -> Bar:
    """The bar, by the median over the rounds."""
    ratio = statistics.median(h.per_s / b.per_s for h, b in zip(hosted, bare, strict=True))
    ours, theirs = (statistics.median(side.per_s for side in sides) for sides in (hosted, bare))
    said = f"{ratio:.2f} × ({ours:.0f} and {theirs:.0f} requests/s), every commit synced"
    return Bar("requests/s under a host ÷ bare on granian", f"≥ {SHARE}", said, "PASS" if ratio >= SHARE else "MISS")


async def _hosted(stage: Stage, contexts: int, say: Callable[[str], None]) -> None:
    shape = SHAPES["session"]
    async with step("setting the networks up", BUILD_LIMIT_S):
        await stage.build()
        service = await stage.deploy(shape.service)
        await stage.a.close()
    store = stage.a.directory / "services" / service / "data" / "contexts.db"
    _, seed_s = await asyncio.to_thread(seed_file, store, contexts, None, shape)
    say(f"{contexts} contexts are in the store ({seed_s:.1f} s)")
    async with step("the start on the seeded store", RUNNING_LIMIT_S):
        await stage.a.run()
        await running(stage.a, service)


@asynccontextmanager
async def _bare(directory: Path) -> AsyncIterator[str]:
    """The app on granian; its api root."""
    port = free_ports(1)[0]
    with (directory / "bare.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "granian", "--interface", "asgi", "--http", "2", "--no-ws", "--loop", "uvloop",
            "--host", HOST, "--port", str(port), "outrider.bench.bare:app", stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with step("the start of granian", ASK_LIMIT_S):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection(HOST, port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break
        if process.returncode is not None:
            raise ProcessFailed(f"granian ended: {(directory / 'bare.log').read_text()[-500:]}")
        yield f"http://{HOST}:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def _load(stage: Stage, ways: dict[str, str], way: str, contexts: int, rate: float) -> AsyncIterator[Running]:
    config = Config(
        networks=[NetworkAt(id=stage.a.id, nrf_root=ways["hosted"])],
        contexts=contexts,
        writes_per_s=rate,
        nf_instance_id=new_instance_id(),
        directory=str(stage.directory),
        bare="" if way == "hosted" else ways[way],
    )
    file = stage.directory / "load.json"
    file.write_bytes(msgspec.json.encode(config))
    async with step("the start of the load", ASK_LIMIT_S):
        load = await Running.start("load", stage.directory / "load.log", "outrider.bench.load", str(file))
    try:
        yield load
    finally:
        await load.end()


async def _capacity(stage: Stage, ways: dict[str, str], way: str, contexts: int, seconds: float) -> float:
    async with _load(stage, ways, way, contexts, 0.0) as load, step("the closed loop", seconds + ASK_LIMIT_S):
        return float((await load.order("probe", seconds=seconds))["perS"])


async def _side(stage: Stage, ways: dict[str, str], way: str, contexts: int, seconds: float, rate_per_s: float) -> Side:
    async with _load(stage, ways, way, contexts, rate_per_s) as load:
        async with step("the closed loop", seconds + ASK_LIMIT_S):
            per_s = float((await load.order("probe", seconds=seconds))["perS"])
        await load.order("load")
        await asyncio.sleep(seconds)
        async with step("stopping the load", STOP_LIMIT_S + 5):
            await load.order("stop")
    history = History.read(stage.directory / LOAD)
    served = [ms for ms, fate in zip(history.latency_ms, history.fate, strict=True) if fate == Fate.SERVED]
    return Side(round(per_s, 1), quantiles(served), len(history.fate) - len(served))
