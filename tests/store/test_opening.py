"""Opening a store: who it is, one process at a time, and files that are not a store or not whole."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import pytest

from outrider.core.ids import partition_key
from outrider.core.record import NO_HEAD
from outrider.store import files
from outrider.store.port import Done, Durability, SetRow, StoreFault, Work
from outrider.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "contexts.db"


@pytest.fixture
def opened(path):
    """Opens stores, and closes them at the end."""
    stores = []

    def open_store(where=path, **how):
        stores.append(SqliteStore.open(where, **how))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def owning(store, make):
    assert store.commit([SetRow(partition_key(0), make.FOREIGN_0, make.owned(1))]) == [Done()]
    return store


# ----------------------------------------------------------------------------------------- who it is


def test_a_store_keeps_its_identity_and_counts_its_openings(opened):
    first, second = opened().identity, opened().identity
    assert (second.store_id, second.digest_key) == (first.store_id, first.digest_key)
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert len(first.digest_key) == 32


def test_two_stores_are_not_one(opened, tmp_path):
    a, b = opened(tmp_path / "a.db").identity, opened(tmp_path / "b.db").identity
    assert a.store_id != b.store_id
    assert a.digest_key != b.digest_key


def test_the_digest_key_is_given_at_creation_and_does_not_change(opened, path):
    assert opened(digest_key=b"k" * 32).identity.digest_key == b"k" * 32
    assert opened().identity.digest_key == b"k" * 32
    incarnation = opened(digest_key=b"k" * 32).identity.incarnation
    with pytest.raises(StoreFault, match=r"contexts\.db.*another digest key.*Nothing was changed"):
        opened(digest_key=b"x" * 32)
    assert opened().identity.incarnation == incarnation + 1


def test_a_lost_store_is_another_store(opened, path, make):
    """PROTOCOL.md §9: peers see a new store id."""
    store = owning(opened(), make)
    store.commit([Work(make.ue(1), 1, [make.put("a")])])
    store.close()
    for part in path.parent.iterdir():
        part.unlink()
    reborn = opened()
    assert reborn.identity.store_id != store.identity.store_id
    assert (reborn.last_lsn(), reborn.row(make.ue(1))) == (0, make.FOREIGN_0)


def test_a_rolled_back_store_has_a_lower_lsn(opened, path, make, tmp_path):
    """PROTOCOL.md §9: peers see a lower lsn than they have seen before."""
    store = owning(opened(), make)
    store.commit([Work(make.ue(1), 1, [make.put("a")])])
    store.close()
    shutil.copy(path, tmp_path / "backup.db")
    store = opened()
    store.commit([Work(make.ue(1), 1, [make.put("a")])])
    seen = store.last_lsn()
    store.close()
    shutil.copy(tmp_path / "backup.db", path)
    rolled_back = opened()
    assert rolled_back.identity.store_id == store.identity.store_id
    assert rolled_back.last_lsn() < seen
    assert rolled_back.check() == []


def test_without_fsync_the_store_is_the_same(opened, make):
    store = owning(opened(durability=Durability.OFF), make)
    assert isinstance(store.commit([Work(make.ue(1), 1, [make.put("a")])])[0], Done)
    assert store.check() == []


# --------------------------------------------------------------------------------- one at a time


def test_an_opener_takes_the_store_from_the_one_before(opened, make):
    old = owning(opened(), make)
    new = opened()
    for write in (
        lambda: old.commit([Work(make.ue(1), 1, [make.put("a", b"zombie")])]),
        lambda: old.commit([Work(make.ue(1), 1, [make.put("a", b"zombie")])]),
        lambda: old.trim_log(1),
        lambda: old.stage(1),
    ):
        with pytest.raises(StoreFault, match=r"another process has opened this store"):
            write()
    assert new.context(make.ue(1)).head == NO_HEAD
    assert isinstance(new.commit([Work(make.ue(1), 1, [make.put("a")])])[0], Done)
    assert new.check() == []


def test_a_zombie_does_not_exchange_the_file(opened, make):
    old = owning(opened(), make)
    staging = old.stage(1)
    new = opened()
    new.commit([Work(make.ue(1), 1, [make.put("a")])])
    with pytest.raises(StoreFault, match=r"another process has opened this store"):
        old.adopt(staging)
    assert new.context(make.ue(1)).head.n == 1


def test_without_the_incarnation_check_a_zombie_writes(opened, make, monkeypatch):
    """The check is what keeps it out: without it, the zombie's unit is there."""
    old = owning(opened(), make)
    new = opened()
    monkeypatch.setattr(SqliteStore, "_check_incarnation", lambda self: None)
    old.commit([Work(make.ue(1), 1, [make.put("a", b"zombie")])])
    assert new.context(make.ue(1)).records[0].body == b"zombie"


