"""Reads of a key that is about to be given away."""

import asyncio

import pytest

from outrider.core import limits
from outrider.core.ids import PARTITIONS, partition_key
from outrider.protocol import messages, ownership
from outrider.protocol.ownership import Ownership
from outrider.store.port import SetRow

A, B = "999-70", "999-71"


def state(net, network, key):
    return net.hosts[network].store.row(key).state


async def held(net, key):
    """Let the key be held at A for B, until `let_go`."""
    await net.begin("m", A, B)
    host = net.hosts[A]
    actor = host.actor(key)
    actor.deliveries += 1  # something is open
    actor.event(ownership.Want(B, "m"))
    await net.until(lambda: actor.vol.held is not None, "the hold")
    return actor


async def test_a_read_of_a_held_key_is_answered_while_a_write_waits(net):
    key = await net.create("imsi-1")
    actor = await held(net, key)
    write = net.post(A, "imsi-1", key="k")
    read = await net.post(A, "imsi-1", method="GET", tail="")
    assert (read.status, read.body) == (200, b"1")
    assert not write.done()
    assert actor.vol.held is not None
    actor.delivery_ended()
    assert (await write).body == b"2"
    await net.until(lambda: state(net, B, key) is Ownership.OWNED, "the move")
    assert net.hosts[A].waits.counts["held"] == 0


async def test_a_read_that_waits_behind_a_unit_when_the_hold_begins_runs_in_the_hold(net, monkeypatch):
    monkeypatch.setattr(limits, "HOLD_LIMIT_MS", 60_000)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    gate = net.workers[A].gate = asyncio.Event()
    first = net.post(A, "imsi-1", key="k1")
    await net.workers[A].entered.wait()
    read, write = net.post(A, "imsi-1", method="GET", tail=""), net.post(A, "imsi-1", key="k2")
    host = net.hosts[A]
    host.actors[key].deliveries += 1
    host.reception.want(B, messages.Want("m", key, None, host.migrations.evidence("m")))
    gate.set()
    assert (await first).body == b"2"
    assert (await read).body == b"2"
    assert not write.done()
    host.actors[key].delivery_ended()
    assert (await write).body == b"3"


