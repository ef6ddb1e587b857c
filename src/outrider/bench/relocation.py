"""How long a service with many contexts takes to move, and what its users notice: one run of one size.

Two networks as `outrider demo` sets them up, each with its own node, keeper and worker, TLS between their borders, and
a relay in between that counts bytes and imitates the link. The contexts are put in by `seed`, the load is a process of
its own (`load`), and what is done to the service is the workload's course (`courses`). A run is over when that is, or
when its time is up: then it says how far the move came. Every step has its limit (`steps`).
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from outrider.bench import ablation, courses
from outrider.bench.arrivals import arrived
from outrider.bench.courses import Moved
from outrider.bench.figures import SETTLED, Proof, Sample, Size
from outrider.bench.holds import holds
from outrider.bench.load import ARRIVALS, LOAD
from outrider.bench.openloop import STOP_LIMIT_S, Fate, History
from outrider.bench.options import Options
from outrider.bench.oracle import judge
from outrider.bench.profile import Hot, Profile
from outrider.bench.proof import proof
from outrider.bench.seed import Seeds, seed_file
from outrider.bench.shapes import SHAPES
from outrider.bench.site import ASK_LIMIT_S, Site, load_of, monotonic_s, running
from outrider.bench.steps import step
from outrider.bench.timeline import Seen, Span, seen
from outrider.bench.watch import Watch
from outrider.demo import injection, usage
from outrider.demo.stage import Stage
from outrider.demo.usage import Used

BUILD_LIMIT_S = 180.0
"""For the commands that set two networks up; each is a process of its own."""

RUNNING_LIMIT_S = 60.0
READ_LIMIT_S = 120.0


class _Run(NamedTuple):
    """What is known when the load has stopped."""

    service: str
    state_bytes: int
    seed_s: float
    capacity_per_s: float | None
    begun_s: float
    command_s: float
    ended_s: float
    shown: dict[str, Any]
    lag: list[Sample]
    moved: Moved
    used: dict[str, Used]
    hot: dict[str, list[Hot]]
    outcomes: dict[str, int]
    sample: dict[str, int]
    keepers: list[dict[str, Any]]
    resets: int


async def run(
    options: Options, contexts: int, say: Callable[[str], None], round_: int = 1, seeds: Seeds | None = None
) -> Size:
    """Measure one size; the round tells this run's files from those of others."""
    name = "-".join(filter(None, (options.workload, options.without, str(contexts), str(round_))))
    directory = Path(tempfile.mkdtemp(prefix="outrider-bench-")) if options.keep is None else options.keep / name
    directory.mkdir(parents=True, exist_ok=True)
    stage = Stage(directory, rtt_ms=options.link.rtt_ms)
    if options.work.course == "crash":
        injection.prepare(stage.a)
    for operator in (stage.a, stage.b):
        operator.env = operator.env | ablation.environment(options.without)
    try:
        measured = await _run(options, contexts, stage, name, say, seeds)
        await stage.close()
        there = stage.b.directory / "services" / measured.service / "data" / "contexts.db"
        proved = await asyncio.to_thread(proof, there) if _all_there(options, measured.moved) else None
        return _size(options, contexts, round_, measured, directory, proved)
    finally:
        await stage.close()
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(
    options: Options, contexts: int, stage: Stage, name: str, say: Callable[[str], None], seeds: Seeds | None
) -> _Run:
    a, shape = stage.a, SHAPES[options.work.shape]
    async with step("setting the networks up", BUILD_LIMIT_S):
        await stage.build()
        service = await stage.deploy(shape.service)
        await stage.permit()
        await a.close()
    store, limit_s = a.directory / "services" / service / "data" / "contexts.db", options.seed_limit_s(contexts)
    if seeds is None:
        state_bytes, seed_s = await asyncio.to_thread(seed_file, store, contexts, limit_s, shape)
    else:
        state_bytes, seed_s = await asyncio.to_thread(seeds.put, store, contexts, limit_s, options.work.shape)
    async with step("the start on the seeded store", RUNNING_LIMIT_S):
        await a.run()
        await running(a, service)
    say(f"{contexts} contexts of {state_bytes / contexts:.0f} bytes are in the store of {a.id} ({seed_s:.1f} s)")
    async with step("the start of the load", ASK_LIMIT_S):
        load = await load_of(options, contexts, stage)
    site, watch = Site(stage, service, load, options, contexts), Watch(a)
    profile: Profile | None = None
    breaking: asyncio.Task[None] | None = None
    try:
        capacity_per_s = await _capacity(site, say)
        async with step("the first request of the load", ASK_LIMIT_S):
            await load.order("load")
        await asyncio.sleep(options.warm_s)
        begun_s = time.monotonic()
        await asyncio.sleep(options.before_s)
        if options.profile is not None:
            profile = Profile(site.pids, options.profile, name)
            await profile.start()
        await site.limit_link()
        breaking = asyncio.create_task(site.break_often())
        used_before = site.used()
        watch.command_s = time.monotonic()
        moved = await courses.run(site, watch)
        used_after = site.used()
        breaking.cancel()
        hot = await profile.stop() if profile is not None else {}
        profile = None
        settled = moved.ended == SETTLED
        say(f"{options.workload}: moved in {moved.moved_s - watch.command_s:.2f} s" if settled else moved.ended)
        await asyncio.sleep(options.after_s)
        ended_s = time.monotonic()
        async with step("stopping the load", STOP_LIMIT_S + 5):
            outcomes = (await load.order("stop"))["progress"]["outcomes"]
        there = _all_there(options, moved)
        keepers = await site.keepers(there)
        async with step("reading the sample", READ_LIMIT_S):
            found = (await load.order("read", network=int(there), sample=options.sample))["found"]
    finally:
        if breaking is not None:
            breaking.cancel()
            await asyncio.gather(breaking, return_exceptions=True)
        if profile is not None:
            await profile.stop()
        await load.end()
    return _Run(
        service, state_bytes, seed_s, capacity_per_s, begun_s, watch.command_s, ended_s, watch.shown, watch.samples,
        moved, usage.spent(used_before, used_after), hot, outcomes, found, keepers, len(site.resets_s),
    )  # fmt: skip


