import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from outrider.core.ids import NetworkId
from outrider.functions.nrf.clock import Clock
from outrider.functions.nrf.nrf import Nrf
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer
from outrider.sbi.tokens import TokenVerifier

OWN = NetworkId("999", "70")
SNPN = NetworkId("999", "71", "0123456789a")
NRF_ID = "00000000-0000-4000-8000-0000000000ff"
ROOT = "http://nrf.example.org:8000"


def uuid(n: int) -> str:
    return f"00000000-0000-4000-8000-{n:012x}"


class VirtualTime:
    def __init__(self) -> None:
        self.s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.s


class Keys:
    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def service(name: str, n: int = 1, **more) -> dict:
    return {
        "serviceInstanceId": f"{name}-{n}",
        "serviceName": name,
        "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}],
        "scheme": "http",
        "nfServiceStatus": "REGISTERED",
        "ipEndPoints": [{"ipv4Address": "127.0.0.1", "port": 8000 + n}],
    } | more


def profile(n: int, nf_type: str = "SMF", *services: dict, **more) -> dict:
    made = {
        "nfInstanceId": uuid(n),
        "nfType": nf_type,
        "nfStatus": "REGISTERED",
        "ipv4Addresses": ["127.0.0.1"],
    }
    if services:
        made["nfServices"] = list(services)
    return made | more


class Api:
    """Speaks to an NRF's router without a network between."""

    def __init__(self, handler) -> None:
        self.handler = handler

    async def put(
        self, document: dict, identity: str | None = None, content_type: str = "application/json"
    ) -> Response:
        path = f"/nnrf-nfm/v1/nf-instances/{identity or document.get('nfInstanceId')}"
        return await self.handler(
            Request("PUT", path, headers={"content-type": content_type}, body=json.dumps(document).encode())
        )

    async def patch(self, n: int, *operations: dict, **headers: str) -> Response:
        return await self.handler(
            Request(
                "PATCH",
                f"/nnrf-nfm/v1/nf-instances/{uuid(n)}",
                headers={"content-type": "application/json-patch+json"}
                | {name.replace("_", "-"): value for name, value in headers.items()},
                body=json.dumps(list(operations)).encode(),
            )
        )

    async def heartbeat(self, n: int, status: str = "REGISTERED") -> Response:
        return await self.patch(n, {"op": "replace", "path": "/nfStatus", "value": status})

    async def get(self, n: int, **headers: str) -> Response:
        return await self.handler(
            Request(
                "GET",
                f"/nnrf-nfm/v1/nf-instances/{uuid(n)}",
                headers={name.replace("_", "-"): value for name, value in headers.items()},
            )
        )

    async def delete(self, n: int) -> Response:
        return await self.handler(Request("DELETE", f"/nnrf-nfm/v1/nf-instances/{uuid(n)}"))

    async def search(self, target: str = "SMF", requester: str = "AMF", headers=None, **params) -> Response:
        pairs = {"target-nf-type": target, "requester-nf-type": requester}
        for name, value in params.items():
            pairs[name.replace("_", "-")] = value if isinstance(value, str) else json.dumps(value)
        return await self.handler(
            Request("GET", "/nnrf-disc/v1/nf-instances", urlencode(pairs), headers=dict(headers or {}))
        )

    async def found(self, target: str = "SMF", requester: str = "AMF", **params) -> list[int]:
        """The numbers of the instances found, in order."""
        response = await self.search(target, requester, **params)
        assert response.status == 200, response.body
        return [int(one["nfInstanceId"][-12:], 16) for one in response.json()["nfInstances"]]

    async def found_services(self, target: str = "SMF", requester: str = "AMF", **params) -> list[str]:
        response = await self.search(target, requester, **params)
        return [
            one["serviceInstanceId"] for found in response.json()["nfInstances"] for one in found.get("nfServices", [])
        ]

    async def token(self, headers=None, **form) -> Response:
        pairs = {"grant_type": "client_credentials"}
        for name, value in form.items():
            pairs[name] = value if isinstance(value, str) else json.dumps(value)
        sent = {"content-type": "application/x-www-form-urlencoded"} | (headers or {})
        body = urlencode({name: value for name, value in pairs.items() if value != ""}).encode()
        return await self.handler(Request("POST", "/oauth2/token", headers=sent, body=body))


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="session")
def cca_keys() -> Keys:
    return Keys()


@pytest.fixture
def verifier(keys, time) -> TokenVerifier:
    return TokenVerifier({NRF_ID: keys.public}, now_s=time)


@pytest.fixture(scope="session")
def http() -> SbiClient:
    """One client for all tests: making one takes 20 ms."""
    return SbiClient()


@pytest.fixture
async def make_nrf(keys, cca_keys, time, http) -> AsyncIterator:
    async with AsyncExitStack() as stack:

        def make(**options) -> Nrf:
            nrf = Nrf(
                **{
                    "network": OWN,
                    "nf_instance_id": NRF_ID,
                    "signing_key_pem": keys.private,
                    "api_root": ROOT,
                    "client": http,
                    "cca_keys_pem": [cca_keys.public],
                    "clock": Clock(wall_s=time, steady_s=time),
                }
                | options
            )
            stack.push_async_callback(nrf.stop)
            return nrf

        yield make


@pytest.fixture
def nrf(make_nrf) -> Nrf:
    return make_nrf()


@pytest.fixture
def api(nrf) -> Api:
    return Api(nrf.router)


@pytest.fixture
async def serve() -> AsyncIterator:
    async with AsyncExitStack() as stack:

        async def start(handler, **options) -> SbiServer:
            server = SbiServer(handler, **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield start


@pytest.fixture
def build():
    """The makers of test data, for test modules (which cannot import from here)."""

    class Build:
        own, snpn, nrf_id, root, api = OWN, SNPN, NRF_ID, ROOT, Api
        uuid, service, profile, keys = staticmethod(uuid), staticmethod(service), staticmethod(profile), Keys

    return Build
