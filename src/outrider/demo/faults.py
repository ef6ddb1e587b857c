"""Faults for real: a group travels while processes are killed and links cut, and the same checker judges.

    python -m outrider.demo.faults --matrix full --report faults.json

Each run is a whole journey of a small group between two real networks: the service goes ahead, the group follows and
comes back, the service returns. During it one thing (or a few) goes wrong. Afterwards nothing acknowledged is lost,
nothing is applied twice, no key has two owners, timers and notifications are right, and the migration has ended,
retired or aborted with its cause, without anybody's help. A fault that did not fire makes its run fail. Runs share
the two networks as long as all is well with them; each has UEs of its own.
"""

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from outrider.core.refusal import Refused
from outrider.demo.checker import Findings
from outrider.demo.course import Options, Run, clients_of, judge, sink_of
from outrider.demo.example import example
from outrider.demo.injection import Fault, NotFired, inject, prepare, withdraw
from outrider.demo.live import Screen, View
from outrider.demo.matrix import full, pairwise
from outrider.demo.processes import ProcessFailed, Running
from outrider.demo.stage import HOME, TARGET, Stage
from outrider.demo.track import make_track, write_track

UES = 20
RATE = 2.0
OVER_S, STAY_S = 1.5, 3.0

READY_LIMIT_S = 40.0
"""The copy is whole, or the migration aborted, by then, whatever the fault."""

END_LIMIT_S = 60.0
"""The migration is over by then."""

LATE_NOTIFICATION_S = 15.0
"""A delivery that failed is tried again after up to 5 s; what has not come by then, three tries long, is lost."""

LATE_S = 0.7
"""A fault of RELOCATING comes when the group has been on its way for so long."""


class Outcome(msgspec.Struct, rename="camel", kw_only=True):
    """What became of one run."""

    faults: list[str]
    phase: str
    fired: list[str] = []
    ended: str = "?"
    """The migration's last phase, and its cause if it was aborted."""
    verdict: str = "FAIL"
    reasons: list[str] = []
    unavailable_s: float | None = None
    """Longest wait of a transaction that was answered."""
    failed: int = 0
    """Transactions that were given up, without or with a known fate."""
    sent: int = 0
    elapsed_s: float = 0.0
    files: str = ""


@dataclass
class Theatre:
    """The two networks, with the service deployed, for one run after the other."""

    directory: Path
    service_dir: Path
    stage: Stage | None = None
    service: str = ""
    runs: int = 0
    log_sizes: dict[Path, int] = field(default_factory=dict)

    async def ready(self) -> Stage:
        """The networks, set up now if they are not there."""
        if self.stage is None:
            folder = self.directory / f"stage-{self.runs + 1}"
            folder.mkdir(parents=True)
            stage = Stage(folder, rtt_ms=20.0)
            prepare(stage.a)
            prepare(stage.b)
            try:
                await stage.build()
                self.service = await stage.deploy(self.service_dir)
                await stage.permit()
            except BaseException:
                await stage.close()
                raise
            self.stage = stage
        self.runs += 1
        return self.stage

    async def close(self) -> None:
        """End the networks; the next run sets up new ones."""
        if self.stage is not None:
            stage, self.stage = self.stage, None
            await stage.close()

    def alarms(self, faults: Sequence[Fault]) -> list[str]:
        """What keepers and nodes have logged as an error since the last look: a fault of the product's own.

        A keeper without a disk has to say so.
        """
        assert self.stage is not None
        found: list[str] = []
        starved = {f.where.lower() for f in faults if f.kind == "disk"}
        for file in sorted(self.stage.directory.glob("[ab]/log/*.log")):
            text = file.read_bytes()[self.log_sizes.get(file, 0) :]
            self.log_sizes[file] = self.log_sizes.get(file, 0) + len(text)
            if file.name.startswith("keeper-") and file.parent.parent.name in starved:
                continue
            for line in text.splitlines():
                if b'"level":"error"' in line or line.startswith(b"Traceback"):
                    found.append(f"{file.parent.parent.name}/{file.name}: {line.decode(errors='replace')[:600]}")
        return found


async def play(theatre: Theatre, faults: Sequence[Fault]) -> Outcome:
    """One run with these faults."""
    began_s = time.monotonic()
    outcome = Outcome(faults=[str(f) for f in faults], phase=", ".join(dict.fromkeys(f.phase for f in faults)))
    try:
        stage = await theatre.ready()
        folder = stage.directory / f"run-{theatre.runs}"
        folder.mkdir()
        outcome.files = str(folder)
        await _Journey(theatre, stage, folder, faults, outcome).play()
    except (ProcessFailed, Refused, TimeoutError) as error:
        outcome.reasons.append(f"The run could not be finished: {error}")
    if theatre.stage is not None:
        withdraw(theatre.stage)
        outcome.reasons += theatre.alarms(faults)
    outcome.verdict = "FAIL" if outcome.reasons else "PASS"
    outcome.elapsed_s = round(time.monotonic() - began_s, 1)
    if outcome.verdict == "FAIL":
        await theatre.close()
    return outcome


