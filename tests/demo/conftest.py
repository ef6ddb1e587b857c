"""Two networks in one process: real NRFs, basic parts, tokens and HTTP, and the example's code under the test kit.

The keepers are left out: a `Producer` does for both networks what they do together, and can be told to do it wrong.
"""

import asyncio
import contextlib
import copy
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from outrider.core.ids import NetworkId
from outrider.core.manifest import from_toml
from outrider.core.refusal import Refusal
from outrider.demo.histories import Writer
from outrider.demo.notify_sink import Sink
from outrider.functions.basic.amf import Amf
from outrider.functions.basic.smf import Smf
from outrider.functions.nrf.nrf import Nrf
from outrider.host.finder import Finder
from outrider.sbi import headers
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import problem, refusal_response
from outrider.sbi.server import SbiServer
from outrider.sbi.tokens import TokenVerifier
from outrider.sdk.testing import Harness

PROJECT = Path(__file__).parents[2] / "examples" / "group-coordination"
HOME, TARGET = "999-70", "999-71-000007ed9d5"
SERVICES = {"nsmf-groupsession": "SMF", "npcf-groupqos": "PCF", "namf-grouppresence": "AMF"}


@dataclass
class Producer:
    """The service at both networks, with one true state of each UE; the switches are what a bad build does."""

    harness: Harness
    lossy: bool = False
    """A UE arrives as it was two transactions ago."""
    forgetful: bool = False
    """No idempotency: a repeated request is run again."""
    split_brain: bool = False
    """Each network goes on with its own copy of a UE."""
    drop_answers: int = 0
    """So many answers to transactions are lost after the effect."""
    busy: int = 0
    """So many requests are answered 503 first."""
    remote: bool = False
    """UEs are served by home wherever they are."""
    finder: Finder = field(default_factory=lambda: Finder(from_toml((PROJECT / "outrider.toml").read_text())))
    answers: dict[tuple[str, str], Response] = field(default_factory=dict)
    copies: dict[tuple[str, str], Any] = field(default_factory=dict)
    past: dict[str, list[Any]] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, network: str, request: Request) -> Response:
        if self.busy > 0:
            self.busy -= 1
            return problem(503, "NF_CONGESTION", "busy", headers=[("retry-after", "0")])
        response = await self._serve(network, request)
        if request.path.endswith("/transactions") and self.drop_answers > 0:
            self.drop_answers -= 1
            return problem(504, "TIMED_OUT_REQUEST", "the answer was lost")
        return response

    async def _serve(self, network: str, request: Request) -> Response:
        found = self.finder.find(request.method, request.path, request.body)
        if isinstance(found, Refusal):
            return refusal_response(found)
        async with self.lock:
            await self.harness.advance(max(0, time.time_ns() // 1_000_000 - self.harness.now_ms))
            if found.shared is not None:
                return await self._run(found.nf.name, request, shared=found.shared)
            assert found.identity is not None
            idem = headers.idempotency_key(request.headers.get(headers.REQUEST_INFO))
            if idem is not None and (before := self.answers.get((found.identity, idem))) and not self.forgetful:
                return before
            await self._own(found.identity, network)
            response = await self._run(found.nf.name, request, ue=found.identity)
            if idem is not None and response.status < 400:
                self.answers[found.identity, idem] = response
            return response

    async def _run(self, nf: str, request: Request, **key: Any) -> Response:
        reply = await self.harness.request(nf, request.method, request.path, body=request.body, **key)
        return Response(reply.status, reply.headers, reply.body)

    async def _own(self, identity: str, network: str) -> None:
        """The UE's context is here before its request runs."""
        context = self.harness._contexts.get(self.harness._key(identity, None))
        owner = HOME if self.remote else network
        if context is None:
            self.at[identity] = HOME
            return
        self.past.setdefault(identity, []).append(copy.deepcopy(context.records))
        last = self.at[identity]
        if last == owner:
            return
        if self.split_brain:
            self.copies[identity, last] = copy.deepcopy((context.records, context.timers))
            context.records, context.timers = self.copies.get((identity, owner), self.copies[identity, last])
        if self.lossy:
            context.records = copy.deepcopy(self.past[identity][-3])
        self.at[identity] = owner
        await self.harness.relocate(to_network=NetworkId.parse(owner).plmn_id(), ue=identity)


class Network:
    """One network: its NRF, its basic part, and the service while it is there."""

    def __init__(self, network_id: str, producer: Producer, client: SbiClient) -> None:
        self.id = network_id
        self.producer = producer
        self.requests: list[Request] = []
        self._client = client
        self._server = SbiServer(self._answer)
        self._verifier: TokenVerifier

    async def start(self) -> None:
        await self._server.start()
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        issuer, network = str(uuid.uuid4()), NetworkId.parse(self.id)
        self._verifier = TokenVerifier({issuer: public})
        self.nrf = Nrf(
            network=network, nf_instance_id=issuer, signing_key_pem=private, api_root=self.root, client=self._client
        )
        options: dict[str, Any] = {"verifier": self._verifier, "client": self._client, "root": self.root}
        self.amf = Amf(network, str(uuid.uuid4()), **options)
        self.smf = Smf(network, str(uuid.uuid4()), **options)
        for nf_type, name in (("AMF", "namf-basic"), ("SMF", "nsmf-basic")):
            await self.offer(nf_type, name)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    async def offer(self, nf_type: str, name: str) -> None:
        """Register an NF instance with one service at the NRF."""
        instance, network = str(uuid.uuid4()), NetworkId.parse(self.id)
        service = {
            "serviceInstanceId": name,
            "serviceName": name,
            "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}],
            "scheme": "http",
            "nfServiceStatus": "REGISTERED",
            "ipEndPoints": [{"ipv4Address": "127.0.0.1", "port": self._server.port}],
        }
        profile = {
            "nfInstanceId": instance,
            "nfType": nf_type,
            "nfStatus": "REGISTERED",
            "ipv4Addresses": ["127.0.0.1"],
            ("snpnList" if network.nid else "plmnList"): [network.plmn_id()],
            "nfServiceList": {name: service},
        }
        url = f"{self.root}/nnrf-nfm/v1/nf-instances/{instance}"
        assert (await self._client.request("PUT", url, json=profile)).status == 201

    async def host(self) -> None:
        """The service is here from now on."""
        for name, nf_type in SERVICES.items():
            await self.offer(nf_type, name)

    async def stop(self) -> None:
        await self._server.stop()
        await self.amf.close()
        await self.smf.close()

    async def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        api = request.path.split("/")[1]
        if api in SERVICES:
            claims = self._verifier.verify(request.headers.get("authorization"), audience={SERVICES[api]}, scope=api)
            if isinstance(claims, Refusal):
                return refusal_response(claims)
            return await self.producer.answer(self.id, request)
        router = {"namf-basic": self.amf.router, "nsmf-basic": self.smf.router}.get(api, self.nrf.router)
        return await router(request)


@dataclass
class World:
    """Everything around the clients of a test."""

    producer: Producer
    networks: dict[str, Network]
    client: SbiClient
    sink: Sink
    directory: Path

    async def pump(self) -> None:
        """Deliver notifications as a keeper does: in order, each until it is accepted, under one id."""
        sent = 0
        while True:
            if sent == len(self.producer.harness.notifications):
                await asyncio.sleep(0.005)
                continue
            uri, value = self.producer.harness.notifications[sent]
            id_ = headers.with_idempotency_key(f"group/{sent}")
            with contextlib.suppress(Unreachable):
                if (await self.client.request("POST", uri, json=value, headers=[id_])).status < 300:
                    sent += 1
                    continue
            await asyncio.sleep(0.02)

    async def pumped(self) -> None:
        """All that has been notified so far has arrived."""
        async with asyncio.timeout(10):
            while self.sink.accepted < len(self.producer.harness.notifications):
                await asyncio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Home has the service, the target has a basic part."""
    async with (
        SbiClient() as client,
        Harness.of_project(PROJECT, network={"mcc": "999", "mnc": "70"}, now_ms=time.time_ns() // 1_000_000) as harness,
    ):
        producer = Producer(harness)
        networks = {n: Network(n, producer, client) for n in (HOME, TARGET)}
        for network in networks.values():
            await network.start()
        await networks[HOME].host()
        with Writer(tmp_path / "sink.jsonl") as history:
            sink = Sink(history)
            await sink.up()
            world = World(producer, networks, client, sink, tmp_path)
            pump = asyncio.create_task(world.pump())
            yield world
            pump.cancel()
            await sink.close()
        for network in networks.values():
            await network.stop()


Until = Callable[[Callable[[], bool]], Any]


@pytest.fixture
def until() -> Until:
    """Waits until something is so."""

    async def wait(so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not so():
                await asyncio.sleep(0.005)

    return wait