def _all_there(options: Options, moved: Moved) -> bool:
    """Whether the target owns everything in the end, and is to be asked; else home answers for all."""
    return moved.ended == SETTLED and options.work.course in ("sweep", "crash")


async def _capacity(site: Site, say: Callable[[str], None]) -> float | None:
    seconds = site.options.probe_s if site.options.work.writes else 0.0
    if not seconds:
        return None
    async with step("the closed loop", seconds + STOP_LIMIT_S + ASK_LIMIT_S):
        capacity_per_s: float = (await site.load.order("probe", seconds=seconds))["perS"]
    say(f"the service can serve {capacity_per_s:.0f} writes/s; {site.options.writes_per_s:.0f} are scheduled")
    return round(capacity_per_s, 1)


def _size(options: Options, contexts: int, round_: int, run: _Run, directory: Path, proved: Proof | None) -> Size:
    moved, history = run.moved, History.read(directory / LOAD)
    group = History.read(directory / ARRIVALS) if (directory / ARRIVALS).exists() else None
    phases = {name: monotonic_s(at_ms) for name, at_ms in run.shown.get("phases", {}).items()}
    settled_s = moved.moved_s if moved.ended == SETTLED else None
    copying_s, relocating_s = phases.get("COPYING"), phases.get("RELOCATING")
    copy: dict[str, Any] = next(iter(run.keepers[0].get("copies", {}).values()), {})
    return Size(
        workload=options.workload,
        contexts=contexts,
        round=round_,
        link=options.link,
        without=options.without,
        state_bytes=run.state_bytes,
        seed_s=round(run.seed_s, 1),
        capacity_per_s=run.capacity_per_s,
        ended=moved.ended,
        total_s=_between(run.command_s, settled_s),
        prepare_s=_between(run.command_s, copying_s),
        copy_s=_between(copying_s, relocating_s),
        relocate_s=_between(relocating_s, settled_s),
        moved_ues=moved.ues,
        marks_wrong=int(copy.get("marksWrong", 0)),
        grant_bodies=run.keepers[0].get("grantBodies", {}),
        wire_bytes=moved.wire_bytes,
        waits={cause: _worst(run.keepers, cause) for cause in ("held", "arrival")},
        seen=_seen(options, run, history, copying_s, relocating_s),
        sample=run.sample,
        used=run.used,
        hot=run.hot,
        holds=holds(history, Span(run.command_s, moved.moved_s)),
        judged=judge([history] if group is None else [history, group]),
        arrived=None if group is None else arrived(group),
        back=moved.back,
        recovery_s=None if moved.killed_s is None else _recovery_s(history, moved.killed_s),
        resets=run.resets,
        proof=proved,
        lag=run.lag,
    )


def _seen(options: Options, run: _Run, history: History, copying_s: float | None, relocating_s: float | None) -> Seen:
    moved_s = run.moved.moved_s
    spans = {
        "before": Span(run.begun_s, run.command_s),
        "during": Span(run.command_s, moved_s),
        "after": Span(moved_s, run.ended_s),
    }
    if copying_s is not None:
        spans["copying"] = Span(copying_s, relocating_s or moved_s)
    if relocating_s is not None:
        spans["relocating"] = Span(relocating_s, moved_s)
    return seen(history, spans, run.command_s, options.rate_per_s, run.outcomes)


def _recovery_s(history: History, killed_s: float) -> float | None:
    """From that moment until the end of the first request that was due later and was served."""
    columns = zip(history.due_s, history.latency_ms, history.fate, strict=True)
    ends = (due + ms / 1000 for due, ms, fate in columns if fate == Fate.SERVED and due > killed_s)
    with contextlib.suppress(ValueError):
        return round(min(ends) - killed_s, 3)
    return None


def _between(from_s: float | None, to_s: float | None) -> float | None:
    return None if from_s is None or to_s is None else round(to_s - from_s, 3)


def _worst(keepers: list[dict[str, Any]], cause: str) -> dict[str, float]:
    """The waits of a cause at both keepers, the worse of each figure."""
    waits = [k["waits"][cause] for k in keepers if k]
    worst: dict[str, float] = {figure: max((w[figure] for w in waits), default=0) for figure in ("p50", "p99", "max")}
    return {**worst, "count": sum(w["count"] for w in waits)}
