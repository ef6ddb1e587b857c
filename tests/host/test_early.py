"""UEs that come while the copy runs (PROTOCOL.md §7): nothing that it brings takes the place of what they have."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from outrider.core.ids import PARTITIONS, partition_range
from outrider.host.landing import Landing
from outrider.protocol.ownership import Ownership

A, B = "999-70", "999-71"
UES = 30


@asynccontextmanager
async def unsealed(net, migration="m"):
    """While this lasts no copy becomes durable: its chunks and its log are there, and the seal waits."""
    go = asyncio.Event()
    seal = Landing._seal

    async def waits(self):
        while not go.is_set() and self._staging is not None:
            if self._host is not net.hosts.get(B):
                raise RuntimeError("this host is gone")
            await asyncio.sleep(0.005)
        await seal(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Landing, "_seal", waits)
        yield
        go.set()
        await net.until(lambda: net.hosts[A].followers.durable(migration), "the copy")


async def loaded(net):
    await net.until(lambda: net.hosts[B].peers.landing(A)[0].ues == UES, "the chunks")


async def created(net):
    return [await net.create(f"imsi-{i}") for i in range(UES)]


def state(net, network, key):
    return net.hosts[network].store.row(key).state


async def swept(net):
    """Move the rest, and see that both have the same then, partition by partition, and that both files are whole."""
    await net.relocate("m", A, sweep="all")
    await net.until(lambda: net.hosts[A].migrations.get("m").settled, "the sweep")
    await net.until(lambda: not net.hosts[B].followers.shadow.pending.lag, "the shadow")
    for partition in range(PARTITIONS):
        sums = {net.hosts[n].store.partition_sum(*partition_range(partition)) for n in (A, B)}
        assert len(sums) == 1, partition
    assert [net.hosts[n].store.check() for n in (A, B)] == [[], []]


async def test_who_comes_early_is_served_at_once_and_the_copy_does_not_take_its_place(net):
    keys = await created(net)
    async with unsealed(net):
        await net.begin("m", A, B)
        await loaded(net)
        assert await net.add(A, "imsi-1") == 2  # behind its chunk: the log brings it into the staging file
        for i in range(3):
            assert await net.add(B, f"imsi-{i}") == (3 if i == 1 else 2)
            assert await net.add(B, f"imsi-{i}") == (4 if i == 1 else 3)
        assert net.hosts[A].grants.sent_bodies == {"full": 3, "delta": 0, "same": 0}
        assert net.hosts[B].store.copy_count(b"u", b"v") == 3, "the others are in the staging file"
        before = [net.hosts[B].store.context(key) for key in keys[:3]]
    assert [net.hosts[B].store.context(key) for key in keys[:3]] == before
    assert net.hosts[B].store.copy_count(b"u", b"v") == UES
    await swept(net)
    for i in range(UES):
        assert await net.add(A, f"imsi-{i}") == (5 if i == 1 else 4 if i < 3 else 2)


async def test_nobody_is_swept_before_the_copy_is_durable(net):
    await created(net)
    async with unsealed(net):
        await net.begin("m", A, B, sweep="all")
        await loaded(net)
        assert await net.add(B, "imsi-7") == 2
        await asyncio.sleep(0.2)
        assert net.hosts[A].grants.sent_bodies == {"full": 1, "delta": 0, "same": 0}
    await swept(net)
    assert net.hosts[A].grants.sent_bodies["same"] == 0, "partitions change owner, and no UE alone"


@pytest.mark.parametrize("restarted", [A, B])
async def test_a_copy_that_begins_anew_leaves_who_came_early_alone(net, restarted):
    keys = await created(net)
    async with unsealed(net):
        await net.begin("m", A, B)
        await loaded(net)
        assert await net.add(B, "imsi-0") == 2
        await net.restart(restarted)
        await loaded(net)
        assert state(net, B, keys[0]) is Ownership.OWNED
        assert await net.add(B, "imsi-0") == 3
        assert await net.add(B, "imsi-1") == 2
        assert net.hosts[B].peers.landing(A)[0]._staging is not None
    await swept(net)
    assert [await net.add(B, f"imsi-{i}") for i in range(3)] == [4, 3, 2]


async def test_who_came_early_and_turned_back_goes_on_at_home_and_comes_again(net):
    """The staging file has what it was before; home's log goes on after units that only the target had written."""
    keys = await created(net)
    async with unsealed(net):
        await net.begin("m", A, B)
        await loaded(net)
        for i in range(2):
            assert await net.add(B, f"imsi-{i}") == 2
            await net.until(lambda i=i: state(net, A, keys[i]) is Ownership.FOREIGN, "its answer")
            net.stayed()
            net.hosts[A].identities.registered(f"imsi-{i}")
            await net.until(lambda i=i: state(net, A, keys[i]) is Ownership.OWNED, "the way back")
            assert await net.add(A, f"imsi-{i}") == 3
        await net.until(lambda: state(net, B, keys[1]) is Ownership.FOREIGN, "its answer")
        net.stayed()
        net.hosts[B].identities.registered("imsi-1")
        await net.until(lambda: state(net, B, keys[1]) is Ownership.OWNED, "the second arrival")
        assert await net.add(B, "imsi-1") == 4
    await swept(net)
    assert [await net.add(B, f"imsi-{i}") for i in range(3)] == [4, 5, 2]


@pytest.mark.parametrize("ends", ["abort", "finish"])
async def test_a_migration_that_ends_while_the_copy_runs_leaves_no_staging_file(net, ends):
    keys = await created(net)
    async with unsealed(net, "again"):
        await net.begin("m", A, B)
        await loaded(net)
        assert await net.add(B, "imsi-0") == 2
        staged = net.dirs[B]
        assert list(staged.glob("*.staging-*"))
        for network in (A, B):
            host = net.hosts[network]
            await (host.abort("m", "STOPPED") if ends == "abort" else host.finish("m"))
        assert not list(staged.glob("*.staging-*"))
        await net.begin("m-back", B, A, sweep="all")
        await net.until(lambda: state(net, A, keys[0]) is Ownership.OWNED, "the way back")
        assert await net.add(A, "imsi-0") == 3
        await net.begin("again", A, B, relocate=False)
    assert await net.add(A, "imsi-1") == 2
