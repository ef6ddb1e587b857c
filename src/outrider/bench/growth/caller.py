"""A consumer in a network, that asks one thing after another and notes how long each answer took."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from outrider.bench.growth.fleet import Member
from outrider.bench.shapes import creation, supi
from outrider.demo.access import Access, NetworkAt, Nf
from outrider.demo.processes import ProcessFailed
from outrider.demo.quantiles import Quantiles, quantiles
from outrider.demo.stage import Operator, new_instance_id
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource


@asynccontextmanager
async def caller(operator: Operator) -> AsyncIterator[Access]:
    """A consumer that is registered with the network's NRF."""
    async with SbiClient() as client:
        instance = new_instance_id()
        tokens = TokenSource(client, operator.nrf_root, instance, "AF")
        access = Access(client, NetworkAt(id=operator.id, nrf_root=operator.nrf_root), tokens, instance)
        await access.register()
        yield access
        await access.deregister()


def nf_of(member: Member) -> Nf:
    """How a consumer looks for a service of the fleet."""
    return Nf("SMF", member.nf_service, "bench")


async def asked(access: Access, member: Member, ue: int = 1) -> Response:
    """One write to a UE of a service."""
    return await access.send(nf_of(member), "POST", f"{member.root}/{supi(ue)}/transactions", json={"seq": 1})


async def created(access: Access, member: Member, ue: int = 1) -> None:
    """Open the session of a UE."""
    response = await access.send(nf_of(member), "POST", member.root, json=creation(ue))
    if response.status != 201:
        raise ProcessFailed(f"{member.service} did not open a session: {response.status} {response.body[:300]!r}")


async def times(do: Callable[[int], Awaitable[Response]], count: int, status: int = 200) -> Quantiles:
    """How long so many requests took, one after the other; `ProcessFailed` if one is answered otherwise."""
    took_ms = []
    for number in range(count):
        at_s = time.monotonic()
        response = await do(number)
        took_ms.append((time.monotonic() - at_s) * 1000)
        if response.status != status:
            raise ProcessFailed(f"a request was answered {response.status}: {response.body[:300]!r}")
    return quantiles(took_ms)
