"""Onward: home A leads a migration from B, which hosts its service, to C; every refusal, every way back, every stop."""

import asyncio
from typing import Any

import msgspec
import pytest

from outrider.package import statements
from outrider.protocol.phase import Fact
from outrider.sbi.problem import problem

A, B, C = "999-70", "999-71-000007ed9d5", "999-72"
SERVICE = "group-coordination"
KEYS = 40
ORDER = ["NEGOTIATING", "PERMITTING", "PREPARING", "COPYING", "RELOCATING", "SETTLED", "RETURNING", "RETIRED"]


async def _refused(three: Any, **wanted: Any) -> list[dict[str, Any]]:
    """The reasons of an onward migration that begins and does not come to anything; nothing has moved."""
    name = (await three.onward(**wanted))["migrationId"]
    await three.reach(name, "ABORTED", at=three.a)
    shown = await three.a.show(name)
    assert three.owners() == {B: KEYS}
    assert (C, SERVICE) not in three.world.keepers
    refusals = shown["refusals"]
    assert isinstance(refusals, list)
    assert all(r["sentence"] for r in refusals)
    return refusals


# ------------------------------------------------------------------------------------------------ the way


async def test_a_service_goes_onward_and_home_from_there(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    assert three.owners() == {C: KEYS}
    assert [(await n.show(name))["role"] for n in three.all] == ["home", "giver", "target"]

    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    home, giver, target = await three.ended(name)
    assert [home["phase"], giver["phase"], target["phase"]] == ["RETIRED"] * 3
    assert list(home["phases"]) == list(giver["phases"]) == ORDER
    assert home["receipt"]
    assert three.owners() == {A: KEYS}
    assert (C, SERVICE) not in three.world.keepers
    assert three.c.lmsf.deployments.all() == []
    assert (B, SERVICE) in three.world.keepers, "the giver hosts on, until its own migration returns"


async def test_the_package_comes_from_home_and_is_verified_again_by_the_target(three: Any) -> None:
    await three.permit()
    three.b.sent.clear()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    assert any("/archive" in line for line in three.c.sent)
    [package] = three.c.lmsf.catalogue.all()
    assert package.origin == A


async def test_all_three_hold_the_same_contract_signed_by_all(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    for network in three.all:
        held = await network.ask("GET", f"/nlmsf-migration/v1/migrations/{name}/contract")
        contract = statements.read_contract(held["envelope"].encode(), network.lmsf.permissions.keys)
        assert not isinstance(contract, list)
        assert contract.parties == (B, C, A)


async def test_each_keeper_is_told_whose_store_the_other_is(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    stores = {n: three.world.keeper(n).store_id for n in (A, B, C)}
    roles = {n: three.world.keeper(n).migrations[name] for n in (A, B, C)}
    assert [(m.role, m.peer) for m in roles.values()] == [("home", C), ("source", C), ("target", B)]
    assert three.world.stores[name, B] == stores[B]
    assert three.world.stores[name, C] == stores[C]


async def test_the_digest_key_is_homes(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    assert three.c.hosts.digest_keys == ["00" * 16]


async def test_home_shows_both_others_and_how_many_ues_have_come(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    async with asyncio.timeout(10):
        while (await three.a.show(name))["giver"]["phase"] != "SETTLED":
            await asyncio.sleep(0.005)
    shown = await three.a.show(name)
    assert (shown["source"], shown["target"], shown["home"]) == (B, C, A)
    assert (shown["partner"]["network"], shown["giver"]["network"]) == (C, B)
    assert (await three.b.show(name))["partner"]["network"] == A
    assert (await three.b.show(name))["giver"] is None
    assert len((await three.a.ask("GET", "/nlmsf-migration/v1/migrations"))["migrations"]) == 2


async def test_only_arrived_ues_go_onward_and_the_others_stay_where_they_are(three: Any) -> None:
    await three.permit()
    name = (await three.onward(move_all=False))["migrationId"]
    await three.reach(name, "RELOCATING")
    keys = sorted(three.world.keeper(B).rows)
    three.world.arrived |= set(keys[:7])
    async with asyncio.timeout(10):
        while three.owners() != {B: KEYS - 7, C: 7}:
            await asyncio.sleep(0.002)
    three.world.arrived.clear()
    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await three.ended(name)
    assert three.owners() == {A: 7, B: KEYS - 7}


async def test_the_giver_retires_while_ues_are_onward_and_home_looks_for_them_where_they_went(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    assert three.world.keeper(A).away() == {B: KEYS}

    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{three.first}/return", status=202)
    three.all = [three.a, three.b]
    home, giver = await three.ended(three.first)
    assert (home["phase"], giver["phase"]) == ("RETIRED", "RETIRED")
    assert home["receipt"]
    assert (B, SERVICE) not in three.world.keepers
    assert three.world.keeper(A).away() == {C: KEYS}
    async with asyncio.timeout(10):
        while "POST gone" not in three.world.keeper(C).calls:
            await asyncio.sleep(0.005)

    three.all = [three.a, three.b, three.c]
    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    ends = await three.ended(name)
    assert [end["phase"] for end in ends] == ["RETIRED"] * 3
    three.whole_at_home()


async def test_the_giver_does_not_retire_before_home_has_all_that_it_did(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    three.world.keeper(B).shadow_behind = True
    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{three.first}/return", status=202)
    async with asyncio.timeout(10):
        while "POST erase" not in three.world.keeper(B).calls:
            await asyncio.sleep(0.005)
    shown = await three.b.show(three.first)
    assert (shown["phase"], shown["over"]) == ("RETIRED", False)
    three.world.keeper(B).shadow_behind = False
    three.all = [three.a, three.b]
    await three.ended(three.first)
    assert (B, SERVICE) not in three.world.keepers


async def test_ues_that_go_home_and_onward_are_each_at_one_network(three: Any) -> None:
    await three.permit()
    three.world.frozen = True
    name = (await three.onward())["migrationId"]
    await three.reach(name, "COPYING")
    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{three.first}/return", status=202)
    three.world.frozen = False
    three.all = [three.a, three.b]
    await three.ended(three.first)
    assert set(three.owners()) <= {A, C}
    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", status=202)
    three.all = [three.a, three.b, three.c]
    await three.ended(name)
    three.whole_at_home()


async def test_a_second_stay_at_the_third_network_works(three: Any) -> None:
    await three.permit()
    for _ in range(2):
        name = (await three.onward(move_all=False))["migrationId"]
        await three.reach(name, "RELOCATING")
        three.world.arrived |= set(sorted(three.world.keeper(B).rows)[:5])
        await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
        await three.ended(name)
    assert set(three.owners()) <= {A, B}


# ------------------------------------------------------------------------------- refused where it begins


async def test_a_host_that_is_not_home_names_the_command_for_home(three: Any) -> None:
    body = {"service": SERVICE, "target": C, "source": B}
    refused = await three.b.ask("POST", "/nlmsf-migration/v1/migrations", body, status=409)
    assert refused["cause"] == "NOT_HOME"
    assert f"outrider migration start {SERVICE} --from {B} --to {C}" in refused["remedy"]


async def test_home_and_target_that_are_no_partners(three: Any) -> None:
    del three.a.others[C]
    refused = await three.onward(status=404)
    assert (refused["cause"], refused["facts"]["network"]) == ("PARTNER_UNKNOWN", C)
    assert "partner invite" in refused["remedy"]


async def test_source_and_target_that_are_no_partners(three: Any) -> None:
    await three.permit()
    del three.b.others[C]
    [refusal] = await _refused(three)
    assert (refusal["code"], refusal["facts"]) == ("LINK_MISSING", {"network": B, "other": C})
    assert "exchange cards" in refusal["remedy"]


async def test_a_target_that_does_not_know_the_source(three: Any) -> None:
    await three.permit()
    del three.c.others[B]
    codes = {(r["code"], r["facts"].get("network")) for r in await _refused(three)}
    assert codes == {("LINK_MISSING", C)}


async def test_a_source_that_does_not_host_the_service(three: Any) -> None:
    refused = await three.migrate(source="999-99", target=C, status=409)
    assert (refused["cause"], refused["facts"]["source"]) == ("SOURCE_NOT_HOSTING", "999-99")


async def test_a_source_that_is_going_back(three: Any) -> None:
    three.world.frozen = True
    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{three.first}/return", status=202)
    refused = await three.onward(status=409)
    assert (refused["cause"], refused["facts"]["phase"]) == ("SOURCE_NOT_SERVING", "RETURNING")


async def test_a_target_that_is_home(three: Any) -> None:
    await three.a.permit(source=B, target=C)
    three.a.others[A] = three.a
    refused = await three.migrate(source=B, target=A, status=400)
    assert refused["cause"] == "TERMS_INVALID"
    assert "return" in refused["detail"]


async def test_one_way_onward_at_a_time_from_each_source(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    refused = await three.onward(status=409)
    assert (refused["cause"], refused["facts"]["migrationId"]) == ("SERVICE_MIGRATING", name)
    refused = await three.migrate(target=C, status=409)
    assert refused["cause"] == "SERVICE_MIGRATING", "nor one from home meanwhile"


async def test_a_giver_that_has_lost_the_service_says_so(three: Any) -> None:
    await three.permit()
    three.b.lmsf.deployments._all.clear()
    [refusal] = await _refused(three)
    assert (refusal["code"], refusal["facts"]["source"]) == ("SOURCE_NOT_HOSTING", B)


async def test_a_third_network_without_the_nf_type(three: Any) -> None:
    await three.permit()
    three.c.lmsf.negotiation._nf_types = frozenset({"AMF"})
    assert {r["code"] for r in await _refused(three)} == {"NF_TYPE_ABSENT"}


# ------------------------------------------------------------------------------------------- permissions


@pytest.mark.parametrize("absent", [A, B, C])
async def test_each_of_the_three_permissions_is_needed(three: Any, absent: str) -> None:
    for network in (three.a, three.b, three.c):
        if str(network.id) != absent:
            await network.permit(source=B, target=C)
    refusals = await _refused(three)
    assert {(r["code"], r["facts"]["network"]) for r in refusals} == {("PERMISSION_MISSING", absent)}
    assert f"The operator of {absent} runs" in refusals[0]["remedy"]


@pytest.mark.parametrize(
    ("who", "changes", "code"),
    [
        (A, {"not_before_ms": 1, "not_after_ms": 2}, "PERMISSION_EXPIRED"),
        (B, {"package_digest": "ab" * 32}, "PERMISSION_PACKAGE_MISMATCH"),
        (C, {"sbom_digest": "ab" * 32}, "PERMISSION_SBOM_MISMATCH"),
        (A, {"home": "999-99"}, "PERMISSION_NETWORK_MISMATCH"),
        (B, {"not_before_ms": 1, "not_after_ms": 2}, "PERMISSION_EXPIRED"),
        (C, {"purpose": "something else"}, "PERMISSION_PURPOSE_MISMATCH"),
    ],
)
async def test_a_permission_that_does_not_fit_is_refused_for_what_it_is(
    three: Any, who: str, changes: dict[str, Any], code: str
) -> None:
    for network in (three.a, three.b, three.c):
        await network.permit(source=B, target=C, **(changes if str(network.id) == who else {}))
    refusals = await _refused(three, purpose="communication-service")
    assert (code, who) in {(r["code"], r["facts"].get("network")) for r in refusals}
    assert all(r["facts"].get("network") == who for r in refusals)


async def test_a_permission_for_the_first_way_is_none_for_the_way_onward(three: Any) -> None:
    refusals = await _refused(three)
    assert {r["code"] for r in refusals} >= {"PERMISSION_NETWORK_MISMATCH"}


async def test_a_permission_that_somebody_else_signed(three: Any) -> None:
    await three.a.permit(source=B, target=C)
    await three.c.permit(source=B, target=C)
    await three.b.permit(key=three.c.operator_key, source=B, target=C)
    codes = {(r["code"], r["facts"].get("network")) for r in await _refused(three)}
    assert codes & {("PERMISSION_SIGNER_UNKNOWN", B), ("PERMISSION_SIGNATURE_INVALID", B)}


async def test_home_cannot_fill_the_targets_journal_with_what_the_giver_has_not_signed(three: Any) -> None:
    await three.permit()
    three.world.frozen = True
    name = (await three.onward())["migrationId"]
    await three.reach(name, "COPYING")
    forged = statements.sign_permission(three.b.permission(source=B, target=C, nonce="5" * 32), three.a.operator_key)
    path = f"/nlmsf-permission/v1/migrations/{name}/exchange"
    given = {"permissions": [forged.decode()]}
    before = len(three.c.lmsf.permissions.all())
    await three.a.request(C, "PUT", path, scope="nlmsf-permission", json=given)
    assert len(three.c.lmsf.permissions.all()) == before


@pytest.mark.parametrize("who", ["a", "b", "c"])
async def test_a_permission_that_anybody_takes_back_brings_everything_home(three: Any, who: str) -> None:
    for network in (three.a, three.b, three.c):
        taken_back = await network.permit(source=B, target=C, nonce="4" * 32)
        if network is getattr(three, who):
            permission_id = taken_back
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    await getattr(three, who).revoke(permission_id)
    home, giver, target = await three.ended(name)
    assert [home["phase"], giver["phase"], target["phase"]] == ["RETIRED"] * 3
    assert home["ending"]["cause"] == "PERMISSION_REVOKED"
    assert three.owners() == {A: KEYS}


async def test_the_target_stops_serving_when_the_giver_takes_its_permission_back(three: Any) -> None:
    permission_id = ""
    for network in (three.a, three.b, three.c):
        given = await network.permit(source=B, target=C, nonce="4" * 32)
        permission_id = given if network is three.b else permission_id
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    three.world.frozen = True
    await three.b.revoke(permission_id)
    async with asyncio.timeout(10):
        while three.world.keeper(C).permitted:
            await asyncio.sleep(0.005)
    assert three.world.keeper(B).permitted, "the giver serves on under the migration that brought the service there"


# --------------------------------------------------------------------------------------- contract, package


async def test_an_offer_of_a_network_that_is_not_home_is_refused(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    record = three.a.lmsf.get(name).record
    offer = {
        "migrationId": name, "contract": record.contract, "packageBytes": record.package_bytes,
        "manifest": three.a.lmsf.catalogue.all()[0].manifest,
    }  # fmt: skip
    answer = await three.b.request(C, "POST", "/nlmsf-negotiation/v1/offers", scope="nlmsf-negotiation", json=offer)
    assert (answer.status, answer.json()["cause"]) == (403, "OFFER_MISMATCH")


async def test_a_giver_that_was_not_shown_the_targets_signature_does_not_permit(three: Any) -> None:
    await three.permit()
    real = three.a.request

    async def without(network: str, method: str, path: str, **more: Any) -> Any:
        if method == "PUT" and path.endswith("/exchange") and network == B:
            more["json"] = msgspec.structs.replace(more["json"], contract=None)
        return await real(network, method, path, **more)

    three.a.request = without
    codes = {r["code"] for r in await _refused(three)}
    assert codes & {"ENVELOPE_MALFORMED", "CONTRACT_MALFORMED", "CONTRACT_NOT_SIGNED"}


async def test_a_package_that_is_another_at_the_target(three: Any) -> None:
    await three.permit()
    three.c.software.other = {"sbom_digest": "ab" * 32}
    name = (await three.onward())["migrationId"]
    home, giver, target = await three.ended(name)
    assert [home["phase"], giver["phase"], target["phase"]] == ["ABORTED"] * 3
    assert home["ending"]["cause"] == "SBOM_MISMATCH"
    assert three.owners() == {B: KEYS}


# ------------------------------------------------------------------------------------------------- stops


@pytest.mark.parametrize(
    ("phase", "who"),
    [
        ("PREPARING", "b"),
        ("COPYING", "a"),
        ("COPYING", "c"),
        ("RELOCATING", "a"),
        ("RELOCATING", "b"),
        ("SETTLED", "c"),
        ("RETURNING", "b"),
    ],
)
async def test_anybody_stops_it_in_any_phase_and_no_key_is_lost(three: Any, phase: str, who: str) -> None:
    await three.permit()
    name, release = await _held_in(three, phase)
    stopper = getattr(three, who)
    body = {"sentence": "no longer wanted"}
    shown = await stopper.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", body, status=202)
    assert shown["phase"] in ("ABORTING", "ABORTED")
    release()
    ends = await three.ended(name)
    assert [end["phase"] for end in ends] == ["ABORTED"] * 3
    assert (ends[0]["ending"]["cause"], ends[0]["ending"]["by"]) == ("OPERATOR_ABORT", str(stopper.id))
    assert (C, SERVICE) not in three.world.keepers
    assert set(three.owners()) <= {A, B}
    if phase in ("PREPARING", "COPYING"):
        assert three.owners() == {B: KEYS}, "what has not moved is as if nobody had tried"


async def _held_in(three: Any, phase: str) -> tuple[str, Any]:
    held = {"on": True}

    def hold(method: str, path: str) -> Any:
        return problem(503, "NF_CONGESTION", "held") if held["on"] and "/archive" in path else None

    def release() -> None:
        held["on"] = False
        three.world.frozen = False

    if phase == "PREPARING":
        three.c.intercept = hold
    three.world.frozen = phase == "COPYING"
    name = (await three.onward(move_all=phase != "RELOCATING"))["migrationId"]
    if phase == "RELOCATING":
        await three.reach(name, "RELOCATING")
        three.world.arrived |= set(sorted(three.world.keeper(B).rows)[:9])
        async with asyncio.timeout(10):
            while three.owners() != {B: KEYS - 9, C: 9}:
                await asyncio.sleep(0.002)
    if phase == "RETURNING":
        await three.reach(name, "SETTLED")
        three.world.frozen = True
        await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await three.reach(name, phase)
    return name, release


@pytest.mark.parametrize("who", ["b", "c"])
async def test_the_others_can_ask_for_the_return(three: Any, who: str) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    network = getattr(three, who)
    await network.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", {"sentence": "enough"}, status=202)
    ends = await three.ended(name)
    assert [end["phase"] for end in ends] == ["RETIRED"] * 3
    assert {(end["ending"]["by"], end["ending"]["sentence"]) for end in ends} == {(str(network.id), "enough")}
    assert three.owners() == {A: KEYS}


async def test_the_target_erases_only_when_the_giver_has_nothing_in_doubt(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    three.b.cut = True
    await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    target = three.c.lmsf.get(name)
    assert await target.until(lambda row: Fact.RETURNED in row.facts, 10_000)
    three.later(60)
    await asyncio.sleep(0.05)
    shown = await three.a.show(name)
    assert shown["phase"] == "RETURNING"
    assert "answers about UEs that it gave" in shown["waitingFor"]
    assert B in shown["waitingFor"]
    assert (C, SERVICE) in three.world.keepers
    three.b.cut = False
    ends = await three.ended(name)
    assert [end["phase"] for end in ends] == ["RETIRED"] * 3


async def test_a_store_is_not_declared_lost_while_ues_are_onward(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    for migration, network in ((three.first, B), (name, C)):
        body = {"storeId": three.world.keeper(network).store_id}
        path = f"/nlmsf-migration/v1/migrations/{migration}/declare-lost"
        refused = await three.a.ask("POST", path, body, status=409)
        assert (refused["cause"], refused["facts"]["migrationId"]) == ("ONWARD_UNDECIDED", name)
        assert f"outrider migration return {name}" in refused["remedy"]


# ---------------------------------------------------------------------------------------------- restarts


@pytest.mark.parametrize(
    ("phase", "who"),
    [
        ("PREPARING", "c"),
        ("COPYING", "b"),
        ("RELOCATING", "a"),
        ("SETTLED", "c"),
        ("RETURNING", "a"),
        ("RETURNING", "b"),
    ],
)
async def test_a_node_that_restarts_goes_on_where_it_was(three: Any, phase: str, who: str) -> None:
    await three.permit()
    name, release = await _held_in(three, phase)
    await getattr(three, who).restart()
    release()
    if phase not in ("RETURNING", "RELOCATING"):
        await three.reach(name, "SETTLED")
        assert three.owners() == {C: KEYS}
    if phase != "RETURNING":
        await three.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    ends = await three.ended(name)
    assert [end["phase"] for end in ends] == ["RETIRED"] * 3
    assert set(three.owners()) <= {A, B}
    assert (C, SERVICE) not in three.world.keepers