_ZOMBIE = """
import sys
from outrider.core.ids import partition_key
from outrider.store.port import SetValue, StoreFault
from outrider.store.sqlite import SqliteStore
store = SqliteStore.open(sys.argv[1])
store.commit([SetValue("who", b"old")])
print("open", flush=True)
sys.stdin.readline()
try:
    store.commit([SetValue("who", b"zombie")])
    print("written")
except StoreFault as fault:
    print(fault)
"""


def test_a_process_that_hung_while_another_took_over_writes_nothing(opened, path):
    with subprocess.Popen(
        [sys.executable, "-c", _ZOMBIE, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as old:
        assert old.stdout.readline() == "open\n"
        store = opened()
        said, _ = old.communicate("go on\n")
    assert "another process has opened this store" in said
    assert store.value("who") == b"old"
    assert store.identity.incarnation == 2


def test_who_opens_waits_for_another_that_is_opening_and_says_so(opened, path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_LIMIT_S", 0.05)
    with files.opening(path), pytest.raises(StoreFault, match="another process has been opening the store"):
        opened()
    opened()


_HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM head").fetchall()
print("open", flush=True)
sys.stdin.readline()
db.close()
"""


@contextmanager
def held_by_another_process(path):
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        yield
        holder.communicate("close\n")


def test_a_file_in_use_by_another_is_not_exchanged(opened, path, make):
    """Its write-ahead log would be taken for the new file's."""
    store = owning(opened(), make)
    staging = store.stage(1)
    with (
        held_by_another_process(path),
        pytest.raises(StoreFault, match=r"adopting.*another process holds the file"),
    ):
        store.adopt(staging)
    again = opened()
    assert again.row(make.ue(1)) == make.owned(1)
    assert again.check() == []


def test_without_that_check_the_exchanged_file_is_destroyed(opened, path, make, monkeypatch, tmp_path):
    store = owning(opened(), make)
    store.commit([Work(make.ue(n), 1, [make.put("a", bytes(9_000))]) for n in range(50)])
    heads = store.heads(b"u", b"v")
    for key, *_ in heads:
        store.commit([SetRow(key, make.owned(1), make.owned(2))])
    staging = store.stage(1)
    records = [r for n in range(50) for r in make.records(make.ue(n, 1), 1, bytes(9_000))]
    heads += [(r.key, *make.head(1, 1, [r])) for r in records]
    staging.load(heads[50:], records)
    monkeypatch.setattr(SqliteStore, "_wal", lambda self: tmp_path / "nowhere")
    destroyed = False
    with held_by_another_process(path):
        try:
            store.adopt(staging)
            destroyed = store.check() != [] or store.heads(b"u", b"v") != heads
        except StoreFault:
            destroyed = True
    assert destroyed


# --------------------------------------------------------------------- files that are not a whole store


def test_a_directory_that_is_not_there(opened, tmp_path):
    with pytest.raises(StoreFault, match=r"nowhere/c\.db: the store cannot be opened.*Check that .*nowhere exists"):
        opened(tmp_path / "nowhere" / "c.db")


def test_a_directory_is_no_store(opened, tmp_path):
    (tmp_path / "c.db").mkdir()
    with pytest.raises(StoreFault, match=r"c\.db"):
        opened(tmp_path / "c.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written(opened, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreFault, match=r"cannot be opened: Permission denied"):
        opened(tmp_path / "c.db")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written(opened, path):
    opened().close()
    path.chmod(0o400)
    with pytest.raises(StoreFault, match=r"contexts\.db.*cannot be written|may not be opened|cannot be opened"):
        opened()


def test_an_empty_file_becomes_a_store(opened, path):
    path.touch()
    assert opened().check() == []


@pytest.mark.parametrize("content", [b"hello, world\n" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_of_something_else_is_left_alone(opened, path, content):
    path.write_bytes(content)
    with pytest.raises(StoreFault, match=r"contexts\.db"):
        opened()
    assert path.read_bytes() == content


def test_another_sqlite_database_is_left_alone(opened, path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreFault, match="not a context store"):
        opened()
    assert path.read_bytes() == before


def test_a_newer_layout_is_left_alone(opened, path, make):
    owning(opened(), make).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreFault, match=r"layout 99 and this software reads layout 2.*Nothing was changed"):
        opened()
    with sqlite3.connect(path) as newer:
        assert newer.execute("SELECT incarnation FROM store").fetchone() == (1,)
    newer.close()


@pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_found_at_once(opened, path, make, left):
    store = owning(opened(), make)
    store.commit([Work(make.ue(n), 1, [make.put("a", bytes(1_000))]) for n in range(200)])
    store.close()
    size = path.stat().st_size
    os.truncate(path, int(size * left))
    with pytest.raises(StoreFault, match=r"contexts\.db: the file is damaged: it has \d+ bytes of \d+"):
        opened()
    assert path.stat().st_size == int(size * left)
