"""The checks of a history, each with a history that breaks it."""

import math

import pytest

from outrider.core.ids import key_text, ue_key
from outrider.sim.whole import verdict
from outrider.sim.whole.consumer import Operation
from outrider.sim.whole.service import Book, Heard, Order, Said, Ticks
from outrider.sim.whole.sink import Notified

UE = ue_key(bytes(16))


def operation(seq, kind="add", *, at=None, outcome="ok", value=0, n=None, register=0, previous=None, status=200):
    """One that ran from `at[0]` to `at[1]`, and was answered that the book had `n` operations then."""
    begun_s, ended_s = at or (float(seq), seq + 0.5)
    said = Said(n, register, previous) if n is not None else None
    if outcome == "unknown":
        ended_s = math.inf
    return Operation("u", Order("u", seq, kind, value), True, begun_s, ended_s, outcome, status, said, served_by="a")


def book(seqs, register=0, **more):
    return Book(seqs, register, more.get("told", 0), more.get("noted", 0), more.get("ticks", Ticks()))


def rules(history, found):
    return [v.rule for v in verdict.judge_history("u", history, found)]


def test_a_history_that_the_book_explains_is_right():
    history = [
        operation(1, n=1),
        operation(2, "put", value=7, n=2, register=7, previous=1),
        operation(3, "read", n=2, register=7, previous=2),
        operation(4, outcome="unknown", status=504),
        operation(5, outcome="failed", status=503),
        operation(6, n=4, register=7, previous=4),
    ]
    assert rules(history, book([1, 2, 4, 6])) == []
    assert verdict.judge_chain("u", history, book([1, 2, 4, 6])) == []


@pytest.mark.parametrize(
    ("history", "seqs", "rule"),
    [
        ([operation(1, n=1), operation(2, n=2, previous=1)], [1], "I3"),
        ([operation(1, n=1)], [1, 1], "I6"),
        ([operation(1, n=1)], [1, 9], "I7"),
        ([operation(1, n=1), operation(2, outcome="failed", status=503)], [1, 2], "I8"),
        ([operation(1, n=2)], [1], "I7"),
        ([operation(1, n=2, previous=2), operation(2, n=1)], [2, 1], "I7"),
        ([operation(1, "put", value=3, n=1, register=3), operation(2, "read", n=1, register=4)], [1], "I7"),
        ([operation(1, n=1), operation(2, "read", n=0)], [1], "I7"),
    ],
    ids=[
        "lost",
        "doubled",
        "never asked",
        "refused and done",
        "wrong count",
        "reordered",
        "wrong register",
        "stale read",
    ],
)
def test_a_history_that_it_does_not_explain_is_wrong(history, seqs, rule):
    assert rule in rules(history, book(seqs))


def test_operations_at_the_same_time_may_be_in_any_order():
    history = [operation(1, at=(1, 5), n=2, previous=2), operation(2, at=(2, 3), n=1)]
    assert rules(history, book([2, 1])) == []


@pytest.mark.parametrize(
    ("ticks", "wrong"),
    [
        (Ticks(armed=2, fired=["a", "b"]), 0),
        (Ticks(armed=2, fired=["a", "a"]), 1),
        (Ticks(armed=2, fired=["a"]), 1),
        (Ticks(armed=1, fired=["a"], wrong=["a"]), 1),
    ],
    ids=["each once", "twice", "missing", "an old one"],
)
def test_a_timer_fires_once_for_each_arming(ticks, wrong):
    assert len(verdict.judge_timer("u", book([], ticks=ticks))) == wrong


@pytest.mark.parametrize(
    ("seqs", "right"),
    [([1, 2, 3], True), ([1, 1, 2, 1, 3], True), ([1, 3, 2], False), ([1, 2], False), ([1, 2, 3, 4], False)],
)
def test_notifications_come_in_order_without_gap_to_the_end(seqs, right):
    received = [Notified(key_text(UE), seq, f"op {seq}", "a") for seq in seqs]
    assert (verdict.judge_notifications(UE, book([], noted=3), received) == []) is right


def test_two_notifications_with_one_number_are_wrong():
    received = [Notified(key_text(UE), 1, by, "a") for by in ("op 1", "op 2")]
    assert verdict.judge_notifications(UE, book([], noted=1), received)


@pytest.mark.parametrize(("heard", "right"), [(Heard(2), True), (Heard(1), False), (Heard(2, [2]), False)])
def test_the_group_hears_each_message_once_in_order(heard, right):
    assert (verdict.judge_messages(UE, book([], told=2), {key_text(UE): heard}) == []) is right
