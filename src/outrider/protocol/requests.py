"""What becomes of a request whose key is elsewhere, or comes here: the rules of PROTOCOL.md §4.5-§4.6 that need no I/O.

Hosts and the exhaustive search call the same functions, so what was searched is what runs.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

J = TypeVar("J")

HOPS_MAX = 3
"""How often the first receiver of a request aims it anew."""


def at_acceptance(
    held: Iterable[J], own: Iterable[J], queue: Iterable[J], came_later: Callable[[J, J], bool]
) -> list[J]:
    """The order in which requests run when their key comes (§4.5).

    First those that rode in the grant; then own forwards without an answer and what has waited here, as they came.
    """
    return [*held, *in_place(own, queue, came_later)]


def in_place(back: Iterable[J], queue: Iterable[J], came_later: Callable[[J, J], bool]) -> list[J]:
    """A queue with requests that come back from elsewhere, each before those that came here after it.

    They need not come back in the order in which they came: one may have been aimed anew meanwhile.
    """
    jobs = list(queue)
    for job in back:
        n = next((n for n, other in enumerate(jobs) if came_later(other, job)), len(jobs))
        jobs.insert(n, job)
    return jobs


def aims_again(seen_epoch: int, hops: int, told_epoch: int, *, to_me: bool) -> bool:
    """Whether a request that a network did not run is tried where that network says (§4.6).

    Only at a strictly higher epoch than any that this request was told of, or here, and not too often: so stale routes
    heal, and nothing goes in circles.
    """
    return (to_me or told_epoch > seen_epoch) and hops < HOPS_MAX


def waits_for_grant(seen_epoch: int, own_epoch: int) -> bool:
    """Whether a forward waits, bounded, for a grant that its sender knows of (§4.5)."""
    return seen_epoch > own_epoch
