"""UEs that come while the copy runs: they change owner at once, and come home like all others, whatever ends it."""

import asyncio
from typing import Any

import pytest

A, B, C = "999-70", "999-71-000007ed9d5", "999-72"
SERVICE = "group-coordination"
MIGRATIONS = "/nlmsf-migration/v1/migrations"
pytestmark = pytest.mark.slow


async def _came_early(pair: Any, network: str = B, count: int = 7) -> None:
    """So many UEs arrive, and are served where they are."""
    pair.world.arrived = {f"ue:{i:032x}" for i in range(count)}
    async with asyncio.timeout(10):
        while pair.world.keeper(network).count("owned") != count:
            await asyncio.sleep(0.002)
    pair.world.arrived.clear()


async def _copying(pair: Any, *, move_all: bool = True, **wanted: Any) -> str:
    """A migration whose copy does not become durable, and in which UEs have come early."""
    pair.world.copies = False
    name = (await pair.migrate(move_all=move_all, **wanted))["migrationId"]
    await pair.reach(name, "COPYING")
    await _came_early(pair)
    return str(name)


async def test_who_arrives_while_the_copy_runs_is_served_at_the_target_and_nobody_else_moves(pair: Any) -> None:
    name = await _copying(pair)
    assert len(await pair.b.discovered()) == 1
    shown = await pair.a.show(name)
    assert (shown["phase"], shown["waitingFor"]) == ("COPYING", "the copy to be durable at the target")
    assert "UEs that arrive" in shown["sentence"]
    await asyncio.sleep(0.1)
    assert pair.world.keeper(B).count("owned") == 7, "the sweep waits for the copy"
    pair.world.copies = True
    await pair.reach(name, "SETTLED")
    assert {owner for owners in pair.world.owners().values() for owner in owners} == {B}


@pytest.mark.parametrize("side", ["source", "target"])
async def test_an_abort_of_the_copy_brings_them_home(pair: Any, side: str) -> None:
    name = await _copying(pair)
    network = pair.a if side == "source" else pair.b
    await network.ask("POST", f"{MIGRATIONS}/{name}/abort", status=202)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("ABORTED", "ABORTED")
    assert source["ending"]["phase"] == "COPYING"
    assert len([g for g in pair.world.grants if g[1] == f"{name}.r"]) == 7
    pair.whole_at_home()
    await pair.clear_at_target()


@pytest.mark.parametrize("side", ["source", "target"])
async def test_they_can_be_sent_home_while_the_copy_runs(pair: Any, side: str) -> None:
    name = await _copying(pair)
    network = pair.a if side == "source" else pair.b
    await network.ask("POST", f"{MIGRATIONS}/{name}/return", status=202)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"], source["ending"]["cause"]) == ("RETIRED", "RETIRED", "RETURN_ASKED")
    pair.whole_at_home()
    await pair.clear_at_target()


async def test_a_permission_that_is_revoked_while_the_copy_runs_brings_them_home(networks: Any) -> None:
    await networks.a.deploy()
    await networks.a.permit()
    permission = await networks.b.permit()
    name = await _copying(networks)
    await networks.b.revoke(permission)
    source, _ = await networks.ended(name)
    assert (source["phase"], source["ending"]["cause"]) == ("RETIRED", "PERMISSION_REVOKED")
    networks.whole_at_home()
    await networks.clear_at_target()


async def test_a_copy_that_is_not_durable_at_the_deadline_is_stopped_and_they_come_home(pair: Any) -> None:
    name = await _copying(pair, move_all=False)
    pair.later(pair.a.lmsf.get(name).contract.deadline_ms / 1000 - pair.a.clock.now_ms() / 1000 + 1)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"], source["ending"]["cause"]) == ("ABORTED", "ABORTED", "DEADLINE_PASSED")
    pair.whole_at_home()


async def test_who_is_away_when_the_partner_falls_silent_is_waited_for(pair: Any) -> None:
    """While nothing had moved, the source would end alone."""
    name = await _copying(pair)
    pair.a.cut = pair.b.cut = True
    pair.world.linked = False
    await pair.a.ask("POST", f"{MIGRATIONS}/{name}/abort", status=202)
    async with asyncio.timeout(10):
        while "does not answer" not in (shown := await pair.a.show(name))["waitingFor"]:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.6)  # longer than the bound for a silent partner
    shown = await pair.a.show(name)
    assert (shown["phase"], shown["unreachableUes"]) == ("ABORTING", 7)
    pair.a.cut = pair.b.cut = False
    pair.world.linked = True
    await pair.ended(name)
    pair.whole_at_home()


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_node_that_restarts_while_the_copy_runs_goes_on(pair: Any, side: str) -> None:
    name = await _copying(pair)
    await (pair.a if side == "source" else pair.b).restart()
    await _came_early(pair, count=9)
    pair.world.copies = True
    await pair.reach(name, "SETTLED")


async def test_onward_too_who_comes_early_changes_owner_and_an_abort_brings_them_home(three: Any) -> None:
    await three.permit()
    three.world.copies = False
    name = (await three.onward())["migrationId"]
    await three.reach(name, "COPYING")
    await _came_early(three, C, 5)
    assert three.owners() == {B: 35, C: 5}
    await three.c.ask("POST", f"{MIGRATIONS}/{name}/abort", status=202)
    three.world.copies = True
    ends = await three.ended(name)
    assert [end["phase"] for end in ends] == ["ABORTED"] * 3
    assert three.owners() == {B: 35, A: 5}
    assert (C, SERVICE) not in three.world.keepers
