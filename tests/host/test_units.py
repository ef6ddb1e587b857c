"""Units and the time that they have."""

import asyncio

from outrider.core import limits
from outrider.host.jobs import Job
from outrider.protocol.messages import Carried

A = "999-70"
SHARED = b"sgroup:g"


def message(host, *, waited_s: float, left_s: float, entry: str = "1.0") -> Job:
    """A message of a UE's outbox to a shared object, which has waited for its turn."""
    carried = Carried("POST", "", "", [], b"", entry, b"u1".hex(), kind="message", name="heard", nf="nsmf-counter")
    now_s = host.now_s()
    reply = asyncio.get_running_loop().create_future()
    return Job(carried, now_s + left_s, reply, now_s - waited_s, keep_answer=True, sender=b"u1")


async def test_a_message_whose_turn_comes_too_late_is_put_back_without_a_worker(net):
    host, worker = net.hosts[A], net.workers[A]
    late = message(host, waited_s=0.68, left_s=0.02)
    host.actor(SHARED).submit(late)
    answer = await late.reply
    assert (answer.status, b"WORKER_BUSY" in answer.body) == (503, True)
    assert not worker.limits_ms
    again = message(host, waited_s=0.0, left_s=0.7)
    host.actor(SHARED).submit(again)
    assert (await again.reply).status == 204
    assert len(worker.limits_ms) == 1
    assert host.store.context(SHARED).data()[0].body == b"1"


async def test_a_unit_gets_what_its_request_has_left(net):
    await net.create("imsi-1")
    net.workers[A].limits_ms.clear()
    assert (await net.post(A, "imsi-1", limit_s=0.5)).status == 200
    assert (await net.post(A, "imsi-1", limit_s=30)).status == 200
    short, long = net.workers[A].limits_ms
    assert 50 <= short <= 500
    assert long == limits.UNIT_LIMIT_MS


async def test_a_unit_that_waits_for_a_free_worker_until_its_time_is_up_is_not_begun(net):
    names = [f"imsi-{i}" for i in range(limits.WORKER_IN_FLIGHT // 4 + 1)]
    await asyncio.gather(*map(net.create, names))
    worker = net.workers[A]
    worker.limits_ms.clear()
    gate = worker.gate = asyncio.Event()
    open_ = [net.post(A, name, key=name) for name in names[1:]]
    await net.until(lambda: len(worker.limits_ms) == len(open_), "all of the worker to be taken")
    late = net.post(A, names[0], key="late", limit_s=0.1)
    host = net.hosts[A]
    deadline_s = host.now_s() + 0.1
    await net.until(lambda: host.now_s() >= deadline_s, "its deadline")
    gate.set()
    assert (await late).status == 503
    assert len(worker.limits_ms) == len(open_)
    assert {(await reply).status for reply in open_} == {200}
