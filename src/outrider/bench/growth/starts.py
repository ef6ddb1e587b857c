"""How long a keeper takes to start, and to serve again after a crash under load, against the contexts in its store;
and what it holds in memory then.

One service; its store is filled while the node does not run, further for each step.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence

import msgspec

from outrider.bench.growth import cost
from outrider.bench.growth.table import Curve, Part, Value, at_most, by, flat
from outrider.bench.growth.yard import store_of, yard
from outrider.bench.load import LOAD
from outrider.bench.openloop import STOP_LIMIT_S, Fate, History
from outrider.bench.options import Options
from outrider.bench.relocation import RUNNING_LIMIT_S
from outrider.bench.seed import seed
from outrider.bench.shapes import SHAPES
from outrider.bench.site import ASK_LIMIT_S, ask, load_of, running
from outrider.bench.steps import step
from outrider.demo import usage
from outrider.demo.processes import ProcessFailed
from outrider.demo.stage import Stage
from outrider.store.port import Durability
from outrider.store.sqlite import SqliteStore

AGAIN_LIMIT_S = 60.0
FAILED = (Fate.UNANSWERED, Fate.REFUSED)


class Step(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A store of that size."""

    contexts: int
    state_bytes: int
    file_bytes: int
    start_s: float
    """From the start of the node, that of the keeper in it, until the service's NF service can be used."""
    recovery_s: float
    """From the kill of the keeper until the first request due later is served."""
    not_served: int
    """Requests that were refused or had no answer, all of them around the crash."""
    idle_mb: float
    """Of the keeper when it has just started."""
    busy_mb: float
    """Of the keeper that was started after the kill, when the load has written for some seconds."""


async def run(sizes: Sequence[int], writes_per_s: float, warm_s: float, say: Callable[[str], None]) -> Part:
    """Fill, start, load and kill at each size, the smallest first; `warm_s` of load before the kill, and after it."""
    steps: list[Step] = []
    shape, total, state = SHAPES["session"], 0, 0
    async with yard() as (stage, _):
        service = await stage.deploy(shape.service)
        for size in sorted(sizes):
            await stage.a.close()
            state += await asyncio.to_thread(_fill, stage, service, total, size - total)
            total = size
            steps.append(await _step(stage, service, size, state, writes_per_s, warm_s))
            say(f"{size} contexts: start {steps[-1].start_s:.2f} s, after a kill {steps[-1].recovery_s:.2f} s")
    return part(steps, writes_per_s)


def _fill(stage: Stage, service: str, have: int, more: int) -> int:
    store = SqliteStore.open(store_of(stage.a, service), durability=Durability.OFF)
    try:
        return seed(store, more, first=have + 1)
    finally:
        store.close()


async def _step(
    stage: Stage, service: str, contexts: int, state_bytes: int, writes_per_s: float, warm_s: float
) -> Step:
    at_s = time.monotonic()
    async with step("the start on the filled store", RUNNING_LIMIT_S):
        await stage.a.run()
        await _up(stage, service)
        await running(stage.a, service)
    start_s = time.monotonic() - at_s
    idle_mb = cost.of(await _keeper(stage, service)).pss_mb
    load = await load_of(Options(writes_per_s=writes_per_s), contexts, stage)
    try:
        async with step("the first request of the load", ASK_LIMIT_S):
            await load.order("load")
        await asyncio.sleep(warm_s)
        keeper, killed_s = await _keeper(stage, service), time.monotonic()
        os.kill(keeper, signal.SIGKILL)
        async with step("the keeper's start after it was killed", AGAIN_LIMIT_S):
            while await _keeper(stage, service) in (0, keeper):
                await asyncio.sleep(0.1)
        await asyncio.sleep(warm_s)
        busy_mb = cost.of(await _keeper(stage, service)).pss_mb
        async with step("stopping the load", STOP_LIMIT_S + 5):
            await load.order("stop")
    finally:
        await load.end()
    history = History.read(stage.directory / LOAD)
    return Step(
        contexts=contexts,
        state_bytes=state_bytes,
        file_bytes=store_of(stage.a, service).stat().st_size,
        start_s=round(start_s, 3),
        recovery_s=_served_after(history, killed_s),
        not_served=sum(fate in FAILED for fate in history.fate),
        idle_mb=round(idle_mb, 1),
        busy_mb=round(busy_mb, 1),
    )


async def _up(stage: Stage, service: str) -> None:
    while not await _keeper(stage, service):
        await asyncio.sleep(0.05)


async def _keeper(stage: Stage, service: str) -> int:
    shown = await ask(stage.a, "GET", f"/nlmsf-catalogue/v1/deployments/{service}")
    pid = int(shown["pid"])
    return pid if pid and usage.kind(pid) == "keeper" else 0


def _served_after(history: History, killed_s: float) -> float:
    columns = zip(history.due_s, history.latency_ms, history.fate, strict=True)
    ends = [due + ms / 1000 for due, ms, fate in columns if fate == Fate.SERVED and due > killed_s]
    if not ends:
        raise ProcessFailed("nothing was served after the keeper was killed")
    return round(min(ends) - killed_s, 3)


def part(steps: Sequence[Step], writes_per_s: float) -> Part:
    """The table and the bars."""
    rows: list[dict[str, Value]] = [
        {
            "contexts": each.contexts,
            "store, MB": round(each.file_bytes / 1e6, 1),
            "start, s": each.start_s,
            "served again after kill -9, s": each.recovery_s,
            "requests not served": each.not_served,
            "keeper idle, MB": each.idle_mb,
            "keeper under load, MB": each.busy_mb,
        }
        for each in steps
    ]
    return Part(
        name="starts",
        title="Start and recovery of a keeper against its state",
        ran=f"One service under {writes_per_s:g} writes/s, open loop, every commit synced; its keeper is killed under "
        "them. The start is the node's and the keeper's together.",
        rows=rows,
        curves=[
            Curve("starts", "contexts", ["start, s", "served again after kill -9, s"], "s"),
            Curve("starts-memory", "contexts", ["keeper idle, MB", "keeper under load, MB"], "MB"),
        ],
        bars=[
            flat("start, from the least state to the most", 1.3, by(rows, "contexts", "start, s")),
            at_most("served again after kill -9", 5, "s", by(rows, "contexts", "served again after kill -9, s")),
            at_most("memory of an idle keeper", 64, "MB", by(rows, "contexts", "keeper idle, MB")),
            at_most("memory of a keeper under load", 256, "MB", by(rows, "contexts", "keeper under load, MB")),
        ],
        raw=list(steps),
    )
