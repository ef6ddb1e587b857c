"""One run over the two networks: its options, marks and files, the processes of its consumers, and who judges it.

Whether a migration goes on meanwhile is not known here: `run` directs one with it, `baseline` one without.
"""

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from outrider.demo.access import NetworkAt
from outrider.demo.checker import Findings, Phase, Timeline
from outrider.demo.client import Config
from outrider.demo.live import Screen
from outrider.demo.member import Load
from outrider.demo.processes import ProcessFailed, Running
from outrider.demo.report import Stretch
from outrider.demo.stage import Operator, Stage, new_instance_id
from outrider.demo.track import make_track, read_track, write_track
from outrider.demo.usage import Ledger

BEFORE_S = 4.0
"""Load before anything moves: what `during` is compared with."""

AFTER_S = 3.0
"""Load after everybody is home again."""

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
    networks = [at(operator, f"{number:06}") for number, operator in enumerate(stage.operators, 1)]
    if there is not None:
        networks[1] = there
    config = Config(
        networks=networks,
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
