"""Lanes: what is certain about a message that was not answered for."""

import asyncio

import pytest

from outrider.host.lanes import Hello, Lane, Receiver, ack
from outrider.host.peer_store import Outlived, PeerStore, StoreLost
from outrider.protocol.messages import LaneBatch, NotOwner, Void
from outrider.protocol.ownership import Ownership
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response

A, B = "999-70", "999-71"


class Way:
    """A way to a receiver in this process; each post waits at the gate, and then does what the test says."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.posts = 0
        self.gate = asyncio.Event()
        self.error: Unreachable | None = None
        self.receiver = Receiver(self._take)
        self.lane = Lane(
            B, Hello("a", 1), self._post, LaneBatch, self._encoded, durable_lsn=lambda: 0, window=1, batch_messages=2
        )

    async def _take(self, message: object) -> None:
        self.taken.append(message)

    async def _encoded(self, batch: LaneBatch) -> LaneBatch:
        return batch

    async def _post(self, batch: LaneBatch) -> Response:
        self.posts += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Response(200, [], ack(Hello("b", 1), await self.receiver.take(batch)))

    async def posted(self, count: int) -> None:
        while self.posts < count:
            await asyncio.sleep(0.001)


def message(n: int) -> NotOwner:
    return NotOwner(None, n, A)


@pytest.fixture
async def way():
    way = Way()
    yield way
    await way.lane.close()


async def test_a_message_that_never_left_is_taken_back_and_nothing_else_moves(way):
    for n in range(1, 6):
        way.lane.send(message(n))
    await way.posted(1)
    assert not way.lane.withdraw(2), "the first two are under way"
    assert way.lane.withdraw(3)
    way.gate.set()
    await way.lane.taken(5)
    assert way.taken == [message(1), message(2), Void(), message(4), message(5)]
    assert not way.lane.withdraw(5), "it has arrived"


async def test_a_message_for_which_there_was_no_connection_has_not_left(way):
    way.gate.set()
    way.error = Unreachable("refused", not_sent=True)
    way.lane.send(message(1))
    way.lane.send(message(2))
    await way.posted(1)
    assert way.lane.withdraw(1)
    way.error = None
    await way.lane.taken(2)
    assert way.taken == [Void(), message(2)]


async def test_a_message_that_was_on_its_way_once_may_have_arrived_for_ever(way):
    way.gate.set()
    way.error = Unreachable("no answer", not_sent=False)
    way.lane.send(message(1))
    await way.posted(1)
    way.error = Unreachable("refused", not_sent=True)
    await way.posted(2)
    assert not way.lane.withdraw(1)


async def test_what_has_been_answered_is_not_sent_again(way):
    """A peer that has restarted would take it for something new."""
    way.gate.set()
    way.error = Unreachable("no answer", not_sent=False)
    way.lane.send(message(1))
    way.lane.send(message(2))
    await way.posted(1)
    way.lane.silence(1)
    way.error = None
    await way.lane.taken(2)
    assert way.taken == [Void(), message(2)]


async def test_a_message_whose_first_try_has_failed_is_in_doubt_until_it_is_taken(way):
    way.gate.set()
    way.error = Unreachable("no answer", not_sent=False)
    way.lane.send(message(1))
    await way.posted(2)
    assert way.lane.doubtful(1)
    assert not way.lane.doubtful(2), "it was never tried"
    way.error = None
    await way.lane.taken(1)
    assert not way.lane.doubtful(1)


async def test_a_forward_that_never_left_is_503_and_is_never_run(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.until(lambda: net.hosts[A].store.row(key).state is Ownership.FOREIGN, "the acceptance")
    net.refused.add((A, B))
    answer = await net.post(A, "imsi-1", key="k", limit_s=0.2)
    assert (answer.status, b"NF_CONGESTION" in answer.body) == (503, True)
    net.refused.clear()
    assert await net.add(A, "imsi-1") == 3  # behind it in the lane
    assert net.hosts[B].units.run_count == 2


async def test_a_forward_that_may_have_arrived_is_504(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.until(lambda: net.hosts[A].store.row(key).state is Ownership.FOREIGN, "the acceptance")
    net.lost_answers.add((A, B))
    net.cut.add((B, A))
    assert (await net.post(A, "imsi-1", key="k", limit_s=0.2)).status == 504
    net.lost_answers.clear()
    net.cut.clear()
    assert await net.add(A, "imsi-1", key="k") == 3


async def test_a_second_way_that_failed_for_certain_does_not_make_the_first_one_certain(net):
    """A request that rode in a forward may have run there, also if nothing of its next forward has left."""
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    assert await net.add(B, "imsi-1") == 2
    await net.until(lambda: net.hosts[A].store.row(key).state is Ownership.FOREIGN, "the acceptance")
    net.cut.add((B, A))
    host = net.hosts[A]
    reply = net.post(A, "imsi-1", key="k", limit_s=0.5)
    await net.until(lambda: net.hosts[B].units.run_count == 2, "the unit")
    (job,) = host.forwards.take_back(key)
    net.refused.add((A, B))
    host.actor(key).submit(job)
    assert (await reply).status == 504


async def test_a_message_whose_handling_failed_is_in_no_answer_and_comes_again():
    taken, fail = [], asyncio.Event()

    async def handle(m: object) -> None:
        if not fail.is_set():
            await fail.wait()
            raise RuntimeError("the disk")
        taken.append(m)

    receiver = Receiver(handle)
    batch = [LaneBatch("a", 1, None, 0, 1, n, [message(n)]) for n in (1, 2)]
    first = asyncio.create_task(receiver.take(batch[0]))
    second = asyncio.create_task(receiver.take(batch[1]))
    await asyncio.sleep(0)
    fail.set()
    with pytest.raises(RuntimeError):
        await first
    assert await second == 0
    assert await receiver.take(batch[0]) == 2
    assert taken == [message(1), message(2)]


async def test_what_came_early_to_an_incarnation_that_is_gone_is_sent_again_though_nothing_else_is_to_be_sent():
    receivers = [Receiver(lambda m: _note(taken, m)) for _ in range(2)]
    taken: list[object] = []
    late = asyncio.Event()

    async def encoded(batch: LaneBatch) -> LaneBatch:
        return batch

    async def post(batch: LaneBatch) -> Response:
        incarnation = 1 if late.is_set() or batch.first == 1 else 0
        if batch.first == 1:
            await late.wait()
        through = await receivers[incarnation].take(batch)
        early.set()
        return Response(200, [], ack(Hello("b", incarnation + 1), through))

    early = asyncio.Event()
    lane = Lane(B, Hello("a", 1), post, LaneBatch, encoded, durable_lsn=lambda: 0, window=2, batch_messages=1)
    lane.send(message(1))
    lane.send(message(2))
    await early.wait()
    await asyncio.sleep(0)
    assert (taken, lane.through) == ([], 0)
    late.set()
    async with asyncio.timeout(10):
        await lane.taken(2)
    assert taken == [message(1), message(2)]
    await lane.close()


async def _note(taken: list[object], message: object) -> None:
    taken.append(message)


async def test_what_was_long_on_its_way_on_one_lane_is_no_sign_of_a_lost_store():
    async def handle(_: object) -> None:
        pass

    def batch(incarnation: int, durable_lsn: int) -> LaneBatch:
        return LaneBatch("a", incarnation, None, durable_lsn, 1, 1, [message(1)])

    heard = PeerStore()
    control, bulk = Receiver(handle, heard), Receiver(handle, heard)
    assert await control.take(batch(1, 90)) == 1
    heard.known("a", 90)
    assert await bulk.take(batch(1, 50)) == 1
    with pytest.raises(StoreLost, match="is at 50, but was at 90"):
        await bulk.take(batch(2, 50))
    assert await bulk.take(batch(2, 90)) == 1
    with pytest.raises(Outlived):
        await control.take(batch(1, 95))
    restarted = PeerStore()
    restarted.known("a", 90)
    with pytest.raises(StoreLost):
        await Receiver(handle, restarted).take(batch(1, 50))


async def test_both_lanes_of_a_peer_are_judged_by_what_either_told(net):
    await net.begin("m", A, B, relocate=False)
    peers = net.hosts[B].peers
    assert peers.receiver(A).store is peers.landing(A)[1].store is peers.heard(A)
