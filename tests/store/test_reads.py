"""What can be read: chunks, sums, log, timers, outbox, identities, values; and that reads see what was committed."""

import threading

import pytest

from outrider.core import limits
from outrider.core.ids import partition_key
from outrider.core.record import EMPTY_DIGEST, NO_HEAD, Change, Head, Kind, Record, digest_of, outbox_id, sum_digests
from outrider.store.port import BindIdentity, Done, Follow, PartitionSum, Replace, SetRow, SetValue, Take, Work


def walk(store, start, stop, limit):
    """All chunks of a range."""
    chunks = []
    while start < stop:
        chunks.append(store.chunk(start, stop, limit))
        start = chunks[-1].stop
    return chunks


@pytest.fixture
def filled(home, make):
    """A store with UEs of one, two, three … records, some of kinds other than data, and one without a record."""
    operations = []
    for number in range(1, 8):
        changes = [make.put(f"ü{i}\0'\"", bytes([i, 0, 255]) * i) for i in range(number)]
        operations.append(
            Work(make.ue(number, number % 2), 1, [*changes, make.timer("t", number)], identity=f"i{number}")
        )
    operations.append(Work(make.ue(20), 1, []))
    assert all(isinstance(o, Done) for o in home.commit(operations))
    return home


# -------------------------------------------------------------------------------------------- chunks


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 13, 100])
def test_chunks_are_whole_ues_in_order_and_complete(filled, make, limit):
    chunks = walk(filled, b"u", b"v", limit)
    heads = [h for c in chunks for h in c.heads]
    records = [r for c in chunks for r in c.records]
    assert heads == sorted(heads)
    assert [h[0] for h in heads] == sorted([*(make.ue(n, n % 2) for n in range(1, 8)), make.ue(20)])
    assert records == sorted(records, key=lambda r: r[:4])
    assert records == [r for h in heads for r in filled.context(h[0]).records]
    assert all(type(r) is Record for r in records)
    for chunk in chunks:
        assert {r.key for r in chunk.records} <= {h[0] for h in chunk.heads}
        assert all(chunk.start <= h[0] < chunk.stop for h in chunk.heads)
        assert len(chunk.records) <= limit or len(chunk.heads) == 1
        assert chunk.read_lsn == 8
    assert chunks[-1].stop == b"v"
    assert [c.start for c in chunks[1:]] == [c.stop for c in chunks[:-1]]


def test_an_empty_range_is_one_empty_chunk(filled):
    chunk = filled.chunk(b"u\x77", b"u\x78", 10)
    assert (chunk.stop, chunk.heads, chunk.records) == (b"u\x78", [], [])


def test_many_ues_without_records_do_not_make_a_chunk_endless(store, make, commit):
    heads = [(make.ue(n), 1, 1, EMPTY_DIGEST) for n in range(10)]
    commit(store, Replace(b"u", b"v", heads, []))
    chunks = walk(store, b"u", b"v", 4)
    assert [len(c.heads) for c in chunks] == [4, 4, 2]
    assert [h for c in chunks for h in c.heads] == heads == store.heads(b"u", b"v")


