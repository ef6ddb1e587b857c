"""A seeded context is the one that the API would have made."""

from pathlib import Path

import msgspec
import pytest

from outrider.bench import seed
from outrider.bench.shapes import SHAPES, creation, supi
from outrider.core.ids import PARTITIONS, partition_key
from outrider.demo.access import Access, NetworkAt
from outrider.demo.stage import Stage, new_instance_id
from outrider.protocol.ownership import Ownership, Row
from outrider.sbi.client import SbiClient
from outrider.sbi.tokens import TokenSource
from outrider.sdk.testing import Harness
from outrider.store.port import Context, SetRow
from outrider.store.sqlite import SqliteStore

UES = (1, 2, 77)
SESSION = SHAPES["session"]
NF = SESSION.session.name
body = SESSION.value
canonical = msgspec.json.Encoder(order="sorted")


def without_key(context: Context) -> object:
    """What must be equal: everything but the random key, and the digests, which depend on it and `check` compares."""
    records = [(r.kind, r.nf, r.id, r.body, r.version, r.due_ms) for r in context.records]
    return context.row, context.own, context.head.epoch, context.head.n, records


async def test_a_seeded_record_is_what_the_services_handler_writes():
    async with Harness.of_project(SESSION.service) as h:
        for number in UES:
            created = await h.request(NF, "POST", f"/{NF}/v1/ue-sessions", ue=supi(number), json=creation(number))
            assert created.status == 201
            assert h.names(NF, ue=supi(number)) == ["context"]
            assert canonical.encode(h.record(NF, "context", ue=supi(number))) == body(number)


def test_every_seeded_ue_is_owned_whole_and_found_by_its_identity(tmp_path):
    path = tmp_path / "contexts.db"
    store = SqliteStore.open(path)
    foreign, owned = Row(Ownership.FOREIGN, 0), Row(Ownership.OWNED, 1)
    store.commit([SetRow(partition_key(p), foreign, owned) for p in range(PARTITIONS)])
    store.close()
    size, _ = seed.seed_file(path, 50)
    store = SqliteStore.open(path)
    contexts = [store.context(store.key_of(supi(n))) for n in range(1, 51)]
    assert len({c.key for c in contexts}) == 50
    assert all(c.row == owned and not c.own and len(c.records) == 1 for c in contexts)
    assert sum(len(c.records[0].body) for c in contexts) == size
    assert store.check() == []
    store.close()


def test_a_store_filled_once_is_put_in_the_place_of_the_next(tmp_path: Path):
    (tmp_path / "kept").mkdir()
    seeds = seed.Seeds(tmp_path / "kept")
    sizes = []
    for name in ("one.db", "two.db"):
        store = SqliteStore.open(tmp_path / name)
        store.commit([SetRow(partition_key(p), Row(Ownership.FOREIGN, 0), Row(Ownership.OWNED, 1)) for p in range(256)])
        store.close()
        sizes.append(seeds.put(tmp_path / name, 20, 60.0, "three")[0])
    store = SqliteStore.open(tmp_path / "two.db")
    assert sizes[0] == sizes[1]
    assert [r.nf for r in store.context(store.key_of(supi(20))).records] == sorted(SHAPES["three"].records(20))
    assert store.check() == []
    store.close()


def test_a_store_that_owns_nothing_is_not_seeded(tmp_path):
    SqliteStore.open(tmp_path / "contexts.db").close()
    with pytest.raises(RuntimeError, match="does not own every partition"):
        seed.seed_file(tmp_path / "contexts.db", 1)


@pytest.mark.slow
async def test_a_seeded_context_equals_one_made_through_the_api(tmp_path: Path):
    stage = Stage(tmp_path, rtt_ms=0)
    try:
        await stage.build()
        service = await stage.deploy(SESSION.service)
        await create_by_the_api(stage)
    finally:
        await stage.close()
    store = SqliteStore.open(tmp_path / "a" / "services" / service / "data" / "contexts.db")
    by_api = [store.context(store.key_of(supi(n))) for n in UES]
    seed.seed(store, 100, first=1_000)
    seeded = [store.context(store.key_of(supi(1_000 + n))) for n in UES]
    for made, put, number in zip(by_api, seeded, UES, strict=True):
        assert made.records[0].body == body(number)
        assert put.records[0].body == body(1_000 + number)
        assert without_key(made) == without_key(_as(put, made))
    assert store.check() == []
    store.close()


def _as(context: Context, other: Context) -> Context:
    """The context with the bodies of the other, which differ by the UE that they were derived for."""
    records = [r._replace(body=o.body) for r, o in zip(context.records, other.records, strict=True)]
    return Context(context.key, context.row, context.own, context.head, records)


async def create_by_the_api(stage: Stage) -> None:
    instance = new_instance_id()
    async with SbiClient() as client:
        network = NetworkAt(id=stage.a.id, nrf_root=stage.a.nrf_root)
        access = Access(client, network, TokenSource(client, network.nrf_root, instance, "AF"), instance)
        await access.register()
        for number in UES:
            made = await access.send(SESSION.session, "POST", SESSION.root, json=creation(number))
            assert made.status == 201, made.body
