"""What a host does before its worker is there, and what it does when a peer's keeper has restarted."""

import asyncio

from outrider.core import limits
from outrider.core.ids import partition_key
from outrider.host.workers import WorkerFault
from outrider.protocol import messages, ownership
from outrider.protocol.ownership import Ownership, Row
from outrider.store.sqlite import SqliteStore

A, B = "999-70", "999-71"


def state(net, network, key):
    return net.hosts[network].store.row(key).state


async def test_a_key_is_taken_and_given_without_a_worker_and_requests_wait_for_one(net):
    key = await net.create("imsi-1")
    for host in net.hosts.values():
        host.worker_starting = True
    await net.begin("m", A, B)
    here = net.post(A, "imsi-1", key="k1")
    there = net.post(B, "imsi-1", key="k2")
    await net.until(lambda: state(net, B, key) is Ownership.OWNED, "the key")
    assert not here.done()
    assert not there.done()
    net.hosts[B].worker_started()
    assert [(await reply).body for reply in (here, there)] == [b"2", b"3"]
    assert net.workers[A].limits_ms == net.workers[A].limits_ms[:1], "nothing ran at A but the creation"


async def test_a_request_waits_so_long_for_a_worker_and_is_503_then(net, monkeypatch):
    monkeypatch.setattr(limits, "WORKER_WAIT_MS", 50)
    await net.create("imsi-1")
    net.hosts[A].worker_starting = True
    answer = await net.post(A, "imsi-1", key="k")
    assert (answer.status, b"WORKER_STARTING" in answer.body) == (503, True)
    net.hosts[A].worker_started()
    assert await net.add(A, "imsi-1", key="k") == 2


async def test_a_deadline_that_is_shorter_ends_the_wait_for_a_worker(net):
    await net.create("imsi-1")
    net.hosts[A].worker_starting = True
    assert (await net.post(A, "imsi-1", key="k", limit_s=0.05)).status == 503


async def test_the_outbox_of_a_key_that_has_come_without_a_worker_is_delivered_when_there_is_one(net):
    key = await net.create("imsi-1")
    net.hosts[A].outbox.kick = lambda _: None  # it is not delivered at home
    await net.add(A, "imsi-1", tail="/tell")
    worker, tried = net.workers[B], []
    run = worker.run

    async def absent(unit, **how):
        tried.append(unit)
        return WorkerFault("WORKER_DIED", "it is gone") if len(tried) == 1 else await run(unit, **how)

    worker.run = absent
    await net.begin("m", A, B)
    net.hosts[B].identities.registered("imsi-1")
    await net.until(lambda: tried, "the first try")
    await net.until(lambda: net.hosts[B].outbox.delivered_count == 1, "the message")
    assert state(net, B, key) is Ownership.OWNED


async def test_a_peer_that_has_restarted_is_asked_at_once_about_what_it_was_given(net, monkeypatch):
    monkeypatch.setattr(limits, "RESEND_MAX_MS", 60_000)
    key = await net.create("imsi-1")
    other = await net.create("imsi-2")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-2") == 2
    await net.until(lambda: state(net, A, other) is Ownership.FOREIGN, "the acceptance")
    # B takes the grant from the lane and is killed before it has decided.
    net.hosts[B].grants.received = lambda *_: None
    asked = net.post(B, "imsi-1", key="k1")
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    lane = net.hosts[A].peers.lane(B)
    await net.until(lambda: not lane.waiting, "the grant to be taken")
    actor = net.hosts[A].actors[key]
    actor._later("resend", 60_000, None)  # its back-off has grown
    asked.cancel()
    await net.restart(B)
    assert await net.add(A, "imsi-2") == 3  # something that shows A that B has restarted
    await net.until(lambda: state(net, B, key) is Ownership.OWNED, "the key")


async def test_forwards_that_a_peer_lost_when_it_restarted_are_sent_again(net):
    key = await net.create("imsi-1")
    other = await net.create("imsi-2")
    await net.begin("m", A, B)
    for name in ("imsi-1", "imsi-2"):
        assert await net.add(B, name) == 2
    await net.until(lambda: {state(net, A, k) for k in (key, other)} == {Ownership.FOREIGN}, "the acceptances")
    net.workers[B].gate = asyncio.Event()
    net.workers[B].entered.clear()
    lost = net.post(A, "imsi-1", key="k", limit_s=4.0)
    await net.workers[B].entered.wait()  # B has taken it and not answered
    await net.restart(B)
    assert await net.add(A, "imsi-2") == 3
    assert ((await lost).status, (await lost).body) == (200, b"3")
    assert await net.add(A, "imsi-1", key="k") == 3


async def test_a_forward_that_was_run_before_the_peer_restarted_is_answered_and_not_run_twice(net):
    key = await net.create("imsi-1")
    other = await net.create("imsi-2")
    await net.begin("m", A, B)
    for name in ("imsi-1", "imsi-2"):
        assert await net.add(B, name) == 2
    await net.until(lambda: {state(net, A, k) for k in (key, other)} == {Ownership.FOREIGN}, "the acceptances")
    net.hosts[A].forwards.answered = lambda *_: None  # the answer is lost with the process that gave it
    lost = net.post(A, "imsi-1", key="k", limit_s=4.0)
    await net.until(lambda: net.hosts[B].store.context(key).head.n == 3, "the unit")
    await net.until(lambda: not net.hosts[B].peers.lane(A).waiting, "the answer")
    del net.hosts[A].forwards.answered
    await net.restart(B)
    assert await net.add(A, "imsi-2") == 3
    assert ((await lost).status, (await lost).body) == (200, b"3")
    assert await net.add(A, "imsi-1") == 4


