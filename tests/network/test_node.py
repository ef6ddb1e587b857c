import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import openapi_spec_validator
import pytest
import yaml
from openapi_schema_validator import OAS30Validator

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refused
from outrider.functions.nrf.client import NrfClient, api_roots
from outrider.network import card as cards
from outrider.network import node as module
from outrider.network import state
from outrider.network.config import (
    BasicSection,
    BorderSection,
    NetworkConfig,
    NetworkSection,
    SbiSection,
    load,
    render,
)
from outrider.network.create import create
from outrider.network.keys import Keys
from outrider.network.node import Node
from outrider.network.partner import Partners
from outrider.network.reach import Reach
from outrider.sbi import headers as names
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource

A, B = NetworkId.parse("999-70"), NetworkId.parse("999-71-000007ed9d5")
CONSUMER = "5a7b4c1e-0000-4000-8000-000000000001"


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def make(root: Path, id_: NetworkId, **more: Any) -> Path:
    kind = "snpn" if id_.nid else "plmn"
    config = NetworkConfig(NetworkSection(str(id_), kind, str(id_)), SbiSection(port=0), **more)  # type: ignore[arg-type]
    create(root / str(id_), config)
    return root / str(id_)


def partners(folder: Path) -> Partners:
    return Partners(folder / "partners", load(folder / "network.toml"), Keys(folder / "keys"))


def introduce(a: Path, b: Path) -> None:
    """Exchange cards, one file each way."""
    for one, other, id_ in ((a, b, B), (b, a, A)):
        control, bulk = free_ports(2)
        card = partners(one).invite(id_, control, bulk)
        assert isinstance(card, cards.Card)
        read = partners(other).read_card(cards.encode(card))
        assert isinstance(read, cards.Card)
        partners(other).add(read)


async def up(folder: Path, **more: Any) -> Node:
    node = Node(folder, **more)
    await node.start()
    return node


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    a, b = make(tmp_path, A), make(tmp_path, B)
    introduce(a, b)
    nodes = await up(a), await up(b)
    yield nodes
    for node in nodes:
        await node.stop()


async def consumer(client: SbiClient, node: Node) -> TokenSource:
    """An AF of the node's network: registered, as any consumer must be."""
    await NrfClient(client, node.root).register(
        {"nfInstanceId": CONSUMER, "nfType": "AF", "nfStatus": "REGISTERED", "ipv4Addresses": ["127.0.0.1"]}
    )
    return TokenSource(client, node.root, CONSUMER, "AF")


async def test_basic_part_is_found_through_the_nrf_and_served_with_its_tokens(tmp_path: Path) -> None:
    node = await up(make(tmp_path, A))
    async with SbiClient() as client:
        tokens = await consumer(client, node)
        nrf = NrfClient(client, node.root)
        [amf] = await nrf.discover("AMF", "AF", service_names=["namf-basic"])
        [smf] = await nrf.discover("SMF", "AF", service_names=["nsmf-basic"])
        bearer = await tokens.bearer(scope="namf-basic", target_nf_type="AMF")
        [root] = api_roots(amf, "namf-basic")
        registration = {"tai": {"plmnId": {"mcc": "999", "mnc": "70"}, "tac": "000001"}}
        url = f"{root}/namf-basic/v1/registrations/imsi-999700000000001"
        answer = await client.request("PUT", url, headers=[("authorization", bearer)], json=registration)
        assert answer.status == 201
        bearer = await tokens.bearer(scope="nsmf-basic", target_nf_type="SMF")
        url = f"{api_roots(smf, 'nsmf-basic')[0]}/nsmf-basic/v1/pdu-sessions"
        answer = await client.request(
            "POST", url, headers=[("authorization", bearer)], json={"supi": "imsi-999700000000001"}
        )
        assert answer.status == 201
        assert (await client.request("GET", url)).status == 405
    assert node.status()["basic"] == {"registrations": 1, "pduSessions": 1}
    await node.stop()


