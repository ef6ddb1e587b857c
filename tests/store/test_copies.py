"""Copies of what others own: following a log, replacing ranges, erasing, and what protects owned keys from them."""

import pytest

from outrider.core.ids import partition_key, shared_key
from outrider.core.record import EMPTY_DIGEST, NO_HEAD, Change, Head
from outrider.store.port import (
    BindIdentity,
    DoesNotFit,
    Done,
    Erase,
    Failed,
    Follow,
    Followed,
    Replace,
    RowChanged,
    SetRow,
    Work,
)


def replace_one(make, key, epoch, n, *bodies):
    records = make.records(key, n, *bodies)
    return Replace(key, key + b"\0", [(key, *make.head(epoch, n, records))], records)


def entries_of_life(make, key):
    """Three units of a key that another network owns: created, changed, one record deleted."""
    first = make.entry(key, NO_HEAD, [], make.put("r0", b"1"), make.put("r1"), lsn=1)
    here = make.records(key, 1, b"1", b"body")
    second = make.entry(key, first.head, here, make.put("r0", b"2"), lsn=2)
    here[0] = here[0]._replace(body=b"2", version=2)
    third = make.entry(key, second.head, here, make.drop("r1"), lsn=3)
    return [first, second, third]


# -------------------------------------------------------------------------------------------- Follow


def test_entries_are_applied_in_order_and_not_logged(store, make, commit):
    key = make.ue(1)
    entries = entries_of_life(make, key)
    assert commit(store, Follow(entries)) == Followed(3, 0, [])
    context = store.context(key)
    assert (context.head, [(r.id, r.body, r.version) for r in context.records]) == (entries[-1].head, [("r0", b"2", 2)])
    assert store.last_lsn() == 0
    assert store.check() == []


def test_entries_that_are_here_are_skipped(store, make, commit):
    entries = entries_of_life(make, make.ue(1))
    commit(store, Follow(entries[:2]))
    assert commit(store, Follow(entries)) == Followed(1, 2, [])
    assert commit(store, Follow(entries)) == Followed(0, 3, [])


def test_a_gap_needs_a_full_and_the_others_go_on(store, make, commit):
    lost, fine = make.ue(1), make.ue(2)
    entries = [*entries_of_life(make, lost)[1:], *entries_of_life(make, fine)]
    assert commit(store, Follow(entries)) == Followed(3, 0, [lost])
    assert store.context(lost).head == NO_HEAD


@pytest.mark.parametrize("wrong", ["digest", "changes", "n", "epoch", "other branch"])
def test_an_entry_that_does_not_lead_to_its_digest_needs_a_full(store, make, commit, wrong):
    key = make.ue(1)
    first, second, _ = entries_of_life(make, key)
    commit(store, Follow([first]))
    match wrong:
        case "digest":
            second = second._replace(head=second.head._replace(digest=b"x" * 16))
        case "changes":
            second = second._replace(changes=[make.put("r0", b"other")])
        case "n":
            second = second._replace(head=second.head._replace(n=5))
        case "epoch":
            second = second._replace(head=second.head._replace(epoch=0))
        case "other branch":
            second = make.entry(key, Head(1, 1, b"y" * 16), [], make.put("r0"))
    assert commit(store, Follow([second])) == Followed(0, 0, [key])
    assert store.context(key).head == first.head
    assert store.check() == []


def test_an_older_branch_with_more_units_is_not_taken_for_newer(store, make, commit):
    """After a reclaim, the copy is of a later epoch than the entries of the lost tail."""
    key = make.ue(1)
    commit(store, replace_one(make, key, 3, 5, b"reclaimed"))
    tail = make.entry(key, Head(2, 6, EMPTY_DIGEST), [], make.put("r0"), epoch=2)
    assert commit(store, Follow([tail])) == Followed(0, 0, [key])
    same_n = make.entry(key, Head(2, 4, EMPTY_DIGEST), [], make.put("r0"), epoch=2)
    assert commit(store, Follow([same_n])) == Followed(0, 0, [key])


def test_an_owned_key_follows_nobody(home, make, commit):
    key = make.ue(1)
    entries = entries_of_life(make, key)
    assert commit(home, Follow(entries)) == Followed(0, 3, [])
    assert home.context(key).head == NO_HEAD


def test_a_granted_key_follows_only_who_has_taken_it(home, make, commit):
    key = make.ue(1)
    head = commit(home, Work(key, 1, [make.put("r0")])).head
    records = home.context(key).records
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    before = make.entry(key, head, records, make.put("r0", b"old epoch"), epoch=1)
    assert commit(home, Follow([before])) == Followed(0, 1, [])
    taken = make.entry(key, head, records, make.put("r0", b"new owner"), epoch=2)
    assert commit(home, Follow([taken])) == Followed(1, 0, [])
    assert home.context(key).head == taken.head
    assert home.last_lsn() == 1
    assert home.check() == []


def test_a_star_follows_nobody(store, make, commit):
    entry = make.entry(partition_key(0), NO_HEAD, [], make.put("r0"))
    assert commit(store, Follow([entry])) == Followed(0, 1, [])
    assert store.heads(b"", b"\xff") == []


def test_shared_objects_are_followed_too(store, make, commit):
    assert commit(store, Follow(entries_of_life(make, shared_key("g")))) == Followed(3, 0, [])


