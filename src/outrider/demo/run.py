"""One run: two networks, a group that travels, a service that moves ahead of it and returns, and the verdict.

This module only gives orders and notes when. The networks are set up by `stage`, the UEs are a process of their own
(`client`), and what happened is judged by another (`checker`) from the UEs' own histories.
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from outrider.core.refusal import Refused
from outrider.demo.baseline import run_baselines
from outrider.demo.checker import Findings
from outrider.demo.course import AFTER_S, BEFORE_S, Options, Run, clients_of, judge, sink_of, turning
from outrider.demo.live import Screen
from outrider.demo.processes import ProcessFailed, Running, together
from outrider.demo.quantiles import Quantiles
from outrider.demo.report import AddedWait, Measured, Report, make_report
from outrider.demo.stage import Stage

SETTLE_S = 0.5
"""Contexts of those who came last have changed owner by then."""


COPY_LIMIT_S = 30.0
MOVE_LIMIT_S = 60.0


async def run(options: Options, screen: Screen) -> Report:
    """Run the demo and return its report."""
    directory = options.keep or Path(tempfile.mkdtemp(prefix="outrider-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    stage = Stage(directory, rtt_ms=options.rtt_ms)
    this = Run(options, stage, screen)
    try:
        measured = await _run(this)
        return make_report(measured, await run_baselines(this) if options.baseline else None)
    finally:
        await stage.close()
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(this: Run) -> Measured:
    stage, options = this.stage, this.options
    a, b = stage.a, stage.b
    this.mark("start")
    async with AsyncExitStack() as stack:
        _, _, sink = await together(
            stage.build(), stage.pack(options.service), stack.enter_async_context(sink_of(this))
        )
        this.mark("joined")
        apart = f"{options.rtt_ms:g} ms between them"
        this.step(f"two networks, {a.id} and {b.id}, each with its own keys and process; {apart}")
        service, _, clients = await together(
            stage.deploy(options.service), stage.permit(), stack.enter_async_context(clients_of(this, sink))
        )
        this.mark("deployed")
        this.step(f"{service} built, signed by its vendor, and deployed at {a.id}")
        this.step("both operators have signed their permission over the same package and SBOM")
        opened = await clients.order("open")
        if opened.get("failed"):
            raise ProcessFailed(f"{opened['failed']} of {options.ues + options.idle} sessions could not be opened")
        idle = f", {options.idle} of them idle," if options.idle else ""
        this.step(f"{opened['opened']} UEs{idle} have opened a session at {a.id}")
        await _journey(this, clients, service)
        await clients.order("stop")
        this.mark("end")
        await clients.order("read")
        this.ledger.look()
    findings = await judge(this)
    this.mark("judged")
    return _measured(this, findings)


async def _journey(this: Run, clients: Running, service: str) -> None:
    """Load; the service goes ahead; the group goes over, stays, and comes back; the service returns before it."""
    stage = this.stage
    watching = asyncio.create_task(_watch(this, clients))
    try:
        await clients.order("load")
        this.mark("load")
        await asyncio.sleep(BEFORE_S)
        this.bytes_at["begin"] = await stage.relay_bytes()
        this.mark("begin")
        this.migration_id = await stage.a.migrate(service, stage.b.id)
        await _until(this, {"RELOCATING", "SETTLED"}, COPY_LIMIT_S)
        this.mark("ready")
        await clients.order("travel")
        set_out_s = time.monotonic()
        this.step(f"the service is ready at {stage.b.id} before the group is; permission, package and state are there")
        over_s, turning_s, home_s = turning(this)
        await _sleep_until(set_out_s + over_s + SETTLE_S)
        this.mark("over")
        this.bytes_at["over"] = await stage.relay_bytes()
        this.step(f"the group is at {stage.b.id} and is served there")
        await _sleep_until(set_out_s + turning_s)
        this.mark("turning")
        await _sleep_until(set_out_s + home_s + SETTLE_S)
        this.keepers = await _keepers(this, service)
        this.step("the group is home again, and so are its contexts; now the rest returns")
        this.bytes_at["return"] = await stage.relay_bytes()
        this.mark("return")
        await stage.a.take_back(this.migration_id)
        await _until(this, {"RETIRED", "ABORTED"}, MOVE_LIMIT_S)
        this.mark("returned")
        this.bytes_at["returned"] = await stage.relay_bytes()
        this.step(f"the service is home again; {stage.b.id} has erased it and signed for that")
        await asyncio.sleep(AFTER_S)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _sleep_until(at_s: float) -> None:
    await asyncio.sleep(max(0.0, at_s - time.monotonic()))


async def _keepers(this: Run, service: str) -> list[dict[str, Any]]:
    """What the two keepers say of themselves."""
    shown = await asyncio.gather(*(o.service(service) for o in (this.stage.a, this.stage.b)))
    return [s.get("keeper") or {} for s in shown]


async def _show(this: Run) -> dict[str, Any]:
    return await this.stage.a.migration(this.migration_id)


async def _until(this: Run, phases: set[str], limit_s: float) -> dict[str, Any]:
    """Wait for a phase of the migration; an end that was not asked for is a failure, with its cause."""
    until_s = time.monotonic() + limit_s
    while True:
        shown = await _show(this)
        if shown["phase"] in phases:
            return shown
        if shown["over"] or time.monotonic() > until_s:
            raise ProcessFailed(f"the migration is {shown['phase']}: {shown['sentence']} {shown.get('refusals')}")
        await asyncio.sleep(0.1)


async def _watch(this: Run, clients: Running) -> None:
    """Keep the live view true."""
    view = this.screen.view
    while True:
        view.elapsed_s = time.monotonic() - this.started_s
        view.progress = clients.said.get("progress", {}).get("progress", {})
        if this.migration_id:
            with contextlib.suppress(ProcessFailed, Refused):
                shown = await _show(this)
                view.phase, view.sentence = shown["phase"], shown["sentence"]
                view.waiting_for = shown["waitingFor"]
                view.migration = shown.get("progress") or view.migration
        else:
            view.phase = "load before the migration"
        this.screen.update()
        this.ledger.look()
        await asyncio.sleep(0.5)


# -------------------------------------------------------------------------------------------------- verdict


def _measured(this: Run, findings: Findings) -> Measured:
    """What the networks say of themselves, beside the verdict; the verdict does not depend on it."""
    m, size, home = this.marks, this.bytes_at, this.keepers[0]
    copy: dict[str, Any] = next(iter(home["copies"].values()), {})
    return Measured(
        **msgspec.structs.asdict(findings),
        contexts=int(copy.get("copiedUes", 0)),
        relocations=sum(sum(k["grantBodies"].values()) for k in this.keepers),
        migration_s=round(m["ready"] - m["begin"], 3),
        state_bytes=int(copy.get("stateBytes", 0)),
        wire_bytes=size["over"] - size["begin"],
        return_s=round(m["returned"] - m["return"], 3),
        return_wire_bytes=size["returned"] - size["return"],
        added_wait_ms=AddedWait(arrival=_worst(this.keepers, "arrival"), held=_worst(this.keepers, "held")),
        rtt_ms=this.options.rtt_ms,
        elapsed_s=round(time.monotonic() - this.started_s, 1),
        rate=this.options.rate,
        seed=this.options.seed,
        timeline=this.timeline(),
        cpu_s=this.ledger.by_kind(),
    )


def _worst(keepers: list[dict[str, Any]], cause: str) -> Quantiles:
    """The waits of a cause at both keepers, the worse of each figure."""
    waits = [k["waits"][cause] for k in keepers]
    worst = {figure: max(w[figure] for w in waits) for figure in ("p50", "p99", "max")}
    return Quantiles(count=sum(int(w["count"]) for w in waits), **worst)
