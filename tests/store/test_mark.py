"""How far a store is, as it says itself and as an opener is shown it: an older copy is always behind."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from outrider.core.ids import partition_key
from outrider.store.mark import mark_of
from outrider.store.port import SetRow, SetValue, StoreFault, StoreMark, Work
from outrider.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "contexts.db"


def test_no_file_and_an_empty_one_hold_no_store(path: Path) -> None:
    assert mark_of(path) is None
    assert not path.exists()
    path.touch()
    assert mark_of(path) is None


def test_whatever_is_durable_moves_the_mark(path: Path, make: Any) -> None:
    store = SqliteStore.open(path)
    seen = [store.mark]
    star = partition_key(0)
    for change in (
        SetRow(star, make.FOREIGN_0, make.owned(1)),
        Work(make.ue(1), 1, [make.put("a")]),
        SetValue("mig:m", b"x"),
        SetRow(make.ue(1), make.owned(1), make.granted(2)),
    ):
        store.commit([change])
        seen.append(store.mark)
        assert mark_of(path) == store.mark
    assert [m.changes for m in seen] == [0, 1, 2, 3, 4]
    store.commit([SetRow(star, make.FOREIGN_0, make.owned(1))])  # it is otherwise by now: nothing happens
    assert store.mark == seen[-1]
    store.close()
    again = SqliteStore.open(path)
    assert again.mark == StoreMark(seen[-1].store_id, 2, 4)
    again.trim_log(again.last_lsn())
    assert mark_of(path) == again.mark
    again.close()


def test_an_adopted_copy_goes_on_where_the_store_was(path: Path, make: Any) -> None:
    store = SqliteStore.open(path)
    store.commit([SetValue("a", b"1")])
    before = store.mark
    store.adopt(store.stage(1))
    assert (store.mark, mark_of(path)) == (before, before)
    store.commit([SetValue("a", b"2")])
    assert mark_of(path) == store.mark
    store.close()


def test_looking_leaves_file_and_write_ahead_log_as_they_are(path: Path, tmp_path: Path) -> None:
    store = SqliteStore.open(path)
    store.commit([SetValue("a", b"1")])
    crashed = tmp_path / "crashed.db"
    wal = crashed.with_name("crashed.db-wal")
    shutil.copy(path, crashed)
    shutil.copy(path.with_name("contexts.db-wal"), wal)
    before = (crashed.read_bytes(), wal.read_bytes())
    assert mark_of(crashed) == store.mark
    assert (crashed.read_bytes(), wal.read_bytes()) == before
    store.close()


def test_who_is_not_admitted_changes_nothing(path: Path) -> None:
    def refuse(found: StoreMark | None) -> None:
        shown.append(found)
        raise LookupError

    shown: list[StoreMark | None] = []
    with pytest.raises(LookupError):
        SqliteStore.open(path, admit=refuse)
    assert not path.exists()
    store = SqliteStore.open(path)
    store.close()
    with pytest.raises(LookupError):
        SqliteStore.open(path, admit=refuse)
    assert shown == [None, store.mark]
    assert mark_of(path) == store.mark, "no incarnation has begun"


@pytest.mark.parametrize("what", ["deleted", "replaced"])
def test_nothing_is_committed_to_a_file_that_is_not_the_store_any_more(path: Path, what: str) -> None:
    store = SqliteStore.open(path)
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    path.unlink() if what == "deleted" else copy.replace(path)
    assert store.replaced()
    with pytest.raises(StoreFault, match=r"was deleted, or another one is in its place"):
        store.commit([SetValue("a", b"1")])
    with pytest.raises(StoreFault, match="takes no more commits"):
        store.commit([SetValue("a", b"1")])
    store.close()