async def test_reads_go_on_until_the_grant_is_durable(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    host, durable = net.hosts[A], asyncio.Event()
    submit = host.committer.submit

    def slow_disk(operation):
        async def later():
            await durable.wait()
            return await submit(operation)

        return asyncio.ensure_future(later()) if isinstance(operation, SetRow) else submit(operation)

    host.committer.submit = slow_disk
    gate = net.workers[A].gate = asyncio.Event()
    first = net.post(A, "imsi-1", key="k1")
    await net.workers[A].entered.wait()
    before = net.post(A, "imsi-1", method="GET", tail="")
    host.actors[key].event(ownership.Want(B, "m"))
    gate.set()
    assert (await first).body == b"2"
    during = net.post(A, "imsi-1", method="GET", tail="")
    assert [(await read).body for read in (before, during)] == [b"2", b"2"]
    assert host.actors[key].vol.held is not None
    durable.set()
    assert await net.add(B, "imsi-1") == 3


async def test_a_read_that_outlasts_the_hold_is_answered_by_the_new_owner(net):
    """It has read 1; by the time that it could answer, the new owner has written 2 and said so."""
    key = await net.create("imsi-1")
    actor = await held(net, key)
    gate = net.workers[A].gate = asyncio.Event()
    read = net.post(A, "imsi-1", method="GET", tail="")
    await net.workers[A].entered.wait()
    actor.delivery_ended()
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the move")
    assert await net.add(B, "imsi-1") == 2
    gate.set()
    assert (await read).body == b"2"


async def test_no_relocation_waits_for_a_read(net):
    key = await net.create("imsi-1")
    actor = await held(net, key)
    net.workers[A].gate = asyncio.Event()
    read = net.post(A, "imsi-1", method="GET", tail="")
    await net.workers[A].entered.wait()
    actor.delivery_ended()
    await net.until(lambda: state(net, B, key) is Ownership.OWNED, "the move")
    assert not read.done()
    net.workers[A].gate.set()
    assert (await read).body == b"1"


async def test_what_a_read_of_a_held_key_would_write_is_not_written_and_waits(net):
    key = await net.create("imsi-1")
    actor = await held(net, key)
    before = net.hosts[A].store.context(key)
    read = net.post(A, "imsi-1", method="GET", tail="/writes")
    await net.until(lambda: actor.queue, "the read to wait as a write does")
    assert net.hosts[A].store.context(key) == before
    assert not read.done()
    actor.delivery_ended()
    assert (await read).body == b"2"
    assert await net.add(B, "imsi-1") == 3


async def test_reads_of_a_held_key_are_bounded(net):
    key = await net.create("imsi-1")
    actor = await held(net, key)
    gate = net.workers[A].gate = asyncio.Event()
    reads = [net.post(A, "imsi-1", method="GET", tail="") for _ in range(80)]
    refused = [r for r in reads if r.done()]
    assert len(refused) == 16
    assert all(r.result().status == 503 for r in refused)
    gate.set()
    assert {(await r).status for r in reads if r not in refused} == {200}
    actor.delivery_ended()


async def test_reads_go_on_while_a_partition_waits_for_what_is_open(net):
    names = [f"imsi-{i}" for i in range(PARTITIONS + 1)]
    keys = dict(zip(names, await asyncio.gather(*map(net.create, names)), strict=True))
    by_partition: dict[int, list[str]] = {}
    for name, key in keys.items():
        by_partition.setdefault(key[1], []).append(name)
    partition, (busy, other, *_) = next((p, names) for p, names in by_partition.items() if len(names) > 1)
    await net.begin("m", A, B)
    host = net.hosts[A]
    gate = net.workers[A].gate = asyncio.Event()
    first = net.post(A, busy, key="k")
    await net.workers[A].entered.wait()
    net.workers[A].gate = None
    star = partition_key(partition)
    host.actor(star).event(ownership.Want(B, "m"))
    await net.until(lambda: host.stars.frozen(keys[other]), "the freeze")
    write = net.post(A, other, key="k")
    read = await net.post(A, other, method="GET", tail="")
    assert (read.body, write.done(), state(net, A, star)) == (b"1", False, Ownership.OWNED)
    gate.set()
    assert (await first).body == b"2"
    await net.until(lambda: state(net, B, star) is Ownership.OWNED, "the flip")
    assert (await write).body == b"2"


async def test_an_owner_without_permission_answers_no_reads_in_a_hold(net):
    key = await net.create("imsi-1")
    actor = await held(net, key)
    net.hosts[A].permitted = False
    answer = await net.post(A, "imsi-1", method="GET", tail="", limit_s=0.2)
    assert answer.status == 503
    actor.delivery_ended()


async def test_a_read_of_a_held_key_under_the_idempotency_key_of_a_write_is_422(net):
    key = await net.create("imsi-1")
    assert (await net.post(A, "imsi-1", key="k")).body == b"2"
    actor = await held(net, key)
    assert (await net.post(A, "imsi-1", method="GET", tail="", key="k")).status == 422
    for _ in range(2):  # what a read is answered is not stored, so it is read again
        assert (await net.post(A, "imsi-1", method="GET", tail="", key="k-of-a-read")).body == b"2"
    assert actor.vol.held is not None
    assert (net.hosts[A].units.run_count, actor.reading) == (4, 0)
    actor.delivery_ended()


@pytest.mark.parametrize("waits", ["before the hold", "since the hold began"])
async def test_a_read_behind_a_write_under_its_idempotency_key_waits_with_it(net, monkeypatch, waits):
    monkeypatch.setattr(limits, "HOLD_LIMIT_MS", 60_000)
    key = await net.create("imsi-1")

    def both():
        return net.post(A, "imsi-1", key="k2"), net.post(A, "imsi-1", method="GET", tail="", key="k2")

    if waits == "before the hold":
        await net.begin("m", A, B)
        host = net.hosts[A]
        gate = net.workers[A].gate = asyncio.Event()
        first = net.post(A, "imsi-1", key="k1")
        await net.workers[A].entered.wait()
        write, read = both()
        host.actors[key].deliveries += 1
        host.reception.want(B, messages.Want("m", key, None, host.migrations.evidence("m")))
        gate.set()
        await first
        actor = host.actors[key]
        await net.until(lambda: actor.vol.held is not None and write.done() is False, "the hold")
    else:
        actor = await held(net, key)
        write, read = both()
    other = await net.post(A, "imsi-1", method="GET", tail="", key="k3")
    assert (other.status, write.done(), read.done()) == (200, False, False)
    actor.delivery_ended()
    assert (await write).status == 200
    assert (await read).status == 422


async def test_a_write_behind_a_read_under_its_idempotency_key_holds_no_read_up(net):
    key = await net.create("imsi-1")
    actor = await held(net, key)
    gate = net.workers[A].gate = asyncio.Event()
    read = net.post(A, "imsi-1", method="GET", tail="", key="k")
    write = net.post(A, "imsi-1", key="k")
    gate.set()
    assert (await read).body == b"1"
    actor.delivery_ended()
    assert (await write).body == b"2"
