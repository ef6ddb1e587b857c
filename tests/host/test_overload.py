"""More requests than a host can serve: the surplus is refused at the door, and everything else goes on."""

import asyncio
import math
import threading
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from outrider.core import limits
from outrider.core.ids import NetworkId, partition_key
from outrider.host.front import Front
from outrider.host.places import Places
from outrider.protocol.ownership import Ownership
from outrider.sbi.http import Request
from outrider.sbi.tokens import TokenIssuer, TokenVerifier

A, B = "999-70", "999-71"
PLACES, WAITING, SURPLUS = 4, 6, 10
EMERGENCY = {"3gpp-sbi-message-priority": "0"}


class Door:
    """The front of a host with tokens, as a server asks it: first whether to read a request at all."""

    def __init__(self, host):
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._issuer = TokenIssuer(private, "nrf", NetworkId.parse(A))
        self.front = Front(host, TokenVerifier({"nrf": public}))
        self.unread = 0
        """Requests that were answered unread."""

    async def ask(self, method, path, *, audience="SMF", scope="nsmf-counter", headers=None):
        token = self._issuer.issue(subject="c", audience=audience, scope=scope)
        sent = {"authorization": f"Bearer {token}", **(headers or {})}
        refused = self.front.refuse(path, sent.get)
        if refused is not None:
            self.unread += 1
            return refused
        return await self.front(Request(method, path, "", sent))

    def add(self, supi, **how):
        return asyncio.ensure_future(self.ask("POST", f"/nsmf-counter/v1/ues/{supi}/add", **how))

    async def status(self):
        return await self.ask("GET", "/outrider-host/v1/status", audience="LMSF", scope="outrider-host")


@pytest.fixture
async def few(net):
    """Home has UEs, and few places for their requests."""
    net.hosts[A].units._places = Places(PLACES)
    names = [f"imsi-{i}" for i in range(PLACES + WAITING + SURPLUS)]
    await asyncio.gather(*map(net.create, names))
    net.workers[A].limits_ms.clear()
    return names


@pytest.fixture
async def flooded(net, few, monkeypatch):
    """Home's worker is busy with as many requests as it takes, and more wait than may."""
    monkeypatch.setattr(limits, "UNITS_WAITING", WAITING)
    gate = net.workers[A].gate = asyncio.Event()
    door = Door(net.hosts[A])
    asked = {name: door.add(name) for name in few}
    await net.until(lambda: sum(f.done() for f in asked.values()) >= SURPLUS, "the surplus to be refused")
    yield SimpleNamespace(net=net, host=net.hosts[A], door=door, gate=gate, asked=asked)
    gate.set()
    await asyncio.gather(*asked.values())


async def count(net, name):
    store = net.hosts[A].store
    return next(r.body for r in store.context(store.key_of(name)).data() if r.id == "count")


async def test_the_surplus_is_refused_and_none_of_it_is_executed(flooded):
    refused = {name: f.result() for name, f in flooded.asked.items() if f.done()}
    assert len(refused) == SURPLUS
    for answer in refused.values():
        assert (answer.status, answer.json()["cause"], answer.header("retry-after")) == (503, "NF_CONGESTION", "1")
    flooded.gate.set()
    served = [await f for name, f in flooded.asked.items() if name not in refused]
    assert {answer.status for answer in served} == {200}
    assert flooded.host.units.run_count == len(flooded.asked) + len(served)  # each was created by one unit, too
    assert {await count(flooded.net, name) for name in refused} == {b"1"}


async def test_while_it_is_full_a_request_is_refused_unread_and_without_a_look_into_the_store(flooded, monkeypatch):
    def no(*_):
        raise AssertionError("the store was read for a request that is refused")

    with monkeypatch.context() as patched:
        for read in ("row", "context", "key_of"):
            patched.setattr(flooded.host.store, read, no)
        before = flooded.door.unread
        answers = await asyncio.gather(*(flooded.door.add("imsi-0") for _ in range(100)))
    assert {answer.status for answer in answers} == {503}
    assert flooded.door.unread - before == 100


async def test_control_is_answered_while_it_is_full(flooded):
    answer = await flooded.door.status()
    assert answer.status == 200
    assert flooded.door.front.refuse("/nlmsf-relocation/v1/services/counter/lane", {}.get) is None
    assert flooded.door.front.refuse("/outrider-arrivals/v1/secret", {}.get) is None


async def test_a_context_changes_owner_while_it_is_full(flooded):
    net = flooded.net
    key = flooded.host.store.key_of(next(name for name, f in flooded.asked.items() if f.done()))
    name = flooded.host.store.identity_of(key)
    await net.begin("m", A, B)
    assert await net.add(B, name) == 2
    assert flooded.host.store.row(key).state is not Ownership.OWNED
    assert not flooded.gate.is_set()


async def test_a_context_whose_request_only_waits_for_its_turn_changes_owner_and_takes_it_along(flooded):
    net, name = flooded.net, list(flooded.asked)[PLACES]
    waiting = flooded.asked[name]
    assert not waiting.done()
    await net.begin("m", A, B)
    assert await net.add(B, name) == 3
    assert (await waiting).body == b"2"
    assert net.workers[B].limits_ms
    assert not flooded.gate.is_set()


