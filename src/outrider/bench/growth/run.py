"""The parts in their order, each to its end or with the reason why not; the report is written anew after each."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from outrider.bench import plots
from outrider.bench.growth import contexts, crowd, journals, partners, services, starts
from outrider.bench.growth.page import Grown, draw, page
from outrider.bench.growth.table import Part
from outrider.core.refusal import Refused
from outrider.demo.machine import this_machine
from outrider.demo.processes import ProcessFailed


class Sizes(msgspec.Struct, frozen=True):
    """How far each part goes."""

    contexts: list[int]
    services: list[int]
    partners: list[int]
    migrations: list[int]
    moved_contexts: int
    """Of each migration of many."""
    mbit: float | None
    """Of the link that many migrations share."""
    journals: list[int]
    writes_per_s: float = 200.0
    """While a keeper is killed."""
    starts: int = 3
    """Of a node at each step; the shortest counts, for whatever else runs only makes one longer."""
    idle_s: float = 10.0
    warm_s: float = 3.0
    """Of load before a keeper is killed, and after it serves again."""


FULL = Sizes(
    contexts=[10_000, 100_000, 1_000_000],
    services=[1, 10, 30, 100],
    partners=[1, 10, 50],
    migrations=[1, 5, 20, 60],
    moved_contexts=1_000,
    mbit=4.0,
    journals=[10, 100, 1_000],
)
SHORT = Sizes(
    contexts=[300, 600],
    services=[1, 2],
    partners=[1, 3],
    migrations=[2],
    moved_contexts=100,
    mbit=40.0,
    journals=[1, 20],
    writes_per_s=50.0,
    starts=1,
    idle_s=0.5,
    warm_s=1.0,
)
"""For a check of every change: whether all of it still runs, not how fast."""

Say = Callable[[str], None]
PARTS: dict[str, Callable[[Sizes, Say], Awaitable[Part]]] = {
    "contexts": lambda sizes, say: contexts.run(sizes.contexts, say),
    "services": lambda sizes, say: services.run(sizes.services, sizes.idle_s, say),
    "partners": lambda sizes, say: partners.run(sizes.partners, sizes.starts, sizes.idle_s, say),
    "migrations": lambda sizes, say: crowd.run(sizes.migrations, sizes.moved_contexts, sizes.mbit, say),
    "starts": lambda sizes, say: starts.run(sizes.contexts, sizes.writes_per_s, sizes.warm_s, say),
    "journals": lambda sizes, say: journals.run(sizes.journals, sizes.starts, say),
}


def run(names: list[str], sizes: Sizes, command: str, directory: Path | None, say: Say) -> Grown:
    """Run these parts; `report.json`, `report.md` and the drawings go into the directory, if one is given."""
    grown = Grown(command, this_machine(), round(os.getloadavg()[0], 2), [], [])
    for name in names:
        say(f"{name} …")
        at_s = time.monotonic()
        try:
            part = asyncio.run(_part(name, sizes, say))
            grown.parts.append(msgspec.structs.replace(part, took_s=round(time.monotonic() - at_s, 1)))
        except (ProcessFailed, Refused) as failed:
            grown.broken.append(f"{name}: {failed}")
            say(grown.broken[-1])
        if directory is not None:
            write(grown, directory)
    return grown


async def _part(name: str, sizes: Sizes, say: Say) -> Part:
    return await PARTS[name](sizes, say)


def write(grown: Grown, directory: Path) -> None:
    """The files of a report; without what draws them it has no drawings."""
    directory.mkdir(parents=True, exist_ok=True)
    drawings = draw(grown.parts, directory) if plots.missing() is None else []
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(grown), indent=2))
    (directory / "report.md").write_text(page(grown, drawings, directory))
