"""Accepting grants: content and OWNED in one commit, only if the content is what the digest says."""

import pytest

from outrider.core.ids import partition_key, partition_range
from outrider.core.record import Head, sum_digests
from outrider.protocol.partition import unfold
from outrider.store.port import DoesNotFit, Done, Failed, Replace, RowChanged, SetRow, Take, Work


def copy_of(make, key, epoch, n, *bodies):
    """A replacement of one copy, with its head and records."""
    records = make.records(key, n, *bodies)
    head = make.head(epoch, n, records)
    return Replace(key, key + b"\0", [(key, *head)], records), head, records


# ---------------------------------------------------------------------------------------------- FULL


def test_full_installs_content_and_row_in_one_commit(store, make, commit):
    key = make.ue(1)
    records = make.records(key, 7, b"one", b"two")
    head = make.head(4, 7, records)
    assert commit(store, Take(key, make.FOREIGN_0, make.owned(5), head, records, identity="imsi-1")) == Done(head)
    context = store.context(key)
    assert (context.row, context.own, context.head, context.records) == (make.owned(5), True, head, records)
    assert store.key_of("imsi-1") == key
    assert store.last_lsn() == 0  # what was applied is another network's, and is not logged
    assert commit(store, Work(key, 5, [make.put("r0", b"next")])).head[:2] == (5, 8)
    assert store.check() == []


def test_full_replaces_every_record_of_an_older_copy(store, make, commit):
    key = make.ue(1)
    replace, _, _ = copy_of(make, key, 1, 3, b"x", b"y", b"z")
    commit(store, replace)
    records = make.records(key, 4, b"only")
    commit(store, Take(key, make.FOREIGN_0, make.owned(5), make.head(4, 4, records), records))
    assert store.context(key).records == records
    assert store.check() == []


def test_full_of_nothing_is_a_content(store, make, commit):
    key = make.ue(1)
    assert commit(store, Take(key, make.FOREIGN_0, make.owned(2), make.head(1, 5), [])) == Done(make.head(1, 5))
    assert commit(store, Work(key, 2, [])).head.n == 6


@pytest.mark.parametrize("wrong", ["digest", "fewer", "more", "twice", "other key", "version"])
def test_a_full_that_does_not_match_its_digest_changes_nothing(store, make, commit, wrong):
    key = make.ue(1)
    records = make.records(key, 7, b"one", b"two")
    head = make.head(4, 7, records)
    match wrong:
        case "digest":
            head = head._replace(digest=b"x" * 16)
        case "fewer":
            records = records[:1]
        case "more":
            records = [*records, records[0]._replace(id="r9")]
        case "twice":
            records = [records[0], records[0]]
            head = make.head(4, 7, records)
        case "other key":
            records = [r._replace(key=make.ue(2)) for r in records]
            head = make.head(4, 7, records)
        case "version":
            records = [records[0]._replace(version=6), records[1]]
    assert commit(store, Take(key, make.FOREIGN_0, make.owned(5), head, records)) == DoesNotFit(full=True)
    assert store.row(key) == make.FOREIGN_0
    assert store.context(key).records == []


def test_a_row_that_has_changed_is_not_taken_over(store, make, commit):
    key = make.ue(1)
    commit(store, SetRow(key, make.FOREIGN_0, make.foreign(5, refused=True)))
    outcome = commit(store, Take(key, make.FOREIGN_0, make.owned(5), make.head(4, 0), []))
    assert outcome == RowChanged(make.foreign(5, refused=True))


def test_a_key_granted_before_is_taken_back(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [make.put("a")]))
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    records = make.records(key, 9, b"changed elsewhere")
    head = make.head(2, 9, records)
    assert commit(home, Take(key, make.granted(2), make.owned(3), head, records)) == Done(head)
    assert commit(home, Work(key, 3, [make.put("a")])).head[:2] == (3, 10)
    assert home.check() == []


def test_a_head_after_the_grants_epoch_is_impossible(store, make, commit):
    outcome = commit(store, Take(make.ue(1), make.FOREIGN_0, make.owned(5), make.head(6, 0), []))
    assert isinstance(outcome, Failed)


def test_what_is_taken_is_owned(store, make, commit):
    assert isinstance(commit(store, Take(make.ue(1), make.FOREIGN_0, make.granted(5), make.head(4, 0), [])), Failed)


