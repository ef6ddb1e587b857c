"""One run: two networks, a group that travels, a service that moves ahead of it and returns, and the verdict.

This module only gives orders and notes when. The networks are set up by `stage`, the UEs are a process of their own
(`client`), and what happened is judged by another (`checker`) from the UEs' own histories.
"""

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from outrider.core.refusal import Refused
from outrider.demo.access import NetworkAt
from outrider.demo.baseline import run_baselines
from outrider.demo.checker import Findings, Phase, Timeline
from outrider.demo.client import Config
from outrider.demo.live import Screen
from outrider.demo.member import Load
from outrider.demo.processes import ProcessFailed, Running, together
from outrider.demo.quantiles import Quantiles
from outrider.demo.report import AddedWait, Measured, Report, Stretch, make_report
from outrider.demo.stage import Operator, Stage, new_instance_id
from outrider.demo.track import make_track, read_track, write_track
from outrider.demo.usage import Ledger

BEFORE_S = 4.0
"""Load before anything moves: what `during` is compared with."""

AFTER_S = 3.0
"""Load after everybody is home again."""

SETTLE_S = 0.5
"""Contexts of those who came last have changed owner by then."""

COPY_LIMIT_S = 30.0
MOVE_LIMIT_S = 60.0

STRETCHES = (
    ("start", "two networks and a package"),
    ("joined", "deploying and permitting"),
    ("deployed", "opening sessions"),
    ("load", "before"),
    ("begin", "copy"),
    ("ready", "the group goes over"),
    ("over", "the group is served there"),
    ("turning", "the group goes home"),
    ("return", "return"),
    ("returned", "after"),
    ("end", "verdict"),
)
"""The marks of a run, and what goes on from each to the next."""


@dataclass
class Options:
    """What the user may change."""

    service: Path
    ues: int = 300
    rate: float = 0.2
    rtt_ms: float = 20.0
    track: Path | None = None
    contexts: int | None = None
    seed: int = 1
    keep: Path | None = None
    baseline: bool = False
    series: int = 0

    @property
    def idle(self) -> int:
        """UEs beside the group, so that there are as many contexts as were asked for."""
        return max(0, (self.contexts or 0) - self.ues)


@dataclass
class Run:
    """A run in progress: where its files are, and what was noted."""

    options: Options
    stage: Stage
    screen: Screen
    marks: dict[str, float] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)
    ledger: Ledger = field(default_factory=Ledger)
    cpu_at: dict[str, float] = field(default_factory=dict)
    migration_id: str = ""
    keepers: list[dict[str, Any]] = field(default_factory=list)
    bytes_at: dict[str, int] = field(default_factory=dict)

    folder: Path | None = None
    """Where this run's files are, if not in the stage's folder."""

    @property
    def directory(self) -> Path:
        """Where this run's files are."""
        return self.folder or self.stage.directory

    def mark(self, name: str) -> None:
        """Note an instant, and the CPU seconds used by then."""
        self.marks[name] = time.monotonic()
        self.cpu_at[name] = self.ledger.look()

    def timeline(self) -> list[Stretch]:
        """What went on when."""
        ends = [mark for mark, _ in STRETCHES[1:]] + ["judged"]
        return [
            Stretch(
                name,
                round(self.marks[begin] - self.started_s, 2),
                round(self.marks[end] - self.started_s, 2),
                round(self.cpu_at[end] - self.cpu_at[begin], 2),
            )
            for (begin, name), end in zip(STRETCHES, ends, strict=True)
        ]

    def step(self, sentence: str) -> None:
        """Say that something is done."""
        self.screen.view.elapsed_s = time.monotonic() - self.started_s
        self.screen.step(sentence)


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


def turning(this: Run) -> tuple[float, float, float]:
    """When the last UE has gone over, the first turns home, and the last is home again, on the track's clock."""
    a, b = this.stage.a.id, this.stage.b.id
    moves = read_track(this.directory / "track.csv", ues=this.options.ues, networks=[a, b], home=a)
    over = [m.time_s for m in moves if m.network == b]
    home = [m.time_s for m in moves if m.network == a]
    over_s = max(over, default=0.0)
    home_s = max(home, default=over_s)
    # Where some turn home before others have gone over, the group is never there as a whole.
    return over_s, max(over_s, min(home, default=home_s)), home_s


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


# ------------------------------------------------------------------------------------------------ processes


@asynccontextmanager
async def sink_of(this: Run) -> AsyncIterator[Running]:
    """A consumer that is subscribed to the group's presence."""
    history = this.directory / "sink.jsonl"
    sink = await Running.start(
        "notification sink", this.directory / "sink.log", "outrider.demo.notify_sink", "--history", str(history)
    )
    try:
        yield sink
    finally:
        await sink.end()


@asynccontextmanager
async def clients_of(this: Run, sink: Running, there: NetworkAt | None = None) -> AsyncIterator[Running]:
    """The UEs; `there` is the target network as they see it."""
    options, stage = this.options, this.stage
    track = this.directory / "track.csv"
    if options.track is not None:
        shutil.copy(options.track, track)
    else:
        moves = make_track(ues=options.ues, home=stage.a.id, target=stage.b.id, seed=options.seed)
        track.write_text(write_track(moves))
    config = Config(
        networks=[at(stage.a, "000001"), there or at(stage.b, "000002")],
        home=stage.a.id,
        ues=options.ues,
        track=str(track),
        history=str(this.directory / "clients.jsonl"),
        nf_instance_id=new_instance_id(),
        load=Load(rate=options.rate, seed=options.seed, qos={"rate": 20, "burst": 40, "validityMs": 5_000}),
        callback_uri=sink.said["ready"]["uri"],
        idle=options.idle,
        series=options.series,
    )
    file = this.directory / "clients.json"
    file.write_bytes(msgspec.json.encode(config))
    clients = await Running.start("UEs", this.directory / "clients.log", "outrider.demo.client", str(file))
    try:
        yield clients
    finally:
        await clients.end()


def at(operator: Operator, tac: str) -> NetworkAt:
    """A network as UEs in it see it."""
    return NetworkAt(id=operator.id, nrf_root=operator.nrf_root, tac=tac)


# -------------------------------------------------------------------------------------------------- verdict


async def judge(this: Run, *, allow_failed: bool = False) -> Findings:
    """Let a process of its own judge what the histories say."""
    m = this.marks
    phases = [
        Phase("before", m["load"] + 1.0, m["begin"]),
        Phase("copy", m["begin"], m.get("ready", m["begin"])),
        # While the group only is where it is, nothing is copied and nothing changes owner.
        Phase("during", m["begin"], m.get("over", m["returned"])),
        Phase("during", m.get("turning", m["returned"]), m["returned"]),
        Phase("after", m["returned"], m["end"]),
    ]
    timeline = Timeline(this.stage.a.id, this.stage.b.id, phases)
    file = this.directory / "timeline.json"
    file.write_bytes(msgspec.json.encode(timeline))
    files = (this.directory / name for name in ("clients.jsonl", "sink.jsonl"))
    histories = [part for path in files for part in ("--history", str(path))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outrider.demo.checker", *histories, "--timeline", str(file),
        *(["--allow-failed"] if allow_failed else []),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode not in (0, 1):
        raise ProcessFailed(f"the checker could not judge: {err.decode(errors='replace')[-2000:]}")
    return msgspec.json.decode(out, type=Findings)


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
