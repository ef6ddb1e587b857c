"""Bulk work, in a thread and in a process of its own: the same results, and what happens when it is interrupted."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import zstandard

from outrider.core import limits
from outrider.core.compress import compress
from outrider.core.record import NO_HEAD, Change
from outrider.store.bulk_process import BulkBeside, BulkProcess
from outrider.store.bulk_work import Loaded
from outrider.store.packed import pack_log, unpack_chunk
from outrider.store.port import Followed, SetRow, StagingBroken, StoreFault, Work
from outrider.store.sqlite import SqliteStore

KINDS = {"thread": BulkBeside, "process": BulkProcess}


@pytest.fixture(params=KINDS)
def bulk_of(request):
    return KINDS[request.param]


def open_store(directory, make):
    directory.mkdir()
    return SqliteStore.open(directory / "contexts.db", digest_key=make.digest_key)


@pytest.fixture
def source(tmp_path, make):
    store = open_store(tmp_path / "source", make)
    store.commit([SetRow(b"p" + bytes([p]), make.FOREIGN_0, make.owned(1)) for p in range(4)])
    store.commit([Work(make.ue(n, n % 4), 1, [make.put("a", b"body %d" % n)] if n % 5 else []) for n in range(40)])
    yield store
    store.close()


@pytest.fixture
def target(tmp_path, make):
    store = open_store(tmp_path / "target", make)
    yield store
    store.close()


async def all_of(bulk, limit=10):
    start, found = b"u", []
    while start < b"v":
        found.append(await bulk.scan(start, b"v", limit))
        start = found[-1].stop
    return found


async def test_what_is_scanned_is_what_the_store_has(bulk_of, source):
    bulk = bulk_of(source.path)
    scanned = await all_of(bulk)
    await bulk.close()
    assert len(scanned) > 3
    parts = [unpack_chunk(s.content) for s in scanned]
    whole = source.chunk(b"u", b"v", 1_000)
    assert [h for heads, _ in parts for h in heads] == whole.heads
    assert [r for _, records in parts for r in records] == whole.records
    assert sum(s.ues for s in scanned) == 40
    assert {s.read_lsn for s in scanned} == {source.last_lsn()}
    assert sum(s.body_bytes for s in scanned) == sum(len(r.body) for r in whole.records)


async def test_a_scan_sees_what_was_committed_before_it_began(bulk_of, source, make):
    bulk = bulk_of(source.path)
    await bulk.scan(b"u", b"v", 10)
    source.commit([Work(make.ue(1, 1), 1, [make.put("a", b"newer")])])
    _, records = unpack_chunk((await bulk.scan(b"u", b"v", 1_000)).content)
    await bulk.close()
    assert b"newer" in [r.body for r in records]


async def test_what_is_loaded_becomes_the_live_file(bulk_of, source, target, make):
    reading, loading = bulk_of(source.path), bulk_of(target.path)
    staging = target.stage("m-7")
    staging.release()
    await loading.stage("m-7", make.digest_key)
    for scanned in await all_of(reading):
        assert (await loading.load(scanned.content)).unproved == []
    lsn = source.last_lsn()
    source.commit([Work(make.ue(1, 1), 1, [make.put("a", b"newer")])])
    (entry,) = source.log(lsn, 10)
    assert await loading.follow(pack_log([entry])) == Followed(1, 0, [])
    assert await loading.follow(pack_log([entry])) == Followed(0, 1, [])
    await reading.close()
    await loading.flush()
    await loading.close()
    staging.regain()
    target.adopt(staging)
    assert target.heads(b"u", b"v") == source.heads(b"u", b"v")
    assert target.partition_sum(b"u", b"v") == source.partition_sum(b"u", b"v")
    assert target.check() == []


async def test_of_a_chunk_that_is_not_what_it_claims_nothing_is_loaded(bulk_of, source, target, make):
    reading, loading = bulk_of(source.path), bulk_of(target.path)
    staging = target.stage("m-1")
    staging.release()
    await loading.stage("m-1", b"another key, so another digest..")
    scanned = await reading.scan(b"u", b"v", 10)
    loaded = await loading.load(scanned.content)
    assert loaded == Loaded(0, [h[0] for h, r in zip(*_by_key(scanned.content), strict=True) if r])
    await reading.close()
    await loading.close()
    staging.regain()
    assert staging.partition_sum(b"u", b"v").ues == 0
    staging.discard()


def _by_key(content):
    heads, records = unpack_chunk(content)
    return heads, [[r for r in records if r.key == h[0]] for h in heads]


BOMB = zstandard.ZstdCompressor(level=1).compress(bytes(limits.FRAME_BYTES + 1))
LIES = {
    "not compressed": b"plain",
    "a bomb": BOMB,
    "no chunk": compress(b"\xc0"),
    "lengths too long": compress(msgspec.msgpack.encode([(b"k", b"d" * 16, b"[[2,1,1]]"), (b"", b"", b"[]")])),
    "lengths too short": compress(msgspec.msgpack.encode([(b"kk", b"d" * 16, b"[[1,1,1]]"), (b"", b"", b"[]")])),
    "negative length": compress(
        msgspec.msgpack.encode([(b"", b"", b"[]"), (b"k", b"ab", b'[[1,0,"n","a",-1,1,null],[0,0,"n","b",3,1,null]]')])
    ),
    "digest cut": compress(msgspec.msgpack.encode([(b"k", b"d" * 15, b"[[1,1,1]]"), (b"", b"", b"[]")])),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_chunk_that_is_none_is_refused_and_the_store_untouched(bulk_of, target, make, lie):
    staging = target.stage("m-1")
    staging.release()
    bulk = bulk_of(target.path)
    await bulk.stage("m-1", make.digest_key)
    with pytest.raises(StagingBroken):
        await bulk.load(LIES[lie])
    await bulk.close()
    staging.discard()
    assert target.check() == []


async def test_log_entries_that_are_none_are_refused(bulk_of, target, make):
    staging = target.stage("m-1")
    staging.release()
    bulk = bulk_of(target.path)
    await bulk.stage("m-1", make.digest_key)
    with pytest.raises(StagingBroken):
        await bulk.follow(b"plain")
    with pytest.raises(StagingBroken):
        await bulk.follow(pack_log([make.entry(make.ue(1), NO_HEAD, [], Change(0, "nf", "a", b"", 17))]))
    await bulk.close()
    staging.discard()


async def test_nothing_is_loaded_without_a_staging_file(bulk_of, source, target):
    reading, loading = bulk_of(source.path), bulk_of(target.path)
    scanned = await reading.scan(b"u", b"v", 10)
    with pytest.raises(StagingBroken, match="no staging file"):
        await loading.load(scanned.content)
    await reading.close()
    await loading.close()


async def test_a_file_that_is_no_store_is_a_fault_of_the_disk(bulk_of, tmp_path):
    (tmp_path / "contexts.db").write_bytes(b"no database" * 1_000)
    bulk = bulk_of(tmp_path / "contexts.db")
    with pytest.raises(StoreFault, match=r"contexts\.db"):
        await bulk.scan(b"u", b"v", 10)
    await bulk.close()


# ----------------------------------------------------------------------------------- the process alone


async def test_a_process_that_is_killed_reads_again(source):
    bulk = BulkProcess(source.path)
    first = await bulk.scan(b"u", b"v", 10)
    killed = bulk.pid
    os.kill(killed, signal.SIGKILL)
    assert await bulk.scan(b"u", b"v", 10) == first
    assert bulk.pid != killed
    await bulk.close()


async def test_a_process_that_is_killed_breaks_what_it_was_loading(source, target, make):
    reading, loading = BulkBeside(source.path), BulkProcess(target.path)
    scanned = await reading.scan(b"u", b"v", 10)
    staging = target.stage("m-1")
    staging.release()
    await loading.stage("m-1", make.digest_key)
    os.kill(loading.pid, signal.SIGKILL)
    with pytest.raises(StagingBroken, match="has ended"):
        await loading.load(scanned.content)
    with pytest.raises(StagingBroken, match="no staging file"):  # a new process knows nothing of the old one's file
        await loading.load(scanned.content)
    await reading.close()
    await loading.close()
    staging.discard()


async def test_a_question_that_is_given_up_does_not_leave_its_answer_to_the_next(source):
    bulk = BulkProcess(source.path)
    await bulk.scan(b"u", b"v", 10)
    asked = asyncio.create_task(bulk.scan(b"u", b"v", 1))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert (await bulk.scan(b"u", b"v", 1_000)).ues == 40
    await bulk.close()


def test_the_process_ends_when_nobody_can_ask_any_more(source):
    started = subprocess.Popen(
        [sys.executable, "-m", "outrider.store.bulk_process", str(source.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdin is not None
    started.stdin.close()
    assert started.wait(30) == 0
    assert started.stdout is not None
    started.stdout.close()


def test_the_process_ends_in_silence_when_its_keeper_dies_before_the_answer(source, make):
    source.commit([Work(make.ue(100 + n, n % 4), 1, [make.put("a", os.urandom(100_000))]) for n in range(30)])
    started = subprocess.Popen(
        [sys.executable, "-m", "outrider.store.bulk_process", str(source.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stdin is not None
    assert started.stdout is not None
    assert started.stderr is not None
    started.stdout.close()
    order = msgspec.msgpack.encode(("scan", (b"u", b"v", 1_000)))
    started.stdin.write(len(order).to_bytes(8, "big") + order)
    started.stdin.close()
    said = started.stderr.read()
    started.stderr.close()
    assert (started.wait(30), said) == (0, b"")


def test_an_answer_that_is_interrupted_while_it_is_written_arrives_whole(source, make):
    source.commit([Work(make.ue(100 + n, n % 4), 1, [make.put("a", os.urandom(100_000))]) for n in range(30)])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        started = subprocess.Popen(
            [sys.executable, "-m", "outrider.store.bulk_process", str(source.path)],
            stdin=subprocess.PIPE,
            stdout=theirs,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert started.stdin is not None
        order = msgspec.msgpack.encode(("scan", (b"u", b"v", 1_000)))
        started.stdin.write(len(order).to_bytes(8, "big") + order)
        started.stdin.flush()
        length = int.from_bytes(ours.recv(8, socket.MSG_WAITALL), "big")
        waits = Path(f"/proc/{started.pid}/stat")
        while waits.read_text().rpartition(")")[2].split()[0] != "S":  # the socket is full, and nobody reads
            os.sched_yield()
        for signal_number in (signal.SIGSTOP, signal.SIGCONT):
            os.kill(started.pid, signal_number)
        assert length > 1_000_000  # more than a socket holds
        with ours.makefile("rb") as answers:
            started.stdin.close()  # when it has answered, it ends
            theirs.close()
            assert len(answers.read(length)) == length
        assert started.wait(30) == 0


async def test_a_reading_process_that_was_told_to_end_is_closed_without_a_word(source):
    bulk = BulkProcess(source.path)
    await bulk.scan(b"u", b"v", 10)
    os.kill(bulk.pid, signal.SIGTERM)
    await bulk.close()


async def test_a_loading_process_that_was_told_to_end_has_broken_its_file(target, make):
    staging = target.stage("m-1")
    staging.release()
    bulk = BulkProcess(target.path)
    await bulk.stage("m-1", make.digest_key)
    os.kill(bulk.pid, signal.SIGTERM)
    with pytest.raises(StagingBroken):
        await bulk.close()
    staging.discard()