def test_a_chunk_of_large_records_fits_a_frame(home, make):
    body = bytes(limits.RECORD_BYTES)
    for number in range(40):
        home.commit([Work(make.ue(number), 1, [make.put("large", body)])])
    chunks = walk(home, b"u", b"v", 4_000)
    assert len(chunks) > 1
    assert sum(len(c.heads) for c in chunks) == 40
    assert all(sum(len(r.body) for r in c.records) <= limits.FRAME_BYTES // 4 for c in chunks)
    assert sum(len(e.changes[0].body) for e in home.log(0, 1_000)) <= limits.FRAME_BYTES // 4


def test_a_ue_larger_than_a_chunk_is_read_whole(home, make):
    body = bytes(limits.RECORD_BYTES)
    for number in range(36):
        home.commit([Work(make.ue(1), 1, [make.put(f"r{number:02}", body)])])
    home.commit([Work(make.ue(2), 1, [make.put("small")])])
    first, *rest = walk(home, b"u", b"v", 4_000)
    assert ([h[0] for h in first.heads], len(first.records)) == ([make.ue(1)], 36)
    assert [h[0] for c in rest for h in c.heads] == [make.ue(2)]


# ---------------------------------------------------------------------------------------------- sums


def test_sums_are_of_the_heads(filled, make):
    heads = filled.heads(b"u", b"v")
    everything = PartitionSum(8, sum_digests(h[3] for h in heads))
    assert filled.partition_sum(b"u", b"v") == everything
    without = [make.ue(1, 1), make.ue(4), make.ue(77)]
    some = PartitionSum(6, sum_digests(h[3] for h in heads if h[0] not in without))
    assert filled.partition_sum(b"u", b"v", without) == some
    assert filled.partition_sum(b"u\1", b"u\2").ues == 4
    assert filled.partition_sum(b"u\7", b"u\10") == PartitionSum(0, EMPTY_DIGEST)


# ----------------------------------------------------------------------------------------------- log


def test_the_log_is_read_in_pieces(filled):
    everything = filled.log(0, 100)
    assert [e.lsn for e in everything] == list(range(1, 9))
    assert filled.log(0, 3) + filled.log(3, 3) + filled.log(6, 3) == everything
    assert filled.log(8, 3) == []


def test_a_trimmed_log_shows_where_it_begins(filled):
    filled.trim_log(5)
    assert [e.lsn for e in filled.log(2, 100)] == [6, 7, 8]
    assert filled.last_lsn() == 8
    filled.trim_log(3)
    assert filled.log(0, 1)[0].lsn == 6
    assert filled.check() == []


# ------------------------------------------------------------------------------------ timers, outbox


def test_due_timers_come_earliest_first_and_only_of_owned_keys(filled, make, commit):
    assert [r.due_ms for r in filled.due_timers(4, 100)] == [1, 2, 3, 4]
    assert [r.due_ms for r in filled.due_timers(100, 2)] == [1, 2]
    commit(filled, SetRow(make.ue(1, 1), make.owned(1), make.granted(2)))
    commit(filled, SetRow(partition_key(0), make.owned(1), make.granted(2)))
    assert [r.due_ms for r in filled.due_timers(100, 100)] == [3, 5, 7]
    assert filled.next_due_ms() == 3
    commit(filled, SetRow(partition_key(1), make.owned(1), make.foreign(2)))
    assert filled.due_timers(100, 100) == []
    assert filled.next_due_ms() is None
    commit(filled, SetRow(partition_key(1), make.foreign(2), make.owned(3)))
    assert [r.due_ms for r in filled.due_timers(100, 100)] == [3, 5, 7]
    assert filled.next_due_ms() == 3


def test_timers_of_others_do_not_stand_before_ones_own(store, make, commit):
    """A copy's timers are overdue for as long as the link is down; they are looked at once."""
    entries = [make.entry(make.ue(n), NO_HEAD, [], make.timer("t", n)) for n in range(50)]
    commit(store, Follow(entries))
    assert store.due_timers(100, 10) == []
    assert store.next_due_ms() is None
    late = make.ue(77)
    commit(store, SetRow(late, make.FOREIGN_0, make.owned(1)))
    commit(store, Work(late, 1, [make.timer("t", 90), make.timer("later", 190)]))
    assert [r.key for r in store.due_timers(100, 10)] == [late]
    assert store.next_due_ms() == 90
    commit(store, Work(late, 1, [Change(Kind.TIMER, "nsmf-x", "t", None)]))
    assert store.due_timers(100, 10) == []
    assert store.next_due_ms() == 190
    head = store.context(make.ue(7)).head
    commit(store, Take(make.ue(7), make.FOREIGN_0, make.owned(2), head))
    assert [r.key for r in store.due_timers(100, 10)] == [make.ue(7)]
    total = store.partition_sum(b"u\0", b"u\1", [make.ue(7), late])
    rows = store.own_rows(b"u", b"v")
    star = partition_key(0)
    assert rows.keys() == {make.ue(7), late}
    commit(store, Take(star, make.FOREIGN_0, make.owned(2), Head(1, total.ues, total.digest)))
    assert len(store.due_timers(100, 100)) == 50


def test_a_timer_that_is_armed_again_is_due_once(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [make.timer("t", 5)]))
    commit(home, Work(key, 1, [make.timer("t", 50)]))
    assert home.due_timers(10, 10) == []
    assert home.next_due_ms() == 50
    commit(home, Work(key, 1, [make.timer("t", 7)]))
    assert [r.due_ms for r in home.due_timers(10, 10)] == [7]
    assert home.due_timers(6, 10) == []  # a clock that was set back
    commit(home, Work(key, 1, [make.timer("t", 50)]))
    assert home.due_timers(10, 10) == []
    assert home.next_due_ms() == 50
    commit(home, Work(key, 1, [Change(Kind.TIMER, "nsmf-x", "t", None)]))
    assert home.next_due_ms() is None


