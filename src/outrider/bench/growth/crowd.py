"""Many migrations at once between two networks over one limited link: do all end, is the link shared, who answers.

Each is of a service of its own: a real package, two keepers, two workers. All are begun together. What an operator
feels is asked of the source's LMSF all the time, and one migration more is begun with the others and aborted.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from outrider.bench.figures import Bar
from outrider.bench.growth import cost
from outrider.bench.growth.cost import Cost
from outrider.bench.growth.fleet import Asking, Member
from outrider.bench.growth.table import Curve, Part, Value, at_most, by
from outrider.bench.growth.yard import fill, yard
from outrider.bench.steps import step
from outrider.demo.processes import ProcessFailed
from outrider.demo.quantiles import Quantiles, quantiles
from outrider.demo.stage import MIGRATIONS, Stage
from outrider.network.hosts import available_bytes

LOOK_S = 0.2
ENDS = ("SETTLED", "ABORTED")
_TO_A, _TO_B = [0, 1], [2, 3]
"""The stage's relays, by where they connect to: control and bulk."""

MIGRATION_MB = 112.0
"""What one more migration takes at both networks; so much must be available for each."""

LIMIT_S, LIMIT_EACH_S = 120.0, 6.0
"""How long a run may take, and so much longer for each migration."""

FAIR = 0.9
"""Jain's index below which a link counts as not shared."""

FULL_LINK = 0.5
"""Of the link's rate, used while copies are under way: below that processors divide the copies, not the link."""

ANSWER_MS = 1_000.0


