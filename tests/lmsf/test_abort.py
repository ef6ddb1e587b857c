"""Any party stops in any phase: typed at once, no new grant, every UE home, nothing left at the target."""

import asyncio
from typing import Any

import pytest

from outrider.protocol.phase import Fact

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"
pytestmark = pytest.mark.slow
PHASES = ("NEGOTIATING", "PERMITTING", "PREPARING", "COPYING", "RELOCATING", "SETTLED", "RETURNING")


def _side(pair: Any, side: str) -> Any:
    return pair.a if side == "source" else pair.b


async def _abort(network: Any, name: str) -> Any:
    body = {"cause": "GROUP_TURNED_AWAY", "sentence": "the group does not come"}
    return await network.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", body, status=202)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("phase", PHASES[1:])
async def test_stopped_in_each_phase_from_each_side(pair: Any, phase: str, side: str) -> None:
    name, release = await pair.held_in(phase)
    network = _side(pair, side)
    answer = await _abort(network, name)
    assert answer["phase"] in ("ABORTING", "ABORTED")
    assert answer["ending"]["cause"] == "GROUP_TURNED_AWAY"
    assert answer["ending"]["phase"] == phase
    keeper = pair.world.keepers.get((str(network.id), SERVICE))
    stopped = keeper.migrations.get(name) if keeper is not None else None
    assert stopped is None or stopped.aborted == "GROUP_TURNED_AWAY", "the own keeper stops before the answer"

    granted = [g for g in pair.world.grants if g[1] == name]
    release()
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"] if target else "ABORTED") == ("ABORTED", "ABORTED")
    assert source["ending"]["cause"] == target["ending"]["cause"] == "GROUP_TURNED_AWAY"
    assert source["ending"]["by"] == str(network.id)
    assert [g for g in pair.world.grants if g[1] == name] == granted, "no grant after the abort"
    assert source["undone"][0].startswith("no UE changes owner any more")
    assert any("every UE is at" in u for u in source["undone"])
    pair.whole_at_home()
    await pair.clear_at_target()


async def _ended_alone(pair: Any, name: str) -> Any:
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 15_000), await pair.a.show(name)
    return await pair.a.show(name)


async def test_an_abort_during_the_offer_ends_though_the_target_never_heard(pair: Any) -> None:
    name, _ = await pair.held_in("NEGOTIATING")
    await _abort(pair.a, name)
    assert (await _ended_alone(pair, name))["phase"] == "ABORTED"


async def test_ues_that_have_moved_come_back_and_the_way_back_is_counted(pair: Any) -> None:
    name, _ = await pair.held_in("SETTLED")
    pair.world.frozen = True
    await _abort(pair.b, name)
    await pair.reach(name, "ABORTING")
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: Fact.RECEIVING in row.facts, 5_000)
    shown = await pair.a.show(name)
    assert (shown["over"], shown["waitingFor"]) == (False, "the last UE to be home")
    pair.world.frozen = False
    source, _ = await pair.ended(name)
    assert source["phase"] == "ABORTED"
    back = [g for g in pair.world.grants if g[1] == f"{name}.r"]
    assert len(back) == 40
    assert back[0][0] == B
    pair.whole_at_home()


async def test_the_abort_does_not_wait_for_a_partner_that_is_not_there(pair: Any) -> None:
    name, _ = await pair.held_in("COPYING")
    pair.a.cut = pair.b.cut = True
    answer = await _abort(pair.a, name)
    assert "STOPPED" in answer["facts"]
    assert pair.world.keeper(A).migrations[name].aborted == "GROUP_TURNED_AWAY"


async def test_while_nothing_has_moved_the_source_ends_without_the_partner(pair: Any) -> None:
    name, release = await pair.held_in("COPYING")
    pair.a.cut = pair.b.cut = True
    await _abort(pair.a, name)
    assert (await _ended_alone(pair, name))["phase"] == "ABORTED"
    assert pair.b.lmsf.get(name).row.phase.value == "COPYING"
    release()
    pair.a.cut = pair.b.cut = False
    _, target = await pair.ended(name)
    assert target["phase"] == "ABORTED", "it learns the end when it tells or is told"
    await pair.clear_at_target()


