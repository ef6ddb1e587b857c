"""A series of workloads, link shapes and ablations, and one report of all: `outrider bench suite`."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from outrider.bench import plots
from outrider.bench.figures import Result
from outrider.bench.markdown import page
from outrider.bench.options import Link, Options
from outrider.bench.runs import Wanted, measure
from outrider.bench.seed import Seeds
from outrider.demo.processes import ProcessFailed

LARGE_SHARE = 64
"""A context of 64 KB stands for so many of 1 KB."""


@dataclass(frozen=True)
class Case:
    """One measurement of the series."""

    workload: str
    writes_per_s: float = 1_000
    link: Link = field(default_factory=Link)
    without: str | None = None
    all_sizes: bool = False
    """Or only the largest: where size is not the question."""

    def __str__(self) -> str:
        parts = [self.workload, f"{self.writes_per_s:g} writes/s", str(self.link)]
        return ", ".join(parts + ([f"without {self.without}"] if self.without else []))

    def wanted(self, wanted: Wanted) -> Wanted:
        """Of what was asked for, as much as this case needs; one without a mechanism is compared with ours."""
        sizes = wanted.sizes if self.all_sizes else [max(wanted.sizes)]
        if self.workload == "large":
            sizes = [max(100, size // LARGE_SHARE) for size in sizes]
        beside = self.without is None
        return replace(wanted, sizes=sizes, peer=wanted.peer and beside, dump=wanted.dump and beside)


FULL = [
    Case("idle", all_sizes=True),
    Case("uniform", 1_000, all_sizes=True),
    Case("uniform", 5_000, all_sizes=True),
    Case("uniform", 20_000),
    Case("zipf", 1_000),
    Case("large", 20),
    Case("incompressible"),
    Case("multi", 500),
    Case("storm", 200),
    Case("train", 200, link=Link(rtt_ms=20.0, mbit=100)),
    Case("visit"),
    Case("abort"),
    Case("crash"),
    Case("uniform", link=Link(rtt_ms=20.0)),
    Case("uniform", link=Link(rtt_ms=20.0, mbit=1_000)),
    Case("uniform", link=Link(rtt_ms=80.0, mbit=100)),
    Case("uniform", link=Link(rtt_ms=20.0, reset_every_s=2.0)),
    Case("uniform", without="holds"),
    Case("uniform", without="compression", link=Link(rtt_ms=20.0, mbit=1_000)),
    Case("uniform", without="log"),
    Case("visit", without="shadow"),
]
SHORT = [
    Case("idle", all_sizes=True),
    Case("uniform", 100, all_sizes=True),
    Case("storm", 50),
    Case("visit"),
    Case("uniform", 100, without="holds"),
]
"""For a check of every change: whether all of it still runs, not how fast."""


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """What the series found."""

    results: list[Result]
    broken: list[str]
    """Cases of which no run was made, and why."""


def run(
    cases: list[Case], wanted: Wanted, options: Options, command: str, directory: Path, say: Callable[[str], None]
) -> Report:
    """Measure all; the report is written anew after each case, so that what was measured is not lost."""
    directory.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="outrider-seeds-") as kept:
        seeds = Seeds(Path(kept))
        for number, case in enumerate(cases, 1):
            say(f"{number} of {len(cases)}: {case}")
            of_case = replace(
                options, workload=case.workload, writes_per_s=case.writes_per_s, link=case.link, without=case.without
            )
            try:
                results.append(measure(case.wanted(wanted), of_case, command, say, seeds))
            except ProcessFailed as failed:
                broken.append(f"{case.workload}: {failed}")
                say(broken[-1])
                continue
            write(Report(results, broken), directory)
    return Report(results, broken)


def write(report: Report, directory: Path) -> None:
    """`report.json`, `report.md` and the drawings; without what draws them the page has none."""
    drawings = plots.draw(report.results, directory) if plots.missing() is None else []
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    (directory / "report.md").write_text(page(report.results, drawings, directory))