async def test_discovery_and_tokens_of_a_partner_come_nrf_to_nrf_through_the_borders(pair: tuple[Node, Node]) -> None:
    a, b = pair
    async with SbiClient() as client:
        tokens = await consumer(client, a)
        found = await NrfClient(client, a.root).discover("AMF", "AF", target=B)
        assert [f["nfInstanceId"] for f in found] == [b.keys.instances().amf]
        with pytest.raises(Refused):  # the basic part of a partner is not for AFs of another network
            await tokens.bearer(scope="nlmsf-negotiation", target_nf_type="LMSF", target_plmn=B.plmn_id())
    partner = b._partners
    assert partner is not None
    response = await partner.request(
        str(A), "GET", "/nlmsf-negotiation/v1/migrations/none/view", scope="nlmsf-negotiation"
    )
    assert response.status == 404  # it was let in: the token of A's NRF holds at A's LMSF
    assert a.status()["partners"][0]["link"]["in"]["requests"] >= 2


async def test_unknown_partner_and_paths_that_do_not_cross_are_refused_at_the_listener(
    pair: tuple[Node, Node],
) -> None:
    a, _ = pair

    async def send(path: str, root: str) -> tuple[int, str]:
        async with SbiClient() as client:
            answer = await client.request("GET", a.root + path, headers=[(names.TARGET_API_ROOT, root)])
        return answer.status, answer.json()["cause"]

    assert await send("/nnrf-disc/v1/nf-instances", "https://5gc.mnc099.mcc999.3gppnetwork.org") == (
        404,
        "TARGET_NETWORK_UNKNOWN",
    )
    assert await send("/namf-evts/v1/subscriptions", f"https://{B.domain}") == (403, "PATH_NOT_ALLOWED")
    assert (await send("/outrider-host/v1/status", f"https://{A.domain}"))[0] == 404  # its own: served here, or not


async def test_operator_reaches_the_lmsf_with_the_networks_own_key(tmp_path: Path) -> None:
    node = await up(make(tmp_path, A))
    async with Reach(node.directory) as reach:
        answer = await reach.request("GET", "/nlmsf-migration/v1/migrations", scope="nlmsf-migration")
        assert answer.status == 200
        assert (await reach.request("GET", "/nlmsf-migration/v1/migrations")).status == 401
        status: Response = await reach.request("GET", module.STATUS_PATH)
        assert status.json()["network"] == str(A)
    async with SbiClient() as client:
        await consumer(client, node)
        form = {
            "grant_type": "client_credentials",
            "nfInstanceId": node.keys.instances().lmsf,
            "targetNfType": "LMSF",
            "scope": "nlmsf-migration",
        }
        answer = await client.request(
            "POST",
            node.root + "/oauth2/token",
            headers=[("content-type", "application/x-www-form-urlencoded")],
            body=urlencode(form).encode(),
        )
        assert (answer.status, answer.json()["error"]) == (400, "invalid_client")  # nobody else can be the operator
    await node.stop()
    with pytest.raises(Refused, match="NODE_DOWN"):
        Reach(node.directory)


async def test_partner_that_is_added_while_the_node_runs_is_linked_and_unlinked_when_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PARTNER_POLL_S", 0.02)
    a, b = make(tmp_path, A), make(tmp_path, B)
    node_a, node_b = await up(a), await up(b)
    introduce(a, b)

    async def linked(node: Node, wanted: list[NetworkId]) -> None:
        border = node._border
        assert border is not None
        async with asyncio.timeout(10):
            while border.partners != wanted:
                await asyncio.sleep(0.01)

    await linked(node_a, [B])
    await linked(node_b, [A])
    async with SbiClient() as client:
        await consumer(client, node_a)
        assert await NrfClient(client, node_a.root).discover("AMF", "AF", target=B)
        partners(b).remove(A)
        await linked(node_b, [])
        with pytest.raises(Refused):
            await NrfClient(client, node_a.root).discover("SMF", "AF", target=B)
    await node_a.stop()
    await node_b.stop()


