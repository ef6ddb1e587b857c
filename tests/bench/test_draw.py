"""UEs are drawn as the workload says."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from outrider.bench.draw import drawer, scattered


@pytest.mark.parametrize("skew", [0.0, 0.99])
def test_every_ue_drawn_is_one_of_all(skew: float):
    draw = drawer(10, skew, random.Random(1))
    assert {draw() for _ in range(2_000)} == set(range(1, 11))


def test_by_zipfs_law_the_second_most_frequent_comes_about_half_as_often_as_the_first():
    draw = drawer(10_000, 0.99, random.Random(1))
    (_, first), (_, second), *rest = Counter(draw() for _ in range(50_000)).most_common()
    assert 1.6 < first / second < 2.4
    assert len(rest) > 2_000


def test_at_no_skew_no_ue_comes_much_more_often_than_another():
    draw = drawer(100, 0.0, random.Random(1))
    drawn = Counter(draw() for _ in range(20_000))
    assert max(drawn.values()) < 2 * min(drawn.values())


@pytest.mark.parametrize("contexts", [1, 2, 10, 256, 300, 9_973])
def test_ranks_are_scattered_over_all_ues_and_no_ue_has_two(contexts: int):
    scatter = scattered(contexts)
    assert sorted(scatter(n) for n in range(contexts)) == list(range(1, contexts + 1))


def test_the_first_ranks_are_no_neighbours():
    scatter = scattered(10_000)
    first = sorted(scatter(n) for n in range(10))
    assert min(b - a for a, b in pairwise(first)) > 200
