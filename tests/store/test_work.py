"""Units of work of the owner: what they check, what they write, what they answer."""

import pytest

from outrider.core import limits
from outrider.core.ids import SHARED_STAR, partition_key, shared_key
from outrider.core.record import NO_HEAD, Change, Head, Kind, Record, digest_of
from outrider.store.port import AnsweredBefore, Done, Failed, Misused, NotTheOwner, SetRow, Work


def test_a_unit_makes_records_head_and_log_entry(home, make, commit):
    key = make.ue(1)
    done = commit(home, Work(key, 1, [make.put("a", b"one"), make.put("b", b"two")]))
    expected = [Record(key, 0, "nsmf-x", "a", b"one", 1), Record(key, 0, "nsmf-x", "b", b"two", 1)]
    head = Head(1, 1, digest_of(expected, make.digest_key))
    assert done == Done(head, lsn=1)
    context = home.context(key)
    assert (context.head, context.records, context.row, context.own) == (head, expected, make.owned(1), False)
    (entry,) = home.log(0, 10)
    assert (entry.lsn, entry.key, entry.prev, entry.head) == (1, key, NO_HEAD, head)
    assert entry.changes == [make.put("a", b"one"), make.put("b", b"two")]
    assert home.check() == []


def test_the_next_unit_replaces_adds_and_deletes(home, make, commit):
    key = make.ue(1)
    first = commit(home, Work(key, 1, [make.put("a"), make.put("b")])).head
    second = commit(home, Work(key, 1, [make.put("a", b"new"), make.drop("b"), make.put("c"), make.drop("absent")]))
    expected = [Record(key, 0, "nsmf-x", "a", b"new", 2), Record(key, 0, "nsmf-x", "c", b"body", 2)]
    assert second.head == Head(1, 2, digest_of(expected, make.digest_key))
    assert home.context(key).records == expected
    assert home.log(1, 10)[0].prev == first
    assert home.check() == []


def test_of_two_changes_of_one_record_in_a_unit_the_last_holds(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [make.put("a", b"1"), make.put("a", b"2"), make.put("b"), make.drop("b")]))
    assert [(r.id, r.body) for r in home.context(key).records] == [("a", b"2")]
    assert home.check() == []


def test_a_unit_that_changes_nothing_counts(home, make, commit):
    key = make.ue(1)
    assert commit(home, Work(key, 1, [])).head.n == 1
    assert commit(home, Work(key, 1, [], identity="imsi-999700000000001")).head.n == 2
    assert home.identity_of(key) == "imsi-999700000000001"
    assert [e.changes for e in home.log(0, 10)] == [[], []]


def test_records_of_all_kinds_are_digested(home, make, commit):
    key = make.ue(1)
    changes = [make.put("a"), make.timer("t", 500), make.message("0001")]
    head = commit(home, Work(key, 1, changes, "k1", make.answer())).head
    records = home.context(key).records
    assert {r.kind for r in records} == set(Kind)
    assert head.digest == digest_of(records, make.digest_key)
    assert [r.kind for r in home.context(key).data()] == [Kind.DATA]


@pytest.mark.parametrize("epoch", [0, 2])
def test_another_epoch_is_not_the_owner(home, make, commit, epoch):
    key = make.ue(1)
    assert commit(home, Work(key, epoch, [make.put("a")])) == NotTheOwner(make.owned(1))
    assert home.context(key).head == NO_HEAD
    assert home.last_lsn() == 0


def test_a_key_that_was_given_away_is_not_owned(home, make, commit):
    key = make.ue(1)
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    assert commit(home, Work(key, 1, [make.put("a")])) == NotTheOwner(make.granted(2))
    assert commit(home, Work(key, 2, [make.put("a")])) == NotTheOwner(make.granted(2))
    assert isinstance(commit(home, Work(make.ue(2), 1, [make.put("a")])), Done)


def test_a_key_of_nobody_is_foreign(store, make, commit):
    assert commit(store, Work(make.ue(1), 0, [make.put("a")])) == NotTheOwner(make.FOREIGN_0)


def test_shared_objects_follow_their_star(store, make, commit):
    key = shared_key("group:7")
    assert commit(store, Work(key, 1, [make.put("a")])) == NotTheOwner(make.FOREIGN_0)
    commit(store, SetRow(SHARED_STAR, make.FOREIGN_0, make.owned(1)))
    assert commit(store, Work(key, 1, [make.put("a")])).head.n == 1
    commit(store, SetRow(key, make.owned(1), make.granted(2)))
    assert store.context(key).own
    assert commit(store, Work(key, 1, [make.put("a")])) == NotTheOwner(make.granted(2))


