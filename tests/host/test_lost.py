"""A partner's store is lost: noticed, declared by home's operator, and what it had is served at home again."""

import asyncio
import shutil
from typing import Any

import pytest

from outrider.core import limits
from outrider.core.ids import key_text, partition_key
from outrider.core.loss import Loss
from outrider.core.refusal import Refusal
from outrider.host.migrations import HostMigration
from outrider.protocol.messages import Void
from outrider.protocol.ownership import Ownership
from outrider.store.sqlite import SqliteStore

A, B = "999-70", "999-71"


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_PROBE_MS", 300)


def state(net: Any, network: str, key: bytes) -> Ownership:
    found: Ownership = net.hosts[network].store.row(key).state
    return found


async def reborn(net: Any) -> None:
    """B's disk is gone, and B starts with an empty one."""
    key = net.hosts[B].store.identity.digest_key.hex()
    await net.stop(B)
    shutil.rmtree(net.dirs[B])
    await net.start(B, net.dirs[B], digest_key=key)


async def declared(net: Any, mig: str = "m") -> Loss:
    host = net.hosts[A]
    m = host.migrations.get(mig)
    loss = await host.lost.declare(m, m.peer_store_id)
    assert isinstance(loss, Loss), loss
    return loss


async def noticed(net: Any) -> None:
    host = net.hosts[A]
    await net.until(lambda: host.lost.why(host.migrations.get("m")), "the notice")


async def moved(net: Any, count: int = 3) -> list[bytes]:
    """Some UEs are at B, each with a unit that it has run there."""
    keys = [await net.create(f"imsi-{i}") for i in range(count)]
    await net.begin("m", A, B)
    for i in range(count):
        assert await net.add(B, f"imsi-{i}") == 2
    await net.until(lambda: all(state(net, A, k) is Ownership.FOREIGN for k in keys), "the acceptances")
    await net.until(lambda: not net.hosts[B].followers.shadow.pending.lag, "the shadow")
    return keys


async def test_a_reborn_store_is_noticed_though_nobody_asks_it_anything(net):
    await moved(net)
    await reborn(net)
    await noticed(net)


async def test_a_reborn_store_is_noticed_when_it_speaks_and_gets_nothing(net):
    await moved(net)
    await reborn(net)
    net.cut = {(A, B)}
    net.hosts[B].send(A, Void())
    await noticed(net)
    assert net.hosts[B].peers.lane(A).through == 0
    assert (await net.post(B, "imsi-0", limit_s=0.3)).status in (503, 504)
    assert "is not the known store" in net.hosts[A].lost.why(net.hosts[A].migrations.get("m"))
    shown = await net.hosts[A].progress.migration("m", None, 0)
    assert shown["storeLost"]
    assert shown["version"].endswith("-store-lost")


async def test_a_new_store_that_speaks_before_its_migration_is_known_is_no_lost_one(net):
    """The migration with the store before is over, so nothing is at stake; what the new one says comes again."""
    await moved(net)
    await net.hosts[A].finish("m")
    await reborn(net)
    net.cut = {(A, B)}
    net.hosts[B].send(A, Void())
    lane = net.hosts[B].peers.lane(A)
    await net.until(lambda: lane.doubtful(1), "an answer that takes nothing")
    assert lane.through == 0
    assert not net.hosts[A].lost._noticed
    assert not net.hosts[B].lost._noticed
    net.cut = set()
    await net.begin("n", A, B, relocate=False)
    await net.until(lambda: lane.through, "the message")
    assert not net.hosts[A].lost._noticed


async def test_what_comes_late_for_a_store_that_has_retired_does_not_make_the_next_one_a_lost_one(net):
    await moved(net)
    await net.hosts[A].migrations.change("m", finished=True)
    net.cut = {(A, B), (B, A)}
    net.hosts[A].send(B, Void())
    lane = net.hosts[A].peers.lane(B)
    await net.until(lambda: not lane.connected, "a try that fails")
    await reborn(net)
    asked = lane._posted_s
    net.cut = set()
    await net.until(lambda: lane._posted_s > asked, "another try, to the new store")
    await net.until(lambda: not lane._in_flight, "its answer")
    assert not net.hosts[A].lost._noticed
    await net.begin("n", A, B, relocate=False)
    await net.until(lambda: net.hosts[A].peers.lane(B).connected, "the way to the new store")


