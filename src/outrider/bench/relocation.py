"""How long a service with many contexts takes to move, and what its users notice: one run of one size.

Two networks as `outrider demo` sets them up, each with its own node, keeper and worker, TLS between their borders, and
a relay in between that counts bytes. The contexts are put in by `seed`, the load is a process of its own (`load`), and
`migration start … --move-all` moves everything. A run is over when the source's LMSF says that nothing is left to
move, or when its time is up: then it says how far the move came. Every step has its limit (`steps`).
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from outrider.bench.figures import SETTLED, Size
from outrider.bench.load import Config
from outrider.bench.openloop import STOP_LIMIT_S, History
from outrider.bench.options import Options
from outrider.bench.profile import Hot, Profile
from outrider.bench.seed import SERVICE, seed_file
from outrider.bench.steps import step
from outrider.bench.timeline import Seen, Span, seen
from outrider.core.refusal import Refused
from outrider.demo import usage
from outrider.demo.access import NetworkAt
from outrider.demo.processes import ProcessFailed, Running
from outrider.demo.stage import Operator, Stage, new_instance_id
from outrider.demo.usage import Used
from outrider.network.reach import Reach

POLL_S = 0.1
BUILD_LIMIT_S = 180.0
"""For the commands that set two networks up; each is a process of its own."""

RUNNING_LIMIT_S = 60.0
ASK_LIMIT_S = 30.0
"""For what a busy node is asked."""

READ_LIMIT_S = 120.0


class _Run(NamedTuple):
    """What is known when the load has stopped."""

    service: str
    state_bytes: int
    seed_s: float
    capacity_per_s: float | None
    begun_s: float
    command_s: float
    moved_s: float
    ended_s: float
    shown: dict[str, Any]
    ended: str
    wire_bytes: int
    used: dict[str, Used]
    hot: dict[str, list[Hot]]
    outcomes: dict[str, int]
    sample: dict[str, int]
    keepers: list[dict[str, Any]]


async def run(options: Options, contexts: int, say: Callable[[str], None], round_: int = 1) -> Size:
    """Measure one size; the round tells this run's files from those of others."""
    name = f"{contexts}-{round_}"
    directory = Path(tempfile.mkdtemp(prefix="outrider-bench-")) if options.keep is None else options.keep / name
    directory.mkdir(parents=True, exist_ok=True)
    stage = Stage(directory, rtt_ms=options.rtt_ms)
    try:
        measured = await _run(options, contexts, stage, name, say)
        return _size(options, contexts, round_, measured, History.read(directory / "load.bin"))
    finally:
        await stage.close()
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(options: Options, contexts: int, stage: Stage, name: str, say: Callable[[str], None]) -> _Run:
    a, b = stage.a, stage.b
    async with step("setting the networks up", BUILD_LIMIT_S):
        await stage.build()
        service = await stage.deploy(SERVICE)
        await stage.permit()
        await a.close()
    store = a.directory / "services" / service / "data" / "contexts.db"
    state_bytes, seed_s = await asyncio.to_thread(seed_file, store, contexts, options.seed_limit_s(contexts))
    async with step("the start on the seeded store", RUNNING_LIMIT_S):
        await a.run()
        await _running(a, service)
    say(f"{contexts} contexts of {state_bytes / contexts:.0f} bytes are in the store of {a.id} ({seed_s:.1f} s)")
    async with step("the start of the load", ASK_LIMIT_S):
        load = await _load(options, contexts, stage)
    profile: Profile | None = None
    try:
        capacity_per_s = await _capacity(options, load, say)
        async with step("the first request of the load", ASK_LIMIT_S):
            await load.order("load")
        await asyncio.sleep(options.warm_s)
        begun_s = time.monotonic()
        await asyncio.sleep(options.before_s)
        if options.profile is not None:
            profile = Profile(lambda: _pids(stage), options.profile, name)
            await profile.start()
        used_before, bytes_before = _used(stage, load), await stage.relay_bytes()
        command_s = time.monotonic()
        shown, ended = await _move(a, {"service": service, "target": b.id, "moveAll": True}, options.limit_s(contexts))
        settled = ended == SETTLED
        moved_s = _monotonic_s(shown["phases"][SETTLED]) if settled else time.monotonic()
        wire_bytes = await stage.relay_bytes() - bytes_before
        used_after = _used(stage, load)
        hot = await profile.stop() if profile is not None else {}
        profile = None
        say(f"moved in {moved_s - command_s:.2f} s" if settled else f"not moved: {ended}")
        await asyncio.sleep(options.after_s)
        ended_s = time.monotonic()
        async with step("stopping the load", STOP_LIMIT_S + 5):
            outcomes = (await load.order("stop"))["progress"]["outcomes"]
        keepers = [await _keeper(o, service, settled) for o in (a, b)]
        async with step("reading the sample", READ_LIMIT_S):
            found = (await load.order("read", network=int(settled), sample=options.sample))["found"]
    finally:
        if profile is not None:
            await profile.stop()
        await load.end()
    return _Run(
        service, state_bytes, seed_s, capacity_per_s, begun_s, command_s, moved_s, ended_s, shown, ended, wire_bytes,
        usage.spent(used_before, used_after), hot, outcomes, found, keepers,
    )  # fmt: skip


