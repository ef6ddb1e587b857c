"""Faults for real: a group travels while processes are killed and links cut, and the same checker judges.

    python -m outrider.demo.faults --matrix full --report faults.json

Each run is a whole journey of a small group between two real networks, or over three (`--matrix onward`): the service
goes ahead, the group follows and comes back, the service returns. During it one thing (or a few) goes wrong. Afterwards
nothing acknowledged is lost, nothing is applied twice, no key has two owners, timers and notifications are right, and
each migration has ended, retired or aborted with its cause, without anybody's help. A fault that did not fire makes its
run fail. Runs share the networks as long as all is well with them; each has UEs of its own.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from outrider.core.refusal import Refused
from outrider.demo import matrix
from outrider.demo.example import example
from outrider.demo.fault import Fault
from outrider.demo.injection import prepare, withdraw
from outrider.demo.journey import Journey, OnwardJourney
from outrider.demo.outcome import Outcome
from outrider.demo.processes import ProcessFailed
from outrider.demo.stage import Stage

RTT_MS = 20.0
MATRICES = {"full": matrix.full, "pairwise": matrix.pairwise, "onward": matrix.onward}


@dataclass
class Theatre:
    """The networks, with the service deployed, for one run after the other."""

    directory: Path
    service_dir: Path
    third: bool = False
    """Whether there is a third network, for journeys onward."""
    stage: Stage | None = None
    service: str = ""
    runs: int = 0
    log_sizes: dict[int, int] = field(default_factory=dict)
    """How much of each log was looked at, by inode: one may have two names."""

    async def ready(self) -> Stage:
        """The networks, set up now if they are not there."""
        if self.stage is None:
            folder = self.directory / f"stage-{self.runs + 1}"
            folder.mkdir(parents=True)
            stage = Stage(folder, rtt_ms=RTT_MS, third=self.third)
            for operator in stage.operators:
                prepare(operator)
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

        A keeper without a disk or memory has to say so.
        """
        assert self.stage is not None
        found: list[str] = []
        starved = {f.where.lower() for f in faults if f.kind in ("disk", "memory")}
        logs = [(file.parent.parent.name, file) for file in self.stage.directory.glob("[abc]/log/*.log")]
        logs += [(file.name[0], file) for file in self.stage.directory.glob(f"run-{self.runs}/[bc]-keeper-*.log")]
        for network, file in sorted(logs):
            known = self.log_sizes.get(file.stat().st_ino, 0)
            text = file.read_bytes()[known:]
            self.log_sizes[file.stat().st_ino] = known + len(text)
            if "keeper-" in file.name and network in starved:
                continue
            for line in text.splitlines():
                if b'"level":"error"' in line or line.startswith(b"Traceback"):
                    found.append(f"{network}/{file.name}: {line.decode(errors='replace')[:600]}")
        return found


async def play(theatre: Theatre, faults: Sequence[Fault], *, onward: bool = False) -> Outcome:
    """One run with these faults."""
    began_s = time.monotonic()
    try:
        stage = await theatre.ready()
    except (ProcessFailed, Refused, TimeoutError) as error:
        reasons = [f"The networks could not be set up: {error}"]
        return Outcome(faults=[str(f) for f in faults], phase="", reasons=reasons)
    folder = stage.directory / f"run-{theatre.runs}"
    folder.mkdir()
    kind = OnwardJourney if onward else Journey
    journey = kind(stage, theatre.service, theatre.service_dir, folder, faults, theatre.runs)
    outcome = journey.outcome
    try:
        await journey.play()
    except (ProcessFailed, Refused, TimeoutError) as error:
        outcome.reasons.append(f"The run could not be finished: {str(error) or 'something did not end in its time'}")
    withdraw(stage)
    outcome.reasons += theatre.alarms(faults)
    outcome.verdict = "FAIL" if outcome.reasons else "PASS"
    outcome.elapsed_s = round(time.monotonic() - began_s, 1)
    if outcome.verdict == "FAIL":
        await theatre.close()
    return outcome


async def play_all(
    runs: Iterable[Sequence[Fault]],
    directory: Path,
    *,
    onward: bool = False,
    service_dir: Path | None = None,
    console: Console | None = None,
) -> list[Outcome]:
    """Run after run; a run that fails gets its networks thrown away (its files stay)."""
    theatre = Theatre(directory, service_dir or example(), third=onward)
    outcomes: list[Outcome] = []
    try:
        for faults in runs:
            outcome = await play(theatre, faults, onward=onward)
            outcomes.append(outcome)
            if console is not None:
                say(console, len(outcomes), outcome)
    finally:
        await theatre.close()
    return outcomes


def say(console: Console, number: int, outcome: Outcome) -> None:
    """One line about a run, and why it failed if it did."""
    fired = f"{len(outcome.fired)} of {len(outcome.faults)} fired"
    faults = " + ".join(outcome.faults) or "no fault"
    console.print(
        f"{number:3} {outcome.route} | {faults} | {outcome.phase} | {fired} | {outcome.ended} | {outcome.verdict} "
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
    parser.add_argument("--matrix", choices=MATRICES, default="pairwise")
    parser.add_argument("--only", default="", help="runs of which a fault's text contains this; several with commas")
    parser.add_argument("--service", type=Path, default=example(), help="a service's folder")
    parser.add_argument("--keep", type=Path, help="keep all files in this new folder")
    parser.add_argument("--report", type=Path, help="write the outcomes here as JSON")
    options = parser.parse_args()
    runs = MATRICES[options.matrix]()
    if options.only:
        wanted = options.only.split(",")
        runs = [r for r in runs if any(w in f"{f} {f.when}" for w in wanted for f in r)]
    directory = options.keep or Path(tempfile.mkdtemp(prefix="outrider-faults-"))
    console = Console()
    try:
        third = options.matrix == "onward"
        outcomes = asyncio.run(play_all(runs, directory, onward=third, service_dir=options.service, console=console))
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
