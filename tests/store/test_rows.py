"""Ownership rows: comparing and setting them, folding them into `*p`."""

from outrider.core.ids import SHARED_STAR, partition_key, partition_range, shared_key
from outrider.protocol.ownership import Ownership, Row
from outrider.protocol.partition import fold
from outrider.store.port import Done, Failed, RowChanged, SetRow, Work


def test_a_ue_follows_its_star_until_it_has_a_row(home, make, commit):
    key, star = make.ue(1), partition_key(0)
    assert home.row(key) == home.row(star) == make.owned(1)
    assert commit(home, SetRow(key, make.owned(1), make.granted(2))) == Done()
    assert home.row(key) == make.granted(2)
    assert home.row(make.ue(2)) == make.owned(1)
    assert home.own_rows(*partition_range(0)) == {key: make.granted(2)}
    assert home.own_rows(b"", b"\xff") == {
        star: make.owned(1),
        partition_key(1): make.owned(1),
        key: make.granted(2),
    }


def test_every_field_of_a_row_is_kept(kit, store, make, commit):
    row = Row(Ownership.FOREIGN, 2**40, "999-71-0123456789a", refused=True, fenced=True, mig="m1")
    commit(store, SetRow(make.ue(1), make.FOREIGN_0, row))
    assert kit.open().row(make.ue(1)) == row


def test_a_row_that_has_changed_is_not_set(home, make, commit):
    key = make.ue(1)
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    assert commit(home, SetRow(key, make.owned(1), make.granted(3))) == RowChanged(make.granted(2))
    assert home.row(key) == make.granted(2)


def test_of_two_changes_in_one_commit_the_first_wins(home, make):
    key = make.ue(1)
    outcomes = home.commit(
        [SetRow(key, make.owned(1), make.granted(2)), SetRow(key, make.owned(1), make.granted(2, "999-72"))]
    )
    assert outcomes == [Done(), RowChanged(make.granted(2))]


def test_a_grant_of_a_star_folds_owned_rows_and_writes_out_those_that_stay(home, make, commit):
    star, moved, stays, back = partition_key(0), make.ue(1), make.ue(2), make.ue(3)
    commit(home, SetRow(moved, make.owned(1), make.granted(2)))
    commit(home, SetRow(back, make.owned(1), make.owned(5)))
    commit(home, SetRow(make.ue(9, partition=1), make.owned(1), make.owned(7)))
    change = fold(home.row(star), home.own_rows(*partition_range(0)), [stays])
    given = make.granted(change.floor + 1)
    assert commit(home, SetRow(star, make.owned(1), given, change.dropped, change.kept)) == Done()
    assert home.own_rows(*partition_range(0)) == {moved: make.granted(2), stays: make.owned(1)}
    assert home.row(back) == given == make.granted(6)
    assert home.row(make.ue(9, partition=1)) == make.owned(7)


def test_a_row_that_is_not_owned_is_not_folded(home, make, commit):
    star, key = partition_key(0), make.ue(1)
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    outcome = commit(home, SetRow(star, make.owned(1), make.granted(9), frozenset({key})))
    assert outcome == RowChanged(make.granted(2))
    assert home.row(star) == make.owned(1)


def test_a_row_of_the_grants_own_epoch_is_not_folded(home, make, commit):
    star, key = partition_key(0), make.ue(1)
    commit(home, SetRow(key, make.owned(1), make.owned(9)))
    assert commit(home, SetRow(star, make.owned(1), make.granted(9), frozenset({key}))) == RowChanged(make.owned(9))


def test_a_row_is_not_written_out_over_one_that_is_there(home, make, commit):
    star, key = partition_key(0), make.ue(1)
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    outcome = commit(home, SetRow(star, make.owned(1), make.granted(3), keep={key: make.owned(1)}))
    assert outcome == RowChanged(make.granted(2))


def test_a_refused_star_writes_rows_out_and_drops_none(store, make, commit):
    star, key = partition_key(0), make.ue(1)
    refused = make.foreign(4, refused=True)
    kept = {key: make.foreign(0)}
    assert commit(store, SetRow(star, make.FOREIGN_0, refused, keep=kept)) == Done()
    assert (store.row(key), store.row(make.ue(2))) == (make.foreign(0), refused)
    outcome = commit(store, SetRow(star, refused, make.foreign(5), frozenset({key})))
    assert isinstance(outcome, Failed)
    assert store.row(key) == make.foreign(0)


def test_only_rows_of_the_partition_change_with_its_star(home, make, commit):
    star, elsewhere = partition_key(0), make.ue(1, partition=1)
    for key, other in ((star, elsewhere), (make.ue(1), make.ue(2)), (SHARED_STAR, shared_key("g"))):
        expect = home.row(key)
        dropped = SetRow(key, expect, make.granted(3), frozenset({other}))
        kept = SetRow(key, expect, make.granted(3), keep={other: make.owned(1)})
        assert isinstance(commit(home, dropped), Failed)
        assert isinstance(commit(home, kept), Failed)
        assert home.row(key) == expect


def test_partitions_with_every_first_byte_are_told_apart(store, make, commit):
    for partition in range(256):
        commit(store, SetRow(partition_key(partition), make.FOREIGN_0, make.owned(partition + 1)))
    commit(store, SetRow(SHARED_STAR, make.FOREIGN_0, make.owned(999)))
    for partition in range(256):
        key = make.ue(1, partition)
        assert store.row(key) == make.owned(partition + 1)
        done = commit(store, Work(key, partition + 1, [make.timer("t", partition + 1), make.message("1")]))
        assert isinstance(done, Done)
    due = store.due_timers(1_000, 1_000)
    assert [r.key for r in due] == [make.ue(1, p) for p in range(256)] == store.outbox_keys()
    assert commit(store, Work(shared_key("g"), 999, [make.timer("t", 7)])).head.n == 1
    assert shared_key("g") in {r.key for r in store.due_timers(1_000, 1_000)}