async def _capacity(options: Options, load: Running, say: Callable[[str], None]) -> float | None:
    if not options.probe_s:
        return None
    async with step("the closed loop", options.probe_s + STOP_LIMIT_S + ASK_LIMIT_S):
        capacity_per_s: float = (await load.order("probe", seconds=options.probe_s))["perS"]
    say(f"the service can serve {capacity_per_s:.0f} writes/s; {options.writes_per_s:.0f} are scheduled")
    return round(capacity_per_s, 1)


def _size(options: Options, contexts: int, round_: int, run: _Run, history: History) -> Size:
    phases = {name: _monotonic_s(at_ms) for name, at_ms in run.shown.get("phases", {}).items()}
    settled_s = run.moved_s if run.ended == SETTLED else None
    copying_s, relocating_s = phases.get("COPYING"), phases.get("RELOCATING")
    copy: dict[str, Any] = next(iter(run.keepers[0].get("copies", {}).values()), {})
    return Size(
        contexts=contexts,
        round=round_,
        rtt_ms=options.rtt_ms,
        state_bytes=run.state_bytes,
        seed_s=round(run.seed_s, 1),
        capacity_per_s=run.capacity_per_s,
        ended=run.ended,
        total_s=_between(run.command_s, settled_s),
        prepare_s=_between(run.command_s, copying_s),
        copy_s=_between(copying_s, relocating_s),
        relocate_s=_between(relocating_s, settled_s),
        moved_ues=int((run.shown.get("progress") or {}).get("movedUes", 0)),
        marks_wrong=int(copy.get("marksWrong", 0)),
        grant_bodies=run.keepers[0].get("grantBodies", {}),
        wire_bytes=run.wire_bytes,
        waits={cause: _worst(run.keepers, cause) for cause in ("held", "arrival")},
        seen=_seen(options, run, history, copying_s, relocating_s),
        sample=run.sample,
        used=run.used,
        hot=run.hot,
    )


def _seen(options: Options, run: _Run, history: History, copying_s: float | None, relocating_s: float | None) -> Seen:
    spans = {
        "before": Span(run.begun_s, run.command_s),
        "during": Span(run.command_s, run.moved_s),
        "after": Span(run.moved_s, run.ended_s),
    }
    if copying_s is not None:
        spans["copying"] = Span(copying_s, relocating_s or run.moved_s)
    if relocating_s is not None:
        spans["relocating"] = Span(relocating_s, run.moved_s)
    return seen(history, spans, run.command_s, options.writes_per_s, run.outcomes)


def _between(from_s: float | None, to_s: float | None) -> float | None:
    return None if from_s is None or to_s is None else round(to_s - from_s, 3)


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


async def _ask(
    operator: Operator, method: str, path: str, json: object = msgspec.UNSET, timeout_s: float = ASK_LIMIT_S
) -> Any:
    """What the operator's command asks the node, without the start-up of a command."""
    async with Reach(operator.directory) as reach:
        response = await reach.request(method, path, scope=path.split("/")[1], json=json, timeout_s=timeout_s)
    if response.status >= 300:
        raise ProcessFailed(f"{method} {path} answered {response.status}: {response.body[:300]!r}")
    return response.json()


