"""What a soak found, for programs and for people."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

import msgspec
from rich.table import Table

from outrider.demo.growth import LEAST_JOURNEYS, Sample, curve, longest
from outrider.demo.machine import Machine
from outrider.demo.outcome import Outcome

HELD = (("rss_mb", "memory, MB"), ("file_mb", "files, MB"), ("open_files", "open files"))


class Soak(msgspec.Struct, rename="camel", kw_only=True):
    """A report."""

    seed: int
    machine: Machine
    minutes: float = 0.0
    outcomes: list[Outcome] = []
    samples: list[Sample] = []
    recovery_s: dict[str, dict[str, float]] = {}
    """Longest wait of a transaction in journeys with only that kind of fault: how many, median and largest."""
    grew: list[str] = []
    verdict: str = "FAIL"


def recovery(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """How long the worst-off transaction waited, by kind of fault, where there was only one."""
    waits: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if len(outcome.kinds) < 2 and outcome.unavailable_s is not None:
            waits[outcome.kinds[0] if outcome.kinds else "no fault"].append(outcome.unavailable_s)
    return {
        fault: {"journeys": len(each), "median": round(median(each), 2), "max": max(each)}
        for fault, each in sorted(waits.items())
    }


def made(outcomes: Iterable[Outcome]) -> dict[str, tuple[int, int]]:
    """How many faults of each kind were done, and in how many journeys that passed."""
    done: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for outcome in outcomes:
        for kind in outcome.kinds or ["no fault"]:
            done[kind] += 1
            passed[kind] += outcome.verdict == "PASS"
    return {kind: (done[kind], passed[kind]) for kind in sorted(done)}


def _held(report: Soak) -> tuple[list[str], list[list[str]]]:
    """What the networks held, first, in the middle and at the end, and the way between as bars."""
    samples = longest(report.samples)
    picked = [samples[i] for i in sorted({0, len(samples) // 2, len(samples) - 1})] if samples else []
    rows = []
    for field, unit in HELD:
        for name in sorted({n for s in samples for n in getattr(s, field)}):
            values = [getattr(s, field).get(name, 0.0) for s in samples]
            oldest = max(s.age_s.get(name, 0.0) for s in samples)
            lived = f"{oldest:.0f}" if field == "rss_mb" else ""
            figures = [f"{getattr(s, field).get(name, 0):g}" for s in picked]
            rows.append([f"{name}: {unit}", *figures, f"{max(values):g}", lived, curve(values)])
    return ["after s", *(f"{s.at_s:.0f}" for s in picked), "most", "oldest s", "over time"], rows


def _waited(report: Soak) -> tuple[list[str], list[list[str]]]:
    rows = []
    for kind, (count, passed) in made(report.outcomes).items():
        w = report.recovery_s.get(kind)
        alone = [f"{w['journeys']:g}", f"{w['median']:.2f}", f"{w['max']:.2f}"] if w else ["0", "–", "–"]
        rows.append([kind, f"{count}", f"{passed}", *alone])
    return ["fault", "times", "passed", "alone", "longest wait, median s", "max s"], rows


def tables(report: Soak) -> list[Table]:
    """For a terminal."""
    return [
        _table("What the networks hold after a journey", *_held(report)),
        _table("Faults, and the longest wait of a transaction where one was alone", *_waited(report)),
    ]


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number > 0 and column != "over time" else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(report: Soak) -> str:
    """For a page."""
    return "\n".join(_page(report)) + "\n"


def _page(report: Soak) -> Iterator[str]:
    passed = sum(o.verdict == "PASS" for o in report.outcomes)
    routes = Counter(o.route for o in report.outcomes)
    yield f"# Soak, seed {report.seed}: {report.verdict}"
    yield ""
    yield f"{passed} of {len(report.outcomes)} journeys passed in {report.minutes:g} min"
    yield f"({', '.join(f'{count} × {route}' for route, count in sorted(routes.items()))})."
    looked = len(longest(report.samples))
    nothing = "nothing" if looked >= LEAST_JOURNEYS else f"cannot be said of {looked} journeys in the same networks"
    yield "Grew without bound: " + ("; ".join(report.grew) or nothing) + "."
    yield ""
    for title, (columns, rows) in (("Faults", _waited(report)), ("What the networks hold", _held(report))):
        yield f"## {title}"
        yield ""
        yield "| " + " | ".join(columns) + " |"
        yield "|" + " --- |" * len(columns)
        yield from ("| " + " | ".join(row) + " |" for row in rows)
        yield ""
    yield "## Journeys"
    yield ""
    for number, o in enumerate(report.outcomes, 1):
        wait = "–" if o.unavailable_s is None else f"{o.unavailable_s:.2f} s"
        yield f"{number}. {o.verdict}: {o.route}, {' + '.join(o.faults) or 'no fault'} ({o.phase or '–'}); {o.ended};"
        yield f"   longest wait {wait}, {o.failed} of {o.sent} given up"
        yield from (f"   - fired: {fired}" for fired in o.fired)
        yield from (f"   - **{reason[:700]}**" for reason in o.reasons)
