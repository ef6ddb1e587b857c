"""What a store keeps in memory is what its file says, whatever is committed, and nobody reads it from there in vain."""

import random
import threading

import pytest

from outrider.core import limits
from outrider.core.ids import partition_key
from outrider.core.record import NO_HEAD
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import BindIdentity, Done, Erase, Failed, SetRow, Take, Work
from outrider.store.reader import Reader


@pytest.fixture
def statements(home, monkeypatch):
    """The statements of point reads, from now on."""
    run = []
    rows = home._reader._point.rows

    def counted(sql, bindings=()):
        run.append(sql)
        return rows(sql, bindings)

    monkeypatch.setattr(home._reader._point, "rows", counted)
    return run


def in_file(store, key):
    """The context as a reader says it that remembers nothing."""
    reader = Reader(store.path)
    try:
        return reader.context(key)
    finally:
        reader.close()


def test_a_request_reads_key_row_and_context_in_one_statement_and_again_in_none(home, make, statements):
    home.commit([Work(make.ue(1), 1, [make.put("a")], identity="imsi-1")])
    home._recent.clear()
    for _ in range(2):
        assert home.key_of("imsi-1") == make.ue(1)
        assert home.row(make.ue(1)) == make.owned(1)
        assert home.context(make.ue(1)) == in_file(home, make.ue(1))
    assert len(statements) == 1


def test_a_unit_takes_the_context_on(home, make, statements):
    key = make.ue(1)
    home.commit([Work(key, 1, [make.put("a"), make.put("b"), make.timer("t", 5)])])
    home.row(key)
    statements.clear()
    home.commit([Work(key, 1, [make.put("b", b"other")]), Work(key, 1, [make.drop("a"), make.put("c")])])
    home.commit([Work(key, 1, [], "k", make.answer())])
    assert home.context(key) == in_file(home, key)
    assert [r.id for r in home.context(key).records] == ["b", "c", "k", "t"]
    assert not statements


def test_units_after_another_operation_of_the_same_commit_meet_what_that_has_left(home, make):
    key = make.ue(1)
    home.commit([Work(key, 1, [make.put("a")])])
    home.row(key)
    given = Row(Ownership.GRANTED, 2, "999-71", mig="m")
    outcomes = home.commit(
        [Work(key, 1, [make.put("b")]), SetRow(key, make.owned(1), given), Work(key, 1, [make.put("c")])]
    )
    assert [type(o).__name__ for o in outcomes] == ["Done", "Done", "NotTheOwner"]
    assert home.row(key) == given
    assert home.context(key) == in_file(home, key)


def test_what_was_undone_is_not_remembered(home, make):
    key, other = make.ue(1), make.ue(2)
    home.commit([Work(key, 1, [make.put("a")]), Work(other, 1, [make.put("a")])])
    home.row(key), home.row(other)
    impossible = Work(key, 1, [make.put("b")._replace(due_ms=5)])
    good, bad = home.commit([Work(other, 1, [make.put("b")]), impossible])
    assert (type(good), type(bad)) == (Done, Failed)
    for k in (key, other):
        assert home.context(k) == in_file(home, k)


def test_a_partition_that_is_given_away_takes_its_rows_out_of_memory(home, make):
    key, star = make.ue(1), partition_key(0)
    home.commit([Work(key, 1, [make.put("a")])])
    assert home.row(key) == make.owned(1)
    given = Row(Ownership.GRANTED, 2, "999-71", mig="m")
    home.commit([SetRow(star, make.owned(1), given)])
    assert home.row(key) == given
    home.commit([SetRow(star, given, make.foreign(2))])
    assert home.row(key) == make.foreign(2)


def test_a_row_that_is_not_owned_is_remembered_and_its_records_are_not_read_for_it(home, make, statements):
    key = make.ue(1)
    records = make.records(key, 1, b"x")
    home.commit([SetRow(key, make.owned(1), make.foreign(2))])
    assert home.row(key) == make.foreign(2)
    statements.clear()
    assert home.row(key) == make.foreign(2)
    assert not statements
    taken = Take(key, make.foreign(2), make.owned(3), make.head(3, 1, records), records, identity="imsi-1")
    assert type(home.commit([taken])[0]) is Done
    assert home.row(key) == make.owned(3)
    assert home.key_of("imsi-1") == key
    assert home.context(key).records == records


def test_an_identity_is_found_at_its_new_key_and_not_at_all_when_it_is_erased(home, make):
    old, new = make.ue(1), make.ue(2)
    home.commit([BindIdentity("imsi-1", old)])
    assert home.key_of("imsi-1") == old
    home.commit([SetRow(new, make.owned(1), make.foreign(2))])
    home.commit([Take(new, make.foreign(2), make.owned(3), NO_HEAD, [], identity="imsi-1")])
    assert home.key_of("imsi-1") == new
    home.commit([SetRow(new, make.owned(3), make.foreign(4))])
    home.commit([Erase([new])])
    assert home.key_of("imsi-1") is None