class _Journey:
    """A journey during which faults happen."""

    def __init__(self, theatre: Theatre, stage: Stage, folder: Path, faults: Sequence[Fault], outcome: Outcome) -> None:
        self._service = theatre.service
        self._stage = stage
        self._faults = faults
        self._outcome = outcome
        moves = make_track(ues=UES, home=HOME, target=TARGET, seed=theatre.runs, over_s=OVER_S, stay_s=STAY_S)
        self._out_s = max(m.time_s for m in moves if m.network == TARGET)
        self._home_s = max(m.time_s for m in moves if m.network == HOME)
        track = folder / "given-track.csv"
        track.write_text(write_track(moves))
        options = Options(theatre.service_dir, ues=UES, rate=RATE, track=track, seed=theatre.runs, series=theatre.runs)
        self._run = Run(options, stage, Screen(View(HOME, TARGET), Console(file=StringIO())), folder=folder)
        self._injected: list[asyncio.Task[None]] = []
        self._seen = "before the migration"

    async def play(self) -> None:
        """Everything, to the verdict."""
        run = self._run
        async with sink_of(run) as sink, clients_of(run, sink) as clients:
            self._sink = sink
            opened = await clients.order("open")
            if opened.get("failed"):
                raise ProcessFailed(f"{opened['failed']} of {UES} sessions could not be opened")
            await clients.order("load")
            run.mark("load")
            try:
                await self._travel(clients)
            finally:
                run.mark("returned")
                for task in self._injected:
                    task.cancel()
                await asyncio.gather(*self._injected, return_exceptions=True)
            await asyncio.sleep(2.0)
            async with asyncio.timeout(60.0):
                await clients.order("stop")
                run.mark("end")
                await clients.order("read")
            self._note(await self._judged())

    async def _judged(self) -> Findings:
        """The verdict, when the notifications that a fault has put off have come, or are too late."""
        until_s = time.monotonic() + LATE_NOTIFICATION_S
        while True:
            findings = await judge(self._run, allow_failed=True)
            if not findings.notifications_lost or time.monotonic() > until_s:
                return findings
            await asyncio.sleep(1.0)

    async def _travel(self, clients: Running) -> None:
        run, stage, outcome = self._run, self._stage, self._outcome
        await asyncio.sleep(1.5)
        run.mark("begin")
        self._inject("START")
        run.migration_id = await stage.a.migrate(self._service, stage.b.id)
        if any(f.phase == "COPYING" for f in self._faults):
            await self._until({"COPYING", "RELOCATING", "SETTLED"}, READY_LIMIT_S)
            self._inject("COPYING")
        shown = await self._until({"RELOCATING", "SETTLED"}, READY_LIMIT_S)
        if not shown["over"]:
            await clients.order("travel")
            travel_s = time.monotonic()
            await asyncio.sleep(LATE_S)
            self._inject("RELOCATING")
            await asyncio.sleep(max(0.0, travel_s + self._home_s + 0.2 - time.monotonic()))
            await self._return()
            self._inject("RETURNING")
            shown = await self._until(set(), END_LIMIT_S)
        async with asyncio.timeout(END_LIMIT_S):
            await asyncio.gather(*self._injected)
        ending = shown.get("ending") or {}
        cause = ending.get("cause", "") if isinstance(ending, dict) else ending
        outcome.ended = f"{shown['phase']} {cause}".strip()
        if not shown["over"]:
            outcome.reasons.append(f"The migration has not ended: {shown['phase']}, {shown['sentence']}")
        elif shown["phase"] == "ABORTED" and not cause:
            outcome.reasons.append(f"The migration was aborted without a cause: {shown}")

    async def _return(self) -> None:
        """Ask for the way back; the node may be away for a moment."""
        until_s = time.monotonic() + 15.0
        while True:
            try:
                await self._stage.a.take_back(self._run.migration_id)
                return
            except (ProcessFailed, Refused):
                with contextlib.suppress(ProcessFailed, Refused):
                    shown = await self._stage.a.migration(self._run.migration_id)
                    if shown["over"] or shown["phase"] in ("RETURNING", "ABORTING"):
                        return
                if time.monotonic() > until_s:
                    raise
                await asyncio.sleep(0.3)

    async def _until(self, phases: set[str], limit_s: float) -> dict[str, Any]:
        """Wait for a phase, or for the migration's end; the node that is asked may be away for a moment."""
        until_s = time.monotonic() + limit_s
        shown: dict[str, Any] = {"phase": "?", "sentence": "", "over": False}
        while time.monotonic() < until_s:
            with contextlib.suppress(ProcessFailed, Refused):
                shown = await self._stage.a.migration(self._run.migration_id)
                self._seen = str(shown["phase"])
                if shown["phase"] in phases or shown["over"]:
                    return shown
            await asyncio.sleep(0.03)
        raise ProcessFailed(
            f"not {' or '.join(sorted(phases)) or 'over'} after {limit_s:g} s, but {shown['phase']}: "
            f"{shown['sentence']} waiting for {shown.get('waitingFor')}; {shown.get('progress')}"
        )

    def _inject(self, phase: str) -> None:
        for fault in self._faults:
            if fault.phase == phase:
                self._injected.append(asyncio.create_task(self._one(fault), name=str(fault)))

    async def _one(self, fault: Fault) -> None:
        try:
            seen = self._seen
            proof = await inject(fault, self._stage, self._sink, self._service)
            self._outcome.fired.append(f"{proof} ({seen if fault.kind != 'fail-point' else self._seen})")
        except NotFired as error:
            self._outcome.reasons.append(f"NOT FIRED: {error}")
        except (ProcessFailed, OSError) as error:
            self._outcome.reasons.append(f"{fault}: {error}")

    def _note(self, findings: Findings) -> None:
        outcome = self._outcome
        outcome.reasons += findings.reasons
        outcome.failed, outcome.sent = findings.requests_failed, findings.requests_sent
        worst = [q.max for q in findings.latency_ms.values() if q.max is not None]
        outcome.unavailable_s = round(max(worst) / 1000, 2) if worst else None
        if len(outcome.fired) != len(self._faults) and not any("NOT FIRED" in r for r in outcome.reasons):
            outcome.reasons.append("NOT FIRED: not every fault was done")


