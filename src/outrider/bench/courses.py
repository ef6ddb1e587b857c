"""What is done to a service in a run: it moves, or a group comes for it, and what follows."""

import asyncio
import time
from dataclasses import dataclass

from outrider.bench.figures import SETTLED, Trip
from outrider.bench.site import Site, monotonic_s
from outrider.bench.steps import step
from outrider.bench.watch import Watch
from outrider.core import limits
from outrider.demo.fault import Fault, NotFired
from outrider.demo.injection import inject
from outrider.demo.processes import ProcessFailed

CHANGES_PER_S = 100
"""At least; so long may it take to change contexts at the target, and a minute."""


@dataclass
class Moved:
    """How the course went. `moved_s` is when the last context had changed owner, or time was up."""

    ended: str
    moved_s: float
    wire_bytes: int
    ues: int
    back: Trip | None = None
    killed_s: float | None = None


async def run(site: Site, watch: Watch) -> Moved:
    """The course of the workload."""
    match site.options.work.course:
        case "sweep":
            return await _sweep(site, watch)
        case "arrive":
            return await _arrive(site, watch)
        case "visit":
            return await _visit(site, watch)
        case "abort":
            return await _abort(site, watch)
    return await _crash(site, watch)


async def _sweep(site: Site, watch: Watch) -> Moved:
    """Everything moves."""
    before = await site.wire_bytes()
    await watch.start(site.service, site.stage.b.id, move_all=True)
    settled = await watch.until(lambda shown: shown["phase"] == SETTLED, site.limit_s)
    moved_s = monotonic_s(watch.shown["phases"][SETTLED]) if settled else time.monotonic()
    return Moved(watch.settled(site.limit_s), moved_s, await site.wire_bytes() - before, watch.moved_ues)


async def _arrive(site: Site, watch: Watch) -> Moved:
    """A group comes, and its contexts alone move; the end is the last answer to the group."""
    group = site.options.group(site.contexts)
    before = await site.wire_bytes()
    await watch.start(site.service, site.stage.b.id, move_all=False)
    begin = ("COPYING", "RELOCATING") if group.while_copying else ("RELOCATING",)
    if not await watch.until(lambda shown: shown["phase"] in begin, site.limit_s):
        return Moved(watch.settled(site.limit_s), time.monotonic(), await site.wire_bytes() - before, 0)
    coming = asyncio.create_task(
        site.load.order("arrive", ues=group.ues, seconds=group.seconds, requests=group.requests)
    )
    try:
        came = await watch.until(lambda _: coming.done(), group.seconds + site.limit_s)
    finally:
        if not coming.done():
            coming.cancel()
    moved_s, wire_bytes = time.monotonic(), await site.wire_bytes() - before
    if not came:
        return Moved(f"the group had not been served after {site.limit_s:g} s", moved_s, wire_bytes, watch.moved_ues)
    await coming
    if not await watch.until(lambda shown: shown["phase"] == "RELOCATING", site.limit_s):
        return Moved(watch.settled(site.limit_s), moved_s, wire_bytes, watch.moved_ues)
    return Moved(SETTLED, moved_s, wire_bytes, watch.moved_ues)


async def _visit(site: Site, watch: Watch) -> Moved:
    """Everything moves, some of it is changed there, and everything returns."""
    moved = await _sweep(site, watch)
    if moved.ended != SETTLED:
        return moved
    before = await site.wire_bytes()
    ues = max(1, round(site.contexts * site.options.work.changed))
    async with step("changing contexts at the target", 60.0 + ues / CHANGES_PER_S):
        served = (await site.load.order("change", ues=ues))["served"]
    if served < ues:
        raise ProcessFailed(f"only {served} of {ues} contexts could be changed at the target")
    await asyncio.sleep(0.5)  # what the shadow is sent a moment later belongs to the changes
    moved.back = await _back(site, watch, "return", await site.wire_bytes() - before)
    return moved


async def _abort(site: Site, watch: Watch) -> Moved:
    """Half of it moves, and all comes back."""
    before = await site.wire_bytes()
    await watch.start(site.service, site.stage.b.id, move_all=True)
    half = site.contexts // 2
    reached = await watch.until(lambda s: watch.moved_ues >= half or s["phase"] == SETTLED, site.limit_s)
    moved_s, wire_bytes = time.monotonic(), await site.wire_bytes() - before
    if not reached:
        return Moved(watch.settled(site.limit_s), moved_s, wire_bytes, watch.moved_ues)
    ues = watch.moved_ues
    return Moved(SETTLED, moved_s, wire_bytes, ues, await _back(site, watch, "abort", 0))


async def _back(site: Site, watch: Watch, order: str, stream_bytes: int) -> Trip:
    ues, before, begun_s = watch.moved_ues, await site.wire_bytes(), time.monotonic()
    await watch.order(order)
    asked_s = time.monotonic() - begun_s
    whole = await watch.until(lambda shown: "HOME" in shown["facts"] or shown["over"], site.limit_s)
    whole_s = time.monotonic() - begun_s if whole else None
    return Trip(
        asked_s=round(asked_s, 3),
        whole_s=None if whole_s is None else round(whole_s, 3),
        ues=ues,
        bytes=await site.wire_bytes() - before,
        stream_bytes=stream_bytes,
    )


async def _crash(site: Site, watch: Watch) -> Moved:
    """Everything moves, and the source's keeper dies when half of it is copied; its node starts it again."""
    chunks = max(1, site.contexts // limits.CHUNK_RECORDS // 2)
    killed_s: list[float] = []

    async def kill() -> None:
        await inject(Fault("fail-point", "A", f"chunk-sent:kill:{chunks}", "COPYING"), site.stage, site.load, "")
        killed_s.append(time.monotonic())

    killing = asyncio.create_task(kill())
    try:
        moved = await _sweep(site, watch)
        await killing
    except NotFired as error:
        raise ProcessFailed(str(error)) from None
    finally:
        killing.cancel()
    moved.killed_s = killed_s[0]
    return moved
