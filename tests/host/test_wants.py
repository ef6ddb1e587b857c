"""Asking for a key (WANT): what an answer that is no grant does at once, and what it costs nobody."""

import asyncio

import pytest
from structlog.testing import capture_logs

from outrider.core import limits
from outrider.host.asserted import Asserted
from outrider.protocol import messages
from outrider.protocol.ownership import Held, Ownership, Vol

A, B, C = "999-70", "999-71", "999-72"


def state(net, network, key):
    return net.hosts[network].store.row(key).state


def told(net, network, kind):
    """What a host sends from now on, of one kind, with the peer that it is for."""
    host, sent = net.hosts[network], []
    send = host.send

    def noting(peer, message):
        if isinstance(message, kind):
            sent.append((peer, message))
        return send(peer, message)

    host.send = noting
    return sent


@pytest.mark.parametrize("known", [True, False])
async def test_what_waits_for_a_grant_that_is_refused_goes_to_the_owner_at_once(net, monkeypatch, known):
    monkeypatch.setattr(limits, "WANT_LIMIT_MS", 60_000)  # so what goes on does so because of the refusal
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    if known:
        net.hosts[B].identities.learn("imsi-1", key)
    net.hosts[B].permitted = False
    first, second = net.post(B, "imsi-1", key="k1"), net.post(B, "imsi-1", key="k2")
    answers = await asyncio.gather(first, second)
    assert [(a.status, a.body) for a in answers] == [(200, b"2"), (200, b"3")]
    assert net.hosts[B].store.row(key).refused
    assert net.hosts[A].units.run_count == 3


async def test_what_waits_for_a_grant_that_is_recalled_goes_to_the_owner_at_once(net, monkeypatch):
    monkeypatch.setattr(limits, "WANT_LIMIT_MS", 60_000)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    net.hosts[B].identities.learn("imsi-1", key)
    net.cut.add((A, B))
    asked = net.post(B, "imsi-1", key="k1", limit_s=30.0)
    await net.until(lambda: state(net, A, key) is Ownership.GRANTED, "the grant")
    net.hosts[B].grants.received = lambda *_: None  # the grant itself is lost: only the recall arrives
    await net.hosts[A].abort("m", "OPERATOR")
    net.cut.clear()
    answer = await asked
    assert (answer.status, answer.body) == (200, b"2")
    assert state(net, A, key) is Ownership.OWNED


@pytest.mark.parametrize("known", [True, False])
async def test_a_network_that_wants_a_key_held_for_another_is_told_so(net, known):
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    host = net.hosts[A]
    actor = host.actor(key)
    actor.deliveries = 1  # something is open, so the hold lasts
    actor.vol = Vol(held=Held(C, "other"))
    sent = told(net, A, messages.NotOwner)
    want = messages.Want("m", key if known else None, None if known else "imsi-1", host.migrations.evidence("m"))
    host.reception.want(B, want)
    await net.until(lambda: sent, "the answer")
    said = messages.NotOwner(key, 1, A, "HELD_FOR_ANOTHER", identity=None if known else "imsi-1")
    assert sent == [(B, said)]
    assert actor.vol.held == Held(C, "other")


async def test_a_network_that_asked_by_identity_is_told_by_identity_that_the_hold_ended(net, monkeypatch):
    monkeypatch.setattr(limits, "WANT_LIMIT_MS", 60_000)
    monkeypatch.setattr(limits, "HOLD_LIMIT_MS", 50)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    net.hosts[A].actor(key).deliveries = 1
    answer = await net.post(B, "imsi-1", key="k1")
    assert (answer.status, answer.body) == (200, b"2")
    assert state(net, A, key) is Ownership.OWNED


async def test_a_key_that_was_not_given_is_not_asked_for_again_at_once(net, monkeypatch):
    monkeypatch.setattr(limits, "WANT_BACKOFF_MS", 60_000)
    key = await net.create("imsi-1")
    await net.begin("m", A, B, relocate=False)
    net.hosts[B].identities.learn("imsi-1", key)
    wants = told(net, B, messages.Want)
    for count in (2, 3, 4):
        assert (await net.post(B, "imsi-1", key=f"k{count}")).body == str(count).encode()
    assert len(wants) == 1


@pytest.mark.parametrize(("ues", "at_once", "per_s"), [(100, 1_000, 200), (1_000_000, 50_000, 10_000)])
def test_asserted_arrivals_are_bounded_by_what_the_migration_is_about(ues, at_once, per_s):
    asserted = Asserted()
    passed = sum(asserted.passes("m", B, ues, 0.0) for _ in range(2 * at_once))
    assert passed == at_once
    assert asserted.passes("other", B, ues, 0.0), "each migration has a bucket of its own"
    for s in range(1, 4):
        assert sum(asserted.passes("m", B, ues, float(s)) for _ in range(2 * per_s)) == per_s


