"""The store against a model of plain dictionaries, over random histories of every operation.

The model says what each operation must answer and what must be there afterwards: contents, heads and digests, rows,
log, identities. What is random obeys the protocol in one thing only: a key's history never goes backwards under its
owner, because `check` knows that it cannot.
"""

import copy
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from outrider.core.ids import SHARED_STAR, partition_key, partition_range, shared_key, star_of
from outrider.core.record import NO_HEAD, Change, Head, Kind, LogEntry, Record, digest_of, sum_digests
from outrider.protocol.ownership import Ownership, Row
from outrider.protocol.partition import fold, unfold
from outrider.store import port
from outrider.store.port import (
    BindIdentity,
    DoesNotFit,
    Done,
    Erase,
    Failed,
    Follow,
    Followed,
    NotTheOwner,
    PartitionSum,
    Replace,
    RowChanged,
    SetRow,
    Take,
    Work,
)

OWNED, GRANTED, FOREIGN = Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN
NOWHERE = Row(FOREIGN, 0)
UES = [b"u" + bytes([p]) + bytes([n]) * 15 for p in (0, 115) for n in range(3)]
SHARED = shared_key("group")
KEYS = [*UES, SHARED]
STARS = [partition_key(0), partition_key(115)]
ALL_STARS = [*STARS, SHARED_STAR]
IMPOSSIBLE = Change(Kind.DATA, "nf", "late", b"", 5)


class Model:
    """What a store holds, and what it answers."""

    def __init__(self, digest_key):
        self.digest_key = digest_key
        self.rows = {}
        self.heads = {}
        self.records = {key: {} for key in KEYS}
        self.log = []
        self.lsn = 0
        self.identities = {}

    def row(self, key):
        return self.rows.get(key) or self.rows.get(star_of(key)) or NOWHERE

    def head(self, key):
        return self.heads.get(key, NO_HEAD)

    def content(self, key):
        return [self.records[key][name] for name in sorted(self.records[key])]

    def logged(self, key):
        return max((e.head.n for e in self.log if e.key == key), default=0)

    def may_own(self, key):
        """Whether the copy is not behind what this store itself committed once."""
        return self.head(key).n >= self.logged(key)

    def own_rows(self, star):
        start, stop = partition_range(star[1])
        return {k: r for k, r in self.rows.items() if start <= k < stop}

    def followers_of(self, star):
        return [k for k in KEYS if star_of(k) == star and k not in self.rows]

    def apply(self, operation):
        saved = copy.deepcopy(self.__dict__)
        of = {
            Work: self._work,
            SetRow: self._set_row,
            Take: self._take,
            Follow: self._follow,
            Replace: self._replace,
            Erase: self._erase,
            BindIdentity: self._bind,
        }
        outcome = of[type(operation)](operation)
        if not isinstance(outcome, Done | Followed):
            self.__dict__ = saved
        return outcome

    def _change(self, key, epoch, changes):
        n = self.head(key).n + 1
        for c in changes:
            name = (c.kind, c.nf, c.id)
            self.records[key].pop(name, None)
            if c.body is not None:
                self.records[key][name] = Record(key, c.kind, c.nf, c.id, c.body, n, c.due_ms)
        self.heads[key] = Head(epoch, n, digest_of(self.content(key), self.digest_key))

    def _own_commit(self, key, epoch, changes):
        prev = self.head(key)
        self._change(key, epoch, changes)
        self.lsn += 1
        self.log.append(LogEntry(self.lsn, key, prev, self.heads[key], list(changes)))

    def _work(self, op):
        row = self.row(op.key)
        if row.state is not OWNED or row.epoch != op.epoch:
            return NotTheOwner(row)
        if op.identity and self.identities.get(op.identity, op.key) != op.key:
            return Failed("")
        if IMPOSSIBLE in op.changes:
            return Failed("")
        if op.identity:
            self.identities[op.identity] = op.key
        self._own_commit(op.key, op.epoch, op.changes)
        return Done(self.heads[op.key], self.lsn)

    def _set_row(self, op):
        if self.row(op.key) != op.expect:
            return RowChanged(self.row(op.key))
        for key in op.drop:
            del self.rows[key]
        self.rows |= {**op.keep, op.key: op.row}
        return Done()

    def _take(self, op):
        if self.row(op.key) != op.expect:
            return RowChanged(self.row(op.key))
        if op.key in STARS:
            stay = (self.own_rows(op.key).keys() - op.drop) | op.keep.keys()
            heads = [h for k, h in self.heads.items() if star_of(k) == op.key and k not in stay]
            if (len(heads), sum_digests(h.digest for h in heads)) != (op.head.n, op.head.digest):
                return DoesNotFit(full=False)
            for key in op.drop:
                self.rows.pop(key, None)
            self.rows |= {**op.keep, op.key: op.row}
            return Done()
        if op.records is not None:
            self.records[op.key] = {(r.kind, r.nf, r.id): r for r in op.records}
            self.heads[op.key] = op.head
        for e in op.entries or ():
            if e.prev != self.head(e.key):
                return DoesNotFit(full=False)
            self._change(e.key, e.head.epoch, e.changes)
        if self.head(op.key) != op.head or digest_of(self.content(op.key), self.digest_key) != op.head.digest:
            return DoesNotFit(full=op.records is not None)
        self.rows[op.key] = op.row
        if op.identity:
            self.identities[op.identity] = op.key
        return Done(op.head)

    def _follow(self, op):
        applied = skipped = 0
        need = []
        for e in op.entries:
            row, head = self.row(e.key), self.head(e.key)
            if row.state is OWNED or (row.state is GRANTED and e.head.epoch < row.epoch):
                skipped += 1
            elif e.prev == head:
                before = dict(self.records[e.key])
                self._change(e.key, e.head.epoch, e.changes)
                if self.heads[e.key] == e.head:
                    applied += 1
                    continue
                self.records[e.key] = before
                self.heads[e.key] = head
                if head == NO_HEAD:
                    del self.heads[e.key]
                need.append(e.key)
            elif head == e.head or (head.n > e.head.n and head.epoch >= e.head.epoch):
                skipped += 1
            else:
                need.append(e.key)
        return Followed(applied, skipped, list(dict.fromkeys(need)))

    def _replace(self, op):
        for key, _, _, digest in op.heads:
            if digest_of([r for r in op.records if r.key == key], self.digest_key) != digest:
                return DoesNotFit(full=True)
        new = {key: Head(*head) for key, *head in op.heads}
        for key in KEYS:
            if op.start <= key < op.stop and self.row(key).state is FOREIGN:
                self.records[key] = {(r.kind, r.nf, r.id): r for r in op.records if r.key == key}
                self.heads.pop(key, None)
                if key in new:
                    self.heads[key] = new[key]
        return Done()

    def _erase(self, op):
        for key in op.keys:
            if self.row(key).state is not FOREIGN:
                return RowChanged(self.row(key))
        for key in op.keys:
            self.records[key] = {}
            self.heads.pop(key, None)
        self.identities = {i: k for i, k in self.identities.items() if k not in op.keys}
        return Done()

    def _bind(self, op):
        return Done(key=self.identities.setdefault(op.identity, op.key))