async def test_a_reborn_store_is_noticed_when_it_is_spoken_to(net):
    await moved(net)
    await reborn(net)
    unanswered = net.post(A, "imsi-0", limit_s=0.3)
    await noticed(net)
    assert (await unanswered).status in (503, 504)


async def test_what_a_lost_store_had_is_served_at_home_again_with_its_shadow(net):
    keys = await moved(net)
    await reborn(net)
    await noticed(net)
    loss = await declared(net)
    assert (loss.ues, loss.shared, loss.behind_entries, loss.more_keys) == (3, 0, 0, 0)
    assert sorted((k.key, k.epoch, k.shadow) for k in loss.keys) == sorted((key_text(k), 2, "followed") for k in keys)
    assert net.hosts[A].migrations.get("m").aborted == "STORE_LOST"
    for i, key in enumerate(keys):
        assert net.hosts[A].store.row(key).epoch == 3
        assert await net.add(A, f"imsi-{i}") == 3
    assert net.workers[A].arrivals, "what is bound to a network is written anew"


async def test_whole_partitions_come_back_with_the_ues_that_follow_them(net):
    keys = [await net.create(f"imsi-{i}") for i in range(8)]
    await net.begin("m", A, B, sweep="all")
    await net.until(lambda: net.hosts[A].migrations.get("m").settled, "the sweep")
    for i in range(8):
        assert await net.add(B, f"imsi-{i}") == 2
    await net.until(lambda: not net.hosts[B].followers.shadow.pending.lag, "the shadow")
    await reborn(net)
    loss = await declared(net)
    assert loss.ues == 8
    for i, key in enumerate(keys):
        assert state(net, A, partition_key(key[1])) is Ownership.OWNED
        assert await net.add(A, f"imsi-{i}") == 3


async def test_a_reborn_store_is_noticed_by_a_home_that_restarts_after_an_abort(net):
    await moved(net)
    await net.hosts[A].abort("m", "OPERATOR_ABORT")
    await reborn(net)
    await net.restart(A)
    await noticed(net)


async def test_a_store_that_is_found_again_is_lost_no_more(net, tmp_path):
    keys = await moved(net)
    saved = tmp_path / "saved"
    await net.stop(B)
    shutil.move(net.dirs[B], saved)
    await net.start(B, net.dirs[B], digest_key=net.hosts[A].store.identity.digest_key.hex())
    await noticed(net)
    await net.stop(B)
    shutil.rmtree(net.dirs[B])
    shutil.move(saved, net.dirs[B])
    await net.start(B, net.dirs[B])
    host = net.hosts[A]
    await net.until(lambda: not host.lost.why(host.migrations.get("m")), "the end of the notice")
    assert await net.add(A, "imsi-0") == 3
    assert all(state(net, B, k) is Ownership.OWNED for k in keys)


