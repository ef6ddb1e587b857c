"""How many communication services one node carries, and what each costs while nobody asks it anything.

Every service is a real package with a keeper and a worker of its own. A step adds services to those that are there; the
last one ends with a restart of the node with all of them.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from outrider.bench.growth import cost
from outrider.bench.growth.caller import asked, caller, created, nf_of, times
from outrider.bench.growth.cost import Cost
from outrider.bench.growth.fleet import Asking, Fleet, Member
from outrider.bench.growth.table import Curve, Part, Value, at_most, by, flat
from outrider.bench.growth.yard import yard
from outrider.bench.steps import step
from outrider.demo.quantiles import Quantiles
from outrider.demo.stage import Stage
from outrider.network.hosts import available_bytes

SERVICE_MB = 60.0
"""What one service takes; so much must be available for each."""

IDLE_S = 10.0
ASKED = 100
"""Discoveries, and requests to services in turn, at each step."""


class Step(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """So many services at once."""

    services: int
    deploy_s: float
    """For each that this step added: sent, verified, installed, started, registered."""
    held: dict[str, Cost]
    idle_cpu: dict[str, float]
    """Of one processor, by kind of process."""
    discovery_ms: Quantiles
    request_ms: Quantiles
    """A write, committed, to one service after the other."""


async def run(counts: Sequence[int], idle_s: float, say: Callable[[str], None]) -> Part:
    """Deploy so many services, one step after the other."""
    steps: list[Step] = []
    left_out: list[str] = []
    restart: dict[str, float] = {}
    async with yard() as (stage, fleet):
        await stage.b.close()  # only A is looked at
        members: list[Member] = []
        for count in counts:
            more = count - len(members)
            if (why := _no_room(count, more)) is not None:
                left_out.append(why)
                break
            steps.append(await _step(stage, fleet, members, more, idle_s))
            say(f"{count} services: {steps[-1].deploy_s:.2f} s each")
        if members:
            restart = await _restart(stage, members)
    return part(steps, restart, left_out)


def _no_room(count: int, more: int) -> str | None:
    available, needed = available_bytes(), more * SERVICE_MB * 1e6
    if available is None or available >= needed:
        return None
    return f"{count} services: {needed / 1e9:.1f} GB more are needed, {available / 1e9:.1f} GB are available"


async def _step(stage: Stage, fleet: Fleet, members: list[Member], more: int, idle_s: float) -> Step:
    made = await asyncio.to_thread(fleet.make, len(members), more)
    at_s = time.monotonic()
    async with step(f"deploying {more} services", 60 + 10 * more):
        await fleet.deploy(made)
    took_s = time.monotonic() - at_s
    members += made
    async with caller(stage.a) as access:
        for member in made:
            await created(access, member)
        discovery = await times(lambda n: access.discover(nf_of(members[n % len(members)])), ASKED)
        requests = await times(lambda n: asked(access, members[n % len(members)]), ASKED)
    assert stage.a.node is not None
    roots = [stage.a.node.pid]
    return Step(
        services=len(members),
        deploy_s=round(took_s / more, 3),
        idle_cpu=await cost.idle_cpu(roots, idle_s),
        held=cost.by_kind(roots),
        discovery_ms=discovery,
        request_ms=requests,
    )


async def _restart(stage: Stage, members: Sequence[Member]) -> dict[str, float]:
    """Seconds from the start of the node until it is ready, the median service runs, and the last does."""
    await stage.a.close()
    at_s, wanted, up_s = time.monotonic(), {m.service for m in members}, dict[str, float]()
    await stage.a.run()
    found = {"node": time.monotonic() - at_s}
    asking = Asking(stage.a)
    try:
        async with step("the start of all services again", 60 + 10 * len(members)):
            while len(up_s) < len(wanted):
                for deployment in (await asking.ask("GET", "/nlmsf-catalogue/v1/deployments"))["deployments"]:
                    if deployment["service"] in wanted and deployment["pid"]:
                        up_s.setdefault(deployment["service"], time.monotonic() - at_s)
                await asyncio.sleep(0.1)
    finally:
        await asking.close()
    order = sorted(up_s.values())
    found |= {"first": order[0], "median": order[len(order) // 2], "last": order[-1]}
    return {name: round(seconds, 2) for name, seconds in found.items()}


def part(steps: Sequence[Step], restart: dict[str, float], left_out: list[str]) -> Part:
    """The table and the bars."""
    rows = [_row(each) for each in steps]
    last = {f"{steps[-1].services:,}": restart["last"] / steps[-1].services} if restart and steps else {}
    said = (
        f" Start of the node with all of them: ready after {restart['node']} s; services run after {restart['first']} "
        f"(first), {restart['median']} (median) and {restart['last']} s (last)."
        if restart
        else ""
    )
    return Part(
        name="services",
        title="Communication services on one node",
        ran="Each service is its own package, keeper and worker; nobody asks them anything but this measurement."
        + said,
        rows=rows,
        curves=[
            Curve("services-memory", "services", ["node, MB", "keepers and workers, MB"], "MB"),
            Curve("services-latency", "services", ["discovery p50, ms", "request p50, ms"], "ms"),
        ],
        bars=[
            flat("memory of a service", 1.3, by(rows, "services", "MB for each service")),
            at_most(
                "idle, for each service", 0.5, "% of a processor", by(rows[-1:], "services", "idle % for each service")
            ),
            at_most("discovery, p50", 10, "ms", by(rows, "services", "discovery p50, ms")),
            at_most("start of the node again, for each service", 1.0, "s", last),
        ],
        left_out=left_out,
        raw=[*steps, restart],
    )


def _row(found: Step) -> dict[str, Value]:
    node = found.held.get("node", Cost())
    hosts = [found.held.get(kind, Cost()) for kind in ("keeper", "worker")]
    idle = sum(found.idle_cpu.values())
    return {
        "services": found.services,
        "processes": sum(each.processes for each in found.held.values()),
        "deploy, s for each": found.deploy_s,
        "node, MB": round(node.pss_mb, 1),
        "keepers and workers, MB": round(sum(each.pss_mb for each in hosts), 1),
        "MB for each service": round(sum(each.pss_mb for each in hosts) / found.services, 1),
        "idle % of a processor, node": round(100 * found.idle_cpu.get("node", 0.0), 2),
        "idle % for each service": round(100 * idle / found.services, 3),
        "open files, node": node.open_files,
        "open files, for each service": round(sum(each.open_files for each in hosts) / found.services, 1),
        "discovery p50, ms": found.discovery_ms.p50,
        "discovery p99, ms": found.discovery_ms.p99,
        "request p50, ms": found.request_ms.p50,
    }
