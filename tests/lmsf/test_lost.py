"""The target's store is lost: home's operator declares it, and the migration ends with every UE at home."""

from typing import Any

import pytest

A, B = "999-70", "999-71-000007ed9d5"


async def settled(pair: Any) -> tuple[str, str]:
    """A migration that is settled, and the store that it is with."""
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    return name, pair.world.keeper(B).store_id


async def declare(network: Any, name: str, store: str, status: int = 202, **more: Any) -> Any:
    path = f"/nlmsf-migration/v1/migrations/{name}/declare-lost"
    return await network.ask("POST", path, {"storeId": store} | more, status=status)


async def waits_for(pair: Any, network: Any, name: str, words: str) -> Any:
    """Until a network's operator sees these words; that network's view."""
    while True:
        shown = await network.show(name)
        if words in shown["waitingFor"]:
            return shown
        await network.clock.sleep(1)


async def test_a_lost_store_is_told_with_the_command_that_ends_it(pair: Any) -> None:
    name, store = await settled(pair)
    pair.world.lose_store(B)
    shown = await waits_for(pair, pair.a, name, "STORE_LOST")
    assert f"`outrider migration declare-lost {name} --store {store}`" in shown["waitingFor"]
    assert shown["partner"]["storeId"] == store
    assert store in (await waits_for(pair, pair.b, name, "STORE_LOST"))["waitingFor"]


@pytest.mark.parametrize("first", ["", "return", "abort"])
async def test_what_a_lost_store_had_comes_home_and_both_sides_end_aborted(pair: Any, first: str) -> None:
    name, store = await settled(pair)
    pair.world.frozen = True
    if first:
        await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/{first}", status=202)
    pair.world.lose_store(B)
    pair.world.frozen = False
    shown = await declare(pair.a, name, store, sentence="the disk burnt")
    assert (shown["ending"]["cause"], shown["ending"]["sentence"]) == ("STORE_LOST", "the disk burnt")
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("ABORTED", "ABORTED")
    assert target["ending"]["cause"] == "STORE_LOST"
    assert source["loss"]["ues"] == 40
    assert source["loss"]["keys"][0]["shadow"] == "followed"
    assert any("taken back from the lost store" in undone for undone in source["undone"])
    pair.whole_at_home()
    await pair.clear_at_target()
    events = (await pair.a.ask("GET", f"/nlmsf-migration/v1/migrations/{name}/events"))["events"]
    assert [e["event"] for e in events if "Lost" in e["event"]] == ["DeclaredLost STORE_LOST"]


async def test_a_declaration_survives_a_restart_of_the_node_and_of_the_keeper(pair: Any) -> None:
    name, store = await settled(pair)
    pair.world.lose_store(B)
    await waits_for(pair, pair.a, name, "STORE_LOST")
    home = pair.world.keeper(A)
    answer = type(home).__call__

    async def but_not_that(self: Any, request: Any) -> Any:
        if request.path.endswith("/declare-lost"):
            from outrider.sbi.client import Unreachable

            raise Unreachable("the keeper is down", not_sent=True)
        return await answer(self, request)

    type(home).__call__ = but_not_that
    try:
        shown = await declare(pair.a, name, store)
        assert (shown["phase"], "HOME" in shown["facts"], "LOST" in shown["facts"]) == ("ABORTING", False, True)
        await pair.a.restart()
    finally:
        type(home).__call__ = answer
    source, _ = await pair.ended(name)
    assert source["ending"]["cause"] == "STORE_LOST"
    pair.whole_at_home()


async def test_a_lost_store_that_is_found_again_is_erased(pair: Any) -> None:
    """The store lives behind a cut link; the operator has said that it does not."""
    name, store = await settled(pair)
    pair.world.linked = False
    pair.a.cut = pair.b.cut = pair.world.keeper(B).broken = True
    await declare(pair.a, name, store)
    assert (await pair.reach(name, "ABORTING", "ABORTED", at=pair.a))["loss"]["ues"] == 40
    pair.world.linked = True
    pair.a.cut = pair.b.cut = pair.world.keeper(B).broken = False
    await pair.ended(name)
    pair.whole_at_home()
    await pair.clear_at_target()


async def test_what_is_not_lost_is_not_declared_so(pair: Any) -> None:
    name, store = await settled(pair)
    assert (await declare(pair.a, name, store, 409))["cause"] == "STORE_ANSWERS"
    assert (await declare(pair.a, name, "another", 409))["cause"] == "STORE_UNKNOWN"
    assert (await declare(pair.b, name, pair.world.keeper(A).store_id, 409))["cause"] == "NOT_HOME"
    assert (await pair.a.show(name))["phase"] == "SETTLED"


async def test_before_a_ue_can_have_moved_nothing_is_lost(pair: Any) -> None:
    name, release = await pair.held_in("PREPARING")
    assert (await declare(pair.a, name, "any", 409))["cause"] == "NOTHING_LOST"
    release()


async def test_after_the_end_nothing_is_lost(pair: Any) -> None:
    name, store = await settled(pair)
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await pair.ended(name)
    assert (await declare(pair.a, name, store, 409))["cause"] == "NOTHING_LOST"
