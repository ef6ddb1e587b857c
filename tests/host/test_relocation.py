"""A UE's key goes from one host to another and back, under load and faults, over real stores."""

import asyncio
import importlib
from pathlib import Path

import pytest

from outrider.core.ids import partition_key
from outrider.host.migrations import HostMigration
from outrider.protocol import messages
from outrider.protocol.messages import Answer
from outrider.protocol.ownership import Ownership, Want
from outrider.store.port import Replace

A, B, C = "999-70", "999-71", "999-72"


def state(net, network, key):
    return net.hosts[network].store.row(key).state


async def test_a_request_at_home_runs_and_counts(net):
    assert await net.add(A, "imsi-1", create=True) == 1
    assert await net.add(A, "imsi-1") == 2


async def test_an_unknown_ue_is_404_unless_the_request_may_create_it(net):
    answer = await net.post(A, "imsi-9")
    assert (answer.status, b"CONTEXT_NOT_FOUND" in answer.body) == (404, True)


async def test_the_first_request_at_the_target_brings_the_key_there(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    assert state(net, B, key) is Ownership.OWNED
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the acceptance")
    assert net.workers[B].arrivals, "on_arrival runs before the first request at the new owner"


async def test_a_request_at_home_after_the_move_is_served_by_the_target(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    assert await net.add(A, "imsi-1") == 3
    assert state(net, B, key) is Ownership.OWNED


async def test_before_relocation_begins_the_target_forwards(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B, relocate=False)
    assert await net.add(B, "imsi-1") == 2
    assert state(net, A, key) is Ownership.OWNED


async def test_a_ue_created_through_the_target_exists_once_at_home(net):
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-5", create=True) == 1
    assert await net.add(B, "imsi-5") == 2
    assert await net.add(A, "imsi-5") == 3


async def test_requests_that_wait_during_the_grant_run_at_the_target_in_order(net):
    await net.create("imsi-1")
    await net.begin("m", A, B)
    net.delay_s = 0.02
    gate = net.workers[A].gate = asyncio.Event()
    first = net.post(A, "imsi-1", key="k1")
    await net.workers[A].entered.wait()
    waiting = [net.post(A, "imsi-1", key=f"k{i}") for i in (2, 3)]
    at_target = net.post(B, "imsi-1", key="k4")
    await net.until(lambda: net.hosts[A].actors[net.hosts[A].store.key_of("imsi-1")]._inbox, "the WANT")
    gate.set()
    answers = await asyncio.gather(first, *waiting, at_target)
    assert [int(a.body) for a in answers] == [2, 3, 4, 5]
    assert net.hosts[B].units.run_count == 3


async def test_a_retry_after_the_move_gets_the_first_answer(net):
    await net.create("imsi-1")
    assert await net.add(A, "imsi-1", key="same") == 2
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 3
    assert await net.add(B, "imsi-1", key="same") == 2
    assert await net.add(A, "imsi-1", key="same") == 2


async def test_the_same_key_for_another_request_is_422(net):
    await net.create("imsi-1")
    assert (await net.post(A, "imsi-1", key="same")).status == 200
    assert (await net.post(A, "imsi-1", key="same", tail="/other")).status == 422


async def test_return_brings_every_key_home_by_difference_only(net):
    for i in range(5):
        await net.create(f"imsi-{i}")
    await net.begin("m", A, B)
    for i in range(5):
        assert await net.add(B, f"imsi-{i}") == 2
    await net.hosts[A].finish("m")
    await net.hosts[B].finish("m")
    await net.until(lambda: not net.hosts[B].followers.shadow.pending.lag, "the shadow")
    await net.begin("m-back", B, A, sweep="all")
    await net.until(lambda: net.hosts[B].migrations.get("m-back").settled, "the return")
    assert net.hosts[B].grants.sent_bodies["same"] >= 5
    for i in range(5):
        assert await net.add(A, f"imsi-{i}") == 3


async def test_move_all_flips_whole_partitions(net):
    keys = [await net.create(f"imsi-{i}") for i in range(20)]
    await net.begin("m", A, B, sweep="all")
    await net.until(lambda: net.hosts[A].migrations.get("m").settled, "the sweep")
    for i, key in enumerate(keys):
        assert state(net, B, key) is Ownership.OWNED
        assert state(net, A, partition_key(key[1])) is Ownership.FOREIGN
        assert await net.add(B, f"imsi-{i}") == 2
        assert await net.add(A, f"imsi-{i}") == 3


@pytest.mark.slow
async def test_move_all_under_load_loses_and_doubles_nothing(net):
    names = [f"imsi-{i}" for i in range(30)]
    for name in names:
        await net.create(name)
    done = asyncio.Event()

    async def load(name: str) -> int:
        count = 1
        while not done.is_set():
            count += 1
            assert await net.add(A if count % 2 else B, name) == count
        return count

    tasks = [asyncio.create_task(load(name)) for name in names]
    await net.begin("m", A, B, sweep="all")
    await net.until(lambda: net.hosts[A].migrations.get("m").settled, "the sweep")
    done.set()
    counts = await asyncio.gather(*tasks)
    for name, count in zip(names, counts, strict=True):
        assert await net.add(B, name) == count + 1


async def test_a_lost_accepted_is_asked_for_again(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    await net.add(A, "imsi-1")
    net.cut.add((B, A))  # what B says is lost, what A says arrives
    asked = asyncio.create_task(net.add(B, "imsi-1"))
    await asyncio.sleep(0)
    net.cut.discard((B, A))
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED or state(net, B, key) is Ownership.OWNED)
    net.cut.add((B, A))
    await net.until(lambda: state(net, B, key) is Ownership.OWNED, "the acceptance")
    net.cut.discard((B, A))
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the repeated question")
    assert await asked == 3


async def test_a_giver_that_restarts_after_its_grant_asks_again(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    net.cut.add((A, B))
    asked = asyncio.create_task(net.add(B, "imsi-1", limit_s=30))
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    await net.restart(A)
    assert state(net, A, key) is Ownership.GRANTED
    net.cut.clear()
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the answer")
    assert await asked == 2


async def test_a_taker_that_restarts_after_it_took_the_key_still_owns_it(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.restart(B)
    assert state(net, B, key) is Ownership.OWNED
    assert await net.add(B, "imsi-1") == 3
    assert await net.add(A, "imsi-1") == 4


async def test_an_abort_recalls_what_is_in_doubt_and_the_source_serves_on(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    net.cut.add((A, B))
    asked = net.post(B, "imsi-1", key="k", limit_s=1.0)
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    await net.hosts[A].abort("m", "OPERATOR")
    await net.hosts[B].abort("m", "OPERATOR")
    net.cut.clear()
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the recall")
    assert (await asked).status in (200, 503, 504)
    assert await net.add(A, "imsi-1") in (2, 3)


async def test_no_grant_after_an_abort(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    await net.hosts[A].abort("m", "OPERATOR")
    assert await net.add(B, "imsi-1") == 2
    assert state(net, A, key) is Ownership.OWNED


async def test_timers_go_on_firing_once_each_wherever_the_ue_is(net):
    await net.create("imsi-1")
    assert await net.add(A, "imsi-1", tail="/tick") == 2
    await net.until(lambda: len(net.workers[A].fired) >= 2, "timers at home")
    await net.begin("m", A, B)
    await net.add(B, "imsi-1")
    await net.until(lambda: len(net.workers[B].fired) >= 2, "timers at the target")
    fired = [f for w in net.workers.values() for f in w.fired]
    assert len(fired) == len(set(fired))


async def test_messages_to_a_shared_object_are_applied_once_each_across_the_move(net):
    names = [f"imsi-{i}" for i in range(4)]
    for name in names:
        await net.create(name)
    for name in names:
        await net.add(A, name, tail="/tell")
    await net.begin("m", A, B)
    for name in names:
        for _ in range(3):
            await net.add(B, name, tail="/tell")
    shared = b"sgroup:g"

    def heard() -> int:
        owners = [h for h in net.hosts.values() if h.store.row(shared).state is Ownership.OWNED]
        assert len(owners) <= 1
        records = owners[0].store.context(shared).records if owners else []
        return max([int(r.body) for r in records if r.id == "heard"], default=0)

    await net.until(lambda: heard() == 16, "all messages")
    await net.until(lambda: state(net, B, shared) is Ownership.OWNED, "the shared object to follow its members")
    assert heard() == 16


async def test_a_target_with_a_stale_copy_asks_for_the_whole(net):
    key = await net.create("imsi-1")
    await net.add(A, "imsi-1", query="60000")
    await net.begin("m", A, B, relocate=False)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    await net.until(lambda: net.hosts[B].peers.landing(A)[0].marks["equal"] >= 255, "the marks")
    database = net.stores[B][0]
    port = importlib.import_module("outrider.store.port")
    await net.stores[B][1].submit(port.Erase([key]))
    assert database.context(key).head.n == 0
    await net.relocate("m", A)
    assert await net.add(B, "imsi-1") == 3
    assert net.hosts[A].grants.sent_bodies["full"] == 1


async def test_the_copy_is_durable_and_equal_before_anything_moves(net):
    keys = [await net.create(f"imsi-{i}") for i in range(50)]
    await net.begin("m", A, B, relocate=False)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    await net.add(A, "imsi-7")
    await net.until(lambda: not net.hosts[A].followers.progress("m")["lagEntries"], "the log")
    for key in keys:
        assert net.hosts[B].store.context(key).head == net.hosts[A].store.context(key).head
    marks = net.hosts[B].peers.landing(A)[0].marks
    await net.until(lambda: marks["equal"] >= 255, "the marks")  # a partition that was just written to has none
    assert marks["wrong"] == 0


async def test_a_target_that_restarts_during_the_copy_gets_it_again(net):
    for i in range(50):
        await net.create(f"imsi-{i}")
    net.delay_s = 0.01
    await net.begin("m", A, B, relocate=False)
    await net.until(lambda: net.hosts[B].peers.landing(A)[0].ues > 5, "some chunks")
    await net.restart(B)
    net.delay_s = 0.0
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    key = net.hosts[A].store.key_of("imsi-49")
    assert net.hosts[B].store.context(key).head == net.hosts[A].store.context(key).head


async def test_onward_to_a_third_network_keeps_every_write(net, tmp_path: Path):
    c = "999-72"
    digest_key = net.hosts[A].store.identity.digest_key.hex()
    await net.start(c, tmp_path / "c", digest_key=digest_key)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    store_id = net.hosts[c].store.identity.store_id
    seen = HostMigration(migration_id="onward", role="home", peer=c, home=A, peer_store_id=store_id)
    await net.hosts[A].begin(seen)
    await net.begin("onward", B, c, sweep="all")
    await net.until(lambda: state(net, c, key) is Ownership.OWNED, "the move onward")
    assert await net.add(A, "imsi-1") == 3


@pytest.mark.parametrize("network", [A, B])
async def test_a_full_queue_is_503_with_no_effect(net, network):
    await net.create("imsi-1")
    gate = net.workers[A].gate = asyncio.Event()
    replies = [net.post(A, "imsi-1", key=f"k{i}", limit_s=20) for i in range(80)]
    await net.workers[A].entered.wait()
    refused = [r for r in replies if r.done()]
    assert refused
    assert all(isinstance(r.result(), Answer) and r.result().status == 503 for r in refused)
    gate.set()
    served = [r for r in await asyncio.gather(*replies) if r.status == 200]
    assert await net.add(A, "imsi-1") == len(served) + 2


async def test_a_second_visit_to_a_new_store_of_the_target_works(net, tmp_path: Path):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.begin("m-back", B, A, sweep="all")
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the return")
    for network in (A, B):
        for migration in ("m", "m-back"):
            await net.hosts[network].finish(migration)
    await net.stop(B)
    await net.start(B, tmp_path / "b-again", digest_key=net.hosts[A].store.identity.digest_key.hex())
    net.stayed()
    await net.begin("m2", A, B)
    assert await net.add(B, "imsi-1") == 3
    assert state(net, B, key) is Ownership.OWNED


async def test_another_store_without_a_new_migration_is_a_lost_one(net, tmp_path: Path):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    migration = net.hosts[B].migrations.get("m")
    await net.stop(B)
    await net.start(B, tmp_path / "reborn", digest_key=net.hosts[A].store.identity.digest_key.hex())
    await net.hosts[B].begin(migration)
    assert (await net.post(A, "imsi-1", key="k", limit_s=0.5)).status == 503  # the other store took nothing
    assert net.hosts[A].lost.why(net.hosts[A].migrations.get("m"))
    assert state(net, A, key) is Ownership.FOREIGN


async def test_a_registration_at_the_target_brings_the_context_before_any_request(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    net.hosts[B].identities.registered("imsi-1")
    await net.until(lambda: state(net, B, key) is Ownership.OWNED, "the context")
    assert await net.add(B, "imsi-1") == 2
    assert not net.hosts[B].waits.counts["arrival"]


async def test_a_ue_that_turns_back_brings_its_context_home(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the acceptance")
    net.stayed()
    net.hosts[A].identities.registered("imsi-1")
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the context")
    assert await net.add(A, "imsi-1") == 3


async def test_requests_at_home_alone_do_not_bring_a_context_back(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    for count in (3, 4, 5):
        assert await net.add(A, "imsi-1") == count
    assert state(net, B, key) is Ownership.OWNED


async def test_a_revoked_owner_answers_503_also_after_a_restart_and_still_gives_its_keys_away(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.hosts[B].permit(False)
    await net.restart(B)
    assert (await net.post(B, "imsi-1", key="k")).status == 503
    await net.begin("m-back", B, A, sweep="all")
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the return")
    assert await net.add(A, "imsi-1") == 3


async def test_an_emergency_takes_a_held_ue_back(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    gate = net.workers[A].gate = asyncio.Event()
    first = net.post(A, "imsi-1", key="k1")
    await net.workers[A].entered.wait()
    host = net.hosts[A]
    host.reception.want(B, messages.Want("m", key, None, host.migrations.evidence("m")))
    host.actors[key].deliveries = 1  # something is still open, so the hold lasts
    gate.set()
    assert (await first).status == 200
    await net.until(lambda: host.actors[key].vol.held is not None, "the hold")
    waiting = net.post(A, "imsi-1", key="k2")
    emergency = net.post(A, "imsi-1", key="k3", kind="emergency")
    assert (await emergency).body == b"3"
    assert (await waiting).body == b"4"
    host.actors[key].delivery_ended()
    assert state(net, A, key) is Ownership.OWNED


async def test_a_context_that_has_just_come_does_not_flap(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    net.hosts[A].identities.registered("imsi-1")
    assert await net.add(A, "imsi-1") == 3
    assert state(net, B, key) is Ownership.OWNED
    assert net.hosts[A].forwards.take_back(key) == []


async def test_home_that_restarted_meets_a_new_store_under_a_new_migration(net, tmp_path: Path):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.hosts[A].committer.submit(
        importlib.import_module("outrider.store.port").SetValue(
            f"high-lsn:{B}:{net.hosts[B].store.identity.store_id}", b"74"
        )
    )
    await net.begin("m-back", B, A, sweep="all")
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the return")
    for migration in ("m", "m-back"):
        await net.hosts[A].finish(migration)
    await net.stop(B)
    await net.start(B, tmp_path / "b-again", digest_key=net.hosts[A].store.identity.digest_key.hex())
    await net.restart(A)
    await net.begin("m2", A, B)
    assert await net.add(B, "imsi-1") == 3


async def test_a_network_that_owns_nothing_does_not_copy_over_what_home_has_of_others(net, tmp_path: Path):
    digest_key = net.hosts[A].store.identity.digest_key.hex()
    await net.start(C, tmp_path / "c", digest_key=digest_key)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.begin("m-c", A, C, relocate=False)
    await net.begin("m-c-back", C, A, sweep="all")
    await net.until(lambda: net.hosts[C].migrations.get("m-c-back").settled, "the way back")
    await net.until(lambda: not net.hosts[B].followers.shadow.pending.lag, "the shadow")
    assert net.hosts[A].store.context(key).head == net.hosts[B].store.context(key).head


async def test_home_gets_whole_what_does_not_add_up_in_a_partition_that_comes_back(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B, sweep="all")
    await net.until(lambda: net.hosts[A].migrations.get("m").settled, "the sweep")
    assert await net.add(B, "imsi-1") == 2
    await net.until(lambda: not net.hosts[B].followers.shadow.pending.lag, "the shadow")
    await net.stores[A][1].submit(Replace(key, key + b"\x00", [], []))  # home's copy is gone, whatever took it
    await net.begin("m-back", B, A, sweep="all")
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the return")
    assert await net.add(A, "imsi-1") == 3


async def test_a_sweep_waits_for_what_another_network_may_refuse(net, tmp_path: Path):
    digest_key = net.hosts[A].store.identity.digest_key.hex()
    await net.start(C, tmp_path / "c", digest_key=digest_key)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.begin("on", B, C)
    net.hosts[B].actor(key).event(Want(C, "on"))
    net.cut |= {(B, C), (C, B)}
    await net.until(lambda: state(net, B, key) is Ownership.GRANTED, "the grant")
    await net.begin("m-back", B, A, sweep="all")
    await net.hosts[C].finish("on")
    await asyncio.sleep(0.2)
    net.cut.clear()
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the way home of what was refused")


async def test_a_partition_whose_copy_has_ended_before_it_was_taken_is_recalled(net):
    key = await net.create("imsi-1")
    star = partition_key(key[1])
    await net.begin("m", A, B, relocate=False)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    await net.stores[B][1].submit(Replace(key, key + b"\x00", [], []))  # so that it asks for the partition once more
    net.cut.add((B, A))
    await net.relocate("m", A)
    net.hosts[A].actor(star).event(Want(B, "m"))
    await net.until(lambda: state(net, A, star) is Ownership.GRANTED, "the grant")
    await net.hosts[A].finish("m")
    sent, send = [], net.hosts[A].send
    net.hosts[A].send = lambda peer, message: (sent.append(message), send(peer, message))
    net.cut.clear()
    await net.until(lambda: state(net, A, star) is Ownership.OWNED, "the refusal")
    assert await net.add(A, "imsi-1") == 2
    assert sum(isinstance(m, messages.Grant) and m.key == star for m in sent) < 5  # not one for each NEED


async def test_a_copy_that_ends_while_a_range_is_sent_once_more_says_so(net):
    await net.create("imsi-1")
    await net.begin("m", A, B, relocate=False)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    again = asyncio.create_task(net.hosts[A].followers.copy_again(B, b"u", b"v"))
    await asyncio.sleep(0)
    await net.hosts[A].finish("m")
    assert await again is False
    assert await net.hosts[A].followers.copy_again(B, b"u", b"v") is False