def test_memory_is_bounded(home, make, monkeypatch):
    monkeypatch.setattr(limits, "RECENT_BYTES", 20_000)
    monkeypatch.setattr(limits, "RECENT_NAMES", 5)
    keys = [make.ue(n) for n in range(40)]
    home.commit([Work(k, 1, [make.put("a", bytes(1000))], identity=f"imsi-{i}") for i, k in enumerate(keys)])
    for i, key in enumerate(keys):
        assert home.key_of(f"imsi-{i}") == key
        assert home.context(key) == in_file(home, key)
    assert 0 < len(home._recent._contexts) <= 10
    assert len(home._recent._keys) <= 5
    home.commit([Work(key, 1, [make.put("a", bytes(3000))]) for key in keys])
    assert home._recent._bytes <= 20_000
    kept = home._recent._contexts.values()
    assert home._recent._bytes == sum(1024 + sum(len(r.body) for r in c.records) for c in kept)


def test_a_large_context_is_read_each_time_and_its_row_is_not(home, make, statements):
    key = make.ue(1)
    home.commit([Work(key, 1, [make.put("a", bytes(limits.RECENT_CONTEXT_BYTES))])])
    assert home.row(key) == home.row(key) == make.owned(1)
    assert len(statements) == 1
    assert home.context(key) == in_file(home, key)
    assert len(statements) == 2


@pytest.mark.parametrize("seed", range(3))
def test_readers_beside_the_writer_never_leave_anything_old_behind(home, make, seed):
    keys = [make.ue(n) for n in range(4)]
    over = threading.Event()
    wrong = []

    def read():
        chance, seen = random.Random(seed), dict.fromkeys(keys, 0)
        while not over.is_set():
            key = chance.choice(keys)
            if chance.random() < 0.2:
                home._recent.clear()
            row, context = home.row(key), home.context(key)
            if context.head.n < seen[key]:
                wrong.append((key, context.head.n, seen[key]))
            seen[key] = context.head.n
            if row.state is Ownership.OWNED and context.row.epoch < row.epoch:
                wrong.append((row, context.row))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        chance, epoch = random.Random(seed), dict.fromkeys(keys, 1)
        for n in range(150):
            key = chance.choice(keys)
            operations = [Work(k, epoch[k], [make.put("a", b"%d" % n)]) for k in keys if chance.random() < 0.5]
            if chance.random() < 0.2:
                operations.append(SetRow(key, make.owned(epoch[key]), make.owned(epoch[key] + 1)))
                epoch[key] += 1
            outcomes = home.commit(operations)
            assert all(type(o) is Done for o in outcomes)
            for key in keys:
                assert home.row(key) == make.owned(epoch[key])
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong
    for key in keys:
        assert home.context(key) == in_file(home, key)


@pytest.mark.parametrize("look", ["row", "context"])
def test_who_reads_the_file_while_another_keeps_what_was_before_does_not_run_ahead(home, make, monkeypatch, look):
    """Between the commit in the file and the one in memory, all see what is in memory."""
    key, pass_on, passed = make.ue(1), home._reader.committed, []
    home.commit([Work(key, 1, [make.put("a")])])
    rows = home._reader._point.rows

    def meanwhile(*statement):
        monkeypatch.setattr(home._reader._point, "rows", rows)
        home.row(key)  # another reader, which keeps what it reads
        monkeypatch.setattr(home._reader, "committed", lambda *what: passed.append(what))
        home.commit([Work(key, 1, [make.put("a")]), SetRow(key, make.owned(1), make.owned(2))])
        return rows(*statement)

    home._recent.clear()
    monkeypatch.setattr(home._reader._point, "rows", meanwhile)
    first = getattr(home, look)(key)
    assert getattr(home, look)(key) == first
    for what in passed:
        pass_on(*what)
    assert (home.row(key), home.context(key)) == (make.owned(2), in_file(home, key))


def test_a_partition_that_changes_owner_takes_only_its_own_contexts_from_memory(home, make, statements):
    going, staying, foreign = make.ue(1, 1), make.ue(2, 0), make.ue(3, 3)
    home.commit([Work(going, 1, [make.put("a")]), Work(staying, 1, [make.put("a")])])
    there = Row(Ownership.FOREIGN, 2, "999-71")
    home.commit([SetRow(partition_key(3), make.FOREIGN_0, there)])
    for key in (going, staying, foreign):
        home.row(key)
    statements.clear()
    given = Row(Ownership.GRANTED, 2, "999-71", mig="m")
    home.commit([SetRow(partition_key(1), make.owned(1), given)])
    assert (home.row(staying), home.row(foreign)) == (make.owned(1), there)
    assert home.context(staying) == in_file(home, staying)
    assert not statements
    assert home.row(going) == given
    assert len(statements) == 1


def test_what_is_forgotten_leaves_no_trace_in_memory(home, make, monkeypatch):
    monkeypatch.setattr(limits, "RECENT_NAMES", 2)
    monkeypatch.setattr(limits, "RECENT_BYTES", 3_000)
    there = Row(Ownership.FOREIGN, 2, "999-71")
    home.commit([Work(make.ue(n, 1), 1, [make.put("a")]) for n in range(6)])
    home.commit([SetRow(partition_key(2), make.FOREIGN_0, there)])
    for n in range(6):
        home.row(make.ue(n, 1))
        home.row(make.ue(n, 2))
    recent = home._recent
    assert set().union(*recent._following.values()) == recent._contexts.keys() | recent._rows.keys()
    assert len(recent._contexts) < 6
    assert len(recent._rows) == 2
