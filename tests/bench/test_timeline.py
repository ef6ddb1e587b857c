"""What a load saw is told by phase, and in steps."""

import pytest

from outrider.bench.openloop import LIMIT_MS, Answer, Fate, History
from outrider.bench.timeline import Span, seen

SPANS = {"before": Span(10.0, 11.0), "during": Span(11.0, 13.0), "copying": Span(11.5, 12.5), "after": Span(13.0, 14.0)}


@pytest.fixture
def history() -> History:
    history = History.empty()
    for step in range(40):  # every 100 ms from 10 to 14; nothing is served from 11.7 to 12.2
        at = 10.05 + step / 10
        history.note(at, 1.0 if not 11.7 < at < 12.2 else (12.2 - at) * 1000, Answer(Fate.SERVED))
    history.note(10.06, 3.0, Answer(Fate.REFUSED))
    history.note(11.06, LIMIT_MS, Answer(Fate.NOT_SENT))
    history.note(13.06, 6_000.0, Answer(Fate.UNANSWERED))
    return history


def test_every_request_is_counted_in_its_phase_by_what_became_of_it(history: History):
    found = seen(history, SPANS, 11.0, 10.0, {"ok": 40})
    assert found.served_per_s == {"before": 10.0, "during": 10.0, "copying": 10.0, "after": 10.0}
    assert found.refused == {"before": 1, "during": 0, "copying": 0, "after": 0}
    assert found.not_sent == {"before": 0, "during": 1, "copying": 0, "after": 0}
    assert found.unanswered == {"before": 0, "during": 0, "copying": 0, "after": 1}


def test_latency_counts_what_was_not_sent_or_answered_and_leaves_out_what_was_refused(history: History):
    latency = seen(history, SPANS, 11.0, 10.0, {}).latency_ms
    assert (latency["before"].count, latency["before"].max) == (10, 1.0)
    assert latency["during"].max == LIMIT_MS
    assert latency["after"].max == 6_000.0


def test_a_pause_is_the_longest_time_without_a_served_request(history: History):
    pause = seen(history, SPANS, 11.0, 10.0, {}).pause_ms
    assert pause["before"] == pytest.approx(100, abs=1)
    assert pause["during"] == pause["copying"] == pytest.approx(549, abs=1)


def test_the_series_has_a_step_for_every_tenth_of_a_second_with_the_narrowest_phase(history: History):
    series = seen(history, SPANS, 11.0, 10.0, {}).series
    assert series.first_s == -1.0
    assert series.phase == ["before"] * 10 + ["during"] * 5 + ["copying"] * 10 + ["during"] * 5 + ["after"] * 10
    assert series.served == [1] * 40
    assert sum(series.refused) == sum(series.not_sent) == sum(series.unanswered) == 1
    assert series.not_sent[10] == 1
    assert series.max_ms[10] == LIMIT_MS
    assert series.p50_ms[17] == pytest.approx(450, abs=1)


def test_a_phase_of_no_length_has_no_rate_and_an_empty_history_no_latency():
    found = seen(History.empty(), {**SPANS, "relocating": Span(13.0, 13.0)}, 11.0, 10.0, {})
    assert "relocating" not in found.served_per_s
    assert found.latency_ms["during"].p50 is None
    assert found.pause_ms["during"] == 2_000.0


def test_without_a_rate_there_is_no_pause():
    assert seen(History.empty(), SPANS, 11.0, 0.0, {}).pause_ms == {}


def test_the_first_answer_of_the_target_and_the_last_of_the_source_count_from_the_command():
    history = History.empty()
    for due_s, place in ((11.0, 1), (11.5, 2), (12.0, 1), (12.5, 2), (13.5, 1)):
        history.note(due_s, 100.0, Answer(Fate.SERVED, 1, place))
    found = seen(history, SPANS, 11.0, 10.0, {})
    assert found.target_first_s == 0.6
    assert found.source_last_s == 1.1  # what was due after the move is no part of it


def test_requests_answered_after_ten_milliseconds_are_late():
    history = History.empty()
    for ms in (1.0, 10.0, 10.1, 500.0):
        history.note(11.2, ms, Answer(Fate.SERVED))
    assert seen(history, SPANS, 11.0, 10.0, {}).late["during"] == 2
