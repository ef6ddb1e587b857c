"""Faults for long: journey after journey between three real networks, with random faults, and an eye on what grows.

    python -m outrider.demo.soak --minutes 60 --report soak.json

Each journey is there and back (A → B → A) or onward (A → B → C → A), with a group of its own under load; none, one or
two things go wrong, and the checker of the demo judges. The networks, their processes and files stay from one journey
to the next, so that what is never given back shows. After each journey memory, files and open files are noted; at the
end the last quarter is compared with the second: more than `GROWTH` times as much is growth without bound, and a FAIL.
The seed of a run is printed, and chooses the same journeys and faults again.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from outrider.demo.example import example
from outrider.demo.fault import Fault
from outrider.demo.faults import Theatre, play, say
from outrider.demo.growth import growth, sample
from outrider.demo.machine import this_machine
from outrider.demo.matrix import full, onward
from outrider.demo.soak_report import Soak, markdown, recovery, tables

ODDS = (1, 5, 2)
"""How often a journey has no fault, one, and two."""

LATER_S = 1.5
"""What is done while UEs change owner is done at a random moment of so long."""


WIDTH = 120
"""Of the tables, where the terminal does not say."""


class Drawn(NamedTuple):
    """A journey to be made."""

    onward: bool
    faults: list[Fault]


def chosen(chance: random.Random) -> Drawn:
    """The next journey: its way, and what goes wrong."""
    further = chance.random() < 0.5
    [count] = chance.choices(range(len(ODDS)), ODDS)
    among = [fault for [fault] in (full() + onward() if further else full())]
    kinds = sorted({fault.kind for fault in among})
    # By kind first: there are many places for a kill, and few links to be slow. Two of a kind could undo each other.
    faults = [chance.choice([f for f in among if f.kind == kind]) for kind in chance.sample(kinds, count)]
    return Drawn(further, [_moved(fault, chance) for fault in faults])


def _moved(fault: Fault, chance: random.Random) -> Fault:
    """The fault at a random moment of its phase, where that is long."""
    later_s = round(chance.uniform(0.0, LATER_S), 2)
    return replace(fault, after_s=later_s) if fault.phase == "RELOCATING" and fault.kind != "fail-point" else fault


async def soak(minutes: float, seed: int, directory: Path, service_dir: Path, console: Console) -> Soak:
    """Journeys until the time is up."""
    began_s = time.monotonic()
    chance = random.Random(seed)
    theatre = Theatre(directory, service_dir, third=True)
    report = Soak(seed=seed, machine=this_machine())
    networks = 1
    try:
        while time.monotonic() < began_s + minutes * 60:
            drawn = chosen(chance)
            outcome = await play(theatre, drawn.faults, onward=drawn.onward)
            report.outcomes.append(outcome)
            say(console, len(report.outcomes), outcome)
            if theatre.stage is None:
                networks += 1
            else:
                report.samples.append(sample(theatre.stage, networks, began_s))
    finally:
        await theatre.close()
    report.minutes = round((time.monotonic() - began_s) / 60, 1)
    report.recovery_s = recovery(report.outcomes)
    report.grew = growth(report.samples)
    passed = all(o.verdict == "PASS" for o in report.outcomes) and not report.grew
    report.verdict = "PASS" if passed else "FAIL"
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exit code 0 if every journey passed and nothing grew."""
    parser = argparse.ArgumentParser(
        prog="outrider.demo.soak",
        description="Journeys over three networks with random faults, for long.",
        epilog="Example: python -m outrider.demo.soak --minutes 60 --report soak.json",
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run: the same journeys and faults")
    parser.add_argument("--service", type=Path, default=example(), help="a service's folder")
    parser.add_argument("--keep", type=Path, help="keep all files in this new folder")
    parser.add_argument("--report", type=Path, help="write the report here as JSON, and beside it as .md")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    directory = options.keep or Path(tempfile.mkdtemp(prefix="outrider-soak-"))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
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
        options.report.with_suffix(".md").write_text(markdown(report))
    passed = sum(o.verdict == "PASS" for o in report.outcomes)
    console.print(f"{passed} of {len(report.outcomes)} journeys passed in {report.minutes} min: {report.verdict}")
    sys.exit(0 if report.verdict == "PASS" else 1)


if __name__ == "__main__":
    main()
