"""Faults for long: journey after journey between two real networks, with random faults, and an eye on what grows.

    python -m outrider.demo.soak --minutes 60 --report soak.json

Each journey is one of `faults`: a group of its own travels there and back, none, one or two things go wrong, and the
same checker judges. The networks, their processes and files stay from one journey to the next, so that what is never
given back shows. After each journey memory, files and open files are noted; at the end the last quarter is compared
with the second: more than `GROWTH` times as much is growth without bound, and a FAIL. The seed of a run is printed, and
chooses the same faults again.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from outrider.demo.example import example
from outrider.demo.faults import Outcome, Theatre, play, say
from outrider.demo.injection import Fault
from outrider.demo.machine import Machine, this_machine
from outrider.demo.matrix import full
from outrider.demo.stage import Stage
from outrider.demo.usage import family, kind

GROWTH = 1.5
"""So many times as much in the last quarter of the journeys as in the second is growth."""

NOTICED = {"rssMb": 16.0, "fileMb": 8.0, "openFiles": 32.0}
"""Growth by less than this is none: caches fill, and each journey has UEs of its own, whose heads stay."""

LEAST_JOURNEYS = 8
"""With fewer nothing can be said about growth."""

ODDS = (1, 5, 2)
"""How often a journey has no fault, one, and two."""


class Sample(msgspec.Struct, rename="camel", kw_only=True):
    """What the two networks hold after a journey."""

    at_s: float
    rss_mb: dict[str, float]
    """Resident memory of each kind of process, both networks together."""
    open_files: dict[str, float]
    file_mb: dict[str, float]
    """Files by what they are; logs are the operator's to rotate, and only told."""


class Soak(msgspec.Struct, rename="camel", kw_only=True):
    """A report."""

    seed: int
    machine: Machine
    minutes: float
    outcomes: list[Outcome]
    samples: list[Sample]
    recovery_s: dict[str, dict[str, float]]
    """Longest wait of a transaction in journeys with only that fault: how many, median and largest."""
    grew: list[str]
    verdict: str


def chosen(chance: random.Random) -> list[Fault]:
    """The faults of one journey."""
    [count] = chance.choices(range(len(ODDS)), ODDS)
    return [fault for [fault] in chance.sample(full(), count)]


def sample(stage: Stage, began_s: float) -> Sample:
    """Look at the processes and files of both networks."""
    rss: dict[str, float] = defaultdict(float)
    descriptors: dict[str, float] = defaultdict(float)
    for operator in (stage.a, stage.b):
        assert operator.node is not None
        for pid in family(operator.node.pid):
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                count = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            except OSError:
                continue  # it has ended
            rss[kind(pid)] += pages * 4096 / 1e6
            descriptors[kind(pid)] += count
    sizes: dict[str, float] = defaultdict(float)
    for file in stage.directory.glob("[ab]/**/*"):
        try:
            if file.is_file():
                sizes[_what(file)] += file.stat().st_size / 1e6
        except OSError:
            continue
    rounded = ({name: round(value, 2) for name, value in sorted(each.items())} for each in (rss, descriptors, sizes))
    rss_mb, open_files, file_mb = rounded
    return Sample(
        at_s=round(time.monotonic() - began_s, 1), rss_mb=rss_mb, open_files=open_files, file_mb=file_mb
    )  # fmt: skip


def _what(file: Path) -> str:
    if file.suffix == ".log":
        return "logs"
    if file.name.startswith("contexts.db"):
        return "store log" if file.name.endswith("-wal") else "store"
    return "journal" if file.name.startswith("lmsf.db") else "other"


def growth(samples: Sequence[Sample]) -> list[str]:
    """What grew, in words."""
    if len(samples) < LEAST_JOURNEYS:
        return []
    quarter = len(samples) // 4
    found = []
    for field, least in NOTICED.items():
        taken = [msgspec.to_builtins(s)[field] for s in samples]
        for name in sorted({name for each in taken for name in each} - {"logs"}):
            values = [each.get(name, 0.0) for each in taken]
            early, late = median(values[quarter : 2 * quarter]), median(values[-quarter:])
            if late > GROWTH * early and late - early > least:
                found.append(f"{field} of {name}: {early:g} in the second quarter, {late:g} in the last")
    return found