class Move(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One migration of the crowd; seconds from the first command."""

    service: str
    ended: str
    prepared_s: float | None
    """When it began to copy."""
    copied_s: float | None
    """When its copy was durable at the target."""
    settled_s: float | None
    moved_ues: int


class Crowd(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One run."""

    migrations: int
    contexts: int
    """Of each service."""
    mbit: float | None
    state_bytes: int
    wire_bytes: int
    total_s: float
    """From the first command until the last had ended."""
    settled: int
    moves: list[Move]
    jain: float
    """Of what copies got of their fair shares (`shares`): 1 if all got the same."""
    slowest_share: float
    """The least of them, of the median one."""
    show_ms: Quantiles
    """`migration show` at the source while they run."""
    list_ms: Quantiles
    abort_ms: float | None
    """Until an abort in the middle was answered."""
    abort_ended: str
    peak: dict[str, Cost]
    """What the processes of both networks held when most were there."""
    cpu_s: float


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all have the same, 1/n if one has everything (RFC 5166, 2.3)."""
    squares = len(values) * sum(value * value for value in values)
    return round(sum(values) ** 2 / squares, 4) if squares else 1.0


def shares(moves: Sequence[Move]) -> list[float]:
    """What each copy got of an equal division: copies of one size, by the time that an equal share would have taken.

    While k copies are under way each is due 1/k of the link. A copy that ran when few did is due more, so the times
    alone would not tell who was favoured.
    """
    copies = [(m.prepared_s, m.copied_s) for m in moves if m.prepared_s is not None and m.copied_s is not None]
    edges = sorted({edge for copy in copies for edge in copy})
    spans = [(a, b, sum(begun <= a and b <= ended for begun, ended in copies)) for a, b in pairwise(edges)]
    due = [sum((b - a) / k for a, b, k in spans if begun <= a and b <= ended) for begun, ended in copies]
    return [1 / each for each in due if each]


def link_share(found: Crowd) -> float | None:
    """Bytes on the wire for each that the link could carry from the first copy's beginning to the last one's end."""
    begun = [move.prepared_s for move in found.moves if move.prepared_s is not None]
    copied = [move.copied_s for move in found.moves if move.copied_s is not None]
    if found.mbit is None or not begun or not copied:
        return None
    return round(found.wire_bytes * 8 / (found.mbit * 1e6 * (max(copied) - min(begun))), 3)


def no_room(migrations: int) -> str | None:
    """Why so many cannot be run here; None if they can."""
    available = available_bytes()
    needed = (migrations + 1) * MIGRATION_MB * 1e6
    if available is None or available >= needed:
        return None
    return f"{migrations} migrations need {needed / 1e9:.1f} GB of memory; {available / 1e9:.1f} GB are available"


async def run(counts: Sequence[int], contexts: int, mbit: float | None, say: Callable[[str], None]) -> Part:
    """So many migrations at once, in networks of their own each time."""
    crowds: list[Crowd] = []
    left_out: list[str] = []
    for count in sorted(counts):
        if (why := no_room(count)) is not None:
            left_out.append(why)
            break
        crowds.append(await crowd(count, contexts, mbit, say))
    return part(crowds, left_out)


async def crowd(migrations: int, contexts: int, mbit: float | None, say: Callable[[str], None]) -> Crowd:
    """Move so many services at once; one more is begun with them and aborted."""
    limit_s = LIMIT_S + LIMIT_EACH_S * migrations
    async with yard() as (stage, fleet):
        members = await asyncio.to_thread(fleet.make, 0, migrations + 1)
        await fleet.deploy(members)
        await fleet.permit(members)
        await stage.a.close()
        state_bytes = await fill(stage.a, members, contexts)
        await stage.a.run()
        async with step("the start on the filled stores", limit_s):
            await fleet.running(members)
        say(f"{len(members)} services of {contexts} contexts run at {stage.a.id}")
        return await _move(stage, members, contexts, mbit, state_bytes, limit_s, say)


async def _move(
    stage: Stage,
    members: Sequence[Member],
    contexts: int,
    mbit: float | None,
    state_bytes: int,
    limit_s: float,
    say: Callable[[str], None],
) -> Crowd:
    await _limit(stage, mbit)
    roots = _nodes(stage)
    asking = Asking(stage.a)
    watch = _Watch(asking, stage)
    bytes_before, cpu_before = await stage.relay_bytes(), _cpu_s(cost.by_kind(roots))
    started_s, started_ms = time.monotonic(), time.time() * 1000
    try:
        ids = await asyncio.gather(*(_begin(asking, member.service, stage.b.id) for member in members))
        aborted = ids[-1]
        await watch.until(ids, aborted, started_s + limit_s)
        total_s = time.monotonic() - started_s
        shown = {m["migrationId"]: m for m in (await asking.ask("GET", MIGRATIONS))["migrations"]}
    finally:
        await asking.close()
    moves = [_moved(shown[name], started_ms) for name in ids if name != aborted]
    settled = sum(move.ended == "SETTLED" for move in moves)
    got = shares(moves)
    say(f"{settled} of {len(moves)} settled in {total_s:.1f} s")
    return Crowd(
        migrations=len(moves),
        contexts=contexts,
        mbit=mbit,
        state_bytes=state_bytes,
        wire_bytes=await stage.relay_bytes() - bytes_before,
        total_s=round(total_s, 2),
        settled=settled,
        moves=moves,
        jain=jain(got),
        slowest_share=round(min(got) / statistics.median(got), 3) if got else 0.0,
        show_ms=quantiles(watch.show_ms),
        list_ms=quantiles(watch.list_ms),
        abort_ms=watch.abort_ms,
        abort_ended=shown[aborted]["phase"],
        peak=watch.peak,
        cpu_s=round(_cpu_s(cost.by_kind(roots)) - cpu_before, 1),
    )


class _Watch:
    """Looks at the migrations as an operator does, and aborts one in the middle."""

    def __init__(self, asking: Asking, stage: Stage) -> None:
        self.show_ms: list[float] = []
        self.list_ms: list[float] = []
        self.abort_ms: float | None = None
        self.peak: dict[str, Cost] = {}
        self._asking = asking
        self._stage = stage
        self._costed_s = 0.0

    async def until(self, ids: Sequence[str], aborted: str, until_s: float) -> None:
        """Until all have ended. The last one is aborted when it copies, or when half of the others have ended."""
        while True:
            self._cost(len(ids))
            at_s = time.monotonic()
            listed = (await self._asking.ask("GET", MIGRATIONS))["migrations"]
            self.list_ms.append((time.monotonic() - at_s) * 1000)
            phases = {m["migrationId"]: m["phase"] for m in listed}
            ended = sum(phase in ENDS for phase in phases.values())
            if self.abort_ms is None and (phases[aborted] in ("COPYING", "RELOCATING") or 2 * ended >= len(ids)):
                at_s = time.monotonic()
                await self._asking.ask("POST", f"{MIGRATIONS}/{aborted}/abort", {"sentence": "the benchmark asks"})
                self.abort_ms = round((time.monotonic() - at_s) * 1000, 1)
            if ended == len(ids):
                return
            if time.monotonic() > until_s:
                left = [f"{m['phase']}, waiting for {m['waitingFor']}" for m in listed if m["phase"] not in ENDS]
                raise ProcessFailed(f"{len(left)} of {len(ids)} migrations have not ended: {'; '.join(left[:5])}")
            at_s = time.monotonic()
            await self._asking.ask("GET", f"{MIGRATIONS}/{ids[0]}")
            self.show_ms.append((time.monotonic() - at_s) * 1000)
            await asyncio.sleep(LOOK_S)

    def _cost(self, count: int) -> None:
        """Of hundreds of processes each look costs a second of a processor: as seldom as the run is large."""
        if time.monotonic() - self._costed_s < max(1.0, count / 10):
            return
        held = cost.by_kind(_nodes(self._stage))
        if _memory_mb(held) > _memory_mb(self.peak):
            self.peak = held
        self._costed_s = time.monotonic()


async def _begin(asking: Asking, service: str, target: str) -> str:
    wanted = {"service": service, "target": target, "moveAll": True}
    return str((await asking.ask("POST", MIGRATIONS, wanted))["migrationId"])


def _moved(shown: dict[str, Any], started_ms: float) -> Move:
    phases: dict[str, int] = shown["phases"]

    def at(phase: str) -> float | None:
        return None if phase not in phases else round((phases[phase] - started_ms) / 1000, 3)

    return Move(
        service=shown["service"],
        ended=shown["phase"] if shown["ending"] is None else shown["ending"]["cause"],
        prepared_s=at("COPYING"),
        copied_s=at("RELOCATING"),
        settled_s=at("SETTLED"),
        moved_ues=int((shown["progress"] or {}).get("movedUes", 0)),
    )


async def _limit(stage: Stage, mbit: float | None) -> None:
    """Give the link between the networks its rate, the same in each direction, for all connections together."""
    if mbit is not None and stage.relay is not None:
        for ways in ({"forward": _TO_A, "backward": _TO_B}, {"forward": _TO_B, "backward": _TO_A}):
            await stage.relay.order("rate", bytesPerS=mbit * 1e6 / 8, **ways)


def _nodes(stage: Stage) -> list[int]:
    return [operator.node.pid for operator in (stage.a, stage.b) if operator.node is not None]


def _memory_mb(held: dict[str, Cost]) -> float:
    return sum(each.pss_mb for each in held.values())


def _cpu_s(held: dict[str, Cost]) -> float:
    return sum(each.cpu_s for each in held.values())


def part(crowds: Sequence[Crowd], left_out: list[str]) -> Part:
    """The table and the bars."""
    rows = [_row(each) for each in crowds]
    x = "migrations"
    first = crowds[0] if crowds else None
    link = "no limit" if first is None or first.mbit is None else f"{first.mbit:g} Mbit/s each way"
    ended = sum(each.settled for each in crowds)
    asked = sum(each.migrations for each in crowds)
    shared = _shared(crowds)
    return Part(
        name="migrations",
        title="Concurrent migrations between two networks",
        ran=f"Each migration is of a service of its own, with a keeper and a worker at both networks, {_of(first)} "
        f"contexts each, all of which move; the link has {link}. One more is begun with them and aborted.",
        rows=rows,
        curves=[
            Curve("migrations-time", x, ["last ended, s", "median ended, s"], "s"),
            Curve("migrations-fairness", x, ["Jain's index of shares"], "1 is fair"),
            Curve("migrations-answers", x, ["show p50, ms", "show p99, ms", "abort, ms"], "ms"),
            Curve("migrations-memory", x, ["both networks, MB"], "MB"),
        ],
        bars=[
            Bar(
                "migrations that came to their end", "all", f"{ended} of {asked}", "PASS" if ended == asked else "MISS"
            ),
            shared,
            at_most("migration show, p99", ANSWER_MS, "ms", by(rows, x, "show p99, ms")),
            at_most("abort answered", ANSWER_MS, "ms", by(rows, x, "abort, ms")),
        ],
        left_out=left_out,
        raw=list(crowds),
    )


def _shared(crowds: Sequence[Crowd]) -> Bar:
    """Judged where the link was what copies waited for."""
    kpi, bar = "the link is shared: Jain's index of shares", f"≥ {FAIR:g}"
    together = [each for each in crowds if each.migrations > 1]
    full = [each for each in together if (link_share(each) or 0.0) >= FULL_LINK]
    if not full:
        most = max((link_share(each) or 0.0 for each in together), default=0.0)
        return Bar(kpi, bar, f"the link was not the limit: {most:.0%} of it was used", "NOT MEASURED")
    least = min(full, key=lambda each: each.jain)
    said = f"{least.jain:.3f} at {least.migrations:,}, with {link_share(least):.0%} of the link used"
    return Bar(kpi, bar, said, "PASS" if least.jain >= FAIR else "MISS")


def _of(first: Crowd | None) -> str:
    return "no" if first is None else f"{first.contexts:,}"


def _row(found: Crowd) -> dict[str, Value]:
    ends = [move.settled_s for move in found.moves if move.settled_s is not None]
    return {
        "migrations": found.migrations,
        "settled": found.settled,
        "last ended, s": found.total_s,
        "median ended, s": round(statistics.median(ends), 1) if ends else None,
        "moving at once": overlapping(found.moves),
        "MB on the wire": round(found.wire_bytes / 1e6, 1),
        "link used": link_share(found),
        "Jain's index of shares": found.jain,
        "slowest ÷ median": found.slowest_share,
        "show p50, ms": found.show_ms.p50,
        "show p99, ms": found.show_ms.p99,
        "abort, ms": found.abort_ms,
        "aborted one ended": found.abort_ended,
        "CPU, s for each": round(found.cpu_s / found.migrations, 1),
        "both networks, MB": round(_memory_mb(found.peak)),
    }


def overlapping(moves: Sequence[Move]) -> int:
    """The most migrations that were between the beginning of their copy and their end at the same moment."""
    edges = sorted(
        edge
        for move in moves
        if move.prepared_s is not None
        for edge in ((move.prepared_s, 1), (move.settled_s if move.settled_s is not None else float("inf"), -1))
    )
    now = most = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most