def test_an_entry_with_an_impossible_record_changes_nothing(store, make):
    good, bad = entries_of_life(make, make.ue(1)), make.ue(2)
    impossible = Change(0, "nf", "a", b"", 17)
    entry = make.entry(bad, NO_HEAD, [], make.put("r0"), impossible)
    outcomes = store.commit([Follow([*good, entry]), Follow(good)])
    assert [type(o) for o in outcomes] == [Failed, Followed]
    assert outcomes[1] == Followed(3, 0, [])
    assert store.check() == []


# ------------------------------------------------------------------------------------------- Replace


def test_a_range_is_replaced_and_ghosts_are_deleted(store, make, commit):
    for number in (1, 2, 3, 9):
        commit(store, replace_one(make, make.ue(number), 1, 1, b"old", b"old"))
    new = make.records(make.ue(2), 4, b"new")
    heads = [(make.ue(2), *make.head(1, 4, new)), (make.ue(5), 1, 2, EMPTY_DIGEST)]
    assert commit(store, Replace(make.ue(1), make.ue(9), heads, new)) == Done()
    assert [h[:3] for h in store.heads(b"u", b"v")] == [
        (make.ue(2), 1, 4),
        (make.ue(5), 1, 2),
        (make.ue(9), 1, 1),
    ]
    assert store.context(make.ue(2)).records == new
    assert store.context(make.ue(1)).records == []
    assert store.check() == []


def test_owned_and_granted_keys_stay_as_they_are(home, make, commit):
    owned, granted, foreign, absent = make.ue(1), make.ue(2), make.ue(3), make.ue(4)
    for key in (owned, granted, foreign):
        commit(home, Work(key, 1, [make.put("r0", b"mine")]))
    commit(home, SetRow(granted, make.owned(1), make.granted(2)))
    commit(home, SetRow(foreign, make.owned(1), make.foreign(2)))
    before = {key: home.context(key) for key in (owned, granted)}
    records = [r for key in (owned, foreign) for r in make.records(key, 8, b"theirs")]
    heads = [(r.key, *make.head(2, 8, [r])) for r in records]
    assert commit(home, Replace(b"u\0", b"u\1", heads, records)) == Done()
    assert {key: home.context(key) for key in (owned, granted)} == before
    assert home.context(foreign).records == records[1:]
    commit(home, Replace(b"u\0", b"u\1", [], []))
    assert {key: home.context(key) for key in (owned, granted)} == before
    assert home.context(foreign).head == home.context(absent).head == NO_HEAD
    assert home.check() == []


@pytest.mark.parametrize("wrong", ["digest", "missing record", "record without head", "head twice", "outside"])
def test_a_chunk_that_does_not_add_up_replaces_nothing(store, make, commit, wrong):
    commit(store, replace_one(make, make.ue(1), 1, 1, b"old"))
    records = make.records(make.ue(1), 4, b"a", b"b") + make.records(make.ue(2), 4, b"c")
    heads = [(make.ue(1), *make.head(1, 4, records[:2])), (make.ue(2), *make.head(1, 4, records[2:]))]
    match wrong:
        case "digest":
            heads[0] = (*heads[0][:3], b"x" * 16)
        case "missing record":
            del records[0]
        case "record without head":
            del heads[1]
        case "head twice":
            heads.append(heads[0])
        case "outside":
            heads.append((make.ue(7), 1, 1, EMPTY_DIGEST))
    expected = Failed if wrong == "outside" else DoesNotFit
    assert isinstance(commit(store, Replace(make.ue(1), make.ue(5), heads, records)), expected)
    assert store.context(make.ue(1)).records == make.records(make.ue(1), 1, b"old")


# --------------------------------------------------------------------------------------------- Erase


def test_erase_deletes_copies_and_identities_and_leaves_rows(store, make, commit):
    key, other = make.ue(1), make.ue(2)
    for each in (key, other):
        commit(store, replace_one(make, each, 1, 3, b"x"))
        commit(store, BindIdentity(f"imsi-{each.hex()}", each))
    commit(store, SetRow(key, make.FOREIGN_0, make.foreign(4, refused=True)))
    assert commit(store, Erase([key])) == Done()
    assert (store.context(key).head, store.identity_of(key)) == (NO_HEAD, None)
    assert store.row(key) == make.foreign(4, refused=True)  # a late GRANT(4) is still known to be refused
    assert store.context(other).head.n == 3
    assert store.identity_of(other) is not None
    assert store.check() == []


@pytest.mark.parametrize("row", ["owned", "granted"])
def test_what_is_owned_or_in_doubt_is_not_erased(home, make, commit, row):
    key, copy = make.ue(1), make.ue(2)
    commit(home, Work(key, 1, [make.put("r0")]))
    commit(home, SetRow(copy, make.owned(1), make.foreign(2)))
    commit(home, replace_one(make, copy, 1, 3, b"x"))
    expected = make.owned(1)
    if row == "granted":
        expected = make.granted(2)
        commit(home, SetRow(key, make.owned(1), expected))
    assert commit(home, Erase([copy, key])) == RowChanged(expected)
    assert home.context(copy).head.n == 3
    assert home.context(key).head.n == 1
    assert commit(home, Erase([])) == Done()