def test_too_many_asserted_arrivals_are_logged_once_a_second():
    asserted = Asserted()
    with capture_logs() as logs:
        for n in range(20_000):
            asserted.passes("m", B, 0, n / 20_000 * 2)
    assert [(entry["event"], entry["peer"], entry["per_s"]) for entry in logs] == [("arrivals.too-many", B, 200)] * 2
    assert logs[1]["refused"] > 5_000, "each line tells how many there were"


@pytest.mark.parametrize("known", [True, False])
async def test_more_asserted_arrivals_than_may_be_are_served_by_the_owner(net, monkeypatch, known):
    monkeypatch.setattr(limits, "WANT_LIMIT_MS", 60_000)
    monkeypatch.setattr(limits, "ASSERTED_SHARE_PER_S", 0.0)
    monkeypatch.setattr(limits, "ASSERTED_PER_S", 0.001)
    monkeypatch.setattr(limits, "ASSERTED_BURST_S", 2_000)
    keys = [await net.create(f"imsi-{i}") for i in range(3)]
    await net.begin("m", A, B)
    if known:
        for i, key in enumerate(keys):
            net.hosts[B].identities.learn(f"imsi-{i}", key)
    sent = told(net, A, messages.NotOwner)
    for i in range(3):
        assert (await net.post(B, f"imsi-{i}", key=f"k{i}")).body == b"2"
    assert [state(net, A, key) for key in keys[2:]] == [Ownership.OWNED]
    assert [state(net, B, key) for key in keys] == [Ownership.OWNED, Ownership.OWNED, Ownership.FOREIGN]
    assert [(m.key, m.cause) for _, m in sent] == [(keys[2], "ARRIVAL_RATE")]


async def test_home_may_have_any_number_of_ues_back(net, monkeypatch):
    keys = [await net.create(f"imsi-{i}") for i in range(3)]
    await net.begin("m", A, B)
    for i in range(3):
        assert await net.add(B, f"imsi-{i}") == 2
    monkeypatch.setattr(limits, "ASSERTED_PER_S", 0.0)
    monkeypatch.setattr(limits, "ASSERTED_SHARE_PER_S", 0.0)
    await net.until(lambda: all(state(net, A, key) is Ownership.FOREIGN for key in keys), "the acceptances")
    net.stayed()
    for i in range(3):
        net.hosts[A].identities.registered(f"imsi-{i}")
    await net.until(lambda: all(state(net, A, key) is Ownership.OWNED for key in keys), "all of them")


async def test_a_contract_that_moves_all_asks_for_no_rate(net, monkeypatch):
    monkeypatch.setattr(limits, "ASSERTED_PER_S", 0.0)
    monkeypatch.setattr(limits, "ASSERTED_SHARE_PER_S", 0.0)
    key = await net.create("imsi-1")
    await net.begin("m", A, B, relocate=False)
    await net.hosts[A].migrations.change("m", move_all=True, relocating=True)
    assert (await net.post(B, "imsi-1", key="k")).body == b"2"
    assert state(net, B, key) is Ownership.OWNED


@pytest.mark.parametrize("known", [True, False])
async def test_what_waits_for_a_grant_is_answered_when_its_own_time_is_up(net, monkeypatch, known):
    monkeypatch.setattr(limits, "WANT_LIMIT_MS", 60_000)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    if known:
        net.hosts[B].identities.learn("imsi-1", key)
    net.cut.add((B, A))
    late, behind = net.post(B, "imsi-1", key="k1", limit_s=30.0), net.post(B, "imsi-1", key="k2", limit_s=0.05)
    assert (await behind).status == 503
    assert not late.done()
    net.cut.clear()
    assert (await late).body == b"2"


async def test_a_ue_that_is_being_created_is_not_given_before_home_has_bound_its_key(net):
    await net.begin("m", A, B)
    reply = net.post(A, "imsi-1", create=True, key="k1")
    net.hosts[A].reception.want(B, messages.Want("m", None, "imsi-1", net.hosts[B].migrations.evidence("m")))
    assert (await reply).body == b"1"
    assert net.hosts[A].store.key_of("imsi-1") is not None
    assert await net.add(B, "imsi-1") == 2


async def test_an_emergency_creates_a_ue_through_another_network_too(net):
    await net.begin("m", A, B, relocate=False)
    assert (await net.post(B, "imsi-1", create=True, kind="emergency")).body == b"1"
