"""The staging file: loading, following, adopting; early UEs win over it; nothing else of the live store changes."""

import pytest

from outrider.core.ids import partition_key, shared_key
from outrider.core.record import NO_HEAD, Change, sum_digests
from outrider.store.port import (
    BindIdentity,
    Done,
    Erase,
    Follow,
    Followed,
    PartitionSum,
    Replace,
    SetRow,
    SetValue,
    StagingBroken,
    Take,
    Work,
)


def content(make, key, n, *bodies, epoch=1):
    records = make.records(key, n, *bodies)
    return (key, *make.head(epoch, n, records)), records


def chunk_of(make, keys, n=3, body=b"staged", epoch=1):
    parts = [content(make, key, n, body, key, epoch=epoch) for key in keys]
    return [head for head, _ in parts], [r for _, records in parts for r in records]


def test_an_adopted_file_holds_what_was_loaded(kit, store, make, commit):
    keys = [make.ue(n, n % 3) for n in range(30)]
    heads, records = chunk_of(make, sorted(keys))
    staging = store.stage("m-1")
    staging.load(heads[:10], records[:20])
    staging.load(heads[10:], records[20:])
    expected = PartitionSum(30, sum_digests(h[3] for h in heads))
    assert staging.partition_sum(b"u", b"v") == expected
    assert store.heads(b"u", b"v") == []
    store.adopt(staging)
    assert store.heads(b"u", b"v") == heads
    assert store.partition_sum(b"u", b"v") == expected
    assert store.check() == []
    again = kit.open()
    assert again.heads(b"u", b"v") == heads
    assert again.check() == []


def test_loading_a_ue_again_replaces_it(store, make):
    staging = store.stage("m-1")
    keys = [make.ue(n) for n in (1, 2, 3)]
    staging.load(*chunk_of(make, keys))
    second = [keys[0], keys[2]]
    staging.load(*chunk_of(make, second, n=4, body=b"newer"))
    store.adopt(staging)
    assert [store.context(k).head.n for k in keys] == [4, 3, 4]
    assert [store.context(k).records[0].body for k in keys] == [b"newer", b"staged", b"newer"]
    assert store.check() == []


def test_the_log_is_followed_in_the_staging_file(store, make):
    key, unknown = make.ue(1), make.ue(2)
    head, records = content(make, key, 3, b"one")
    staging = store.stage("m-1")
    staging.load([head], records)
    entry = make.entry(key, make.head(1, 3, records), records, make.put("r0", b"two"))
    stray = make.entry(unknown, make.head(1, 8), [], make.put("r0"))
    assert staging.follow([entry, stray]) == Followed(1, 0, [unknown])
    assert staging.follow([entry]) == Followed(0, 1, [])
    store.adopt(staging)
    assert store.context(key).head == entry.head
    assert store.context(key).records[0].body == b"two"


def test_everything_of_the_live_store_survives(kit, store, make, commit):
    """Identity, incarnation, rows, log, values, identities, shared objects, early UEs, timers, outbox."""
    owned, granted, back, refused, unloaded = (make.ue(n) for n in range(1, 6))
    early = [(key, *content(make, key, 5, b"early", epoch=2)) for key in (owned, granted, back, unloaded)]
    for key, head, records in early:
        take = Take(key, make.FOREIGN_0, make.owned(3), make.head(*head[1:3], records), records, identity=f"i{key[-1]}")
        assert isinstance(commit(store, take), Done)
    commit(store, Work(owned, 3, [make.put("own"), make.timer("t", 9), make.message("0001")]))
    commit(store, SetRow(granted, make.owned(3), make.granted(4)))
    commit(store, SetRow(back, make.owned(3), make.foreign(4)))
    commit(store, SetRow(refused, make.FOREIGN_0, make.foreign(2, refused=True)))
    commit(store, SetRow(partition_key(0), make.FOREIGN_0, make.foreign(0)))
    commit(store, SetValue("mig:1", b"state"))
    commit(store, BindIdentity("i-other", refused))
    shared = shared_key("g")
    commit(store, SetRow(shared, make.FOREIGN_0, make.owned(1)))
    commit(store, Work(shared, 1, [make.put("roster")]))
    store.trim_log(1)

    staging = store.stage("m-7")
    staging.load(*chunk_of(make, [owned, granted, back, refused, make.ue(9)], n=50, epoch=3))
    before = {key: store.context(key) for key in (owned, granted, unloaded, shared)}
    seen = (store.identity, store.own_rows(b"", b"\xff"), store.values(""), store.log(0, 10), store.last_lsn())
    store.adopt(staging)
    assert seen == (store.identity, store.own_rows(b"", b"\xff"), store.values(""), store.log(0, 10), store.last_lsn())
    assert {key: store.context(key) for key in before} == before
    assert store.context(back).head.n == 50  # a copy of a foreign key: the newer one
    assert store.context(refused).head.n == 50
    assert store.context(make.ue(9)).head.n == 50
    assert (store.key_of("i-other"), store.identity_of(owned)) == (refused, "i1")
    assert [r.key for r in store.due_timers(100, 10)] == [owned]
    assert store.outbox_keys() == [owned]
    assert commit(store, Work(owned, 3, [make.put("own", b"after")])).lsn == 3
    assert store.check() == []
    again = kit.open()
    assert again.identity.store_id == store.identity.store_id
    assert again.identity.incarnation == store.identity.incarnation + 1
    assert again.last_lsn() == 3
    assert again.check() == []


