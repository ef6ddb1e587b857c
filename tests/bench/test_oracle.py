"""Answers that one owner cannot have given are found."""

from outrider.bench.openloop import Answer, Fate, History
from outrider.bench.oracle import Judged, judge


def history(*requests: tuple[int, float, float, int]) -> History:
    """Of UE, sent, answered, count."""
    made = History.empty()
    for ue, sent_s, answered_s, count in requests:
        made.note(sent_s, (answered_s - sent_s) * 1000, Answer(Fate.SERVED, count, 1), ue)
    return made


def test_answers_in_order_are_those_of_one_owner():
    assert judge([history((1, 0.0, 1.0, 1), (1, 2.0, 3.0, 2), (2, 0.0, 1.0, 1))]) == Judged(3, 0, 0)


def test_requests_under_way_together_may_be_applied_in_any_order():
    assert judge([history((1, 0.0, 5.0, 2), (1, 1.0, 2.0, 1))]) == Judged(2, 0, 0)


def test_the_same_count_twice_is_two_owners_also_if_two_consumers_heard_it():
    assert judge([history((1, 0.0, 1.0, 1)), history((1, 0.5, 1.5, 1))]) == Judged(2, 1, 0)


def test_a_request_that_says_less_than_one_answered_before_it_was_sent_is_reordered():
    assert judge([history((1, 0.0, 1.0, 5), (1, 2.0, 3.0, 4), (1, 4.0, 5.0, 6))]) == Judged(3, 0, 1)


def test_what_was_refused_or_says_no_count_is_not_judged():
    made = history((1, 0.0, 1.0, 0))
    made.note(2.0, 1.0, Answer(Fate.REFUSED, 1, 0), 1)
    assert judge([made]) == Judged(0, 0, 0)