async def play_all(
    runs: Iterable[Sequence[Fault]], directory: Path, *, service_dir: Path | None = None, console: Console | None = None
) -> list[Outcome]:
    """Run after run; a run that fails gets its networks thrown away (its files stay)."""
    theatre = Theatre(directory, service_dir or example())
    outcomes: list[Outcome] = []
    try:
        for faults in runs:
            outcome = await play(theatre, faults)
            outcomes.append(outcome)
            if console is not None:
                say(console, len(outcomes), outcome)
    finally:
        await theatre.close()
    return outcomes


def say(console: Console, number: int, outcome: Outcome) -> None:
    """One line about a run, and why it failed if it did."""
    fired = "fired" if "NOT FIRED" not in " ".join(outcome.reasons) and outcome.fired else "NOT FIRED"
    console.print(
        f"{number:3} {' + '.join(outcome.faults)} | {outcome.phase} | {fired} | {outcome.ended} | {outcome.verdict} "
        f"| longest wait {outcome.unavailable_s} s, {outcome.failed} of {outcome.sent} given up "
        f"| {outcome.elapsed_s} s",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for reason in outcome.reasons:
        console.print(f"      {reason[:700]}", style="red", highlight=False, markup=False, soft_wrap=True)


def table(outcomes: Iterable[Outcome]) -> Table:
    """All runs, for people."""
    made = Table(title="Faults")
    for column in ("fault", "phase", "fired", "migration", "verdict", "longest wait s", "given up"):
        made.add_column(column)
    for o in outcomes:
        made.add_row(
            "\n".join(o.faults), o.phase, f"{len(o.fired)} of {len(o.faults)}", o.ended, o.verdict,
            "–" if o.unavailable_s is None else f"{o.unavailable_s:.2f}", f"{o.failed} of {o.sent}",
        )  # fmt: skip
    return made


def main() -> None:
    """Entry point; exit code 0 if every run passed."""
    parser = argparse.ArgumentParser(prog="outrider.demo.faults", description="Kill, stop and cut, and judge.")
    parser.add_argument("--matrix", choices=("full", "pairwise"), default="pairwise")
    parser.add_argument("--only", default="", help="runs of which a fault's text contains this; several with commas")
    parser.add_argument("--service", type=Path, default=example(), help="a service's folder")
    parser.add_argument("--keep", type=Path, help="keep all files in this new folder")
    parser.add_argument("--report", type=Path, help="write the outcomes here as JSON")
    options = parser.parse_args()
    runs = full() if options.matrix == "full" else pairwise()
    if options.only:
        wanted = options.only.split(",")
        runs = [r for r in runs if any(w in f"{f} {f.phase}" for w in wanted for f in r)]
    directory = options.keep or Path(tempfile.mkdtemp(prefix="outrider-faults-"))
    console = Console()
    try:
        outcomes = asyncio.run(play_all(runs, directory, service_dir=options.service, console=console))
    finally:
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    console.print(table(outcomes))
    if options.report is not None:
        options.report.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=2) + b"\n")
    passed = sum(o.verdict == "PASS" for o in outcomes)
    console.print(f"{passed} of {len(outcomes)} runs passed")
    sys.exit(0 if passed == len(outcomes) else 1)


if __name__ == "__main__":
    main()