async def test_a_partition_waits_for_what_the_worker_has_and_not_for_what_waits_for_it(flooded):
    net, store = flooded.net, flooded.host.store
    in_worker = {store.key_of(name)[1] for name in list(flooded.asked)[:PLACES]}
    waiting = {store.key_of(name)[1] for name, f in flooded.asked.items() if not f.done()}
    assert waiting - in_worker
    await net.begin("m", A, B, sweep="all")
    gone = [partition_key(partition) for partition in waiting - in_worker]
    await net.until(lambda: all(store.row(star).state is Ownership.FOREIGN for star in gone), "the partitions")
    assert all(store.row(partition_key(p)).state is Ownership.OWNED for p in in_worker)
    assert not flooded.gate.is_set()


async def test_an_emergency_is_let_in_and_waits_for_no_place(flooded):
    entered = flooded.net.workers[A].limits_ms
    before = len(entered)
    urgent = flooded.door.add(next(name for name, f in flooded.asked.items() if f.done()), headers=EMERGENCY)
    await flooded.net.until(lambda: len(entered) > before, "the worker to have it")
    flooded.gate.set()
    assert (await urgent).status == 200


async def test_another_networks_request_is_refused_only_when_it_is_known_not_to_have_run(flooded):
    net, host = flooded.net, flooded.host
    await net.begin("m", A, B, relocate=False)
    name = next(name for name, f in flooded.asked.items() if f.done())
    assert (await net.post(B, name, key="k")).status == 503
    flooded.gate.set()
    await asyncio.gather(*flooded.asked.values())
    assert (await net.post(B, name, key="k")).body == b"2"
    net.workers[A].gate = asyncio.Event()
    again = [flooded.door.add(n) for n in flooded.asked]
    await net.until(lambda: host.units.congested(), "the second flood")
    assert (await net.post(B, name, key="k")).body == b"2"  # it has run, so it is answered, not refused
    net.workers[A].gate.set()
    await asyncio.gather(*again)


async def test_when_it_is_over_requests_are_let_in_again(flooded):
    flooded.gate.set()
    await asyncio.gather(*flooded.asked.values())
    assert (await flooded.door.add("imsi-0")).status == 200


async def test_a_request_that_would_wait_too_long_is_refused(net, few, monkeypatch):
    monkeypatch.setattr(limits, "UNIT_WAIT_MS", 0)
    gate = net.workers[A].gate = asyncio.Event()
    door = Door(net.hosts[A])
    asked = [door.add(name) for name in few[: PLACES + 1]]
    await net.until(lambda: net.hosts[A].units.congested(), "the last one to have waited")
    assert (await door.add("imsi-0")).status == 503
    gate.set()
    assert {(await f).status for f in asked} == {200}


async def test_a_disk_that_stands_still_refuses_too(net, few, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_BATCH", 1)
    door, disk = Door(net.hosts[A]), threading.Event()
    standing = [net.hosts[A].committer.run(disk.wait) for _ in range(3)]
    assert (await door.add("imsi-1")).status == 503
    disk.set()
    await asyncio.gather(*standing)
    assert (await door.add("imsi-1")).status == 200


# ---------------------------------------------------------------------------------------------- places


async def test_the_oldest_request_gets_the_next_place():
    places = Places(1)
    assert places.take()
    order = []

    async def one(arrived_s):
        await places.wait(arrived_s, math.inf)
        order.append(arrived_s)

    waiting = [asyncio.ensure_future(one(s)) for s in (3.0, 1.0, 2.0)]
    await asyncio.sleep(0)
    for _ in waiting:
        places.leave()
        await asyncio.sleep(0)
    assert order == [1.0, 2.0, 3.0]
    assert not places.take()
    places.leave()
    assert places.take()


async def test_whoever_gives_up_leaves_its_turn_to_the_next():
    places = Places(1)
    places.take()
    first, second = (asyncio.ensure_future(places.wait(s, math.inf)) for s in (1.0, 2.0))
    await asyncio.sleep(0)
    places.leave()
    first.cancel()  # its turn has come, and it does not take it
    await second
    assert first.cancelled()
    assert not places.take()


async def test_whoever_has_no_time_left_waits_no_longer():
    places = Places(1)
    places.take()
    now_s = asyncio.get_running_loop().time()
    assert await places.wait(1.0, now_s + 0.03) == "late"
    assert not len(places)
    places.leave()
    assert places.take()


async def test_an_urgent_one_takes_a_place_beyond_those_that_there_are():
    places = Places(1)
    assert places.take()
    assert places.take(first=True)
    waiting = asyncio.ensure_future(places.wait(0.0, math.inf))
    await asyncio.sleep(0)
    places.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    places.leave()
    await waiting


async def test_what_is_expected_follows_the_pace(monkeypatch):
    now = [0.0]
    places = Places(1)
    monkeypatch.setattr(
        places, "_loop", SimpleNamespace(time=lambda: now[0], create_future=asyncio.Future, call_later=lambda *_: None)
    )
    places.take()
    waiting = [asyncio.ensure_future(places.wait(0.0, math.inf)) for _ in range(100)]
    await asyncio.sleep(0)
    assert places.expected_s() == 0.0
    for _ in range(50):
        now[0] += 0.01
        places.leave()
    assert places.expected_s() == pytest.approx(0.5)  # 50 more, 10 ms each
    now[0] += 10.0
    assert places.expected_s() > 10.0
    for _ in range(50):
        places.leave()
    assert places.expected_s() == 0.0
    await asyncio.gather(*waiting)
