"""Requests through the front: a key that has nothing else to do serves one in the task that brought it."""

import asyncio

import pytest

from outrider.host.front import Front
from outrider.protocol.ownership import Ownership, Row
from outrider.sbi.http import Request
from outrider.sbi.tokens import Claims
from outrider.store.port import SetRow

A, B = "999-70", "999-71"


class Anybody:
    """Takes every request for one with a token."""

    def verify(self, authorization, *, audience, scope, now_s=None):
        return Claims(iss="nrf", sub="c", aud="SMF", scope=scope, exp=2**40)


@pytest.fixture
async def ask(net):
    """Home has one UE; a function that sends a request of it to home's front."""
    await net.create("imsi-1")
    front = Front(net.hosts[A], Anybody())

    def send(tail="/add", method="POST", **headers):
        path = f"/nsmf-counter/v1/ues/imsi-1{tail}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return asyncio.ensure_future(front(Request(method, path, "", named)))

    return send


async def test_no_task_is_made_for_a_request_of_a_key_that_rests(net, ask):
    before = asyncio.all_tasks()
    gate = net.workers[A].gate = asyncio.Event()
    asked = ask()
    await net.workers[A].entered.wait()
    assert asyncio.all_tasks() - before == {asked}
    gate.set()
    assert (await asked).body == b"2"
    assert not net.hosts[A].actors


async def test_requests_that_come_meanwhile_run_after_it_one_by_one(net, ask):
    gate = net.workers[A].gate = asyncio.Event()
    asked = [ask() for _ in range(4)]
    await net.workers[A].entered.wait()
    gate.set()
    assert [(await a).body for a in asked] == [b"2", b"3", b"4", b"5"]
    assert not net.hosts[A].actors


async def test_its_answer_does_not_wait_for_those_behind_it(net, ask):
    worker = net.workers[A]
    first_gate = worker.gate = asyncio.Event()
    first, second = ask(), ask()
    await worker.entered.wait()
    worker.gate = asyncio.Event()
    first_gate.set()
    assert (await first).body == b"2"
    assert not second.done()
    worker.gate.set()
    assert (await second).body == b"3"


async def test_what_happens_to_the_key_meanwhile_is_taken_up_after_it(net, ask):
    key = net.hosts[A].store.key_of("imsi-1")
    await net.begin("m", A, B)
    gate = net.workers[A].gate = asyncio.Event()
    asked = ask()
    await net.workers[A].entered.wait()
    there = net.post(B, "imsi-1", key="k")
    await net.until(lambda: net.hosts[A].actors[key]._inbox, "the WANT")
    gate.set()
    assert (await asked).body == b"2"
    assert (await there).body == b"3"
    assert net.hosts[B].store.row(key).state is Ownership.OWNED


async def test_a_request_whose_key_went_under_it_is_sent_after_the_key(net, ask):
    host = net.hosts[A]
    key = host.store.key_of("imsi-1")
    gate = net.workers[A].gate = asyncio.Event()
    asked = ask()
    await net.workers[A].entered.wait()
    row = host.store.row(key)
    await host.committer.submit(SetRow(key, row, Row(Ownership.FOREIGN, row.epoch + 1, "999-79")))
    gate.set()
    answer = await asked
    assert (answer.status, b"no way to 999-79" in answer.body) == (503, True)
    assert host.store.context(key).head.n == 1


async def test_a_wait_at_arrival_ends_when_the_request_may_run(net):
    await net.create("imsi-1")
    await net.begin("m", A, B)
    gate = net.workers[B].gate = asyncio.Event()
    there = net.post(B, "imsi-1")
    await net.workers[B].entered.wait()
    assert net.hosts[B].waits.counts == {"held": 0, "arrival": 1}
    gate.set()
    assert (await there).body == b"2"
    assert net.hosts[B].waits.counts == {"held": 0, "arrival": 1}


async def test_a_request_is_answered_at_its_deadline_though_the_one_before_it_still_runs(net):
    await net.create("imsi-1")
    gate = net.workers[A].gate = asyncio.Event()
    first = net.post(A, "imsi-1")
    await net.workers[A].entered.wait()
    behind = net.post(A, "imsi-1", limit_s=0.05)
    assert (await behind).status == 503
    assert not first.done()
    gate.set()
    assert (await first).body == b"2"
    assert not net.hosts[A].actors
