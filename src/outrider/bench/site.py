"""Two networks with a service and its load, as a run has them: what a course is given, and where figures come from."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from outrider.bench.load import Config
from outrider.bench.options import Options
from outrider.bench.steps import step
from outrider.core.refusal import Refused
from outrider.demo import usage
from outrider.demo.access import NetworkAt
from outrider.demo.processes import ProcessFailed, Running
from outrider.demo.stage import Operator, Stage, new_instance_id
from outrider.demo.usage import Used
from outrider.network.reach import Reach

POLL_S = 0.1
ASK_LIMIT_S = 30.0
"""For what a busy node is asked."""

_TO_A, _TO_B = [0, 1], [2, 3]
"""The stage's relays, by where they connect to: control and bulk."""


@dataclass(frozen=True)
class Site:
    """The networks are set up, the contexts are in the first one's store, and the load is there."""

    stage: Stage
    service: str
    load: Running
    options: Options
    contexts: int
    resets_s: list[float] = field(default_factory=list)
    """When all connections between the networks were broken."""
    _link: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The relay takes one order at a time."""

    @property
    def limit_s(self) -> float:
        """How long a move may take."""
        return self.options.limit_s(self.contexts)

    async def wire_bytes(self) -> int:
        """Bytes that have passed between the borders, both ways."""
        async with self._link:
            return await self.stage.relay_bytes()

    async def limit_link(self) -> None:
        """Give the link its rate, the same in each direction, for all connections together."""
        if (mbit := self.options.link.mbit) is not None:
            for ways in ({"forward": _TO_A, "backward": _TO_B}, {"forward": _TO_B, "backward": _TO_A}):
                await self._relay("rate", bytesPerS=mbit * 1e6 / 8, **ways)

    async def break_often(self) -> None:
        """Break all connections between the networks as often as was asked for; they may be made anew at once."""
        while (every_s := self.options.link.reset_every_s) is not None:
            await asyncio.sleep(every_s)
            await self._relay("reset")
            self.resets_s.append(time.monotonic())
            await self._relay("heal")

    async def _relay(self, do: str, **more: object) -> None:
        assert self.stage.relay is not None
        async with self._link:
            await self.stage.relay.order(do, **more)

    def used(self) -> dict[str, Used]:
        """What every process of the run has used by now, each with its children that have ended."""
        found: dict[str, Used] = {}
        assert self.stage.relay is not None
        for name, pid in [*_named(self.stage), ("relay", self.stage.relay.pid), ("load", self.load.pid)]:
            if (use := usage.used(pid, reaped=True)) is not None:
                before = found.get(name, Used(0.0, 0.0))
                found[name] = Used(before.cpu_s + use.cpu_s, before.peak_rss_mb + use.peak_rss_mb)
        return found

    def pids(self) -> dict[str, int]:
        """The processes that a profile looks at: those that move contexts."""
        return {name: pid for name, pid in _named(self.stage) if name.startswith(("keeper", "bulk"))}

    async def keepers(self, settled: bool) -> list[dict[str, Any]]:
        """What the two keepers say of themselves."""
        return [await _keeper(operator, self.service, settled) for operator in (self.stage.a, self.stage.b)]


def _named(stage: Stage) -> list[tuple[str, int]]:
    """Every process of the two networks, by what it is and where."""
    return [(f"{usage.kind(p)} {o.name}", p) for o in (stage.a, stage.b) if o.node for p in usage.family(o.node.pid)]


async def load_of(options: Options, contexts: int, stage: Stage) -> Running:
    """Start the load generator; it writes when it is told to."""
    config = Config(
        networks=[NetworkAt(id=o.id, nrf_root=o.nrf_root) for o in (stage.a, stage.b)],
        contexts=contexts,
        writes_per_s=options.rate_per_s,
        nf_instance_id=new_instance_id(),
        directory=str(stage.directory),
        shape=options.work.shape,
        skew=options.work.skew,
    )
    file = stage.directory / "load.json"
    file.write_bytes(msgspec.json.encode(config))
    return await Running.start("load", stage.directory / "load.log", "outrider.bench.load", str(file))


async def ask(
    operator: Operator, method: str, path: str, json: object = msgspec.UNSET, timeout_s: float = ASK_LIMIT_S
) -> Any:
    """What the operator's command asks the node, without the start-up of a command."""
    async with Reach(operator.directory) as reach:
        response = await reach.request(method, path, scope=path.split("/")[1], json=json, timeout_s=timeout_s)
    if response.status >= 300:
        raise ProcessFailed(f"{method} {path} answered {response.status}: {response.body[:300]!r}")
    return response.json()


async def running(operator: Operator, service: str) -> None:
    """Wait until the keeper has its store open again."""
    while True:
        shown = await ask(operator, "GET", f"/nlmsf-catalogue/v1/deployments/{service}")
        if shown["state"] == "RUNNING" and shown.get("keeper"):
            return
        await asyncio.sleep(POLL_S)


async def _keeper(operator: Operator, service: str, settled: bool) -> dict[str, Any]:
    """What a keeper says of itself; asked again while it is too busy. Nothing, if it need not be there (any more)."""
    try:
        async with step(f"asking the keeper of {operator.name}", ASK_LIMIT_S if settled else 2.0):
            while True:
                with contextlib.suppress(Refused):
                    shown = await ask(operator, "GET", f"/nlmsf-catalogue/v1/deployments/{service}", timeout_s=5.0)
                    if keeper := shown.get("keeper"):
                        return dict(keeper)
                await asyncio.sleep(POLL_S)
    except ProcessFailed:
        if settled:
            raise
        return {}


def monotonic_s(utc_ms: float) -> float:
    """An instant that a node wrote down, on the clock that the load generator uses."""
    return utc_ms / 1000 - (time.time() - time.monotonic())