async def test_a_restarted_peer_that_turns_a_repeated_forward_away_does_not_make_it_certain(net, monkeypatch):
    """It was run before the crash: a 503 of the host that has just started would be a lie."""
    monkeypatch.setattr(limits, "WORKER_WAIT_MS", 50)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the acceptance")
    came = []
    net.hosts[A].forwards.answered = lambda *answer: came.append(answer)
    lost = net.post(A, "imsi-1", key="k", limit_s=4.0)
    await net.until(lambda: came and not net.hosts[B].peers.lane(A).waiting, "the answer")
    assert net.hosts[B].store.context(key).head.n == 3
    del net.hosts[A].forwards.answered
    net.cut.add((A, B))  # nothing that A sends again comes before it is known that there is no worker
    host = await net.restart(B)
    host.worker_starting = True
    net.cut.clear()
    net.hosts[A].send(B, messages.Void())  # something that shows A that B has restarted
    assert (await lost).status == 504
    host.worker_started()
    assert await net.add(A, "imsi-1", key="k") == 3


async def test_a_request_that_came_back_with_its_key_and_is_turned_away_may_have_run(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    net.hosts[B].identities.learn("imsi-1", key)
    net.lost_answers.add((B, A))
    net.cut.add((A, B))
    host = net.hosts[B]
    host.actor(key)._no_want_until_s = float("inf")
    reply = net.post(B, "imsi-1", key="k", limit_s=4.0)  # A runs it, and its answer does not come
    await net.until(lambda: net.hosts[A].store.context(key).head.n == 2, "the unit")
    await host.permit(False)
    net.cut.clear()
    (job,) = host.forwards.take_back(key)
    host.actor(key).submit(job)
    host.store.row = lambda _: Row(Ownership.OWNED, 2)
    assert (await reply).status == 504
    del host.store.row


async def test_a_restarted_peer_that_turns_away_what_the_lane_sends_again_does_not_make_it_certain(net, monkeypatch):
    """As above, where not even the lane's own answer to the first try has come."""
    monkeypatch.setattr(limits, "WORKER_WAIT_MS", 50)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the acceptance")
    came = []
    net.hosts[A].forwards.answered = lambda *answer: came.append(answer)
    net.lost_answers.add((A, B))
    lost = net.post(A, "imsi-1", key="k", limit_s=4.0)
    await net.until(lambda: came and not net.hosts[B].peers.lane(A).waiting, "the answer")
    assert net.hosts[B].store.context(key).head.n == 3
    net.cut.add((A, B))
    del net.hosts[A].forwards.answered
    host = await net.restart(B)
    host.worker_starting = True
    net.cut.clear()
    assert (await lost).status == 504
    net.lost_answers.clear()
    host.worker_started()
    assert await net.add(A, "imsi-1", key="k") == 3


async def test_requests_that_went_behind_a_grant_run_at_the_giver_when_that_is_refused(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    host = net.hosts[A]
    net.cut.add((A, B))
    host.actor(key).event(ownership.Want(B, "m"))
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    behind = [net.post(A, "imsi-1", key=name, limit_s=4.0) for name in ("k1", "k2")]
    await net.until(lambda: len(host.forwards) == 2, "both forwards")
    host.actor(key).event(ownership.Refused(B, 2, "NO_ROOM"))
    assert [(await reply).body for reply in behind] == [b"2", b"3"]
    assert not len(host.forwards)


async def test_requests_that_went_behind_a_grant_of_their_partition_run_at_the_giver_when_that_is_refused(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    host, star = net.hosts[A], partition_key(key[1])
    await net.until(lambda: host.followers.durable("m"), "the copy")
    net.cut.add((A, B))
    host.actor(star).event(ownership.Want(B, "m"))
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    behind = [net.post(A, "imsi-1", key=name, limit_s=4.0) for name in ("k1", "k2")]
    await net.until(lambda: len(host.forwards) == 2, "both forwards")
    host.actor(star).event(ownership.Refused(B, 2, "NO_ROOM"))
    assert [(await reply).body for reply in behind] == [b"2", b"3"]


async def test_a_host_starts_without_reading_rows_of_keys_that_are_elsewhere_and_sends_what_is_in_doubt_again(
    net, monkeypatch
):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    net.cut.add((A, B))
    net.hosts[A].actor(key).event(ownership.Want(B, "m"))
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    whole, own_rows = [], SqliteStore.own_rows

    def seen(store, start, stop):
        whole.extend([(start, stop)] if (start, stop) == (b"", b"\xff") else [])
        return own_rows(store, start, stop)

    monkeypatch.setattr(SqliteStore, "own_rows", seen)
    await net.restart(A)
    assert not whole
    net.cut.clear()
    await net.until(lambda: state(net, B, key) is Ownership.OWNED, "the grant, sent again")
