"""Full disks, failing disks, damaged files: a sentence that says what to do, and nothing more is damaged."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from outrider.core.ids import partition_key
from outrider.store import checkpoint
from outrider.store.port import Done, SetRow, StagingBroken, StoreFault, Work
from outrider.store.schema import PAGE_BYTES
from outrider.store.sqlite import SqliteStore

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "contexts.db"


@pytest.fixture
def filled(path, make):
    """A store with 300 UEs of 3 KB, of many pages."""
    store = SqliteStore.open(path, digest_key=make.digest_key)
    store.commit([SetRow(partition_key(0), make.FOREIGN_0, make.owned(1))])
    store.commit([Work(make.ue(n), 1, [make.put("a", bytes([n % 251]) * 3_000)]) for n in range(300)])
    yield store
    store.close()


def assert_whole(path, make, ues):
    """Opened again, everything that was answered is there, and work goes on."""
    store = SqliteStore.open(path)
    assert store.check() == []
    assert len(store.heads(b"u", b"v")) == ues
    assert isinstance(store.commit([Work(make.ue(1), 1, [make.put("a")])])[0], Done)
    store.close()


# ------------------------------------------------------------------------------------------ full disks


def test_a_full_database_refuses_and_keeps_what_it_has(filled, path, make):
    pages = filled._writer.pragma("page_count")
    filled._writer.pragma("max_page_count", pages)
    with pytest.raises(StoreFault, match=r"contexts\.db: committing: the disk is full.*Free space"):
        filled.commit([Work(make.ue(999), 1, [make.put("a", bytes(200_000))])])
    with pytest.raises(StoreFault, match="takes no more commits"):
        filled.commit([Work(make.ue(1), 1, [])])  # it would have had room
    assert filled.context(make.ue(1)).head.n == 1
    filled.close()
    assert_whole(path, make, 300)


def run_fill(*command):
    child = subprocess.run([*command], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize("limit", [300_000, 2_000_000])
def test_a_write_that_the_system_refuses_is_a_fault_and_no_unit_is_lost(path, make, limit):
    """A limit on the size of files makes real writes fail, without root: EFBIG, at the log and at the checkpoint."""
    said = run_fill(sys.executable, HERE / "child_fill.py", path, str(limit))
    assert said["answered"] > 0
    assert "contexts.db" in said["faults"][0]
    assert "the disk failed (SQLITE_IOERR" in said["faults"][0]
    assert "takes no more commits" in said["faults"][1]
    assert said["readable"][1] == said["answered"]
    assert_whole(path, make, said["answered"])


_MOUNT = """
set -e
mount -t tmpfs -o size=6m tmpfs "$1"
head -c 2000000 /dev/zero > "$1/ballast"
"$2" "$3" "$1/contexts.db"
test "$(stat -f -c %a "$1")" -lt 64 || ! echo "the disk did not fill"
rm "$1/ballast"
cp "$1"/contexts.db* "$4"
"""


def test_a_disk_that_is_full_for_real(tmp_path, make):
    """A small file system of its own, in a mount namespace of its own, filled until ENOSPC."""
    for namespace in (["unshare", "-m"], ["unshare", "-rm"]):
        (tmp_path / "try").mkdir(exist_ok=True)
        probe = [*namespace, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "try")]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("no right to mount a file system, not even in a namespace of its own")
    disk, saved = tmp_path / "disk", tmp_path / "saved"
    disk.mkdir()
    saved.mkdir()
    command = [*namespace, "sh", "-c", _MOUNT, "sh", disk, sys.executable, HERE / "child_fill.py", saved]
    said = run_fill(*command)
    assert said["answered"] > 0
    assert "the disk is full (SQLITE_FULL" in said["faults"][0]
    assert_whole(saved / "contexts.db", make, said["answered"])


def test_a_staging_file_that_fills_the_disk_leaves_the_store_in_use(filled, make):
    records = make.records(make.ue(1, 1), 1, bytes(200_000))
    for key, *_ in filled.heads(b"u", b"v"):
        assert filled.commit([SetRow(key, make.owned(1), make.owned(2))]) == [Done()]
    staging = filled.stage(1)
    staging._db.pragma("max_page_count", staging._db.pragma("page_count") + 2)
    with pytest.raises(StagingBroken, match=r"staging-1: loading: the disk is full.*The live store is untouched"):
        staging.load([(make.ue(1, 1), *make.head(1, 1, records))], records)
    staging.discard()
    assert isinstance(filled.commit([Work(make.ue(1), 2, [make.put("a")])])[0], Done)


def test_an_adoption_that_fills_the_disk_leaves_the_store_in_use(filled, make, tmp_path):
    for key, *_ in filled.heads(b"u", b"v"):
        assert filled.commit([SetRow(key, make.owned(1), make.owned(2))]) == [Done()]
    staging = filled.stage(1)
    staging._db.pragma("max_page_count", staging._db.pragma("page_count") + 5)
    with pytest.raises(StagingBroken, match=r"carrying the live store over: the disk is full"):
        filled.adopt(staging)
    staging.discard()
    assert isinstance(filled.commit([Work(make.ue(1), 2, [make.put("a")])])[0], Done)
    assert [p for p in tmp_path.iterdir() if "staging" in p.name] == []
    assert filled.check() == []


# --------------------------------------------------------------------------------------- failing disks


class FailingAt:
    """A connection whose disk fails at one statement."""

    def __init__(self, db, sql):
        self._db = db
        self._sql = sql

    def __getattr__(self, name):
        return getattr(self._db, name)

    def execute(self, sql, *bindings):
        if sql == self._sql:
            raise apsw.IOError("disk I/O error")
        return self._db.execute(sql, *bindings)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_after_a_failing_sync_nothing_is_written_any_more(filled, path, make, statement):
    writer = filled._writer
    filled._writer = FailingAt(writer, statement)
    with pytest.raises(StoreFault, match=r"contexts\.db: committing: the disk failed.*system's log"):
        filled.commit([Work(make.ue(1), 1, [make.put("a", b"not durable")])])
    filled._writer = writer
    for write in (
        lambda: filled.commit([Work(make.ue(1), 1, [])]),
        lambda: filled.trim_log(1),
        lambda: filled.stage(1),
    ):
        with pytest.raises(StoreFault, match="takes no more commits"):
            write()
    assert filled.context(make.ue(1)).head.n == 1
    filled.close()
    assert_whole(path, make, 300)


def test_a_bug_in_a_commit_leaves_nothing_half_done(filled, path, make, monkeypatch):
    monkeypatch.setattr("outrider.store.operations.row_columns", lambda row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        filled.commit([Work(make.ue(1), 1, [make.put("a")]), SetRow(make.ue(2), make.owned(1), make.granted(2))])
    monkeypatch.undo()
    with pytest.raises(StoreFault, match="takes no more commits"):
        filled.commit([Work(make.ue(1), 1, [])])
    filled.close()
    assert_whole(path, make, 300)


def test_a_failing_checkpoint_stops_the_store(filled, make, monkeypatch):
    class Failing:
        def wal_checkpoint(self, mode):
            raise apsw.IOError("disk I/O error")

        def close(self):
            pass

    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 1)
    filled._checkpointer._db.close()
    filled._checkpointer._db = Failing()
    filled.commit([Work(make.ue(1), 1, [])])
    filled._checkpointer._thread.join()
    with pytest.raises(StoreFault, match="moving the write-ahead log into the file: the disk failed"):
        filled.commit([Work(make.ue(1), 1, [])])


# --------------------------------------------------------------------------------------- damaged files


def damage(path, page, content):
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(content)


def leaves_of(path, table):
    """Where the leaf pages of a table are, from 0."""
    db = apsw.Connection(str(path))
    pages = db.execute("SELECT pageno - 1 FROM dbstat WHERE name = ? AND pagetype = 'leaf'", (table,)).fetchall()
    db.close()
    return [page for (page,) in pages]


@pytest.mark.parametrize("garbage", [b"\0" * PAGE_BYTES, b"\xff" * PAGE_BYTES, os.urandom(PAGE_BYTES)])
def test_damaged_pages_are_reported_and_not_written_over(filled, path, make, garbage):
    filled.close()
    for page in leaves_of(path, "rec")[10:20]:
        damage(path, page, garbage)
    store = SqliteStore.open(path)
    faults = []
    for n in range(300):
        try:
            store.context(make.ue(n))
        except StoreFault as fault:
            faults.append(str(fault))
    assert faults
    assert "contexts.db: reading: the file is damaged (SQLITE_CORRUPT" in faults[0]
    assert "fresh store" in faults[0]
    with pytest.raises(StoreFault, match="takes no more commits"):
        store.commit([Work(make.ue(1), 1, [make.put("a")])])
    assert store.check() != []
    store.close()


def test_a_commit_into_a_damaged_page_is_a_fault(filled, path, make):
    filled.close()
    for page in leaves_of(path, "rec")[10:20]:
        damage(path, page, b"\xff" * PAGE_BYTES)
    store = SqliteStore.open(path)
    with pytest.raises(StoreFault, match=r"committing: the file is damaged"):
        store.commit([Work(make.ue(n), 1, [make.put("a", bytes(3_000))]) for n in range(300)])
    store.close()


def test_a_changed_byte_in_a_record_is_found_by_the_digest(filled, path, make):
    """SQLite does not see it: the page is well-formed."""
    body = bytes([100]) * 1_500
    filled.close()
    data = path.read_bytes()
    path.write_bytes(data.replace(body, b"\xff" + body[1:]))
    store = SqliteStore.open(path)
    assert store.check() == [f"ue:{make.ue(100)[1:].hex()}: its 1 records do not add up to the digest of its head"]
    store.close()


@pytest.mark.parametrize("what", ["head", "record", "lost entry", "reordered", "epoch"])
def test_check_says_what_does_not_agree(filled, path, make, what):
    filled.commit([Work(make.ue(1), 1, []), Work(make.ue(2), 1, [])])
    filled.commit([SetRow(make.ue(3), make.owned(1), make.owned(2))])
    filled.close()
    statements = {
        "head": "DELETE FROM head WHERE k = ?1",
        "record": "UPDATE rec SET version = 9 WHERE k = ?1",
        "lost entry": "DELETE FROM log WHERE lsn = 7 AND ?1 NOT NULL",
        "reordered": "UPDATE head SET n = 1 WHERE k = ?1",
        "epoch": "INSERT OR REPLACE INTO row VALUES (?1, 'owned', 0, NULL, 0, 0, NULL)",
    }
    expected = {
        "head": "it has records and no head",
        "record": "is of unit 9, after the head's 2",
        "lost entry": "log: entry 7 is missing",
        "reordered": "",
        "epoch": "owned at epoch 0, and its head is of epoch 1",
    }
    db = apsw.Connection(str(path))
    db.execute(statements[what], (make.ue(1),))
    if what == "reordered":
        db.execute("INSERT INTO row VALUES (?1, 'owned', 1, NULL, 0, 0, NULL)", (make.ue(1),))
    db.close()
    store = SqliteStore.open(path)
    assert any(expected[what] in sentence for sentence in store.check())
    store.close()


def test_a_damaged_write_ahead_log_loses_its_tail_and_shows_it(path, make):
    """The units after the damage are gone, whole; the lsn is lower than peers have seen (PROTOCOL.md §9)."""
    store = SqliteStore.open(path, digest_key=make.digest_key)
    store.commit([SetRow(partition_key(0), make.FOREIGN_0, make.owned(1))])
    for n in range(100):
        store.commit([Work(make.ue(n), 1, [make.put("a", bytes(3_000))])])
    wal = path.with_name(path.name + "-wal")
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    log = bytearray(wal.read_bytes())
    log[len(log) // 2] ^= 0xFF
    copy.with_name(copy.name + "-wal").write_bytes(log)
    store.close()
    rolled_back = SqliteStore.open(copy)
    assert 0 < rolled_back.last_lsn() < 100
    assert rolled_back.identity.store_id == store.identity.store_id
    assert rolled_back.check() == []
    rolled_back.close()


# ----------------------------------------------------------------------------------------- checkpoints


def test_the_write_ahead_log_begins_anew_under_load(filled, path, make, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 40)
    grown, fell = 0, False
    for n in range(5_000):
        filled.commit([Work(make.ue(n % 300), 1, [make.put("a", bytes([n % 251]) * 3_000)])])
        fell = filled._checkpointer._pages < grown
        grown = filled._checkpointer._pages
        if fell:
            break
    assert fell
    assert filled.check() == []


def test_a_long_write_ahead_log_is_moved_by_the_writer_itself(filled, make, monkeypatch):
    filled._checkpointer.stop()
    monkeypatch.setattr(filled._checkpointer, "stop", lambda: None)
    monkeypatch.setattr(checkpoint, "BEHIND_PAGES", 50)
    for n in range(100):
        filled.commit([Work(make.ue(n), 1, [make.put("a", bytes(3_000))])])
    assert filled._checkpointer._pages < 100
