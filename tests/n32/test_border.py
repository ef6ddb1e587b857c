import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.functions.n32 import Border, BorderTls, Peer
from outrider.functions.n32.outbound import Address
from outrider.network import keys
from outrider.network.keys import Keys
from outrider.sbi import headers as names
from outrider.sbi.client import ClientTls, SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response
from outrider.sbi.server import SbiServer

A = NetworkId.parse("999-70")
B = NetworkId.parse("999-71-000007ed9d5")
C = NetworkId.parse("999-72")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def client_tls(own: Keys, peer: Keys) -> ClientTls:
    return ClientTls(own.border_cert.read_bytes(), own.border_key.read_bytes(), peer.ca_cert.read_bytes())


@dataclass
class Net:
    """One network's border, with a node and a keeper that tell what reached them."""

    id: NetworkId
    keys: Keys
    dir: Path
    control: int = field(default_factory=free_port)
    bulk: int = field(default_factory=free_port)
    node_seen: list[Request] = field(default_factory=list)
    keeper_seen: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Response] | None = None
    hold: asyncio.Event | None = None
    keepers: dict[str, str] = field(default_factory=dict)
    border: Border = field(init=False)

    async def node(self, request: Request) -> Response:
        self.node_seen.append(request)
        if self.hold is not None:
            await self.hold.wait()
        return (
            self.answer(request) if self.answer else json_response(200, {"path": request.path, "query": request.query})
        )

    async def keeper(self, request: Request) -> Response:
        self.keeper_seen.append(request)
        if self.answer:
            return self.answer(request)
        return Response(200, [("content-type", "application/octet-stream")], request.body[:16])

    def build(self, **limits: int) -> Border:
        self.border = Border(
            self.id,
            BorderTls(self.keys.border_cert, self.keys.border_key),
            keepers=self.keepers.get,
            local=lambda partner: self.node,
            ca_dir=self.dir / "ca",
            **limits,
        )
        return self.border

    def peer(self, other: "Net") -> Peer:
        """The other network, as this one's partner."""
        address = Address("127.0.0.1", other.control, other.bulk)
        return Peer(other.id, other.keys.ca_cert.read_text(), address, self.control, self.bulk)


@pytest.fixture(scope="session")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[NetworkId, Keys]:
    root = tmp_path_factory.mktemp("keys")
    return {n: keys.create(root / str(n), n, "127.0.0.1") for n in (A, B, C)}


@dataclass
class Pair:
    a: Net
    b: Net


@pytest.fixture
async def pair(made_keys: dict[NetworkId, Keys], tmp_path: Path) -> AsyncIterator[Pair]:
    """Two networks whose borders are linked; B hosts the service `demo`."""
    a, b = Net(A, made_keys[A], tmp_path / "a"), Net(B, made_keys[B], tmp_path / "b")
    keeper = SbiServer(b.keeper, bulk=True, body_limit_bytes=32 << 20)
    await keeper.start()
    b.keepers["demo"] = f"http://127.0.0.1:{keeper.port}"
    await a.build().update([a.peer(b)])
    await b.build().update([b.peer(a)])
    yield Pair(a, b)
    await a.border.stop()
    await b.border.stop()
    await keeper.stop()


TO_B = {names.TARGET_API_ROOT: f"https://{B.domain}"}
LANE = "/nlmsf-relocation/v1/services/demo/lane"
BULK = "/nlmsf-relocation/v1/services/demo/bulk"
FROM_A = [(names.ORIGINATING_NETWORK_ID, str(A))]


def b_root(pair: Pair, channel: str = "control") -> str:
    control, bulk = pair.b.border.ports(A)
    return f"https://sepp.{B.domain}:{control if channel == 'control' else bulk}"


def raw(pair: Pair, keys: Keys | None = None) -> SbiClient:
    """A client at B's listeners for A, with A's certificate unless another is given."""
    return SbiClient(tls=client_tls(keys or pair.a.keys, pair.b.keys), resolve=(f"sepp.{B.domain}", "127.0.0.1"))


