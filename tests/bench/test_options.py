"""What follows from what the user asks for."""

import pytest

from outrider.bench.options import Link, Options


@pytest.mark.parametrize(
    ("contexts", "asked", "ues"), [(100, None, 20), (1_000_000, None, 2_000), (1_000, 5_000, 1_000), (1, None, 1)]
)
def test_a_group_is_of_fixed_size_but_never_most_of_few_contexts_unless_asked_for(
    contexts: int, asked: int | None, ues: int
):
    assert Options(workload="storm", group_ues=asked).group(contexts).ues == ues


def test_a_group_arrives_within_the_time_that_was_asked_for():
    assert Options(workload="train", group_s=3.0).group(100).seconds == 3.0
    assert Options(workload="train").group(100).while_copying


def test_a_workload_without_a_load_has_no_rate_whatever_was_asked_for():
    assert Options(workload="idle", writes_per_s=500).rate_per_s == 0.0
    assert Options(workload="zipf", writes_per_s=500).rate_per_s == 500


def test_a_link_is_described_by_what_shapes_it():
    assert str(Link()) == "RTT 0 ms, no rate limit"
    assert str(Link(20.0, 100, 2.0)) == "RTT 20 ms, 100 Mbit/s, reset every 2 s"
