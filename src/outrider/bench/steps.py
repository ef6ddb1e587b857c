"""Every step of a measurement ends within its limit, or says which one did not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from outrider.demo.processes import ProcessFailed


@asynccontextmanager
async def step(what: str, limit_s: float) -> AsyncIterator[None]:
    """Run the block within the limit; `ProcessFailed` names the step if it takes longer."""
    try:
        async with asyncio.timeout(limit_s) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise ProcessFailed(f"{what} took longer than {limit_s:g} s") from None