def recovery(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """How long the worst-off transaction waited, by fault, where there was only one."""
    waits: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if len(outcome.faults) < 2 and outcome.unavailable_s is not None:
            waits[outcome.faults[0] if outcome.faults else "no fault"].append(outcome.unavailable_s)
    return {
        fault: {"journeys": len(each), "median": round(median(each), 2), "max": max(each)}
        for fault, each in sorted(waits.items())
    }


async def soak(minutes: float, seed: int, directory: Path, service_dir: Path, console: Console) -> Soak:
    """Journeys until the time is up."""
    began_s = time.monotonic()
    chance = random.Random(seed)
    theatre = Theatre(directory, service_dir)
    outcomes: list[Outcome] = []
    samples: list[Sample] = []
    try:
        while time.monotonic() < began_s + minutes * 60:
            outcome = await play(theatre, chosen(chance))
            outcomes.append(outcome)
            say(console, len(outcomes), outcome)
            if theatre.stage is None:
                samples.clear()  # new networks: what the old ones held says nothing of these
            else:
                samples.append(sample(theatre.stage, began_s))
    finally:
        await theatre.close()
    grew = growth(samples)
    failed = any(o.verdict != "PASS" for o in outcomes)
    return Soak(
        seed=seed,
        machine=this_machine(),
        minutes=round((time.monotonic() - began_s) / 60, 1),
        outcomes=outcomes,
        samples=samples,
        recovery_s=recovery(outcomes),
        grew=grew,
        verdict="FAIL" if failed or grew else "PASS",
    )


def tables(report: Soak) -> list[Table]:
    """For people: what the networks held, first, in the middle and at the end; and how long anybody waited."""
    held = Table(title="What the two networks hold")
    picked = [
        report.samples[i] for i in sorted({0, len(report.samples) // 2, len(report.samples) - 1}) if report.samples
    ]
    held.add_column("after s")
    for s in picked:
        held.add_column(f"{s.at_s:.0f}", justify="right")
    for field, unit in (("rss_mb", "memory, MB"), ("file_mb", "files, MB"), ("open_files", "open files")):
        for name in sorted({n for s in picked for n in getattr(s, field)}):
            held.add_row(f"{name}: {unit}", *(f"{getattr(s, field).get(name, 0):g}" for s in picked))
    waited = Table(title="Longest wait of a transaction, s")
    for column in ("fault", "journeys", "median", "max"):
        waited.add_column(column)
    for fault, w in report.recovery_s.items():
        waited.add_row(fault, f"{w['journeys']:g}", f"{w['median']:.2f}", f"{w['max']:.2f}")
    return [held, waited]


def main() -> None:
    """Entry point; exit code 0 if every journey passed and nothing grew."""
    parser = argparse.ArgumentParser(prog="outrider.demo.soak", description="Journeys with random faults, for long.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run: chooses the same faults")
    parser.add_argument("--service", type=Path, default=example(), help="a service's folder")
    parser.add_argument("--keep", type=Path, help="keep all files in this new folder")
    parser.add_argument("--report", type=Path, help="write the report here as JSON")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    directory = options.keep or Path(tempfile.mkdtemp(prefix="outrider-soak-"))
    console = Console()
    console.print(f"seed {seed}", highlight=False)
    try:
        report = asyncio.run(soak(options.minutes, seed, directory, options.service, console))
    finally:
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    for table in tables(report):
        console.print(table)
    for sentence in report.grew:
        console.print(f"GREW: {sentence}", style="red", highlight=False)
    if options.report is not None:
        options.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    passed = sum(o.verdict == "PASS" for o in report.outcomes)
    console.print(f"{passed} of {len(report.outcomes)} journeys passed in {report.minutes} min: {report.verdict}")
    sys.exit(0 if report.verdict == "PASS" else 1)


if __name__ == "__main__":
    main()