async def test_status_is_what_its_openapi_file_says(pair: tuple[Node, Node]) -> None:
    async with SbiClient() as client:
        document = yaml.safe_load((await client.request("GET", pair[0].root + module.OPENAPI_PATH)).body)
        status = (await client.request("GET", pair[0].root + module.STATUS_PATH)).json()
    openapi_spec_validator.validate(document)
    schema = {"$ref": "#/components/schemas/NodeStatus", "components": document["components"]}
    assert status["partners"][0]["link"]["link"] == "unused"
    OAS30Validator(schema).validate(status)


async def test_second_node_on_a_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    node = await up(make(tmp_path, A))
    with pytest.raises(Refused, match="NODE_RUNS"):
        await Node(node.directory).start()
    assert state.running(node.directory).root == node.root
    await node.stop()
    again = await up(node.directory)
    await again.stop()


async def test_port_of_the_listener_that_is_taken_is_told_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder = make(tmp_path, A)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        config = load(folder / "network.toml")
        taken = msgspec.structs.replace(config, sbi=SbiSection(port=holder.getsockname()[1]))
        (folder / "network.toml").write_text(render(taken))
        with pytest.raises(Refused, match="PORT_TAKEN"):
            await Node(folder).start()
    node = await up(folder)
    await node.stop()


async def test_function_runs_alone_and_what_is_not_here_is_not_served(tmp_path: Path) -> None:
    node = await up(make(tmp_path, A), only=["nrf"])
    async with SbiClient() as client:
        await consumer(client, node)
        for path in ("/namf-basic/v1/registrations/imsi-00101", "/nlmsf-migration/v1/migrations"):
            assert (await client.request("GET", node.root + path)).status == 404
        answer = await client.request(
            "GET", node.root + "/nnrf-disc/v1/nf-instances", headers=[(names.TARGET_API_ROOT, f"https://{B.domain}")]
        )
        assert answer.status == 503
    assert node.status()["functions"] == ("nrf",)
    await node.stop()


def test_function_that_needs_an_nrf_elsewhere_says_so(tmp_path: Path) -> None:
    folder = make(tmp_path, A)
    with pytest.raises(Refused, match=r"NRF_MISSING.*nrf_root"):
        Node(folder, only=["basic"])
    with pytest.raises(ValueError, match="udsf"):
        Node(folder, only=["udsf"])


async def test_functions_in_two_nodes_work_with_one_nrf(tmp_path: Path) -> None:
    """The basic part as a node of its own, with the NRF of the main node."""
    main = await up(make(tmp_path, A), only=["nrf"])
    other = make(tmp_path / "other", A)
    for name in ("nrf.key", "instances.json"):
        (other / "keys" / name).write_bytes((main.directory / "keys" / name).read_bytes())
    config = load(other / "network.toml")
    elsewhere = msgspec.structs.replace(config, sbi=SbiSection(port=0, nrf_root=main.root))
    (other / "network.toml").write_text(render(elsewhere))
    basic = await up(other, only=["basic"])
    async with SbiClient() as client:
        await consumer(client, main)
        [amf] = await NrfClient(client, main.root).discover("AMF", "AF", service_names=["namf-basic"])
        assert api_roots(amf, "namf-basic") == [basic.root]
    await basic.stop()
    await main.stop()


async def test_body_beyond_the_bound_is_refused_for_own_functions(tmp_path: Path) -> None:
    node = await up(make(tmp_path, A, basic=BasicSection(False)), only=["nrf", "basic"])
    async with SbiClient() as client:
        answer = await client.request("PUT", node.root + "/nnrf-nfm/v1/nf-instances/x", body=bytes(2 << 20))
    assert answer.status == 413
    assert node.status()["basic"] is None
    await node.stop()


async def test_border_certificate_is_renewed_at_start_when_the_address_changed(tmp_path: Path) -> None:
    folder = make(tmp_path, A)
    before = (folder / "keys" / "border.pem").read_bytes()
    node = await up(folder, only=["n32"])
    await node.stop()
    assert (folder / "keys" / "border.pem").read_bytes() == before
    config = msgspec.structs.replace(load(folder / "network.toml"), border=BorderSection(host="border.example"))
    (folder / "network.toml").write_text(render(config))
    node = await up(folder, only=["n32"])
    await node.stop()
    assert (folder / "keys" / "border.pem").read_bytes() != before
