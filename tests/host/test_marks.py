"""What is stored of a UE's requests, or moved without the UE, does not say who the UE is."""

import asyncio
from urllib.parse import quote

import msgspec
import pytest

from outrider.core.record import Answered, Kind
from outrider.host.marks import hide, hide_in_id, show
from outrider.host.migrations import HostMigration
from outrider.protocol.ownership import Ownership
from outrider.sdk import wire

A, B, C = "999-70", "999-71", "999-72"
IMSI, NAI, GPSI = "imsi-999703185270469", "nai-driver@depot.example", "msisdn-882275091463"


def stored(net, network, identity):
    """The answers that are stored for a UE, as bytes, with their keys."""
    store = net.hosts[network].store
    records = store.context(store.key_of(identity)).records
    return [(r.id, r.body) for r in records if r.kind == Kind.IDEMPOTENCY]


@pytest.mark.parametrize("identity", [IMSI, NAI, GPSI])
def test_an_identity_is_hidden_in_every_way_to_write_it_and_shown_byte_for_byte(identity):
    value = identity.partition("-")[2]
    forms = [identity, quote(identity, safe=""), value, quote(value, safe="")]
    said = " ".join(f"/ues/{form}/" for form in forms).encode()
    hidden = hide(said, identity)
    assert not [form for form in forms if form.encode() in hidden]
    assert show(hidden, identity) == said


def test_an_answer_is_given_again_to_whom_the_ue_has_another_identity():
    assert show(hide(f"/{quote(NAI, safe='')}".encode(), NAI), IMSI) == f"/{IMSI}".encode()


def test_a_short_value_is_hidden_with_its_prefix_only():
    assert hide(b"imsi-1 has 1", "imsi-1") == b"\x00UE\x00 has 1"


def test_what_names_no_ue_is_kept_as_it_is():
    assert hide(b"imsi-1", None) == show(b"imsi-1", None) == b"imsi-1"


@pytest.mark.parametrize("key", [f"{IMSI}-7", "999703185270469:7"])
def test_the_key_of_a_careless_consumer_is_stored_without_the_identity(key):
    assert "3185270469" not in hide_in_id(key, IMSI)
    assert hide_in_id(key, IMSI) != hide_in_id(f"{key}8", IMSI)


@pytest.mark.parametrize("identity", [IMSI, NAI])
async def test_a_location_that_names_the_ue_is_stored_with_a_mark_and_given_again_at_the_target(
    net, monkeypatch, identity
):
    location = [("location", f"/nsmf-counter/v1/ues/{quote(identity, safe='')}")]

    async def created(run, **_):
        return wire.Proposal(run.unit, 201, location, identity.encode(), records=[("nsmf-counter", "count", b"1")])

    monkeypatch.setattr(net.workers[A], "run", created)
    first = await net.post(A, identity, key="k", create=True)
    assert (first.status, first.headers, first.body) == (201, location, identity.encode())
    value = identity.partition("-")[2]
    for _, body in stored(net, A, identity):
        assert value.encode() not in body
        assert quote(value, safe="").encode() not in body
    await net.begin("m", A, B)
    again = await net.post(B, identity, key="k", create=True)
    assert (again.status, again.headers, again.body) == (201, location, identity.encode())


async def test_the_digest_of_a_request_does_not_tell_of_which_ue_it_was(net):
    """The target has the digest's key, and there are only so many SUPIs to try."""
    digests = []
    for identity in (IMSI, NAI, GPSI):
        await net.create(identity)
        await net.post(A, identity, key="k")
        [body] = [body for name, body in stored(net, A, identity) if name == "c/k"]
        digests.append(msgspec.msgpack.decode(body, type=Answered).request_digest)
    assert len(set(digests)) == 1


async def test_a_retry_at_the_target_of_a_request_that_rode_in_the_grant_is_the_same_request(net):
    await net.create(IMSI)
    await net.begin("m", A, B)
    gate = net.workers[A].gate = asyncio.Event()
    first = net.post(A, IMSI, key="k1")
    await net.workers[A].entered.wait()
    riding = net.post(A, IMSI, key="k2")
    arriving = net.post(B, IMSI, key="k3")
    await net.until(lambda: net.hosts[A].actors[net.hosts[A].store.key_of(IMSI)]._inbox, "the WANT")
    gate.set()
    assert [(await r).body for r in (first, riding, arriving)] == [b"2", b"3", b"4"]
    for network in (A, B):
        assert (await net.post(network, IMSI, key="k2")).body == b"3"


async def at_b_with_an_onward_way(net, directory):
    """A UE is at B, whose only row it has there; a third network may take what B has."""
    await net.start(C, directory, digest_key=net.hosts[A].store.identity.digest_key.hex())
    key = await net.create(IMSI)
    await net.begin("m", A, B)
    assert await net.add(B, IMSI) == 2
    seen = HostMigration(
        migration_id="onward", role="home", peer=C, home=A, peer_store_id=net.hosts[C].store.identity.store_id
    )
    await net.hosts[A].begin(seen)
    await net.begin("onward", B, C, sweep="all")
    return key


async def test_a_sweep_moves_a_ue_with_a_row_of_its_own_without_its_identity(net, tmp_path):
    key = await at_b_with_an_onward_way(net, tmp_path / "c")
    await net.until(lambda: net.hosts[C].store.row(key).state is Ownership.OWNED, "the sweep")
    assert net.hosts[C].store.key_of(IMSI) is None
    assert await net.add(C, IMSI) == 3, "it is asked for when the UE is there"
    assert net.hosts[C].store.key_of(IMSI) == key


async def test_a_ue_that_arrives_during_a_sweep_is_known_with_its_grant(net, tmp_path, monkeypatch):
    monkeypatch.setattr(net.hosts[B].mover, "_sweep", lambda _: asyncio.Event().wait())  # it comes to others first
    key = await at_b_with_an_onward_way(net, tmp_path / "c")
    net.stayed()
    net.hosts[C].identities.registered(IMSI)
    await net.until(lambda: net.hosts[C].store.row(key).state is Ownership.OWNED, "the grant")
    assert net.hosts[C].store.key_of(IMSI) == key


async def test_home_is_told_whose_context_a_sweep_brings_back(net):
    key = await net.create(IMSI)
    await net.begin("m", A, B)
    assert await net.add(B, IMSI) == 2
    named = []
    receive = net.hosts[A].grants.received
    net.hosts[A].grants.received = lambda peer, grant: (named.append(grant.identity), receive(peer, grant))
    await net.begin("m-back", B, A, sweep="all")
    await net.until(lambda: net.hosts[A].store.row(key).state is Ownership.OWNED, "the return")
    assert IMSI in named
