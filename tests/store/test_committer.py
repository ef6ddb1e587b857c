"""The group committer: order, batches, faults, functions between commits, closing."""

import asyncio
import threading

import pytest

from outrider.core import limits
from outrider.store.committer import GroupCommitter
from outrider.store.port import Done, Failed, NotTheOwner, SetRow, StoreFault, Work


class Observed:
    """A store whose commits are counted, can be held up, and can fail."""

    def __init__(self, store):
        self._store = store
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error = None

    def commit(self, operations):
        self.entered.set()
        self.gate.wait()
        self.batches.append(list(operations))
        if self.error is not None:
            raise self.error
        return self._store.commit(operations)


@pytest.fixture
def faults():
    return []


@pytest.fixture
async def observed(home):
    return Observed(home)


@pytest.fixture
async def committer(observed, faults):
    committer = GroupCommitter(observed, on_fault=faults.append)
    yield committer
    observed.gate.set()
    await committer.close()


async def test_what_waits_together_is_committed_together_in_order(committer, observed, home, make):
    observed.gate.clear()
    first = committer.submit(Work(make.ue(0), 1, []))
    await asyncio.to_thread(observed.entered.wait)
    others = [committer.submit(Work(make.ue(1), 1, [make.put("a", str(n).encode())])) for n in range(50)]
    order = []
    for number, future in enumerate(others):
        future.add_done_callback(lambda _, number=number: order.append(number))
    observed.gate.set()
    outcomes = await asyncio.gather(first, *others)
    assert [len(batch) for batch in observed.batches] == [1, 50]
    assert [o.lsn for o in outcomes] == list(range(1, 52))
    assert order == list(range(50))
    assert home.context(make.ue(1)).records[0].body == b"49"


async def test_a_batch_is_bounded(committer, observed, make):
    observed.gate.clear()
    first = committer.submit(Work(make.ue(0), 1, []))
    await asyncio.to_thread(observed.entered.wait)
    others = [committer.submit(Work(make.ue(1), 1, [])) for _ in range(limits.COMMIT_BATCH + 3)]
    observed.gate.set()
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in observed.batches] == [1, limits.COMMIT_BATCH, 3]


async def test_each_gets_its_own_outcome(committer, make):
    outcomes = await asyncio.gather(
        committer.submit(Work(make.ue(1), 1, [])),
        committer.submit(Work(make.ue(1), 9, [])),
        committer.submit(Work(make.ue(1), 1, [make.put("a", bytes(limits.RECORD_BYTES + 1))])),
        committer.submit(SetRow(make.ue(1), make.owned(1), make.granted(2))),
        committer.submit(Work(make.ue(1), 1, [])),
    )
    assert [type(o) for o in outcomes] == [Done, NotTheOwner, Failed, Done, NotTheOwner]


async def test_a_function_runs_between_the_commits_around_it(committer, observed, home, make):
    observed.gate.clear()
    first = committer.submit(Work(make.ue(0), 1, []))
    await asyncio.to_thread(observed.entered.wait)
    before = committer.submit(Work(make.ue(1), 1, []))
    seen = committer.run(lambda: (threading.current_thread().name, home.last_lsn()))
    after = committer.submit(Work(make.ue(1), 1, []))
    observed.gate.set()
    await asyncio.gather(first, before, after)
    assert await seen == ("committer", 2)
    assert [len(batch) for batch in observed.batches] == [1, 1, 1]


async def test_what_a_function_raises_is_its_callers(committer, faults, make):
    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await committer.run(fails)
    assert isinstance(await committer.submit(Work(make.ue(1), 1, [])), Done)
    assert faults == []


async def test_a_fault_reaches_everybody_once(committer, observed, faults, make):
    observed.gate.clear()
    first = committer.submit(Work(make.ue(1), 1, []))
    await asyncio.to_thread(observed.entered.wait)
    others = [committer.submit(Work(make.ue(1), 1, [])) for _ in range(3)]
    between = committer.run(lambda: None)
    observed.error = StoreFault("the disk is full")
    observed.gate.set()
    results = await asyncio.gather(first, *others, between, return_exceptions=True)
    assert all(r is observed.error for r in results)
    with pytest.raises(StoreFault):
        await committer.submit(Work(make.ue(1), 1, []))
    assert faults == [observed.error]
    assert len(observed.batches) == 1  # nothing is committed after a fault


async def test_a_fault_in_a_function_ends_it_too(committer, faults, make):
    fault = StoreFault("adopting failed")

    def fails():
        raise fault

    with pytest.raises(StoreFault):
        await committer.run(fails)
    with pytest.raises(StoreFault):
        await committer.submit(Work(make.ue(1), 1, []))
    assert faults == [fault]


async def test_an_unexpected_error_is_a_fault(committer, observed, faults, make):
    observed.error = AttributeError("a bug")
    with pytest.raises(StoreFault, match="a bug"):
        await committer.submit(Work(make.ue(1), 1, []))
    assert len(faults) == 1


async def test_cancelling_takes_nothing_back_and_holds_nobody_up(committer, observed, home, make):
    observed.gate.clear()
    first = committer.submit(Work(make.ue(0), 1, []))
    await asyncio.to_thread(observed.entered.wait)
    cancelled = committer.submit(Work(make.ue(1), 1, []))
    last = committer.submit(Work(make.ue(1), 1, []))
    cancelled.cancel()
    observed.gate.set()
    await asyncio.gather(first, last)
    assert home.context(make.ue(1)).head.n == 2


async def test_closing_commits_what_was_submitted(home, make):
    committer = GroupCommitter(home, on_fault=lambda fault: None)
    futures = [committer.submit(Work(make.ue(1), 1, [])) for _ in range(20)]
    await committer.close()
    assert [f.result().head.n for f in futures] == list(range(1, 21))
    with pytest.raises(RuntimeError, match="closed"):
        await committer.submit(Work(make.ue(1), 1, []))
    await committer.close()
