"""A store at rest: copied while it is used, and brought to life again as another store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from outrider.core.ids import partition_key
from outrider.core.refusal import Refused
from outrider.protocol.ownership import Ownership, Row
from outrider.store.image import StoreFacts, revive, save
from outrider.store.port import SetRow, SetValue, StoreFault, Work
from outrider.store.sqlite import SqliteStore

UE = b"u" + bytes(16)
NOW_S = 1_900_000_000


@pytest.fixture
def used(tmp_path: Path, make: Any, commit: Callable[..., Any]) -> Any:
    """A store in use, with one UE, values of a past migration, and its file."""
    path = tmp_path / "contexts.db"
    store = SqliteStore.open(path)
    commit(store, SetRow(partition_key(0), store.row(partition_key(0)), Row(Ownership.OWNED, 1)))
    commit(store, Work(UE, 1, [make.put("a", b"one")], identity="imsi-999700000000001"))
    commit(store, SetValue("mig:m1", b"{}"))
    commit(store, SetValue("high-lsn:999-71", b"9"))
    commit(store, SetValue("permitted", b"no"))
    yield store, path
    store.close()


def revived(path: Path, tmp_path: Path, facts: StoreFacts, now_s: int = NOW_S) -> SqliteStore:
    revive(path, facts, now_s=now_s)
    return SqliteStore.open(path)


def test_a_running_store_is_copied_as_of_one_moment(used: Any, tmp_path: Path, make: Any, commit: Any) -> None:
    store, path = used
    facts = save(path, tmp_path / "copy.db")
    commit(store, Work(UE, 1, [make.put("a", b"two")]))
    assert store.check() == []
    assert (facts.store_id, facts.ues, facts.max_epoch) == (store.identity.store_id, 1, 1)
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    again = revived(tmp_path / "copy.db", tmp_path, facts)
    assert [r.body for r in again.context(UE).data()] == [b"one"]
    assert [r.body for r in store.context(UE).data()] == [b"two"]
    again.close()


def test_a_revived_store_is_another_store_above_all_epochs_of_its_earlier_life(
    used: Any, tmp_path: Path, make: Any, commit: Any
) -> None:
    store, path = used
    facts = save(path, tmp_path / "copy.db")
    again = revived(tmp_path / "copy.db", tmp_path, facts)
    assert again.identity.store_id != store.identity.store_id
    assert again.identity.digest_key == store.identity.digest_key
    assert again.row(UE) == Row(Ownership.OWNED, NOW_S)
    assert again.key_of("imsi-999700000000001") == UE
    assert again.context(UE).head == store.context(UE).head
    assert again.last_lsn() == facts.last_lsn
    assert again.log(0, 10) == []
    assert again.values("") == {"permitted": b"no"}
    commit(again, Work(UE, NOW_S, [make.put("a", b"three")]))
    assert again.context(UE).head.epoch == NOW_S
    assert again.last_lsn() == facts.last_lsn + 1
    assert again.check() == []
    again.close()


def test_a_clock_that_is_behind_still_gives_a_higher_epoch(used: Any, tmp_path: Path) -> None:
    facts = save(used[1], tmp_path / "copy.db")
    again = revived(tmp_path / "copy.db", tmp_path, facts, now_s=0)
    assert again.row(UE).epoch == 2
    again.close()


@pytest.mark.parametrize("state", [Row(Ownership.GRANTED, 2, "999-71"), Row(Ownership.FOREIGN, 2, "999-71")])
def test_what_is_not_owned_here_is_named_and_nothing_is_saved(
    used: Any, tmp_path: Path, commit: Any, state: Row
) -> None:
    store, path = used
    commit(store, SetRow(UE, store.row(UE), state))
    with pytest.raises(Refused) as refused:
        save(path, tmp_path / "copy.db")
    assert refused.value.refusal.code == "NOT_ALL_OWNED"
    assert "ue:00000000" in refused.value.refusal.sentence
    assert refused.value.refusal.facts == {"keys": "1", "networks": "999-71"}


def _alter(path: Path, statement: str) -> None:
    db = apsw.Connection(str(path))
    db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE rec SET body = x'00'", "IMAGE_DAMAGED"),
        ("DELETE FROM rec", "IMAGE_DAMAGED"),
        ("UPDATE store SET store_id = 'other'", "IMAGE_DAMAGED"),
        ("DELETE FROM row", "IMAGE_DAMAGED"),
        ("UPDATE row SET state = 'foreign', peer = '999-71'", "NOT_ALL_OWNED"),
        ("PRAGMA user_version = 99", "IMAGE_DAMAGED"),
        ("PRAGMA application_id = 7", "IMAGE_DAMAGED"),
    ],
)
def test_a_copy_that_is_not_what_was_saved_is_not_revived(used: Any, tmp_path: Path, statement: str, code: str) -> None:
    facts = save(used[1], tmp_path / "copy.db")
    _alter(tmp_path / "copy.db", statement)
    with pytest.raises(Refused) as refused:
        revive(tmp_path / "copy.db", facts, now_s=NOW_S)
    assert refused.value.refusal.code == code


def test_a_copy_that_was_cut_off_is_not_revived(used: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    facts = save(used[1], copy)
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size // 2)
    with pytest.raises(Refused, match="cannot be used"):
        revive(copy, facts, now_s=NOW_S)


def test_no_store_is_a_fault_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="there is no store"):
        save(tmp_path / "absent.db", tmp_path / "copy.db")