def test_the_grant_binds_the_identity_anew(store, make, commit):
    old, new = make.ue(1), make.ue(2)
    commit(store, Take(old, make.FOREIGN_0, make.owned(5), make.head(4, 0), [], identity="imsi-1"))
    commit(store, Take(new, make.FOREIGN_0, make.owned(5), make.head(4, 0), [], identity="imsi-1"))
    assert (store.key_of("imsi-1"), store.identity_of(old), store.identity_of(new)) == (new, None, "imsi-1")


# ---------------------------------------------------------------------------------------- SAME, DELTA


def test_same_takes_the_copy_that_is_here(store, make, commit):
    key = make.ue(1)
    replace, head, records = copy_of(make, key, 1, 3, b"x", b"y")
    commit(store, replace)
    assert commit(store, Take(key, make.FOREIGN_0, make.owned(2), head)) == Done(head)
    assert store.context(key).records == records
    assert store.row(key) == make.owned(2)


@pytest.mark.parametrize("change", [{"n": 4}, {"epoch": 2}, {"digest": b"x" * 16}])
def test_same_with_another_head_does_not_fit(store, make, commit, change):
    key = make.ue(1)
    replace, head, _ = copy_of(make, key, 1, 3, b"x")
    commit(store, replace)
    take = Take(key, make.FOREIGN_0, make.owned(3), head._replace(**change))
    assert commit(store, take) == DoesNotFit(full=False)
    assert store.row(key) == make.FOREIGN_0


def test_same_without_a_copy_does_not_fit(store, make, commit):
    take = Take(make.ue(1), make.FOREIGN_0, make.owned(3), make.head(1, 1, make.records(make.ue(1), 1, b"x")))
    assert commit(store, take) == DoesNotFit(full=False)


def test_delta_adds_what_is_missing(store, make, commit):
    key = make.ue(1)
    replace, head, records = copy_of(make, key, 1, 3, b"x", b"y")
    commit(store, replace)
    first = make.entry(key, head, records, make.put("r0", b"new"), make.put("r2"))
    second = make.entry(key, first.head, records[1:], make.drop("r1"))
    assert commit(store, Take(key, make.FOREIGN_0, make.owned(2), second.head, entries=[first, second])) == Done(
        second.head
    )
    assert [(r.id, r.body, r.version) for r in store.context(key).records] == [("r0", b"new", 4), ("r2", b"body", 4)]
    assert store.last_lsn() == 0
    assert store.check() == []


def test_delta_passes_over_what_is_here_already(store, make, commit):
    key = make.ue(1)
    replace, head, records = copy_of(make, key, 1, 3, b"x")
    first = make.entry(key, make.head(1, 2, []), [], make.put("r0", b"x"))
    second = make.entry(key, head, records, make.put("r1"))
    commit(store, replace)
    assert isinstance(
        commit(store, Take(key, make.FOREIGN_0, make.owned(2), second.head, entries=[first, second])), Done
    )


@pytest.mark.parametrize("wrong", ["gap", "other key", "digest", "not the grant's head", "nothing"])
def test_a_delta_that_does_not_lead_to_the_head_changes_nothing(store, make, commit, wrong):
    key = make.ue(1)
    replace, head, records = copy_of(make, key, 1, 3, b"x")
    commit(store, replace)
    first = make.entry(key, head, records, make.put("r1"))
    second = make.entry(key, first.head, records, make.put("r2"))
    entries, last = [first, second], second.head
    match wrong:
        case "gap":
            entries = [second]
        case "other key":
            entries = [first, second._replace(key=make.ue(2))]
        case "digest":
            last = Head(1, 5, b"x" * 16)
            entries = [first, second._replace(head=last)]
        case "not the grant's head":
            entries = [first]
        case "nothing":
            entries = []
    take = Take(key, make.FOREIGN_0, make.owned(2), last, entries=entries)
    assert commit(store, take) == DoesNotFit(full=False)
    assert (store.context(key).head, store.context(key).records) == (head, records)
    assert store.row(key) == make.FOREIGN_0


# ----------------------------------------------------------------------------------------------- `*p`


@pytest.fixture
def copied(store, make, commit):
    """A store with copies of three UEs of partition 0 and one of partition 1, all following their star."""
    heads = {}
    for key in (make.ue(1), make.ue(2), make.ue(3), make.ue(1, partition=1)):
        replace, heads[key], _ = copy_of(make, key, 1, 3, key)
        commit(store, replace)
    return heads


def star_head(heads, *keys):
    return Head(2, len(keys), sum_digests(heads[k].digest for k in keys))


