"""Where requests stand that come back, and where they go that were not run (PROTOCOL.md §4.5-§4.6)."""

from hypothesis import given
from hypothesis import strategies as st

from outrider.protocol.requests import HOPS_MAX, aims_again, at_acceptance, in_place

numbers = st.lists(st.integers(0, 50), unique=True)


def later(other: int, job: int) -> bool:
    return other > job


@given(numbers)
def test_requests_stand_in_the_order_in_which_they_came_however_they_come_back(came: list[int]) -> None:
    queue = sorted(came[::2])
    assert in_place(came[1::2], queue, later) == sorted(came)


@given(numbers, numbers)
def test_what_rode_in_the_grant_runs_first(held: list[int], rest: list[int]) -> None:
    assert at_acceptance(held, rest[::2], sorted(rest[1::2]), later) == [*held, *sorted(rest)]


def test_a_request_goes_on_only_to_a_strictly_higher_epoch_or_home_to_its_own_network() -> None:
    assert aims_again(2, 0, 3, to_me=False)
    assert not aims_again(3, 0, 3, to_me=False)
    assert aims_again(3, 0, 1, to_me=True)


def test_a_request_is_aimed_anew_so_often_and_no_more() -> None:
    assert aims_again(0, HOPS_MAX - 1, 9, to_me=False)
    assert not aims_again(0, HOPS_MAX, 9, to_me=False)
