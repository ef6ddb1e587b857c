"""A consumer in one network: discovery and a token at that network's NRF, then requests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from outrider.demo.access import Access, NetworkAt, Nf
from outrider.demo.stage import Operator, new_instance_id
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource

SESSION = Nf("SMF", "nsmf-groupsession", "internet")
SESSIONS = "/nsmf-groupsession/v1/ue-sessions"

Ask = Callable[..., Awaitable[Response]]


@asynccontextmanager
async def access(operator: Operator) -> AsyncIterator[Access]:
    """The way of a consumer into a network."""
    async with SbiClient() as client:
        name = new_instance_id()
        tokens = TokenSource(client, operator.nrf_root, name, "AF")
        way = Access(client, NetworkAt(id=operator.id, nrf_root=operator.nrf_root), tokens, name)
        await way.register()
        yield way


@asynccontextmanager
async def consumer(operator: Operator) -> AsyncIterator[Ask]:
    """Asks for sessions of the example service as any consumer in that network does."""
    async with access(operator) as way:

        async def ask(method: str, path: str, **more: Any) -> Response:
            return await way.send(SESSION, method, SESSIONS + path, **more)

        yield ask