def test_a_star_is_taken_when_the_sum_of_its_ues_is_equal(store, make, commit, copied):
    star = partition_key(0)
    head = star_head(copied, make.ue(1), make.ue(2), make.ue(3))
    assert commit(store, Take(star, make.FOREIGN_0, make.owned(2), head)) == Done()
    assert store.row(make.ue(3)) == make.owned(2)
    assert store.row(make.ue(1, partition=1)) == make.FOREIGN_0
    assert commit(store, Work(make.ue(3), 2, [make.put("r0")])).head[:2] == (2, 4)


def test_excepted_ues_keep_their_rows_and_are_not_in_the_sum(store, make, commit, copied):
    star = partition_key(0)
    commit(store, SetRow(make.ue(2), make.FOREIGN_0, make.owned(2)))
    commit(store, SetRow(make.ue(3), make.FOREIGN_0, make.foreign(1, refused=True)))
    before = store.row(star)
    change = unfold(3, before, store.own_rows(*partition_range(0)), [make.ue(2), make.ue(7)])
    head = star_head(copied, make.ue(1), make.ue(3))
    assert commit(store, Take(star, before, make.owned(3), head, drop=change.dropped, keep=change.kept)) == Done()
    assert store.own_rows(*partition_range(0)) == {make.ue(2): make.owned(2), make.ue(7): make.FOREIGN_0}
    assert (store.row(make.ue(1)), store.row(make.ue(3))) == (make.owned(3), make.owned(3))


@pytest.mark.parametrize("wrong", ["missing", "too many", "digest"])
def test_a_star_whose_sum_differs_is_not_taken(store, make, commit, copied, wrong):
    star = partition_key(0)
    head = star_head(copied, make.ue(1), make.ue(2), make.ue(3))
    match wrong:
        case "missing":
            head = star_head(copied, make.ue(1), make.ue(2))
        case "too many":
            head = head._replace(n=4)
        case "digest":
            head = head._replace(digest=b"x" * 16)
    dropped = frozenset({make.ue(9)})
    commit(store, SetRow(make.ue(9), make.FOREIGN_0, make.foreign(1)))
    assert commit(store, Take(star, make.FOREIGN_0, make.owned(2), head, drop=dropped)) == DoesNotFit(full=False)
    assert store.own_rows(b"", b"\xff") == {make.ue(9): make.foreign(1)}


def test_a_row_that_came_after_the_decision_stops_the_star(store, make, commit, copied):
    head = star_head(copied, make.ue(1), make.ue(2), make.ue(3))
    commit(store, SetRow(make.ue(2), make.FOREIGN_0, make.foreign(1)))
    assert commit(store, Take(partition_key(0), make.FOREIGN_0, make.owned(2), head)) == DoesNotFit(full=False)


@pytest.mark.parametrize("row", ["owned below", "foreign at x", "granted at x"])
def test_a_row_that_may_not_vanish_stops_the_star(store, make, commit, copied, row):
    rows = {"owned below": make.owned(1), "foreign at x": make.foreign(2), "granted at x": make.granted(2)}
    commit(store, SetRow(make.ue(2), make.FOREIGN_0, rows[row]))
    head = star_head(copied, make.ue(1), make.ue(2), make.ue(3))
    take = Take(partition_key(0), make.FOREIGN_0, make.owned(2), head, drop=frozenset({make.ue(2)}))
    assert commit(store, take) == RowChanged(rows[row])
    assert store.row(partition_key(0)) == make.FOREIGN_0


def test_a_granted_row_below_x_folds_into_the_star(store, make, commit, copied):
    commit(store, SetRow(make.ue(2), make.FOREIGN_0, make.granted(2)))
    head = star_head(copied, make.ue(1), make.ue(2), make.ue(3))
    take = Take(partition_key(0), make.FOREIGN_0, make.owned(3), head, drop=frozenset({make.ue(2)}))
    assert commit(store, take) == Done()


def test_a_star_carries_no_content(store, make, commit):
    star = partition_key(0)
    head = make.head(1, 0)
    for content in ({"records": []}, {"entries": []}, {"identity": "imsi-1"}):
        assert isinstance(commit(store, Take(star, make.FOREIGN_0, make.owned(2), head, **content)), Failed)
    for rows in ({"drop": frozenset({make.ue(2)})}, {"keep": {make.ue(2): make.foreign(1)}}):
        assert isinstance(commit(store, Take(make.ue(1), make.FOREIGN_0, make.owned(2), head, [], **rows)), Failed)
