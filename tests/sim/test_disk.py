"""A simulated crash leaves of a write all, nothing, or a torn log, and never less than what was durable."""

import asyncio
from collections import Counter
from random import Random

import pytest

from outrider.core.ids import partition_key
from outrider.protocol.ownership import Ownership, Row
from outrider.sim.whole.disk import Disk, DiskStore, VirtualCommitter
from outrider.sim.whole.loop import VirtualLoop
from outrider.store.port import Done, SetRow, SetValue, StoreFault

STAR = partition_key(0)
NOTHING = Row(Ownership.FOREIGN, 0)


class Watching:
    def __init__(self):
        self.seen = 0

    def committed(self, network, store, operations, outcomes):
        self.seen += len(operations)


def world(tmp_path, seed, work):
    """Run `work(loop, disk, committer, store)` on a simulated disk."""
    loop = VirtualLoop(str(seed))

    async def run():
        disk = Disk("a", Random(seed), Watching())
        (tmp_path / "1").mkdir(exist_ok=True)
        store = DiskStore.open(tmp_path / "1" / "contexts.db")
        store.disk = disk
        faults = []
        committer = VirtualCommitter(store, on_fault=faults.append)
        try:
            return await work(disk, committer, store, faults)
        finally:
            store.close()

    try:
        return loop.run_until_complete(run())
    finally:
        loop.end()


def test_what_is_told_is_durable_and_a_write_under_way_is_kept_lost_or_torn(tmp_path):
    fates = Counter()
    for seed in range(24):
        place = tmp_path / str(seed)
        place.mkdir()

        async def crash(disk, committer, store, faults, place=place):
            assert isinstance(await committer.submit(SetValue("told", b"1")), Done)
            committer.submit(SetRow(STAR, NOTHING, Row(Ownership.OWNED, 1)))
            await asyncio.sleep(0)
            return committer.crash(place / "2")

        fate = world(place, seed, crash)
        after = DiskStore.open(place / "2" / "contexts.db")
        assert after.value("told") == b"1"
        assert (after.row(STAR).state is Ownership.OWNED) == (fate == "kept")
        assert after.check() == []
        after.close()
        fates[fate] += 1
    assert set(fates) == {"kept", "lost", "torn"}


@pytest.mark.parametrize(("trouble", "durable"), [("full", False), ("broken", True)])
def test_a_disk_that_fails_ends_the_committer_and_may_have_written(tmp_path, trouble, durable):
    async def work(disk, committer, store, faults):
        setattr(disk, trouble, True)
        with pytest.raises(StoreFault):
            await committer.submit(SetValue("x", b"1"))
        setattr(disk, trouble, False)
        with pytest.raises(StoreFault):
            await committer.submit(SetValue("y", b"1"))
        assert len(faults) == 1
        assert (store.value("x") == b"1") is durable
        assert store.value("y") is None

    world(tmp_path, 1, work)