names = st.sampled_from(["a", "b", "c"])
bodies = st.binary(max_size=3)
change = st.one_of(
    st.builds(lambda n, b: Change(Kind.DATA, "nf", n, b), names, bodies),
    st.builds(lambda n: Change(Kind.DATA, "nf", n, None), names),
    st.builds(lambda n, due: Change(Kind.TIMER, "nf", n, b"t", due), names, st.integers(0, 9)),
    st.builds(lambda n: Change(Kind.TIMER, "nf", n, None), names),
    st.builds(lambda n: Change(Kind.OUTBOX, "nf", n, b"m"), names),
)
changes = st.lists(change, max_size=4)
identities = st.sampled_from([None, "imsi-1", "imsi-2"])
keys = st.sampled_from(KEYS)


class Histories(RuleBasedStateMachine):
    """Random histories; each rule commits one to four operations in one transaction."""

    kit: object
    make: object

    @initialize()
    def begin(self):
        self.directory = tempfile.TemporaryDirectory()
        self.stores = self.kit(Path(self.directory.name))
        self.store = self.stores.open()
        self.model = Model(self.make.digest_key)

    def teardown(self):
        if hasattr(self, "stores"):
            assert self.store.check() == []
            self.stores.close()
            self.directory.cleanup()

    # ------------------------------------------------------------------------------------ operations

    def work(self, draw):
        key = draw(keys)
        row = self.model.row(key)
        epoch = draw(st.sampled_from([row.epoch, row.epoch, row.epoch, row.epoch + 1]))
        extra = draw(st.sampled_from([[], [], [], [IMPOSSIBLE]]))
        return Work(key, epoch, draw(changes) + extra, identity=draw(identities))

    def set_row(self, draw):
        key = draw(st.sampled_from([*KEYS, *ALL_STARS]))
        row = self.model.row(key)
        follow = [key] if key in KEYS else self.model.followers_of(key)
        owns = [OWNED] * 3 if all(map(self.model.may_own, follow)) else []
        state = draw(st.sampled_from([*owns, GRANTED, FOREIGN]))
        least = max([row.epoch, *(self.model.head(k).epoch for k in follow)])
        new = Row(state, least + draw(st.integers(1, 2)), None if state is OWNED else "999-71", mig="m")
        expect = draw(st.sampled_from([row, row, row, Row(OWNED, 99)]))
        if key in STARS and state is GRANTED and row.state is OWNED:
            rows = self.model.own_rows(key)
            stay = draw(st.sets(st.sampled_from([k for k in UES if star_of(k) == key])))
            folded = fold(row, rows, stay)
            return SetRow(key, expect, Row(GRANTED, folded.floor + 1, "999-71"), folded.dropped, folded.kept)
        return SetRow(key, expect, new)

    def some_content(self, draw, key):
        """A context that another network may have: never behind what was committed here."""
        here = self.model.head(key)
        n = max(here.n, self.model.logged(key)) + draw(st.integers(1, 2))
        made = {(c.kind, c.nf, c.id): c for c in draw(changes) if c.body is not None}.values()
        records = [Record(key, c.kind, c.nf, c.id, c.body, n, c.due_ms) for c in made]
        return Head(here.epoch, n, digest_of(records, self.model.digest_key)), records

    def take(self, draw):
        key = draw(keys)
        row = self.model.row(key)
        head, records = self.some_content(draw, key)
        new = Row(OWNED, max(row.epoch, head.epoch) + 1)
        body = draw(st.sampled_from(["full", "full", "wrong full", "same", "wrong same", "delta", "wrong delta"]))
        if not self.model.may_own(key):
            body = "full"
        rest = {"identity": draw(identities)}
        match body:
            case "full":
                return Take(key, row, new, head, records, **rest)
            case "wrong full":
                return Take(key, row, new, head._replace(digest=b"x" * 16), records, **rest)
            case "same":
                return Take(key, row, new, self.model.head(key), **rest)
            case "wrong same":
                return Take(key, row, new, head, **rest)
        entries = [self.entry(draw, key)]
        after = copy.deepcopy(self.model)
        after._change(key, entries[0].head.epoch, entries[0].changes)
        entries.append(self.entry(draw, key, after))
        new = Row(OWNED, max(row.epoch, entries[1].head.epoch) + 1)
        if body == "wrong delta":
            return Take(key, row, new, entries[1].head, entries=entries[1:], **rest)
        return Take(key, row, new, entries[1].head, entries=entries, **rest)

    def take_star(self, draw):
        star = draw(st.sampled_from(STARS))
        row = self.model.row(star)
        rows = self.model.own_rows(star)
        excepted = draw(st.sets(st.sampled_from([k for k in UES if star_of(k) == star])))
        heads = [h.epoch for k, h in self.model.heads.items() if star_of(k) == star]
        x = max([row.epoch, *heads, *(r.epoch for r in rows.values())]) + 1
        change = unfold(x, row, rows, excepted)
        if isinstance(change, bytes):
            change = unfold(x, row, rows, excepted | rows.keys())
        stay = (rows.keys() - change.dropped) | change.kept.keys()
        moved = [k for k in UES if star_of(k) == star and k not in stay and k in self.model.heads]
        if not all(self.model.may_own(k) for k in UES if star_of(k) == star):
            return BindIdentity("imsi-3", star)
        digest = sum_digests(self.model.heads[k].digest for k in moved)
        head = Head(0, len(moved) + draw(st.sampled_from([0, 0, 1])), digest)
        return Take(star, row, Row(OWNED, x), head, drop=change.dropped, keep=change.kept)

    def entry(self, draw, key, model=None):
        model = copy.deepcopy(model or self.model)
        prev, made = model.head(key), draw(changes)
        epoch = max(prev.epoch, draw(st.integers(0, 3)))
        model._change(key, epoch, made)
        return LogEntry(1, key, prev, model.head(key), made)

    def follow(self, draw):
        entries = []
        for _ in range(draw(st.integers(1, 3))):
            entry = self.entry(draw, draw(keys))
            wrong = draw(st.sampled_from([None, None, "prev", "digest", "again"]))
            if wrong == "prev":
                entry = entry._replace(
                    prev=entry.prev._replace(n=entry.prev.n + 1), head=entry.head._replace(n=entry.head.n + 1)
                )
            elif wrong == "digest":
                entry = entry._replace(head=entry.head._replace(digest=b"x" * 16))
            elif wrong == "again":
                entries.append(entry)
            entries.append(entry)
        return Follow(entries)

    def replace(self, draw):
        start, stop = draw(
            st.sampled_from([(b"u", b"v"), (b"u\0", b"u\1"), (UES[1], UES[2]), (SHARED, SHARED + b"\0")])
        )
        heads, records = [], []
        for key in KEYS:
            if start <= key < stop and draw(st.booleans()):
                head, content = self.some_content(draw, key)
                heads.append((key, *head))
                records += content
        if heads and draw(st.integers(0, 5)) == 0:
            heads[0] = (*heads[0][:3], b"x" * 16)
        return Replace(start, stop, heads, records)

    def erase(self, draw):
        return Erase(draw(st.lists(keys, max_size=3, unique=True)))

    def bind(self, draw):
        return BindIdentity(draw(st.sampled_from(["imsi-1", "imsi-2"])), draw(keys))

    # ----------------------------------------------------------------------------------------- rules

    @rule(data=st.data())
    def commit(self, data):
        """Each operation is drawn for the state that those before it in the same transaction leave."""
        operations, expected = [], []
        kinds = [self.work, self.work, self.work, self.set_row, self.take, self.take_star, self.follow, self.replace]
        for _ in range(data.draw(st.integers(1, 4))):
            operation = data.draw(st.sampled_from([*kinds, self.erase, self.bind]))(data.draw)
            operations.append(operation)
            expected.append(self.model.apply(operation))
        answered = self.store.commit(operations)
        assert [type(o) for o in answered] == [type(o) for o in expected], operations
        for got, wanted in zip(answered, expected, strict=True):
            assert isinstance(got, Failed) or got == wanted

    @rule()
    def open_again(self):
        before = self.store.identity
        self.store.close()
        self.store = self.stores.open()
        assert self.store.identity == port.StoreIdentity(before.store_id, before.incarnation + 1, self.model.digest_key)

    @rule(data=st.data())
    def trim(self, data):
        through = data.draw(st.integers(0, self.model.lsn))
        self.store.trim_log(through)
        assert self.store.log(0, 10_000) == [e for e in self.model.log if e.lsn > max(through, self.trimmed)]
        self.trimmed = max(through, self.trimmed)

    trimmed = 0
    now_ms = 0

    @invariant()
    def same(self):
        if not hasattr(self, "store"):
            return
        store, model = self.store, self.model
        for key in KEYS:
            context = store.context(key)
            assert (context.row, context.own) == (model.row(key), key in model.rows)
            assert (context.head, context.records) == (model.head(key), model.content(key))
        assert store.own_rows(b"", b"\xff") == model.rows
        assert store.log(0, 10_000) == [e for e in model.log if e.lsn > self.trimmed]
        assert store.last_lsn() == model.lsn
        assert {i: store.key_of(i) for i in model.identities} == model.identities
        owned = [r for k in KEYS if model.row(k).state is OWNED for r in model.content(k) if r.kind == Kind.TIMER]
        self.now_ms += self.model.lsn % 3 == 0
        due = sorted(r for r in owned if r.due_ms <= self.now_ms)
        assert sorted(store.due_timers(self.now_ms, 100)) == due
        next_ms = store.next_due_ms()
        assert all(next_ms <= r.due_ms for r in owned)
        sums = [h.digest for k, h in model.heads.items() if k in UES]
        expected = PartitionSum(len(sums), sum_digests(sums))
        assert store.partition_sum(b"u", b"v") == expected
        chunk = store.chunk(b"u", b"v", 1_000)
        assert chunk.records == [r for k in UES for r in model.content(k)]


def run(kit_of, make, examples):
    machine = type("Histories", (Histories,), {"kit": staticmethod(kit_of), "make": make})
    config = settings(
        max_examples=examples,
        print_blob=False,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=examples < 50,
    )
    run_state_machine_as_test(machine, settings=config)


def test_short_random_histories(kit_of, make):
    run(kit_of, make, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_random_histories(kit_of, make):
    run(kit_of, make, 250)