def test_a_retry_gets_the_first_answer_and_has_no_effect(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [make.put("a", b"1")], "k1", make.answer(body=b"first")))
    again = commit(home, Work(key, 1, [make.put("a", b"2")], "k1", make.answer(body=b"second")))
    assert again == AnsweredBefore(make.answer(body=b"first"))
    assert home.context(key).data()[0].body == b"1"
    assert home.last_lsn() == 1


def test_the_same_idempotency_key_for_another_request_is_misused(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [make.put("a", b"1")], "k1", make.answer(b"one request")))
    assert commit(home, Work(key, 1, [make.put("a", b"2")], "k1", make.answer(b"another request"))) == Misused()
    assert home.last_lsn() == 1


def test_idempotency_keys_are_of_one_key(home, make, commit):
    commit(home, Work(make.ue(1), 1, [], "k1", make.answer()))
    assert isinstance(commit(home, Work(make.ue(2), 1, [], "k1", make.answer())), Done)


def test_ownership_is_looked_at_before_the_answer(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [], "k1", make.answer()))
    commit(home, SetRow(key, make.owned(1), make.granted(2)))
    assert commit(home, Work(key, 1, [], "k1", make.answer())) == NotTheOwner(make.granted(2))


def test_an_answer_that_the_owner_deleted_is_forgotten(home, make, commit):
    key = make.ue(1)
    commit(home, Work(key, 1, [], "k1", make.answer()))
    commit(home, Work(key, 1, [Change(Kind.IDEMPOTENCY, "", "k1", None)]))
    assert isinstance(commit(home, Work(key, 1, [], "k1", make.answer())), Done)


def test_one_failing_unit_does_not_touch_the_others(home, make):
    good, bad = make.ue(1), make.ue(2)
    large = bytes(limits.RECORD_BYTES + 1)
    outcomes = home.commit(
        [
            Work(good, 1, [make.put("a")]),
            Work(bad, 1, [make.put("small"), make.put("large", large)], identity="imsi-1"),
            Work(good, 1, [make.put("b")]),
        ]
    )
    assert [type(o) for o in outcomes] == [Done, Failed, Done]
    assert str(limits.RECORD_BYTES) in outcomes[1].sentence
    assert [o.lsn for o in outcomes[::2]] == [1, 2]
    assert home.context(good).head.n == 2
    assert home.context(bad).records == []
    assert home.key_of("imsi-1") is None
    assert home.check() == []


@pytest.mark.parametrize(
    "change",
    [
        Change(Kind.DATA, "nf", "a", b"", 5),  # a due time is a timer's
        Change(9, "nf", "a", b""),
        Change(1 << 70, "nf", "a", b""),
        Change(Kind.DATA, "nf", "\ud800", b""),  # no text
        Change(Kind.TIMER, "nf", "t", b"", 1 << 63),
    ],
)
def test_a_record_that_cannot_be_fails_alone_and_whole(home, make, change):
    outcomes = home.commit([Work(make.ue(1), 1, [make.put("a"), change]), Work(make.ue(2), 1, [make.put("a")])])
    assert [type(o) for o in outcomes] == [Failed, Done]
    assert home.context(make.ue(1)).head == NO_HEAD
    assert home.check() == []


def test_an_identity_of_another_key_fails_the_unit(home, make, commit):
    commit(home, Work(make.ue(1), 1, [make.put("a")], identity="imsi-1"))
    outcome = commit(home, Work(make.ue(2), 1, [make.put("a")], identity="imsi-1"))
    assert isinstance(outcome, Failed)
    assert "imsi-1" not in outcome.sentence  # sentences reach logs
    assert home.context(make.ue(2)).head == NO_HEAD
    assert isinstance(commit(home, Work(make.ue(1), 1, [], identity="imsi-1")), Done)


def test_a_star_has_no_context_of_its_own(home, make, commit):
    assert isinstance(commit(home, Work(partition_key(0), 1, [make.put("a")])), Failed)


def test_an_answer_needs_an_idempotency_key(home, make, commit):
    assert isinstance(commit(home, Work(make.ue(1), 1, [], None, make.answer())), Failed)


def test_lsns_have_no_gaps_across_failures_and_openings(kit, home, make, commit):
    for number in range(3):
        commit(home, Work(make.ue(number), 1, [make.put("a")]))
        commit(home, Work(make.ue(number), 7, [make.put("a")]))
        commit(home, Work(make.ue(number), 1, [make.put("a", bytes(limits.RECORD_BYTES + 1))]))
    home.trim_log(2)
    again = kit.open()
    assert again.last_lsn() == 3
    again.trim_log(99)
    last = kit.open()
    assert (last.last_lsn(), last.log(0, 10)) == (3, [])
    assert commit(last, Work(make.ue(0), 1, [])).lsn == 4
    assert last.check() == []


def test_nothing_to_commit_is_nothing(home):
    assert home.commit([]) == []