async def test_a_key_in_doubt_comes_back_and_its_loss_is_unknown(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    net.cut = {(A, B)}  # WANT comes through, GRANT does not
    arriving = net.post(B, "imsi-1", limit_s=30)
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    await net.stop(B)
    loss = await declared(net)
    assert [(k.key, k.shadow) for k in loss.keys] == [(key_text(key), "unknown")]
    assert await net.add(A, "imsi-1") == 2
    arriving.cancel()
    net.faults.clear()


async def test_what_the_shadow_lacks_is_told(net):
    (key,) = await moved(net, 1)
    host = net.hosts[A]
    behind = net.hosts[B].store.last_lsn()
    host.peers.heard(B).high_lsn = behind + 2  # B has told of two commits that did not come
    await reborn(net)
    loss = await declared(net)
    assert (loss.behind_entries, loss.shadow) == (2, {"unknown": 1, "behind": 0, "followed": 0})
    assert await net.add(A, "imsi-0") == 3
    assert host.store.row(key).state is Ownership.OWNED


async def test_a_key_whose_whole_context_is_awaited_is_told_as_behind(net):
    (key,) = await moved(net, 1)
    net.hosts[A].lost.shadow_came(B, net.hosts[B].store.last_lsn(), [key])
    await reborn(net)
    loss = await declared(net)
    assert [(k.key, k.shadow) for k in loss.keys] == [(key_text(key), "behind")]


async def test_a_store_that_answers_is_not_declared_lost(net):
    keys = await moved(net)
    m = net.hosts[A].migrations.get("m")
    refusal = await net.hosts[A].lost.why_not(m, m.peer_store_id)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "STORE_ANSWERS"
    assert all(state(net, A, k) is Ownership.FOREIGN for k in keys)
    assert net.hosts[A].migrations.get("m").aborted is None


async def test_another_store_than_the_migrations_is_not_declared_lost(net):
    await moved(net)
    await reborn(net)
    refusal = await net.hosts[A].lost.declare(net.hosts[A].migrations.get("m"), net.hosts[B].store.identity.store_id)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "STORE_UNKNOWN"


async def test_only_home_declares(net):
    await moved(net)
    m = net.hosts[B].migrations.get("m")
    refusal = await net.hosts[B].lost.declare(m, m.peer_store_id)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "NOT_HOME"


async def test_a_declared_store_is_banned_for_ever_and_the_reborn_one_can_do_nothing(net, tmp_path):
    await moved(net)
    lost = net.hosts[B].store.identity.store_id
    saved = tmp_path / "saved"
    await net.stop(B)
    shutil.move(net.dirs[B], saved)
    await net.start(B, net.dirs[B], digest_key=net.hosts[A].store.identity.digest_key.hex())
    await declared(net)
    assert await net.add(A, "imsi-0") == 3
    await net.restart(A)
    assert net.hosts[A].lost.banned(lost)
    assert (await net.post(B, "imsi-0", limit_s=0.3)).status in (503, 504)  # the reborn one
    await net.stop(B)
    shutil.rmtree(net.dirs[B])
    shutil.move(saved, net.dirs[B])
    await net.start(B, net.dirs[B])  # the lost one is found
    assert net.hosts[B].store.identity.store_id == lost
    asking = net.post(A, "imsi-0", limit_s=2)
    assert (await asking).status == 200
    net.hosts[B].send(A, Void())
    await net.until(lambda: not net.hosts[B].permitted, "the word that it was declared lost")
    assert (await net.post(B, "imsi-0", limit_s=1)).status == 503
    assert await net.add(A, "imsi-0") == 5


async def test_a_declaration_that_a_crash_interrupts_goes_on_and_tells_the_same(net, monkeypatch):
    keys = await moved(net)
    await reborn(net)
    host = net.hosts[A]
    m = host.migrations.get("m")
    never = asyncio.Event()
    monkeypatch.setattr(type(host.lost), "_take_back", lambda self, peer: never.wait())
    interrupted = asyncio.create_task(host.lost.declare(m, m.peer_store_id))
    await net.until(lambda: host.store.values("lost-store:"), "the ban")
    interrupted.cancel()
    monkeypatch.undo()
    await net.restart(A)
    assert all(state(net, A, k) is Ownership.FOREIGN for k in keys)
    loss = await declared(net)
    assert loss.ues == 3
    assert all(state(net, A, k) is Ownership.OWNED for k in keys)


async def test_a_reborn_store_does_not_wipe_homes_shadow(net):
    keys = await moved(net)
    await net.hosts[A].abort("m", "OPERATOR_ABORT")
    await reborn(net)
    back = {"migration_id": "m.r", "home": A}
    lost = net.hosts[A].migrations.get("m").peer_store_id
    await net.hosts[A].begin(HostMigration(role="target", peer=B, peer_store_id=lost, **back))
    home = net.hosts[A].store.identity.store_id
    await net.hosts[B].begin(HostMigration(role="source", peer=A, peer_store_id=home, **back))
    await noticed(net)
    copies = {k: net.hosts[A].store.context(k).head for k in keys}
    await asyncio.sleep(0.2)
    assert {k: net.hosts[A].store.context(k).head for k in keys} == copies
    assert all(head.n for head in copies.values())
    loss = await declared(net)
    assert loss.ues == 3
    assert await net.add(A, "imsi-0") == 3


async def test_a_new_migration_may_be_with_the_new_store(net):
    keys = await moved(net)
    await reborn(net)
    await declared(net)
    await net.hosts[A].finish("m")
    await net.begin("m2", A, B)
    for i in range(len(keys)):
        assert await net.add(B, f"imsi-{i}") == 3
    assert net.hosts[A].lost.why(net.hosts[A].migrations.get("m2")) == ""
    assert all(state(net, B, k) is Ownership.OWNED for k in keys)


def test_a_store_knows_no_more_after_its_disk_is_gone(tmp_path):
    first = SqliteStore.open(tmp_path / "x.db")
    first.close()
    (tmp_path / "x.db").unlink()
    second = SqliteStore.open(tmp_path / "x.db")
    assert second.identity.store_id != first.identity.store_id
    second.close()