async def test_control_request_reaches_the_partners_function_and_says_where_it_comes_from(pair: Pair) -> None:
    request = Request(
        "POST",
        "/nlmsf-negotiation/v1/offers",
        "a=1&b=%20",
        {**TO_B, "content-type": "application/json", "connection": "close", "x-kept": "yes"},
        b'{"x":1}',
    )
    response = await pair.a.border.forward(request)
    assert response.status == 200
    assert response.json() == {"path": "/nlmsf-negotiation/v1/offers", "query": "a=1&b=%20"}
    [seen] = pair.b.node_seen
    assert seen.headers[names.ORIGINATING_NETWORK_ID] == str(A)
    assert seen.headers["x-kept"] == "yes"
    assert names.TARGET_API_ROOT not in seen.headers
    assert "connection" not in seen.headers
    assert seen.body == b'{"x":1}'


async def test_relocation_goes_to_the_keeper_of_its_service_on_the_channel_it_belongs_to(pair: Pair) -> None:
    for path in (LANE, BULK):
        response = await pair.a.border.forward(Request("POST", path, "", TO_B, b"0123456789abcdefXYZ"))
        assert (response.status, response.body) == (200, b"0123456789abcdef")
    assert [r.path for r in pair.b.keeper_seen] == [LANE, BULK]
    assert {r.headers[names.ORIGINATING_NETWORK_ID] for r in pair.b.keeper_seen} == {str(A)}
    assert pair.b.node_seen == []


async def test_in_process_request_reaches_the_partner(pair: Pair) -> None:
    response = await pair.b.border.request(A, "GET", "/nnrf-disc/v1/nf-instances?target-nf-type=SMF")
    assert response.status == 200
    assert pair.a.node_seen[0].headers[names.ORIGINATING_NETWORK_ID] == str(B)


async def test_own_name_of_the_network_cannot_be_changed_by_an_inner_function(pair: Pair) -> None:
    spoof = {**TO_B, names.ORIGINATING_NETWORK_ID: str(C)}
    assert (await pair.a.border.forward(Request("GET", "/nlmsf-audit/v1/heads", "", spoof))).status == 200
    await pair.a.border.request(B, "GET", "/nlmsf-audit/v1/heads", headers=[(names.ORIGINATING_NETWORK_ID, str(C))])
    assert {r.headers[names.ORIGINATING_NETWORK_ID] for r in pair.b.node_seen} == {str(A)}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/outrider-host/v1/status"),
        ("POST", "/outrider-host/v1/erase"),
        ("PUT", "/nnrf-nfm/v1/nf-instances/x"),
        ("DELETE", "/nnrf-disc/v1/nf-instances"),
        ("GET", "/nsmf-groupsession/v1/ue-sessions/imsi-1"),
        ("GET", "/outrider-node/v1/status"),
        ("GET", "/nlmsf-negotiation/v1/../../outrider-host/v1/status"),
        ("GET", "/nlmsf-negotiation/v1//x"),
        ("GET", "/nlmsf-negotiation/v1/%2e%2e/x"),
        ("POST", BULK),
        ("GET", "/"),
    ],
)
async def test_path_that_is_not_allowed_is_refused_by_the_partners_border(pair: Pair, method: str, path: str) -> None:
    async with raw(pair) as client:
        response = await client.request(method, b_root(pair) + path, headers=FROM_A)
    assert response.status in (403, 404)
    assert response.json()["cause"] == "PATH_NOT_ALLOWED"
    assert pair.b.node_seen == pair.b.keeper_seen == []


