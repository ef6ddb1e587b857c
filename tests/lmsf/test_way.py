"""The whole way: out, back, retired; and what each network sees of it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from outrider.core.ids import NetworkId
from outrider.functions.lmsf.instances import selection
from outrider.protocol.phase import Fact
from outrider.sbi.http import Request
from outrider.sbi.problem import problem

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"


async def test_a_service_that_is_moved_whole_settles_returns_and_is_retired(pair: Any) -> None:
    started = await pair.migrate(move_all=True)
    name = started["migrationId"]
    assert started["role"] == "source"
    await pair.reach(name, "SETTLED")
    assert {owner for owners in pair.world.owners().values() for owner in owners} == {B}
    assert len(await pair.a.discovered()) == 1, "home's instances stay registered throughout"

    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("RETIRED", "RETIRED")
    assert source["ending"]["cause"] == "RETURN_ASKED"
    assert source["receipt"]
    pair.whole_at_home()
    await pair.clear_at_target()
    order = ["NEGOTIATING", "PERMITTING", "PREPARING", "COPYING", "RELOCATING", "SETTLED", "RETURNING", "RETIRED"]
    assert list(source["phases"]) == order
    assert sorted(source["phases"].values()) == list(source["phases"].values())


async def test_only_arrived_ues_move_and_the_others_stay(pair: Any) -> None:
    keys = sorted(pair.world.keeper(A).rows)
    name = (await pair.migrate())["migrationId"]
    await pair.reach(name, "RELOCATING")
    pair.world.arrived |= set(keys[:7])
    while pair.world.keeper(A).count("foreign") < 7:
        await asyncio.sleep(0.002)
    shown = await pair.a.show(name)
    assert (shown["phase"], shown["over"]) == ("RELOCATING", False)
    assert "UEs to arrive" in shown["waitingFor"]
    assert pair.world.keeper(B).count("owned") == 7


async def test_the_target_can_ask_for_the_return(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await pair.b.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", {"sentence": "no room"}, status=202)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("RETIRED", "RETIRED")
    assert (source["ending"]["by"], source["ending"]["sentence"]) == (B, "no room")
    pair.whole_at_home()
    await pair.clear_at_target()


def _untold_when_registered(pair: Any) -> Callable[[], None]:
    """Neither side hears where the other stands once the instances are registered."""
    held = {"on": True}

    def hold(method: str, path: str) -> Any:
        deployed = pair.b.lmsf.deployments.get(SERVICE)
        registered = deployed is not None and bool(deployed.instances)
        return problem(503, "NF_CONGESTION", "held") if held["on"] and registered and method == "PUT" else None

    pair.a.intercept = pair.b.intercept = hold
    return lambda: held.update(on=False)


async def test_consumers_find_the_migrated_instance_from_the_copy_on_until_it_is_retired(pair: Any) -> None:
    assert await pair.b.discovered() == []
    pair.world.frozen = True
    release = _untold_when_registered(pair)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "PREPARING")
    assert await pair.b.lmsf.get(name).until(lambda row: Fact.PREPARED in row.facts, 15_000)
    assert await pair.b.discovered() == [], "registered, but undiscoverable"
    registered = pair.b.lmsf.deployments.get(SERVICE)
    assert registered.nf_status == "UNDISCOVERABLE"
    assert len({i.nf_instance_id for i in registered.instances}) == 3, "one NF instance for each NF service"

    release()
    await pair.reach(name, "COPYING")
    while not (found := await pair.b.discovered()):
        await asyncio.sleep(0.002)
    assert found[0]["customInfo"]["lms"] == {
        "service": SERVICE, "version": "1.0.0", "home": A, "migrationId": name,
    }  # fmt: skip
    home = await pair.a.discovered()
    assert home[0]["nfInstanceId"] != found[0]["nfInstanceId"]

    pair.world.frozen = True
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await pair.reach(name, "RETURNING")
    assert len(await pair.b.discovered()) == 1, "still served there until the last UE is home"
    pair.world.frozen = False
    await pair.ended(name)
    assert await pair.b.discovered() == []


async def test_a_basic_consumer_never_selects_a_migrated_instance(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    from outrider.sbi.http import Request

    query = "target-nf-type=SMF&requester-nf-type=AMF"
    answer = await pair.b.nrf.router(Request("GET", "/nnrf-disc/v1/nf-instances", query))
    assert answer.json()["nfInstances"] == []


async def test_an_area_becomes_selection_conditions_at_the_target(networks: Any) -> None:
    pair = networks
    await pair.a.deploy()
    area = ("tai:999-71-000001", "dnn:trains")
    await pair.a.permit(area=area)
    await pair.b.permit()
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    deployment = pair.b.lmsf.deployments.get(SERVICE)
    assert deployment.nf_status == "CANARY_RELEASE"
    snpn = {"plmnId": {"mcc": "999", "mnc": "71"}, "nid": "000007ed9d5"}
    assert deployment.selection == {
        "and": [
            {"taiRangeList": [snpn | {"tacRangeList": [{"start": "000001", "end": "000001"}]}]},
            {"dnnList": ["trains"]},
        ]
    }


async def test_both_stores_hash_alike_because_home_tells_its_digest_key(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    assert pair.a.hosts.digest_keys == [None]
    assert pair.b.hosts.digest_keys == ["00" * 16]


async def test_the_stay_ends_and_everything_returns_by_itself(pair: Any) -> None:
    name = (await pair.migrate(move_all=True, stayS=7_200))["migrationId"]
    await pair.reach(name, "SETTLED")
    pair.later(7_200)
    source, _ = await pair.ended(name)
    assert (source["phase"], source["ending"]["cause"]) == ("RETIRED", "STAY_ENDED")
    pair.whole_at_home()


async def test_a_second_migration_can_follow_the_return(pair: Any) -> None:
    for _ in range(2):
        name = (await pair.migrate(move_all=True))["migrationId"]
        await pair.reach(name, "SETTLED")
        await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
        await pair.ended(name)
    assert len((await pair.a.ask("GET", "/nlmsf-migration/v1/migrations"))["migrations"]) == 2
    pair.whole_at_home()
    await pair.clear_at_target()


async def test_each_side_shows_the_other_sides_view(pair: Any) -> None:
    pair.world.frozen = True
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "COPYING")
    pair.world.frozen = False
    await pair.reach(name, "SETTLED")
    for network, other in ((pair.a, B), (pair.b, A)):
        async with asyncio.timeout(5):
            while (await network.show(name))["partner"]["phase"] != "SETTLED":
                await asyncio.sleep(0.005)
        shown = await network.show(name)
        assert shown["partner"]["network"] == other
        assert shown["partner"]["sentence"] == shown["sentence"]
        assert shown["partner"]["answers"]


async def test_the_journal_tells_what_happened_in_order(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    events = (await pair.a.ask("GET", f"/nlmsf-migration/v1/migrations/{name}/events"))["events"]
    phases = list(dict.fromkeys(e["phase"] for e in events))
    assert phases == ["PERMITTING", "PREPARING", "COPYING", "RELOCATING", "SETTLED"]
    assert all(e["why"] for e in events)


async def test_both_networks_hold_the_same_contract_signed_by_both(pair: Any) -> None:
    from outrider.package import statements

    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    held = [await n.ask("GET", f"/nlmsf-migration/v1/migrations/{name}/contract") for n in (pair.a, pair.b)]
    assert held[0] == held[1]
    keys = pair.a.lmsf.permissions.keys
    contract = statements.read_contract(held[0]["envelope"].encode(), keys)
    assert not isinstance(contract, list)
    assert contract.parties == (A, B)


async def test_a_keeper_is_asked_once_a_second_while_nothing_happens(pair: Any) -> None:
    name = (await pair.migrate())["migrationId"]
    await pair.reach(name, "RELOCATING")
    source, target = pair.world.keeper(A), pair.world.keeper(B)
    await asyncio.sleep(0.05)
    begun_ms = pair.a.clock.now_ms()
    source.calls.clear()
    target.calls.clear()
    await asyncio.sleep(0.3)
    seconds = (pair.a.clock.now_ms() - begun_ms) / 1000
    assert source.calls == ["GET migrations/" + name] * len(source.calls)
    assert len(source.calls) <= 1.5 * seconds
    assert len(target.calls) <= 1.5 * seconds


async def test_an_area_of_an_snpn_is_found_by_consumers_that_name_its_nid(pair: Any) -> None:
    name = (await pair.migrate(move_all=True, area=["tai:999-71-000001"]))["migrationId"]
    await pair.reach(name, "SETTLED")

    async def found(tai: str) -> int:
        query = f"target-nf-type=SMF&requester-nf-type=AF&service-names=nsmf-groupsession&tai={tai}"
        answer = await pair.b.nrf.router(Request("GET", "/nnrf-disc/v1/nf-instances", query))
        return len(answer.json()["nfInstances"])

    def tai(**nid: str) -> str:
        return quote(json.dumps({"plmnId": {"mcc": "999", "mnc": "71"}, "tac": "000001", **nid}))

    assert await found(tai(nid="000007ed9d5")) == 1
    assert await found(tai()) == 0, "that is another network's area"


@pytest.mark.parametrize(
    ("place", "nid"),
    [
        ("tai:999-71-000001", "000007ed9d5"),
        ("tai:999-71-00000aaaaaa-000001", "00000aaaaaa"),
        ("tai:999-70-0001", None),
        ("tai:999-70-000007ed9d5-0001", "000007ed9d5"),
    ],
)
def test_a_tracking_area_has_the_nid_that_is_meant(place: str, nid: str | None) -> None:
    conditions = selection((place,), NetworkId.parse(B))
    assert conditions is not None
    assert conditions["taiRangeList"][0].get("nid") == nid
