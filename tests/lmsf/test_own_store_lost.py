"""The store of an own service is lost: nothing is served, everybody is told, and what would harm is refused."""

from typing import Any

import pytest

from outrider.core.refusal import Refusal

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"
PATH = f"/nlmsf-catalogue/v1/deployments/{SERVICE}"
MIGRATIONS = "/nlmsf-migration/v1/migrations"
GONE = Refusal("STORE_LOST", "There is no store.", {"known": "s1"}, "Put the newest files back.", 503)
MEANT = {"acceptLoss": True, "by": "Ada", "sentence": "the disk burnt"}


async def lose(network: Any) -> Any:
    """The node comes back, and finds no store; how the service is then."""
    network.hosts.lost = GONE
    network.world.keepers.pop((str(network.id), SERVICE))
    await network.restart()
    return await lost(network)


async def lost(network: Any) -> Any:
    while True:
        await network.lmsf.deployments.settled(SERVICE)
        shown = await network.ask("GET", PATH, status=200)
        if shown["state"] == "STORE_LOST":
            return shown
        await network.clock.sleep(0.1)


async def begin_anew(network: Any, status: int = 202, **wanted: Any) -> Any:
    return await network.ask("POST", f"{PATH}/begin-anew", MEANT | wanted, status=status)


async def runs(network: Any) -> Any:
    await network.lmsf.deployments.settled(SERVICE)
    shown = await network.ask("GET", PATH, status=200)
    assert shown["state"] == "RUNNING", shown
    return shown


async def test_a_node_that_finds_no_store_serves_nothing_and_says_why(pair: Any) -> None:
    shown = await lose(pair.a)
    assert (shown["sentence"], shown["refusal"]["remedy"]) == (GONE.sentence, GONE.remedy)
    assert shown["apiRoot"] is None
    assert await pair.a.discovered() == []
    assert (await pair.migrate(status=409))["cause"] == "SERVICE_NOT_RUNNING"
    image = await pair.a.ask("POST", f"{PATH}/image", status=409)
    assert image["cause"] == "SERVICE_NOT_RUNNING"


async def test_a_keeper_that_dies_with_its_store_is_found_no_more(pair: Any) -> None:
    assert len(await pair.a.discovered()) == 1
    await pair.a.hosts.die_with_store(SERVICE, GONE)
    await lost(pair.a)
    assert await pair.a.discovered() == []


async def test_the_store_put_back_is_served_from_after_a_restart_or_another_deployment(pair: Any) -> None:
    kept = pair.world.keeper(A)
    for again in ("restart", "deploy"):
        await lose(pair.a)
        pair.a.hosts.lost = None
        pair.world.keepers[A, SERVICE] = kept
        await (pair.a.restart() if again == "restart" else pair.a.deploy())
        await runs(pair.a)
        assert pair.a.hosts.aside == []
    pair.whole_at_home()


async def test_what_was_seen_of_a_store_survives_a_restart_and_is_forgotten_with_the_service(pair: Any) -> None:
    store = pair.world.keeper(A).store_id
    [before] = pair.a.lmsf.deployments.stores.known(SERVICE)
    assert before.store_id == store
    await pair.a.hosts.stores.note(SERVICE, type(before)(store, 1, 70))
    await pair.a.hosts.stores.note(SERVICE, type(before)(store, 1, 60))
    await pair.a.restart()
    await runs(pair.a)
    [after] = pair.a.lmsf.deployments.stores.known(SERVICE)
    assert (after.store_id, after.changes, after.incarnation > before.incarnation) == (store, 70, True)
    await pair.a.ask("DELETE", PATH, status=202)
    await pair.a.lmsf.deployments.settled(SERVICE)
    assert pair.a.lmsf.deployments.stores.known(SERVICE) == ()
    await pair.a.restart()
    assert pair.a.lmsf.deployments.stores.known(SERVICE) == ()


