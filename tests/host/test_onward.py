"""Onward between whole hosts: B gives to C as UEs arrive, home gives and takes beside it, and B may go away."""

from pathlib import Path
from typing import Any

import pytest

from outrider.core.refusal import Refusal
from outrider.host.migrations import HostMigration
from outrider.host.onward import gone
from outrider.protocol import messages
from outrider.protocol.ownership import Ownership

A, B, C = "999-70", "999-71", "999-72"


def state(net: Any, network: str, key: bytes) -> Ownership:
    return net.hosts[network].store.row(key).state


async def onward(net: Any, directory: Path, *, sweep: str = "arrived") -> None:
    """A has given to B, and the service goes onward from B to C; home takes part."""
    await net.start(C, directory / "c", digest_key=net.hosts[A].store.identity.digest_key.hex())
    await net.begin("m", A, B)
    await net.until(
        lambda: net.hosts[A].followers.durable("m"), "the copy"
    )  # the LMSF goes onward from RELOCATING only
    store_id = net.hosts[C].store.identity.store_id
    await net.hosts[A].begin(HostMigration(migration_id="n", role="home", peer=C, home=A, peer_store_id=store_id))
    await net.hosts[A].migrations.change("n", relocating=True)
    await net.begin("n", B, C, sweep=sweep)


@pytest.fixture
async def key(net: Any, tmp_path: Path) -> bytes:
    """A UE that is at B."""
    made = await net.create("imsi-1")
    await onward(net, tmp_path)
    assert await net.add(B, "imsi-1") == 2
    net.stayed()
    return made


async def test_a_ue_that_arrives_at_the_third_network_is_given_by_the_one_that_has_it(net: Any, key: bytes) -> None:
    assert await net.add(C, "imsi-1") == 3
    assert state(net, C, key) is Ownership.OWNED
    await net.until(lambda: state(net, B, key) is Ownership.FOREIGN, "the acceptance")
    assert state(net, A, key) is Ownership.FOREIGN


async def test_a_ue_that_was_never_between_is_given_by_home(net: Any, tmp_path: Path) -> None:
    key = await net.create("imsi-1")
    await onward(net, tmp_path)
    assert await net.add(C, "imsi-1") == 2
    assert state(net, C, key) is Ownership.OWNED
    await net.until(lambda: state(net, A, key) is Ownership.FOREIGN, "the acceptance")


async def test_a_ue_that_turns_home_from_the_third_network_is_given_back(net: Any, key: bytes) -> None:
    assert await net.add(C, "imsi-1") == 3
    await net.until(lambda: state(net, B, key) is Ownership.FOREIGN, "the acceptance")
    net.stayed()
    net.hosts[A].identities.registered("imsi-1")
    await net.until(lambda: state(net, A, key) is Ownership.OWNED, "the way home")
    assert await net.add(A, "imsi-1") == 4


async def test_home_finds_a_ue_where_it_went(net: Any, key: bytes) -> None:
    assert await net.add(C, "imsi-1") == 3
    assert await net.add(A, "imsi-1") == 4
    assert state(net, C, key) is Ownership.OWNED


async def test_home_finds_a_ue_when_the_network_between_is_gone(net: Any, key: bytes) -> None:
    assert await net.add(C, "imsi-1") == 3
    await net.until(lambda: state(net, B, key) is Ownership.FOREIGN, "the acceptance")
    assert await gone(net.hosts[A], B, C) > 0
    epoch = net.hosts[A].store.row(key).epoch
    assert (net.hosts[A].store.row(key).peer, epoch) == (C, 2), "the name changes, and no epoch"
    await net.stop(B)
    await net.restart(A)
    assert await net.add(A, "imsi-1") == 4
    assert await gone(net.hosts[A], B, C) == 0


async def test_the_third_network_asks_home_when_the_network_between_is_gone(net: Any, key: bytes) -> None:
    host = net.hosts[C]
    host.note_route(key, 2, B)
    assert host.route(key, host.store.row(key)) == (2, B)
    await gone(host, B, A)
    assert host.route(key, host.store.row(key))[1] == A


async def test_what_has_gone_onward_is_erased_only_when_home_has_it(net: Any, key: bytes) -> None:
    net.cut.add((B, A))
    assert await net.add(B, "imsi-1") == 3
    assert await net.add(C, "imsi-1") == 4
    await net.until(lambda: state(net, B, key) is Ownership.FOREIGN, "the acceptance")
    refused = await net.hosts[B].erase()
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.status) == ("SHADOW_BEHIND", 409)
    net.cut.clear()
    shadow = net.hosts[B].followers.shadow
    assert shadow is not None
    await net.until(lambda: not shadow.pending.lag and not net.hosts[B].peers.lane(A).waiting, "the shadow")
    assert await net.hosts[B].erase() == 1


async def test_what_home_will_never_take_does_not_keep_a_store_from_being_erased(net: Any) -> None:
    """A target is prepared, its keeper restarts, a UE is heard there, and home stops before it has begun."""
    await net.create("imsi-1")
    await net.hosts[B].begin(HostMigration(migration_id="m", role="target", peer=A, home=A))
    await net.restart(B)
    net.hosts[B].identities.registered("imsi-1")
    lane = net.hosts[B].peers.lane(A)
    await net.until(lambda: lane.waiting, "a question for home")
    assert net.hosts[B].followers.shadow is not None
    assert await net.hosts[B].erase() == 0


async def test_the_third_network_gives_to_nobody_but_home(net: Any, key: bytes) -> None:
    assert await net.add(C, "imsi-1") == 3
    net.stayed()
    host = net.hosts[C]
    assert host.migrations.may_give("n", A)
    assert not host.migrations.may_give("n", B)
    assert host.migrations.why_not_take("n", A) is host.migrations.why_not_take("n", B) is None
    assert host.migrations.why_not_take("n", "999-99") == "MIGRATION_UNKNOWN"
    assert net.hosts[B].migrations.why_not_take("n", A) == "MIGRATION_UNKNOWN"
    host.reception.want(B, messages.Want("n", key, None, {"kind": "target-asserted"}))
    await net.add(C, "imsi-1")
    assert state(net, C, key) is Ownership.OWNED