def test_a_foreign_copy_that_is_newer_than_the_staged_one_stays(store, make, commit):
    key = make.ue(1)
    commit(store, SetRow(key, make.FOREIGN_0, make.foreign(1)))
    staging = store.stage("m-1")
    staging.load(*chunk_of(make, [key], n=3))
    head, records = content(make, key, 4, b"newer")
    commit(store, Replace(key, key + b"\0", [head], records))
    store.adopt(staging)
    assert store.context(key).records == records
    assert store.check() == []


def test_commits_go_on_while_a_staging_file_is_loaded(store, make, commit):
    staging = store.stage("m-1")
    for number in range(20):
        staging.load(*chunk_of(make, [make.ue(number)]))
        records = make.records(make.ue(number, 1), 1, b"early")
        take = Take(make.ue(number, 1), make.FOREIGN_0, make.owned(2), make.head(1, 1, records), records)
        assert isinstance(commit(store, take), Done)
    store.adopt(staging)
    assert len(store.heads(b"u", b"v")) == 40
    assert store.check() == []


def test_a_store_with_copies_that_follow_a_star_takes_chunks_into_the_live_file(store, make, commit):
    head, records = content(make, make.ue(1), 3, b"x")
    commit(store, Replace(b"u", b"v", [head], records))
    with pytest.raises(ValueError, match="copies"):
        store.stage("m-1")
    commit(store, Erase([make.ue(1)]))
    store.stage("m-1").discard()


def test_a_discarded_staging_file_leaves_no_trace(store, make, tmp_path):
    staging = store.stage("m-1")
    staging.load(*chunk_of(make, [make.ue(1)]))
    staging.discard()
    assert [p for p in tmp_path.rglob("*") if "staging" in p.name] == []
    assert store.heads(b"u", b"v") == []
    store.stage("m-2").discard()


def test_copies_do_not_take_each_others_staging_files(store, make):
    one, other = store.stage("m-1"), store.stage("n-1")
    one.load(*chunk_of(make, [make.ue(1)]))
    other.load(*chunk_of(make, [make.ue(2), make.ue(3)]))
    other.discard()
    store.adopt(one)
    assert [h[0] for h in store.heads(b"u", b"v")] == [make.ue(1)]


def test_a_new_generation_begins_empty(store, make):
    store.stage("m-1").load(*chunk_of(make, [make.ue(1)]))
    staging = store.stage("m-2")
    assert staging.partition_sum(b"u", b"v").ues == 0
    staging.discard()


def test_a_staging_file_of_an_earlier_opening_is_discarded(kit, store, make, tmp_path):
    store.stage("m-1").load(*chunk_of(make, [make.ue(1)]))
    again = kit.open()
    assert [p for p in tmp_path.rglob("*") if "staging" in p.name] == []
    assert again.heads(b"u", b"v") == []


@pytest.mark.parametrize("wrong", ["record without head", "head twice", "other body", "older version"])
def test_of_a_chunk_whose_records_do_not_add_up_nothing_is_loaded(store, make, wrong):
    key = make.ue(1)
    staging = store.stage("m-1")
    heads, records = chunk_of(make, [key, make.ue(2)])
    match wrong:
        case "record without head":
            heads = heads[1:]
        case "head twice":
            heads = [heads[0], *heads]
        case "other body":
            records = [records[0]._replace(body=b"other"), *records[1:]]
        case "older version":
            records = [records[0]._replace(version=1), *records[1:]]
    assert staging.load(heads, records) == [key]
    assert staging.partition_sum(b"u", b"v").ues == 0
    staging.discard()


@pytest.mark.parametrize("wrong", ["record twice", "impossible", "follow"])
def test_a_chunk_that_cannot_be_breaks_the_staging_file_and_not_the_store(store, make, commit, wrong):
    key = make.ue(1)
    staging = store.stage("m-1")
    heads, records = chunk_of(make, [key])
    entries = None
    match wrong:
        case "record twice":
            records = records * 2
            heads = [(key, *make.head(1, 3, records))]
        case "impossible":
            records = [records[0]._replace(kind=9)]
            heads = [(key, *make.head(1, 3, records))]
        case "follow":
            entries = [make.entry(key, NO_HEAD, [], Change(0, "nf", "a", b"", 17))]
    with pytest.raises(StagingBroken, match="staging"):
        staging.follow(entries) if entries else staging.load(heads, records)
    with pytest.raises(StagingBroken, match="earlier failure"):
        staging.load([], [])
    with pytest.raises(StagingBroken, match="earlier failure"):
        store.adopt(staging)
    staging.discard()
    assert commit(store, Follow([])) == Followed(0, 0, [])
    assert store.check() == []
