"""The host's subscriptions to registrations, at a real AMF of the basic part."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.functions.basic import Amf
from outrider.functions.basic.profiles import amf_profile
from outrider.host.arrivals import Arrivals
from outrider.network.keys import private_pem, public_pem
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer
from outrider.sbi.tokens import TokenIssuer, TokenVerifier

A, UE = "999-70", "imsi-999700000000001"
TAI = {"plmnId": {"mcc": "999", "mnc": "70"}, "tac": "000001"}


@dataclass
class World:
    amf: Amf
    client: SbiClient
    issuer: TokenIssuer
    profiles: list[dict[str, Any]]
    listening: list[SbiServer] = field(default_factory=list)

    async def discover(self, *_: object, **__: object) -> list[dict[str, Any]]:
        """As the NRF."""
        return self.profiles

    async def bearer(self, *, scope: str, target_nf_type: str) -> str:
        """As the source of tokens."""
        return "Bearer " + self.issuer.issue(subject="k", audience=target_nf_type, scope=scope)

    async def keeper(self, host) -> Arrivals:
        """What a keeper does when it starts."""
        arrivals = Arrivals(host, self.client, self, self)  # type: ignore[arg-type]
        server = SbiServer(arrivals)
        await server.start()
        self.listening.append(server)
        arrivals.start(f"http://127.0.0.1:{server.port}")
        return arrivals

    async def die(self, arrivals: Arrivals) -> None:
        """As a kill: nothing is said to the AMF."""
        arrivals._task.cancel()
        await asyncio.gather(arrivals._task, return_exceptions=True)
        await self.listening.pop().stop()

    @property
    def subscriptions(self) -> list[str]:
        return list(self.amf.subscriptions._all)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    key = ec.generate_private_key(ec.SECP256R1())
    place: list[Callable] = []

    async def answer(request: Request) -> Response:
        return await place[0](request)

    server = SbiServer(answer)
    await server.start()
    root = f"http://127.0.0.1:{server.port}"
    async with SbiClient() as client:
        network = NetworkId.parse(A)
        amf = Amf(network, "amf", verifier=TokenVerifier({"nrf": public_pem(key)}), client=client, root=root)
        place.append(amf.router)
        profiles = [amf_profile("amf", network, "127.0.0.1", server.port)]
        world = World(amf, client, TokenIssuer(private_pem(key), "nrf", network), profiles)
        yield world
        for listening in world.listening:
            await listening.stop()
        await amf.close()
    await server.stop()


async def register(world: World, supi: str) -> None:
    token = await world.bearer(scope="namf-basic", target_nf_type="AMF")
    await world.client.request(
        "PUT",
        f"{world.amf._root}/namf-basic/v1/registrations/{supi}",
        headers=[("authorization", token)],
        json={"tai": TAI},
    )


async def test_a_keeper_that_was_killed_leaves_no_subscription_behind_once_the_next_one_is_there(net, world):
    host = net.hosts[A]
    first = await world.keeper(host)
    await net.until(lambda: world.subscriptions and host.store.values("amf-subscription:"), "the subscription")
    (old,) = world.subscriptions
    await world.die(first)
    host = await net.restart(A)
    registered: list[str] = []
    host.identities.registered = registered.append
    second = await world.keeper(host)
    await net.until(lambda: old not in world.subscriptions and world.subscriptions, "the next one")
    await net.until(lambda: len(host.store.values("amf-subscription:")) == 1, "the note")
    await register(world, UE)
    await net.until(lambda: registered, "the notification")
    assert registered == [UE]
    assert world.amf.subscriptions.dropped == 0
    await second.close()


async def test_a_keeper_that_stops_ends_its_subscription(net, world):
    host = net.hosts[A]
    arrivals = await world.keeper(host)
    await net.until(lambda: host.store.values("amf-subscription:"), "the subscription")
    await arrivals.close()
    assert (world.subscriptions, host.store.values("amf-subscription:")) == ([], {})


async def test_a_subscription_is_renewed_before_it_runs_out_and_the_old_one_ended(net, world, monkeypatch):
    monkeypatch.setattr(limits, "ARRIVALS_LOOK_S", 0.01)
    arrivals = await world.keeper(net.hosts[A])
    await net.until(lambda: arrivals._live, "the subscription")
    ((root, live),) = arrivals._live.items()
    arrivals._live[root] = replace(live, until_ms=0)
    old = live.id
    await net.until(lambda: world.subscriptions and old not in world.subscriptions, "the renewal")
    assert len(world.subscriptions) == 1
    await arrivals.close()


async def test_a_note_of_an_amf_that_is_gone_is_dropped_when_the_subscription_has_run_out(net, world, monkeypatch):
    monkeypatch.setattr(limits, "ARRIVALS_LOOK_S", 0.01)
    monkeypatch.setattr(limits, "ARRIVALS_EXPIRY_S", 1)
    host = net.hosts[A]
    first = await world.keeper(host)
    await net.until(lambda: host.store.values("amf-subscription:"), "the subscription")
    await world.die(first)
    world.profiles.clear()
    second = await world.keeper(host)
    await net.until(lambda: not host.store.values("amf-subscription:"), "the end of the note")
    await second.close()


async def test_an_amf_that_does_not_answer_is_asked_again(net, world, monkeypatch):
    monkeypatch.setattr(limits, "ARRIVALS_LOOK_S", 0.01)
    host, asked = net.hosts[A], []
    request = world.client.request

    async def failing(*args: object, **how: object) -> Response:
        asked.append(args)
        if len(asked) == 1:
            raise Unreachable("not now", not_sent=True)
        return await request(*args, **how)  # type: ignore[arg-type]

    world.client.request = failing  # type: ignore[method-assign]
    arrivals = await world.keeper(host)
    await net.until(lambda: world.subscriptions, "the subscription")
    await arrivals.close()
