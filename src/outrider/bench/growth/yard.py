"""Two networks with a fleet, whose stores are filled while their keepers do not run."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from outrider.bench.growth.fleet import Fleet, Member
from outrider.bench.relocation import BUILD_LIMIT_S
from outrider.bench.seed import seed_file
from outrider.bench.shapes import SHAPES, Shape
from outrider.bench.steps import step
from outrider.demo.stage import Operator, Stage


@asynccontextmanager
async def yard(keep: Path | None = None) -> AsyncIterator[tuple[Stage, Fleet]]:
    """Two networks that are partners and run; ended, and their files removed, when the block is left."""
    directory = keep or Path(tempfile.mkdtemp(prefix="outrider-growth-"))
    stage = Stage(directory, rtt_ms=0.0)
    try:
        async with step("setting the networks up", BUILD_LIMIT_S):
            await stage.build()
        yield stage, Fleet(stage)
    finally:
        await stage.close()
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


def store_of(operator: Operator, service: str) -> Path:
    """The file of a service's store."""
    return operator.directory / "services" / service / "data" / "contexts.db"


def shape_of(member: Member) -> Shape:
    """The contexts of a service of the fleet: the benchmark's, under its own NF service's name."""
    session = SHAPES["session"]

    def records(number: int) -> dict[str, bytes]:
        return {member.nf_service: next(iter(session.records(number).values()))}

    return Shape(session.service, session.session._replace(name=member.nf_service), records)


async def fill(operator: Operator, members: Sequence[Member], contexts: int) -> int:
    """Put so many contexts into each store; the node must not run. The bytes of all their records."""
    total = 0
    for member in members:
        size, _ = await asyncio.to_thread(
            seed_file, store_of(operator, member.service), contexts, None, shape_of(member)
        )
        total += size
    return total