async def test_ues_that_are_away_are_unreachable_while_the_link_is_cut(pair: Any) -> None:
    name, _ = await pair.held_in("SETTLED")
    pair.a.cut = pair.b.cut = True
    pair.world.linked = False
    await _abort(pair.a, name)
    async with asyncio.timeout(10):
        while not (shown := await pair.a.show(name))["unreachableUes"]:
            await asyncio.sleep(0.01)
    assert (shown["phase"], shown["unreachableUes"]) == ("ABORTING", 40)
    assert "does not answer" in shown["waitingFor"]
    await asyncio.sleep(0.6)  # longer than the bound for a silent partner: nothing is concluded from silence
    assert (await pair.a.show(name))["phase"] == "ABORTING"
    assert pair.world.keeper(B).count("owned") == 40, "the target goes on serving what it owns"
    pair.a.cut = pair.b.cut = False
    pair.world.linked = True
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("ABORTED", "ABORTED")
    pair.whole_at_home()
    await pair.clear_at_target()


async def test_an_abort_of_what_has_ended_changes_nothing(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await pair.ended(name)
    assert (await _abort(pair.a, name))["phase"] == "RETIRED"
    assert (await _abort(pair.b, name))["phase"] == "RETIRED"


async def test_a_keeper_that_is_down_is_stopped_when_it_is_back(pair: Any) -> None:
    name, release = await pair.held_in("RELOCATING")
    pair.world.keeper(A).broken = True
    answer = await _abort(pair.a, name)
    assert "STOPPED" not in answer["facts"]
    assert "keeper to confirm" in answer["waitingFor"]
    release()
    pair.world.keeper(A).broken = False
    source, _ = await pair.ended(name)
    assert source["phase"] == "ABORTED"
    pair.whole_at_home()


async def test_the_target_erases_nothing_while_it_owns_a_ue(pair: Any) -> None:
    name, _ = await pair.held_in("SETTLED")
    pair.world.frozen = True
    await _abort(pair.b, name)
    await pair.reach(name, "ABORTING")
    await asyncio.sleep(0.3)
    assert (B, SERVICE) in pair.world.keepers
    assert not pair.world.keeper(B).erased
    assert len(await pair.b.discovered()) == 1, "consumers at the target find it until the UEs are home"


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(("phase", "end"), [("PREPARING", "ABORTED"), ("COPYING", "RETIRED"), ("SETTLED", "RETIRED")])
async def test_a_revoked_permission_ends_it(networks: Any, phase: str, end: str, side: str) -> None:
    await networks.a.deploy()
    ids = {"source": await networks.a.permit(), "target": await networks.b.permit()}
    name, release = await networks.held_in(phase)
    await _side(networks, side).revoke(ids[side])
    release()
    source, target = await networks.ended(name)
    assert (source["phase"], target["phase"]) == (end, end)
    assert source["ending"]["cause"] == target["ending"]["cause"] == "PERMISSION_REVOKED"
    networks.whole_at_home()
    await networks.clear_at_target()


async def test_without_permission_the_target_serves_nothing_but_gives_back(networks: Any) -> None:
    await networks.a.deploy()
    await networks.a.permit()
    permission = await networks.b.permit()
    name, _ = await networks.held_in("SETTLED")
    networks.world.frozen = True
    await networks.b.revoke(permission)
    async with asyncio.timeout(5):
        while networks.world.keeper(B).permitted:
            await asyncio.sleep(0.005)
    networks.world.frozen = False
    await networks.ended(name)
    networks.whole_at_home()


async def test_a_keeper_that_gives_up_by_itself_ends_the_migration(pair: Any) -> None:
    name, release = await pair.held_in("COPYING")
    async with asyncio.timeout(10):
        while name not in pair.world.keeper(A).migrations:
            await asyncio.sleep(0.001)
    pair.world.keeper(A).migrations[name].aborted = "STORE_LOST"
    release()
    source, _ = await pair.ended(name)
    assert (source["phase"], source["ending"]["cause"]) == ("ABORTED", "KEEPER_ABORTED")


@pytest.mark.parametrize("phase", ["COPYING", "RELOCATING"])
async def test_the_source_keeper_forgets_a_migration_that_is_over(pair: Any, phase: str) -> None:
    name, release = await pair.held_in(phase)
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", status=202)
    release()
    await pair.ended(name)
    while not pair.world.keeper(A).migrations[name].finished:
        await asyncio.sleep(0.001)
