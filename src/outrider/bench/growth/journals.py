"""How long a node takes to start with many ended migrations in its LMSF's journal.

One migration is run to its end, and its documents and events, as the LMSF wrote them, are put into the journal again
under other names: the journal is that of so many migrations of one service.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import msgspec

from outrider.bench.growth import cost
from outrider.bench.growth.cost import Cost
from outrider.bench.growth.fleet import Asking
from outrider.bench.growth.table import Curve, Part, Value, at_most, by
from outrider.bench.growth.yard import fill, yard
from outrider.bench.steps import step
from outrider.demo.processes import ProcessFailed
from outrider.demo.quantiles import Quantiles, quantiles
from outrider.demo.stage import MIGRATIONS, Stage

CONTEXTS = 100
END_LIMIT_S = 120.0
ASKED = 50


class Step(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A journal of so many migrations."""

    migrations: int
    journal_bytes: int
    start_s: float
    """Until the node is ready."""
    start_cpu_s: float
    """Processor time of the node until then."""
    node_mb: float
    show_ms: Quantiles
    list_ms: float


async def run(counts: Sequence[int], restarts: int, say: Callable[[str], None]) -> Part:
    """Run one migration, multiply it, and start the node at each step; the shortest of its `restarts` counts."""
    steps: list[Step] = []
    async with yard() as (stage, fleet):
        members = fleet.make(0, 1)
        await fleet.deploy(members)
        await fleet.permit(members)
        await stage.a.close()
        await fill(stage.a, members, CONTEXTS)
        await stage.a.run()
        await fleet.running(members)
        name = await _ended(stage, members[0].service)
        journal, have = stage.a.directory / "lmsf" / "lmsf.db", 1
        async with step("telling the partner the end", END_LIMIT_S):
            while not await asyncio.to_thread(_told, journal, name):
                await asyncio.sleep(0.1)
        for count in sorted(counts):
            await stage.a.close()
            await asyncio.to_thread(multiply, journal, name, have, count)
            have = count
            steps.append(await _step(stage, journal, name, count, restarts))
            say(f"{count} ended migrations: ready after {steps[-1].start_s:.2f} s")
    return part(steps)


async def _ended(stage: Stage, service: str) -> str:
    """Let a service go over and come back; the migration's id when that is over and both sides have told each other."""
    name = await stage.a.migrate(service, stage.b.id)
    async with step("a migration to its end", END_LIMIT_S):
        while (shown := await stage.a.migration(name))["phase"] != "RELOCATING":
            await _going_on(shown)
        await stage.a.take_back(name)
        while (shown := await stage.a.migration(name))["phase"] != "RETIRED":
            await _going_on(shown)
    return name


def _told(journal: Path, name: str) -> bool:
    """Whether the journal says that the partner knows the end: until then a migration goes on after a start."""
    db = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return b'"told":true' in _document(db, name)
    finally:
        db.close()


def _document(db: apsw.Connection, name: str) -> bytes:
    rows = list(db.execute("SELECT body FROM document WHERE kind = 'migration' AND name = ?", (name,)))
    if len(rows) != 1:
        raise ProcessFailed(f"the journal has {len(rows)} documents of {name}")
    body: bytes = rows[0][0]
    return body


async def _going_on(shown: dict[str, object]) -> None:
    if shown["over"]:
        raise ProcessFailed(f"the migration is {shown['phase']}: {shown['sentence']} {shown['refusals']}")
    await asyncio.sleep(0.1)


def multiply(journal: Path, name: str, have: int, wanted: int) -> None:
    """Put a migration's document and events into the journal under further names, until there are so many."""
    db = apsw.Connection(str(journal))
    with db:
        body = _document(db, name)
        for number in range(have, wanted):
            other = f"m-{number:016x}"
            copied = body.replace(b'"id":"%s"' % name.encode(), b'"id":"%s"' % other.encode(), 1)
            if copied == body:
                raise ProcessFailed(f"the journal's document of {name} does not say its id")
            db.execute("INSERT INTO document VALUES ('migration', ?, ?)", (other, copied))
            db.execute(
                "INSERT INTO event (migration, at_ms, event, phase, why) "
                "SELECT ?, at_ms, event, phase, why FROM event WHERE migration = ? ORDER BY seq",
                (other, name),
            )
    db.close()


async def _step(stage: Stage, journal: Path, name: str, migrations: int, restarts: int) -> Step:
    starts, cpu_s, held = [], [], Cost()
    for _ in range(restarts):
        await stage.a.close()
        at_s = time.monotonic()
        await stage.a.run()
        starts.append(time.monotonic() - at_s)
        assert stage.a.node is not None
        held = cost.of(stage.a.node.pid)
        cpu_s.append(held.cpu_s)
    asking = Asking(stage.a)
    try:
        listed, show = [], []
        for _ in range(ASKED):
            show.append(await _took_ms(asking, f"{MIGRATIONS}/{name}"))
        for _ in range(5):
            listed.append(await _took_ms(asking, MIGRATIONS))
        count = len((await asking.ask("GET", MIGRATIONS))["migrations"])
    finally:
        await asking.close()
    if count != migrations:
        raise ProcessFailed(f"the node knows {count} migrations, not {migrations}")
    return Step(
        migrations=migrations,
        journal_bytes=(await asyncio.to_thread(journal.stat)).st_size,
        start_s=round(min(starts), 3),
        start_cpu_s=min(cpu_s),
        node_mb=round(held.pss_mb, 1),
        show_ms=quantiles(show),
        list_ms=round(sorted(listed)[2], 1),
    )


async def _took_ms(asking: Asking, path: str) -> float:
    at_s = time.monotonic()
    await asking.ask("GET", path)
    return (time.monotonic() - at_s) * 1000


def part(steps: Sequence[Step]) -> Part:
    """The table and the bars."""
    first = steps[0]
    rows: list[dict[str, Value]] = []
    for each in steps:
        more = each.migrations - first.migrations
        rows.append(
            {
                "ended migrations": each.migrations,
                "journal, MB": round(each.journal_bytes / 1e6, 2),
                "start, s": each.start_s,
                "start, CPU s": each.start_cpu_s,
                "CPU ms for each further": round(1000 * (each.start_cpu_s - first.start_cpu_s) / more, 2)
                if more
                else None,
                "node, MB": each.node_mb,
                "KB for each further": round(1000 * (each.node_mb - first.node_mb) / more, 1) if more else None,
                "show p50, ms": each.show_ms.p50,
                "list, ms": each.list_ms,
            }
        )
    x = "ended migrations"
    return Part(
        name="journals",
        title="Start of a node against the ended migrations in its journal",
        ran="One migration went over and back; its documents and events stand in the journal under so many names.",
        rows=rows,
        curves=[Curve("journals-start", x, ["start, s"], "s"), Curve("journals-memory", x, ["node, MB"], "MB")],
        bars=[
            at_most(
                "start for each further ended migration", 1, "ms of CPU", by(rows[-1:], x, "CPU ms for each further")
            ),
            at_most("memory for each further ended migration", 40, "KB", by(rows[-1:], x, "KB for each further")),
            at_most("migration show, p50", 50, "ms", by(rows, x, "show p50, ms")),
        ],
        raw=list(steps),
    )
