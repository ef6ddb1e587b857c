"""`*p`: what folding and unfolding do to the rows that are effective (PROTOCOL.md §1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.protocol.ownership import Ownership, Row
from outrider.protocol.partition import Unfold, effective, fold, set_apart, unfold

OWNED, GRANTED, FOREIGN = Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN
KEYS = [b"u1", b"u2", b"u3", b"u4"]

epochs = st.integers(0, 9)
stars = st.one_of(
    st.builds(Row, st.just(FOREIGN), epochs, st.just("A"), st.booleans()),
    st.builds(Row, st.just(GRANTED), epochs, st.just("A")),
)
some_rows = st.one_of(
    st.builds(Row, st.just(OWNED), epochs),
    st.builds(Row, st.just(GRANTED), epochs, st.just("C")),
    st.builds(Row, st.just(FOREIGN), epochs, st.just("C"), st.booleans()),
)
own = st.dictionaries(st.sampled_from(KEYS), some_rows)
some_keys = st.frozensets(st.sampled_from(KEYS))


@given(epochs, own, some_keys)
def test_folding_moves_exactly_what_is_owned_and_need_not_stay(
    epoch: int, rows: dict[bytes, Row], stay: frozenset[bytes]
) -> None:
    star = Row(OWNED, epoch)
    f = fold(star, rows, stay)
    left = {k: row for k, row in rows.items() if k not in f.dropped} | dict(f.kept)
    assert left.keys() == f.excepted
    for key in KEYS:
        moves = effective(rows.get(key), star).state is OWNED and key not in stay
        assert (key not in left) == moves
        if not moves:
            assert effective(left[key], star).state is effective(rows.get(key), star).state
            assert left[key].epoch == effective(rows.get(key), star).epoch


@given(epochs, own, some_keys)
def test_the_epoch_of_a_fold_is_above_every_key_that_moves(
    epoch: int, rows: dict[bytes, Row], stay: frozenset[bytes]
) -> None:
    star = Row(OWNED, epoch)
    f = fold(star, rows, stay)
    assert all(f.floor >= effective(rows.get(k), star).epoch for k in KEYS if k not in f.excepted)
    assert f.floor in {star.epoch, *(row.epoch for row in rows.values())}


@given(stars, own, some_keys)
def test_who_takes_a_partition_takes_no_ue_that_was_excepted(
    star: Row, rows: dict[bytes, Row], excepted: frozenset[bytes]
) -> None:
    x = star.epoch + 10
    change = unfold(x, star, rows, excepted)
    if isinstance(change, bytes):
        assert rows[change].state is OWNED
        assert change not in excepted
        return
    after = {k: row for k, row in rows.items() if k not in change.dropped} | dict(change.kept)
    for key in KEYS:
        now = effective(after.get(key), Row(OWNED, x))
        if key in excepted:
            before = effective(rows.get(key), star)
            assert now.epoch == before.epoch
            assert key in rows or now.state is FOREIGN
        else:
            assert now == Row(OWNED, x)


@given(stars, own, some_keys)
def test_who_refuses_a_partition_refuses_it_for_no_ue_that_was_excepted(
    star: Row, rows: dict[bytes, Row], excepted: frozenset[bytes]
) -> None:
    after = rows | set_apart(star, rows, excepted)
    refused = Row(FOREIGN, star.epoch + 1, "A", refused=True)
    for key in excepted:
        assert effective(after.get(key), refused).epoch == effective(rows.get(key), star).epoch


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row(OWNED, 1), "this network owns it"),
        (Row(OWNED, 7), "this network owns it, at a newer epoch even"),
        (Row(FOREIGN, 4, "A"), "this network has decided about that epoch of the UE itself"),
        (Row(FOREIGN, 5, "A", refused=True), "this network has refused a newer one"),
        (Row(GRANTED, 4, "A"), "this network has granted the UE at that epoch itself"),
    ],
)
def test_a_grant_that_contradicts_a_row_is_not_taken(row: Row, why: str) -> None:
    assert unfold(4, Row(FOREIGN, 2, "A"), {b"u1": row, b"u2": Row(FOREIGN, 1, "A")}, []) == b"u1", why


def test_a_grant_in_doubt_is_settled_by_the_partition_that_comes_back_with_its_ue() -> None:
    rows = {b"u1": Row(GRANTED, 2, "B")}
    assert unfold(3, Row(FOREIGN, 2, "B"), rows, []) == Unfold(frozenset({b"u1"}), {})


def test_an_excepted_ue_keeps_what_was_effective_for_it() -> None:
    star = Row(FOREIGN, 2, "A", refused=True)
    assert set_apart(star, {b"u2": Row(OWNED, 5)}, [b"u1", b"u2"]) == {b"u1": star}


def test_an_excepted_ue_does_not_stay_granted_with_a_partition_that_was_taken() -> None:
    star = Row(GRANTED, 2, "A", mig="m")
    assert set_apart(star, {}, [b"u1"]) == {b"u1": Row(FOREIGN, 2, "A", mig="m")}