async def _running(operator: Operator, service: str) -> None:
    """Wait until the keeper has its store open again."""
    while True:
        shown = await _ask(operator, "GET", f"/nlmsf-catalogue/v1/deployments/{service}")
        if shown["state"] == "RUNNING" and shown.get("keeper"):
            return
        await asyncio.sleep(POLL_S)


async def _move(operator: Operator, wanted: dict[str, object], limit_s: float) -> tuple[dict[str, Any], str]:
    """Start the migration and wait until nothing is left to move, or time is up: what was shown last, and how it ended.

    Another end of the migration is a failure, with its cause. A node too busy to answer is asked again.
    """
    until_s = time.monotonic() + limit_s
    started = await _ask(operator, "POST", "/nlmsf-migration/v1/migrations", wanted)
    shown: dict[str, Any] = {}
    while time.monotonic() < until_s:
        try:
            shown = await operator.migration(started["migrationId"])
        except Refused:
            await asyncio.sleep(POLL_S)
            continue
        if shown["phase"] == SETTLED:
            return shown, SETTLED
        if shown["over"]:
            raise ProcessFailed(
                f"the migration is {shown['phase']}: {shown['sentence']} {shown['waitingFor']} {shown.get('refusals')}"
            )
        await asyncio.sleep(POLL_S)
    if not shown:
        return shown, f"the node did not answer within {limit_s:g} s"
    progress = shown.get("progress") or {}
    told = f"{progress.get('copiedUes', 0)} UEs copied, {progress.get('movedUes', 0)} moved"
    return shown, f"{shown['phase']} after {limit_s:g} s: {told}, waiting for {progress.get('waitingFor') or '?'}"


async def _keeper(operator: Operator, service: str, settled: bool) -> dict[str, Any]:
    """What a keeper says of itself; asked again while it is too busy. Nothing, if it need not be there yet."""
    try:
        async with step(f"asking the keeper of {operator.name}", ASK_LIMIT_S):
            while True:
                with contextlib.suppress(Refused):
                    shown = await _ask(operator, "GET", f"/nlmsf-catalogue/v1/deployments/{service}", timeout_s=5.0)
                    if keeper := shown.get("keeper"):
                        return dict(keeper)
                await asyncio.sleep(POLL_S)
    except ProcessFailed:
        if settled:
            raise
        return {}


def _worst(keepers: list[dict[str, Any]], cause: str) -> dict[str, float]:
    """The waits of a cause at both keepers, the worse of each figure."""
    waits = [k["waits"][cause] for k in keepers if k]
    worst: dict[str, float] = {figure: max((w[figure] for w in waits), default=0) for figure in ("p50", "p99", "max")}
    return {**worst, "count": sum(w["count"] for w in waits)}


def _named(stage: Stage) -> list[tuple[str, int]]:
    """Every process of the two networks, by what it is and where."""
    return [(f"{usage.kind(p)} {o.name}", p) for o in (stage.a, stage.b) if o.node for p in usage.family(o.node.pid)]


def _pids(stage: Stage) -> dict[str, int]:
    """The processes that a profile looks at: those that move contexts."""
    return {name: pid for name, pid in _named(stage) if name.startswith(("keeper", "bulk"))}


def _used(stage: Stage, load: Running) -> dict[str, Used]:
    """What every process of the run has used by now, each with its children that have ended."""
    found: dict[str, Used] = {}
    assert stage.relay is not None
    for name, pid in [*_named(stage), ("relay", stage.relay.pid), ("load", load.pid)]:
        if (use := usage.used(pid, reaped=True)) is not None:
            before = found.get(name)
            found[name] = (
                use if before is None else Used(before.cpu_s + use.cpu_s, before.peak_rss_mb + use.peak_rss_mb)
            )
    return found


def _monotonic_s(utc_ms: float) -> float:
    """An instant that a node wrote down, on the clock that the load generator uses."""
    return utc_ms / 1000 - (time.time() - time.monotonic())
