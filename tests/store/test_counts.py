"""Counting rows and copies without reading them one by one."""

from collections import Counter

from outrider.core.ids import partition_key, partition_range, shared_key
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import RowCount, SetRow, Work

OWNED, GRANTED, FOREIGN = Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN


def test_rows_of_each_kind_are_counted_and_each_partition_for_itself(home, make, commit):
    for i, row in enumerate((make.granted(2), make.granted(2), Row(FOREIGN, 2, "999-71", mig="m"))):
        commit(home, SetRow(make.ue(i), make.owned(1), row))
    commit(home, SetRow(make.ue(9, partition=1), make.owned(1), make.owned(3)))
    commit(home, SetRow(shared_key("group:g"), home.row(shared_key("group:g")), make.owned(1)))
    granted = make.granted(2)
    assert sorted(home.row_counts(), key=repr) == sorted(
        [
            RowCount(partition_key(0), OWNED, None, None, 1),
            RowCount(partition_key(1), OWNED, None, None, 1),
            RowCount(b"u\x00", GRANTED, granted.peer, granted.mig, 2),
            RowCount(b"u\x00", FOREIGN, "999-71", "m", 1),
            RowCount(b"u\x01", OWNED, None, None, 1),
            RowCount(b"sg", OWNED, None, None, 1),
        ],
        key=repr,
    )
    assert sum(c.rows for c in home.row_counts()) == len(home.own_rows(b"", b"\xff"))


def test_the_rows_in_a_state_are_found(home, make, commit):
    commit(home, SetRow(make.ue(1), make.owned(1), make.granted(2)))
    commit(home, SetRow(make.ue(2), make.owned(1), make.owned(2)))
    assert home.rows_in(GRANTED) == {make.ue(1): make.granted(2)}
    assert home.rows_in(FOREIGN) == {}
    assert [*home.rows_in(OWNED)] == [partition_key(0), partition_key(1), make.ue(2)]
    assert Counter(row.state for row in home.own_rows(b"", b"\xff").values()) == {OWNED: 3, GRANTED: 1}


def test_copies_are_counted_by_range(home, make, commit):
    for key in (make.ue(1), make.ue(2), make.ue(1, partition=1)):
        commit(home, Work(key, 1, [make.put("a")]))
    assert [home.copy_count(*partition_range(p)) for p in (0, 1, 2)] == [2, 1, 0]
    assert home.copy_count(b"u", b"v") == 3


def test_an_empty_store_counts_nothing(store):
    assert store.row_counts() == []
    assert store.rows_in(OWNED) == {}
    assert store.copy_count(b"u", b"v") == 0
