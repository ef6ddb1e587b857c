"""The live file of a host is exchanged for a staged one only while no copy of its own reads it."""

import asyncio

import pytest

from outrider.host.migrations import HostMigration

A, B, C = "999-70", "999-71", "999-72"


@pytest.fixture
async def three(net, tmp_path):
    """A third network beside home and target, and 30 UEs at home."""
    await net.start(C, tmp_path / "c", digest_key=net.hosts[A].store.identity.digest_key.hex())
    for i in range(30):
        await net.create(f"imsi-{i}")
    store_id = net.hosts[C].store.identity.store_id
    onward = HostMigration(migration_id="onward", role="home", peer=C, home=A, peer_store_id=store_id)
    await net.hosts[A].begin(onward)
    return net


def gate(monkeypatch, thing, name):
    """Let a coroutine method wait before it does its work: what says that it waits, and what lets it go on."""
    entered, go = asyncio.Event(), asyncio.Event()
    work = getattr(thing, name)

    async def gated(*arguments):
        entered.set()
        await go.wait()
        return await work(*arguments)

    monkeypatch.setattr(thing, name, gated)
    return entered, go


async def has_all(net, network):
    """Wait until a host has every context as home has it."""
    keys = [net.hosts[A].store.key_of(f"imsi-{i}") for i in range(30)]
    here, home = net.hosts[network].store, net.hosts[A].store
    await net.until(lambda: all(here.context(k).head == home.context(k).head for k in keys), f"the copy at {network}")


async def test_a_copy_that_begins_while_the_file_is_exchanged_reads_the_new_one(three, monkeypatch):
    net = three
    landing = net.hosts[B].peers.landing(A)[0]
    entered, go = gate(monkeypatch, landing, "_adopt")
    await net.begin("m", A, B, relocate=False)
    await entered.wait()
    await net.begin("onward", B, C, relocate=False)
    await net.until(lambda: net.hosts[B].followers.copies()["onward"]["totalUes"] == 0, "the copy to begin")
    assert not net.hosts[B].followers.reading
    go.set()
    await net.until(lambda: net.hosts[B].followers.durable("onward"), "the copy onward")
    assert landing.need == []
    await has_all(net, C)


async def test_a_file_that_an_ending_copy_has_still_open_is_not_exchanged(three, monkeypatch):
    net = three
    await net.begin("onward", B, C, relocate=False)
    await net.until(lambda: net.hosts[B].followers.durable("onward"), "the copy onward")
    copy = net.hosts[B].followers._copies["onward"]
    entered, go = gate(monkeypatch, copy._bulk, "close")
    landing = net.hosts[B].peers.landing(A)[0]
    sealing, seal = gate(monkeypatch, landing, "_seal")
    ending = asyncio.create_task(net.hosts[B].followers.stop_copy("onward"))
    await entered.wait()
    await net.begin("m", A, B, relocate=False)
    await sealing.wait()
    assert landing._staging is not None
    seal.set()
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    await has_all(net, B)
    go.set()
    await ending
