"""How long a service with many contexts takes to move, and what its users notice: one run for each size.

Two networks as `outrider demo` sets them up, each with its own node, keeper and worker, TLS between their borders, and
a relay in between that counts bytes. The contexts are put in by `seed`, the load is a process of its own (`load`), and
`migration start … --move-all` moves everything. A run is over when the source's LMSF says that nothing is left to move.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outrider.bench import usage
from outrider.bench.load import Config, History
from outrider.bench.result import Size
from outrider.bench.seed import SERVICE, seed_file
from outrider.bench.usage import Used
from outrider.demo.access import NetworkAt
from outrider.demo.processes import ProcessFailed, Running
from outrider.demo.quantiles import quantiles
from outrider.demo.stage import Operator, Stage, new_instance_id
from outrider.network.reach import Reach

WARM_S = 3.0
"""Load before what is counted as `before` begins."""

SAMPLE = 1_000
"""UEs that are read at the target afterwards."""

POLL_S = 0.1
RUNNING_LIMIT_S = 60.0


@dataclass(frozen=True)
class Options:
    """What the user may change."""

    contexts: list[int]
    writes_per_s: float = 5_000
    rtt_ms: float = 0.0
    before_s: float = 8.0
    after_s: float = 4.0
    move_limit_s: float = 600.0
    keep: Path | None = None


async def run(options: Options, contexts: int, say: Callable[[str], None]) -> Size:
    """Measure one size."""
    directory = (
        Path(tempfile.mkdtemp(prefix="outrider-bench-")) if options.keep is None else options.keep / str(contexts)
    )
    directory.mkdir(parents=True, exist_ok=True)
    stage = Stage(directory, rtt_ms=options.rtt_ms)
    try:
        return await _run(options, contexts, stage, say)
    finally:
        await stage.close()
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(options: Options, contexts: int, stage: Stage, say: Callable[[str], None]) -> Size:
    a, b = stage.a, stage.b
    await stage.build()
    service = await stage.deploy(SERVICE)
    await stage.permit()
    await a.close()
    store = a.directory / "services" / service / "data" / "contexts.db"
    state_bytes, seed_s = await asyncio.to_thread(seed_file, store, contexts)
    await a.run()
    await _running(a, service)
    say(f"{contexts} contexts of {state_bytes / contexts:.0f} bytes are in the store of {a.id} ({seed_s:.1f} s)")
    load = await _load(options, contexts, stage)
    try:
        await load.order("load")
        await asyncio.sleep(WARM_S)
        begun_s = time.monotonic()
        await asyncio.sleep(options.before_s)
        used_before, bytes_before = _used(stage, load), await stage.relay_bytes()
        command_s = time.monotonic()
        wanted = {"service": service, "target": b.id, "moveAll": True}
        started = await _ask(a, "POST", "/nlmsf-migration/v1/migrations", wanted)
        shown = await _settled(a, started["migrationId"], options.move_limit_s)
        settled_s = _monotonic_s(shown["phases"]["SETTLED"])
        wire_bytes = await stage.relay_bytes() - bytes_before
        used_after = _used(stage, load)
        say(f"moved in {settled_s - command_s:.2f} s")
        await asyncio.sleep(options.after_s)
        ended_s = time.monotonic()
        outcomes = (await load.order("stop"))["progress"]["outcomes"]
        keepers = [await _keeper(o, service) for o in (a, b)]
        found = (await load.order("read", network=1, sample=SAMPLE))["found"]
    finally:
        await load.end()
    history = History.read(stage.directory / "load.bin")
    phases = {name: _monotonic_s(at_ms) for name, at_ms in shown["phases"].items()}
    copying_s, relocating_s = phases["COPYING"], phases["RELOCATING"]
    spans = {
        "before": (begun_s, command_s),
        "copying": (copying_s, relocating_s),
        "relocating": (relocating_s, settled_s),
        "during": (command_s, settled_s),
        "after": (settled_s, ended_s),
    }
    seen = {name: history.between(*span) for name, span in spans.items()}
    copy: dict[str, Any] = next(iter(keepers[0]["copies"].values()), {})
    return Size(
        contexts=contexts,
        writes_per_s=options.writes_per_s,
        rtt_ms=options.rtt_ms,
        served_per_s=round(len(seen["before"][0]) / (command_s - begun_s), 1),
        state_bytes=state_bytes,
        seed_s=round(seed_s, 1),
        total_s=round(settled_s - command_s, 3),
        prepare_s=round(copying_s - command_s, 3),
        copy_s=round(relocating_s - copying_s, 3),
        relocate_s=round(settled_s - relocating_s, 3),
        moved_ues=int((shown.get("progress") or {}).get("movedUes", 0)),
        marks_wrong=int(copy.get("marksWrong", 0)),
        grant_bodies=keepers[0]["grantBodies"],
        wire_bytes=wire_bytes,
        waits={cause: _worst(keepers, cause) for cause in ("held", "arrival")},
        latency_ms={name: quantiles(served) for name, (served, _) in seen.items()},
        failed={name: failed for name, (_, failed) in seen.items()},
        outcomes=outcomes,
        sample=found,
        used=_spent(used_before, used_after),
    )


async def _load(options: Options, contexts: int, stage: Stage) -> Running:
    config = Config(
        networks=[NetworkAt(id=o.id, nrf_root=o.nrf_root) for o in (stage.a, stage.b)],
        contexts=contexts,
        writes_per_s=options.writes_per_s,
        nf_instance_id=new_instance_id(),
        history=str(stage.directory / "load.bin"),
    )
    file = stage.directory / "load.json"
    file.write_bytes(msgspec.json.encode(config))
    return await Running.start("load", stage.directory / "load.log", "outrider.bench.load", str(file))


async def _ask(operator: Operator, method: str, path: str, json: object = msgspec.UNSET) -> Any:
    """What the operator's command asks the node, without the start-up of a command."""
    async with Reach(operator.directory) as reach:
        response = await reach.request(method, path, scope=path.split("/")[1], json=json)
    if response.status >= 300:
        raise ProcessFailed(f"{method} {path} answered {response.status}: {response.body[:300]!r}")
    return response.json()