def test_the_outbox_is_in_delivery_order_over_all_nf_services(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [make.message(outbox_id(1, 0), "nz"), make.message(outbox_id(1, 1), "na")]))
    commit(home, Work(key, 1, [make.message(outbox_id(2, 0), "nm"), make.put("data")]))
    assert [r.id for r in home.outbox(key, 10)] == [outbox_id(1, 0), outbox_id(1, 1), outbox_id(2, 0)]
    assert [r.nf for r in home.outbox(key, 2)] == ["nz", "na"]
    assert home.outbox_keys() == [key]
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    assert home.outbox_keys() == []


# ---------------------------------------------------------------------------------- identities, values


def test_the_first_binding_of_an_identity_holds(kit, store, make, commit):
    assert commit(store, BindIdentity("imsi-1", make.ue(1))) == Done(key=make.ue(1))
    assert commit(store, BindIdentity("imsi-1", make.ue(2))) == Done(key=make.ue(1))
    assert commit(store, BindIdentity("msisdn-1", make.ue(1))) == Done(key=make.ue(1))
    again = kit.open()
    assert (again.key_of("imsi-1"), again.key_of("msisdn-1"), again.key_of("imsi-2")) == (make.ue(1), make.ue(1), None)
    assert (again.identity_of(make.ue(1)), again.identity_of(make.ue(2))) == ("imsi-1", None)


def test_values_are_kept_replaced_and_deleted(kit, store, commit):
    for name, value in (("mig:a", b"1"), ("mig:b", b""), ("mih", b"3"), ("mi%", b"4"), ("mig:a", b"5")):
        assert commit(store, SetValue(name, value)) == Done()
    again = kit.open()
    assert again.values("mig:") == {"mig:a": b"5", "mig:b": b""}
    assert (again.value("mig:b"), again.value("mi%"), again.value("absent")) == (b"", b"4", None)
    commit(again, SetValue("mig:a", None))
    commit(again, SetValue("never", None))
    assert again.values("") == {"mig:b": b"", "mih": b"3", "mi%": b"4"}


# ------------------------------------------------------------------------------------- who sees what


def test_reads_beside_commits_see_whole_units_and_all_that_was_answered(home, make):
    """Each unit writes two equal records; a reader in another thread never sees them differ, nor an old one."""
    key = make.ue(1)
    answered = [0]
    ends = threading.Event()
    wrong = []

    def read():
        while not ends.is_set():
            least = answered[0]
            context = home.context(key)
            bodies = {r.body for r in context.records}
            chunk = home.chunk(b"u", b"v", 10)
            if len(bodies) > 1 or context.head.n < least or (chunk.heads and chunk.heads[0][2] > chunk.read_lsn):
                wrong.append((bodies, context.head.n, least))
            if digest_of(context.records, make.digest_key) != context.head.digest:
                wrong.append("digest")

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 200):
        body = str(number).encode()
        home.commit([Work(key, 1, [make.put("a", body), make.put("b", body)])])
        answered[0] = number
    ends.set()
    reader.join()
    assert wrong == []
