"""How long each UE had to wait at most."""

from outrider.bench.holds import holds
from outrider.bench.openloop import Answer, Fate, History
from outrider.bench.timeline import Span


def test_of_each_ue_the_longest_counts_and_only_within_the_span():
    history = History.empty()
    for due_s, ms, ue in ((1.0, 5.0, 1), (1.1, 50.0, 1), (1.2, 7.0, 2), (0.5, 900.0, 2), (9.0, 900.0, 3)):
        history.note(due_s, ms, Answer(Fate.SERVED), ue)
    found = holds(history, Span(1.0, 2.0))
    assert found is not None
    assert (found.ues, found.p50, found.max) == (2, 7.0, 50.0)
    assert found.curve_ms[0] == 7.0
    assert found.curve_ms[-1] == 50.0


def test_what_was_refused_or_not_sent_is_no_wait():
    history = History.empty()
    history.note(1.0, 5_000.0, Answer(Fate.NOT_SENT), 0)
    history.note(1.0, 5_000.0, Answer(Fate.REFUSED), 1)
    assert holds(history, Span(0.0, 2.0)) is None


def test_of_a_thousand_ues_the_tail_is_told_apart():
    history = History.empty()
    for ue in range(1_000):
        history.note(1.0, float(ue + 1), Answer(Fate.SERVED), ue)
    found = holds(history, Span(0.0, 2.0))
    assert found is not None
    assert (found.p50, found.p99, found.p999, found.max) == (500.0, 990.0, 999.0, 1_000.0)
    assert found.curve_ms == sorted(found.curve_ms)