async def test_bulk_listener_takes_bulk_only(pair: Pair) -> None:
    async with raw(pair) as client:
        for path in (LANE, "/nlmsf-negotiation/v1/offers", "/oauth2/token"):
            response = await client.request("POST", b_root(pair, "bulk") + path, headers=FROM_A, body=b"x")
            assert (response.status, response.json()["cause"]) == (403, "PATH_NOT_ALLOWED")
        package = await client.request(
            "GET", b_root(pair, "bulk") + "/nlmsf-catalogue/v1/packages/abc/archive", headers=FROM_A
        )
    assert package.status == 200


async def test_path_that_is_not_allowed_does_not_leave(pair: Pair) -> None:
    response = await pair.a.border.forward(Request("GET", "/nsmf-groupsession/v1/ue-sessions/imsi-1", "", TO_B))
    assert (response.status, response.json()["cause"]) == (403, "PATH_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("named", "cause"),
    [
        (str(C), "ORIGINATING_NETWORK_MISMATCH"),
        (f"{C}; src: SEPP-x", "ORIGINATING_NETWORK_MISMATCH"),
        ("nonsense", "ORIGINATING_NETWORK_MISMATCH"),
        (None, "ORIGINATING_NETWORK_MISSING"),
    ],
)
async def test_spoofed_network_is_refused(pair: Pair, named: str | None, cause: str) -> None:
    sent = [] if named is None else [(names.ORIGINATING_NETWORK_ID, named)]
    async with raw(pair) as client:
        response = await client.request("POST", b_root(pair) + "/nlmsf-negotiation/v1/offers", headers=sent, body=b"{}")
    assert (response.status, response.json()["cause"]) == (403, cause)
    assert pair.b.node_seen == []
    assert pair.b.border.status()[0]["in"]["refused"] == {cause: 1}


