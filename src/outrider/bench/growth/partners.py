"""How many partners one node carries: their cards, and two mTLS listeners for each, which wait for that one alone.

All but one partner have keys, a card and a folder, and are not started: what is measured is the node that waits for
them. The one that runs asks through its own listener while those of the others are there.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from outrider.bench.growth import cost
from outrider.bench.growth.caller import caller, times
from outrider.bench.growth.cost import Cost
from outrider.bench.growth.table import Curve, Part, Value, at_most, by, flat
from outrider.bench.growth.yard import yard
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.demo.access import Nf
from outrider.demo.processes import ProcessFailed
from outrider.demo.quantiles import Quantiles
from outrider.demo.stage import Stage
from outrider.network import config as configs
from outrider.network.config import NetworkConfig
from outrider.network.create import create
from outrider.network.keys import Keys
from outrider.network.partner import Partners

ASKED = 200

_AMF = Nf("AMF", "namf-basic", "internet")


class Step(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """So many partners at once."""

    partners: int
    start_s: float
    """From the start of the process until the node is ready, all listeners open."""
    start_cpu_s: float
    """Processor time of the node until then."""
    held: Cost
    idle_cpu: float
    through_ms: Quantiles
    """A discovery by a consumer of the partner that runs: through both borders to this node's NRF, and back."""


async def run(counts: Sequence[int], restarts: int, idle_s: float, say: Callable[[str], None]) -> Part:
    """Add so many partners to network B, one step after the other; A is the one that runs. B is started anew each time,
    `restarts` times, and its shortest start counts.
    """
    steps: list[Step] = []
    async with yard() as (stage, _):
        files = _files(stage.b.directory)
        for count in counts:
            have = len(files.all())
            await asyncio.to_thread(_exchange, stage, files, have, count)
            steps.append(await _step(stage, count, restarts, idle_s))
            say(f"{count} partners: ready after {steps[-1].start_s:.2f} s")
    return part(steps)


def _files(directory: Path) -> Partners:
    return Partners(directory / "partners", configs.load(directory / configs.FILE_NAME), Keys(directory / "keys"))


def _exchange(stage: Stage, files: Partners, have: int, wanted: int) -> None:
    """Make networks with keys of their own; they and B exchange cards."""
    for number in range(have, wanted):
        identity, folder = NetworkId.parse(f"999-{number:03}"), stage.directory / f"partner-{number}"
        config = msgspec.convert(
            {
                "network": {"id": str(identity), "kind": "plmn", "name": f"P{number}"},
                "sbi": {"port": 0},
                "border": {"host": "127.0.0.1", "listen": "127.0.0.1", "port": 1024 + 4 * number},
            },
            NetworkConfig,
        )
        create(folder, config)
        theirs = _files(folder)
        b = NetworkId.parse(stage.b.id)
        for mine, other, whom in ((files, theirs, identity), (theirs, files, b)):
            card = mine.invite(whom)
            if isinstance(card, Refusal):
                raise ProcessFailed(str(card))
            added = other.add(card)
            if isinstance(added, Refusal):
                raise ProcessFailed(str(added))


async def _step(stage: Stage, partners: int, restarts: int, idle_s: float) -> Step:
    starts, cpu_s = [], []
    for _ in range(restarts):
        await stage.b.close()
        at_s = time.monotonic()
        await stage.b.run()
        starts.append(time.monotonic() - at_s)
        assert stage.b.node is not None
        cpu_s.append(cost.of(stage.b.node.pid).cpu_s)
    assert stage.b.node is not None
    root = stage.b.node.pid
    there = NetworkId.parse(stage.b.id)
    async with caller(stage.a) as access:
        await times(lambda _: access.discover(_AMF, there), 5)
        through = await times(lambda _: access.discover(_AMF, there), ASKED)
    return Step(
        partners=partners,
        start_s=round(min(starts), 3),
        start_cpu_s=min(cpu_s),
        idle_cpu=sum((await cost.idle_cpu([root], idle_s)).values()),
        held=cost.of(root),
        through_ms=through,
    )


def part(steps: Sequence[Step]) -> Part:
    """The table and the bars."""
    rows: list[dict[str, Value]] = [_row(each, steps[0]) for each in steps]
    return Part(
        name="partners",
        title="Partners of one node",
        ran="Each partner has its own CA and card and two listeners here, control and bulk; one partner runs and asks.",
        rows=rows,
        curves=[
            Curve("partners-start", "partners", ["start, s"], "s"),
            Curve("partners-memory", "partners", ["node, MB"], "MB"),
            Curve("partners-latency", "partners", ["through the border p50, ms", "through the border p99, ms"], "ms"),
        ],
        bars=[
            at_most("memory for each further partner", 3, "MB", by(rows, "partners", "MB for each further")),
            at_most(
                "start for each further partner", 50, "ms of CPU", by(rows[-1:], "partners", "CPU ms for each further")
            ),
            at_most("idle node", 3, "% of a processor", by(rows, "partners", "idle % of a processor")),
            flat(
                "a request through one partner's border, p50", 1.5, by(rows, "partners", "through the border p50, ms")
            ),
        ],
        raw=list(steps),
    )


def _row(found: Step, first: Step) -> dict[str, Value]:
    more = found.partners - first.partners
    return {
        "partners": found.partners,
        "start, s": found.start_s,
        "start, CPU s": found.start_cpu_s,
        "CPU ms for each further": round(1000 * (found.start_cpu_s - first.start_cpu_s) / more, 1) if more else None,
        "node, MB": round(found.held.pss_mb, 1),
        "MB for each further": round((found.held.pss_mb - first.held.pss_mb) / more, 2) if more else None,
        "open files": found.held.open_files,
        "threads": found.held.threads,
        "idle % of a processor": round(100 * found.idle_cpu, 2),
        "through the border p50, ms": found.through_ms.p50,
        "through the border p99, ms": found.through_ms.p99,
    }