async def test_a_service_begins_anew_where_nobody_else_can_own_anything_and_it_is_journalled(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await pair.a.ask("POST", f"{MIGRATIONS}/{name}/return", status=202)
    await pair.ended(name)
    [known] = pair.a.lmsf.deployments.stores.known(SERVICE)
    await lose(pair.a)
    await begin_anew(pair.a)
    shown = await runs(pair.a)
    assert pair.a.hosts.aside == [SERVICE]
    assert shown["storeId"] != known.store_id
    assert [m.store_id for m in pair.a.lmsf.deployments.stores.known(SERVICE)] == [shown["storeId"]]
    assert len(await pair.a.discovered()) == 1
    [begun] = shown["begunAnew"]
    assert (begun["by"], begun["sentence"], begun["network"]) == ("Ada", "the disk burnt", A)
    assert (begun["lost"]["storeId"], begun["why"]) == (known.store_id, GONE.sentence)
    await pair.a.restart()
    assert (await runs(pair.a))["begunAnew"] == [begun]


@pytest.mark.parametrize("phase", ["COPYING", "RELOCATING", "SETTLED", "RETURNING"])
async def test_a_service_does_not_begin_anew_while_a_partner_may_own_ues(pair: Any, phase: str) -> None:
    if phase == "SETTLED":
        name = (await pair.migrate(move_all=True))["migrationId"]
        await pair.reach(name, "SETTLED")
        pair.world.frozen = True
    else:
        name, _ = await pair.held_in(phase)
    kept = pair.world.keeper(A)
    await lose(pair.a)
    refused = await begin_anew(pair.a, 409)
    assert (refused["cause"], refused["facts"]["migrationId"]) == ("UES_AWAY", name)
    assert f"`outrider migration return {name}`" in refused["remedy"]
    assert (await pair.a.ask("DELETE", PATH, status=409))["cause"] == "SERVICE_MIGRATING"
    assert pair.a.hosts.aside == []
    assert f"STORE_LOST: {GONE.sentence} `outrider service show" in (await pair.a.show(name))["waitingFor"]

    # An abort does not help; the store, put back, does.
    await pair.a.ask("POST", f"{MIGRATIONS}/{name}/abort", status=202)
    assert (await begin_anew(pair.a, 409))["cause"] == "UES_AWAY"
    pair.a.hosts.lost = None
    pair.world.keepers[A, SERVICE] = kept
    pair.world.frozen, pair.world.budget = False, None
    await pair.a.restart()
    await pair.ended(name)
    pair.whole_at_home()


async def test_what_the_partner_is_told_says_that_homes_store_is_lost(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await lose(pair.a)
    while "STORE_LOST" not in (await pair.b.show(name))["partner"]["waitingFor"]:
        await pair.b.clock.sleep(1)


async def test_a_migration_that_has_moved_nothing_is_aborted_without_the_store(pair: Any) -> None:
    name, release = await pair.held_in("PREPARING")
    await lose(pair.a)
    refused = await begin_anew(pair.a, 409)
    assert (refused["cause"], f"migration abort {name}" in refused["remedy"]) == ("SERVICE_MIGRATING", True)
    release()
    await pair.a.ask("POST", f"{MIGRATIONS}/{name}/abort", status=202)
    await pair.ended(name)
    await begin_anew(pair.a)
    await runs(pair.a)


async def test_only_an_own_service_whose_store_is_lost_begins_anew_and_only_when_it_is_meant(pair: Any) -> None:
    assert (await begin_anew(pair.a, 409))["cause"] == "STORE_NOT_LOST"
    assert (await begin_anew(pair.b, 404))["cause"] == "SERVICE_UNKNOWN"
    await begin_anew(pair.a, 400, acceptLoss=False)
    await begin_anew(pair.a, 400, by="")
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await lose(pair.b)
    assert (await begin_anew(pair.b, 409))["cause"] == "SERVICE_HOSTED"
    assert pair.b.hosts.aside == []


async def test_a_target_with_an_older_copy_is_cleared_when_home_declares_it_lost(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    store = pair.world.keeper(B).store_id
    await lose(pair.b)
    body = {"storeId": store, "sentence": "an older copy"}
    await pair.a.ask("POST", f"{MIGRATIONS}/{name}/declare-lost", body, status=202)
    await pair.ended(name)
    pair.whole_at_home()
    await pair.clear_at_target()