def unsigned_token(claims: dict[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"Bearer {part({'alg': 'ES256'})}.{part(claims)}.c2ln"


async def test_token_of_another_network_is_refused_and_the_partners_own_passes_on(pair: Pair) -> None:
    url = b_root(pair) + "/nlmsf-negotiation/v1/offers"
    async with raw(pair) as client:
        stolen = unsigned_token({"consumerPlmnId": C.plmn_id()})
        response = await client.request("GET", url, headers=[*FROM_A, ("authorization", stolen)])
        assert (response.status, response.json()["cause"]) == (403, "TOKEN_NETWORK_MISMATCH")
        for passing in (unsigned_token({"consumerPlmnId": A.plmn_id()}), "Bearer rubbish", "Basic x"):
            response = await client.request("GET", url, headers=[*FROM_A, ("authorization", passing)])
            assert response.status == 200  # the receiving function is the one that checks it
    assert len(pair.b.node_seen) == 3


async def test_certificate_of_another_ca_is_refused(pair: Pair, made_keys: dict[NetworkId, Keys]) -> None:
    async with raw(pair, made_keys[C]) as client:
        with pytest.raises(Unreachable):
            await client.request("GET", b_root(pair) + "/nlmsf-audit/v1/heads", headers=FROM_A)
    assert pair.b.node_seen == []


async def test_client_without_a_certificate_is_refused(pair: Pair) -> None:
    context = ssl.create_default_context(cadata=pair.b.keys.ca_cert.read_text())
    context.set_alpn_protocols(["h2"])
    control, _ = pair.b.border.ports(A)

    async def speak() -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", control, ssl=context, server_hostname=f"sepp.{B.domain}"
        )
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        return await reader.read(1)

    # The alert comes with the first read, since TLS 1.3 lets the client finish its handshake first.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await speak()


async def test_border_with_another_ca_is_not_trusted(pair: Pair, made_keys: dict[NetworkId, Keys]) -> None:
    await pair.a.border.update([pair.a.peer(pair.b)._replace(ca_pem=made_keys[C].ca_cert.read_text())])
    with pytest.raises(Unreachable) as caught:
        await pair.a.border.request(B, "GET", "/nlmsf-audit/v1/heads")
    assert caught.value.not_sent
    assert pair.b.node_seen == []


async def test_partners_certificate_does_not_serve_for_another_network(
    pair: Pair, made_keys: dict[NetworkId, Keys], tmp_path: Path
) -> None:
    """C's CA is trusted on C's listener only: with it nobody speaks as A, and C's border cannot stand in for B."""
    c = Net(C, made_keys[C], tmp_path / "c")
    await c.build().update([c.peer(pair.a)])
    await pair.a.border.update([pair.a.peer(pair.b)._replace(address=Address("127.0.0.1", c.control, c.bulk))])
    with pytest.raises(Unreachable):
        await pair.a.border.request(B, "GET", "/nlmsf-audit/v1/heads")
    assert c.node_seen == []
    await c.border.stop()


@pytest.mark.parametrize(
    ("path", "size"), [("/oauth2/token", limits.REQUEST_BYTES + 1), (LANE, limits.FRAME_BYTES + 1)]
)
async def test_body_that_is_too_large_is_refused(pair: Pair, path: str, size: int) -> None:
    async with raw(pair) as client:
        response = await client.request("POST", b_root(pair) + path, headers=FROM_A, body=bytes(size))
    assert response.status == 413
    assert pair.b.node_seen == pair.b.keeper_seen == []


async def test_partner_that_asks_too_often_is_told_429_while_its_lanes_go_on(
    made_keys: dict[NetworkId, Keys], tmp_path: Path
) -> None:
    a, b = Net(A, made_keys[A], tmp_path / "a"), Net(B, made_keys[B], tmp_path / "b")
    await a.build().update([a.peer(b)])
    await b.build(requests_per_s=3).update([b.peer(a)])
    statuses = [(await a.border.request(B, "GET", "/nlmsf-audit/v1/heads")).status for _ in range(8)]
    assert statuses.count(200) >= 3
    limited = [s for s in statuses if s != 200]
    assert limited
    assert set(limited) == {429}
    assert (await a.border.request(B, "POST", LANE)).status == 404  # no keeper here, but the meter let it pass
    await a.border.stop()
    await b.border.stop()


async def test_service_that_is_not_hosted_is_told_with_certain_no_effect(pair: Pair) -> None:
    response = await pair.a.border.forward(Request("POST", "/nlmsf-relocation/v1/services/other/lane", "", TO_B, b"x"))
    assert (response.status, response.json()["cause"]) == (404, "SERVICE_NOT_HOSTED")
    assert response.header("outrider-not-sent") == "true"


async def test_keeper_that_is_down_is_told_with_certain_no_effect(pair: Pair) -> None:
    pair.b.keepers["demo"] = f"http://127.0.0.1:{free_port()}"
    response = await pair.a.border.forward(Request("POST", LANE, "", TO_B, b"x"))
    assert (response.status, response.json()["cause"]) == (504, "TARGET_NF_NOT_REACHABLE")
    assert response.json()["notSent"] is True
    assert response.header("outrider-not-sent") == "true"


async def test_link_that_is_down_is_told_with_certain_no_effect_and_comes_back(pair: Pair) -> None:
    await pair.b.border.update([])
    await pair.a.border.update([])  # and with it the open connection
    await pair.a.border.update([pair.a.peer(pair.b)])
    response = await pair.a.border.forward(Request("POST", LANE, "", TO_B, b"x"))
    assert (response.status, response.json()["cause"], response.json()["notSent"]) == (
        504,
        "TARGET_NF_NOT_REACHABLE",
        True,
    )
    assert pair.a.border.status()[0]["link"] == "down"
    await pair.b.border.update([pair.b.peer(pair.a)])
    assert (await pair.a.border.forward(Request("POST", LANE, "", TO_B, b"x"))).status == 200
    assert pair.a.border.status()[0]["link"] == "up"


async def test_answer_that_is_late_is_told_as_unknown(pair: Pair) -> None:
    pair.b.hold = asyncio.Event()
    headers = {**TO_B, names.MAX_RSP_TIME: "300"}
    response = await pair.a.border.forward(Request("POST", "/nlmsf-negotiation/v1/offers", "", headers, b"{}"))
    assert len(pair.b.node_seen) == 1
    pair.b.hold.set()
    assert (response.status, response.json()["notSent"]) == (504, False)
    assert response.header("outrider-not-sent") == "false"


@pytest.mark.parametrize(
    "root", [f"https://{C.domain}", "http://127.0.0.1:80", "", f"https://evil-{B.domain}", f"https://{B.domain}.evil"]
)
async def test_network_that_is_no_partner_is_refused(pair: Pair, root: str) -> None:
    response = await pair.a.border.forward(Request("POST", LANE, "", {names.TARGET_API_ROOT: root}, b"x"))
    assert (response.status, response.json()["cause"]) == (404, "TARGET_NETWORK_UNKNOWN")
    with pytest.raises(Unreachable) as caught:
        await pair.a.border.request(C, "GET", "/nlmsf-audit/v1/heads")
    assert caught.value.not_sent


async def test_partner_cannot_use_the_border_as_a_way_to_third_networks(pair: Pair) -> None:
    async with raw(pair) as client:
        sent = [*FROM_A, (names.TARGET_API_ROOT, f"https://{C.domain}")]
        response = await client.request("GET", b_root(pair) + "/nlmsf-audit/v1/heads", headers=sent)
    assert response.status == 200
    assert names.TARGET_API_ROOT not in pair.b.node_seen[0].headers


async def test_internal_addresses_do_not_leave_in_a_location(pair: Pair) -> None:
    pair.b.answer = lambda r: Response(201, [("location", "http://127.0.0.1:7770/nlmsf-negotiation/v1/offers/7?x=1")])
    response = await pair.a.border.request(B, "POST", "/nlmsf-negotiation/v1/offers", body=b"{}")
    assert response.header("location") == f"https://{B.domain}/nlmsf-negotiation/v1/offers/7?x=1"


async def test_unchanged_link_goes_on_while_others_change(
    pair: Pair, made_keys: dict[NetworkId, Keys], tmp_path: Path
) -> None:
    c = Net(C, made_keys[C], tmp_path / "c")
    before = pair.b.border.ports(A)
    toward_c = c.peer(c)._replace(network=C, listen_control=free_port(), listen_bulk=free_port())
    await pair.b.border.update([pair.b.peer(pair.a), toward_c])
    assert set(pair.b.border.partners) == {A, C}
    assert pair.b.border.ports(A) == before
    await pair.b.border.update([toward_c])
    assert pair.b.border.partners == [C]


async def test_several_large_frames_cross_at_a_time(pair: Pair) -> None:
    frames = [bytes([i]) * 1_000_000 for i in range(12)]
    answers = await asyncio.gather(*(pair.a.border.forward(Request("POST", BULK, "", TO_B, frame)) for frame in frames))
    assert [a.body for a in answers] == [frame[:16] for frame in frames]
    assert sorted(r.body[0] for r in pair.b.keeper_seen) == list(range(12))
    assert pair.b.border.status()[0]["in"]["bytes"] == 12_000_000


async def test_port_that_is_taken_closes_that_link_only(
    pair: Pair, made_keys: dict[NetworkId, Keys], tmp_path: Path
) -> None:
    taken = pair.b.peer(pair.a)._replace(network=C, listen_control=free_port(), listen_bulk=pair.a.control)
    failed = await pair.b.border.update([pair.b.peer(pair.a), taken])
    assert list(failed) == [C]
    assert pair.b.border.partners == [A]
    retry = taken._replace(listen_bulk=free_port())
    assert await pair.b.border.update([pair.b.peer(pair.a), retry]) == {}
    assert set(pair.b.border.partners) == {A, C}
