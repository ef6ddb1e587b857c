"""A node dies in any phase and comes back: it goes on with what its journal says, and ends as if nothing had been."""

import asyncio
import random
from typing import Any

import apsw
import pytest
from structlog.testing import capture_logs

from outrider.functions.lmsf.journal import Journal
from outrider.protocol.phase import Fact

pytestmark = pytest.mark.slow
PHASES = ("NEGOTIATING", "PERMITTING", "PREPARING", "COPYING", "RELOCATING", "SETTLED", "RETURNING")


@pytest.mark.parametrize("who", ["source", "target", "both"])
@pytest.mark.parametrize("phase", PHASES)
async def test_restarted_in_each_phase(pair: Any, phase: str, who: str) -> None:
    name, release = await pair.held_in(phase)
    for network in (pair.a, pair.b):
        if who in ("both", "source" if network is pair.a else "target"):
            await network.restart()
            assert (await network.show(name))["phase"] == phase if network.lmsf.get(name) else True
    release()
    if phase != "RETURNING":
        await pair.reach(name, "SETTLED")
        await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("RETIRED", "RETIRED")
    pair.whole_at_home()
    await pair.clear_at_target()


@pytest.mark.parametrize("who", ["source", "target", "both"])
async def test_restarted_while_it_is_aborted(pair: Any, who: str) -> None:
    name, _ = await pair.held_in("SETTLED")
    pair.world.frozen = True
    await pair.b.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", status=202)
    await pair.reach(name, "ABORTING")
    for network in (pair.a, pair.b):
        if who in ("both", "source" if network is pair.a else "target"):
            await network.restart()
    pair.world.frozen = False
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("ABORTED", "ABORTED")
    pair.whole_at_home()
    await pair.clear_at_target()


async def test_a_restarted_home_serves_its_service_again(pair: Any) -> None:
    before = await pair.a.discovered()
    await pair.a.restart()
    await pair.a.lmsf.deployments.settled("group-coordination")
    after = await pair.a.discovered()
    assert [i["nfInstanceId"] for i in after] == [i["nfInstanceId"] for i in before]


async def test_an_ended_migration_is_still_shown_after_a_restart(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await pair.ended(name)
    await pair.a.restart()
    shown = await pair.a.show(name)
    assert (shown["phase"], shown["over"]) == ("RETIRED", True)
    assert shown["receipt"]


async def test_a_service_comes_up_when_the_journal_can_be_written_again(pair: Any, monkeypatch: Any) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(Journal, "put", full)
        pair.a.nrf = pair.a.new_nrf()
        await pair.a.restart()
        async with asyncio.timeout(10):
            while not any(log["event"] == "deployment.waits" for log in logs):
                await asyncio.sleep(0.001)
    await pair.a.lmsf.deployments.settled("group-coordination")
    assert len(await pair.a.discovered()) == 1


async def test_what_an_act_has_found_out_is_not_lost_with_its_journal(pair: Any, monkeypatch: Any) -> None:
    name, release = await pair.held_in("RETURNING")
    gives = pair.b.lmsf.get(name)
    assert await gives.until(lambda row: Fact.RECEIVING in row.peer_facts, 10_000)

    async def full(*_: Any, **__: Any) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(pair.b.lmsf.journal, "put", full)
        release()
        async with asyncio.timeout(10):
            while not any(log["event"] == "migration.event-failed" and log["told"] == "Empty" for log in logs):
                await asyncio.sleep(0.001)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("RETIRED", "RETIRED")


@pytest.mark.parametrize("verb", ["abort", "return"])
async def test_what_is_asked_of_an_ended_migration_is_answered_after_a_restart(pair: Any, verb: str) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await pair.ended(name)
    async with asyncio.timeout(10):
        while not pair.a.lmsf.get(name).told:
            await asyncio.sleep(0.001)
        await pair.a.restart()
        answer = await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/{verb}", status=202)
    assert answer["phase"] == "RETIRED"


async def test_a_migration_that_could_not_be_journalled_is_in_nobodys_way(pair: Any, monkeypatch: Any) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(pair.a.lmsf.journal, "put", full)
        await pair.migrate(status=500)
    assert pair.a.lmsf.all() == []
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")


async def test_a_migration_goes_on_after_its_journal_could_not_be_written(pair: Any, monkeypatch: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")

    async def full(*_: Any, **__: Any) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(pair.a.lmsf.journal, "put", full)
        await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=500)
        assert "migration.event-failed" in [log["event"] for log in logs]
        assert (await pair.a.show(name))["phase"] == "SETTLED"
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("RETIRED", "RETIRED")


@pytest.mark.parametrize("seed", range(12))
async def test_restarts_and_cuts_at_any_moment(pair: Any, seed: int) -> None:
    chance = random.Random(seed)
    stop = chance.choice(["return", "abort"])
    name = (await pair.migrate(move_all=True))["migrationId"]
    asked = False
    for _ in range(60):
        await asyncio.sleep(chance.random() * 0.05)
        network = chance.choice([pair.a, pair.b])
        match chance.choice(["restart", "cut", "heal", "heal", "keeper"]):
            case "restart":
                await network.restart()
            case "cut":
                network.cut = True
            case "heal":
                pair.a.cut = pair.b.cut = False
            case "keeper":
                for keeper in pair.world.keepers.values():
                    keeper.broken = chance.random() < 0.3
        if not asked and chance.random() < 0.1 and pair.a.lmsf.get(name) is not None:
            answer = await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/{stop}")
            asked = answer.get("cause") != "NOTHING_TO_RETURN"
    pair.a.cut = pair.b.cut = False
    for keeper in pair.world.keepers.values():
        keeper.broken = False
    if not asked:
        await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", status=202)
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 30_000), await pair.a.show(name)
    if pair.b.lmsf.get(name) is not None:
        other = pair.b.lmsf.get(name)
        assert await other.until(lambda row: other.over, 30_000), await pair.b.show(name)
        assert runner.row.phase is other.row.phase
    pair.whole_at_home()
    await pair.clear_at_target()