async def _running(operator: Operator, service: str) -> None:
    """Wait until the keeper has its store open again."""
    until_s = time.monotonic() + RUNNING_LIMIT_S
    while True:
        shown = await _ask(operator, "GET", f"/nlmsf-catalogue/v1/deployments/{service}")
        if shown["state"] == "RUNNING" and shown.get("keeper"):
            return
        if time.monotonic() > until_s:
            raise ProcessFailed(f"{service} does not run again: {shown['sentence']}")
        await asyncio.sleep(POLL_S)


async def _settled(operator: Operator, migration_id: str, limit_s: float) -> dict[str, Any]:
    """Wait until nothing is left to move; another end is a failure, with its cause."""
    until_s = time.monotonic() + limit_s
    while True:
        shown = await operator.migration(migration_id)
        if shown["phase"] == "SETTLED":
            return shown
        if shown["over"] or time.monotonic() > until_s:
            raise ProcessFailed(
                f"the migration is {shown['phase']}: {shown['sentence']} {shown['waitingFor']} {shown.get('refusals')}"
            )
        await asyncio.sleep(POLL_S)


async def _keeper(operator: Operator, service: str) -> dict[str, Any]:
    """What a keeper says of itself."""
    shown = await _ask(operator, "GET", f"/nlmsf-catalogue/v1/deployments/{service}")
    keeper: dict[str, Any] = shown["keeper"]
    return keeper


def _worst(keepers: list[dict[str, Any]], cause: str) -> dict[str, float]:
    """The waits of a cause at both keepers, the worse of each figure."""
    waits = [k["waits"][cause] for k in keepers]
    worst: dict[str, float] = {figure: max(w[figure] for w in waits) for figure in ("p50", "p99", "max")}
    return {**worst, "count": sum(w["count"] for w in waits)}


def _used(stage: Stage, load: Running) -> dict[str, Used]:
    """What every process of the run has used by now."""
    found: dict[str, Used] = {}
    assert stage.relay is not None
    assert stage.a.node is not None
    assert stage.b.node is not None
    named = [(f"{usage.kind(p)} {o.name}", p) for o in (stage.a, stage.b) if o.node for p in usage.family(o.node.pid)]
    for name, pid in [*named, ("relay", stage.relay.pid), ("load", load.pid)]:
        if (use := usage.used(pid)) is not None:
            before = found.get(name)
            found[name] = (
                use if before is None else Used(before.cpu_s + use.cpu_s, before.peak_rss_mb + use.peak_rss_mb)
            )
    return found


def _spent(before: dict[str, Used], after: dict[str, Used]) -> dict[str, Used]:
    """CPU seconds between the two looks, and the peak memory by the second."""
    return {
        name: Used(round(use.cpu_s - (before[name].cpu_s if name in before else 0.0), 2), use.peak_rss_mb)
        for name, use in after.items()
    }


def _monotonic_s(utc_ms: float) -> float:
    """An instant that a node wrote down, on the clock that the load generator uses."""
    return utc_ms / 1000 - (time.time() - time.monotonic())
