"""A group comes to the target, each UE at its time, and its requests follow one another."""

import asyncio

from outrider.bench.arrivals import Group, arrive, arrived
from outrider.bench.openloop import Answer, Fate, History


async def test_a_ues_next_request_is_sent_when_the_one_before_is_answered():
    open_, most, sent = dict[int, int](), 0, list[tuple[int, int]]()

    async def send(ue: int, request: int) -> Answer:
        nonlocal most
        open_[ue] = open_.get(ue, 0) + 1
        most = max(most, open_[ue])
        sent.append((ue, request))
        await asyncio.sleep(0.002)
        open_[ue] -= 1
        return Answer(Fate.SERVED, request + 1, 2)

    history = await arrive(Group([3, 1, 2], 0.02, 4), send)
    assert most == 1
    assert [request for ue, request in sent if ue == 1] == [0, 1, 2, 3]
    assert [ue for ue, request in sent if request == 0] == [3, 1, 2]
    found = arrived(history)
    assert (found.ues, found.first_by_target, found.last_by_target, found.out_of_order) == (3, 3, 3, 0)
    assert (found.first_ms.count, found.later_ms.count) == (3, 9)


def test_who_served_first_and_last_and_what_is_out_of_order_is_counted_by_ue():
    history = History.empty()
    for ue, due_s, count, place in ((1, 0.0, 1, 1), (1, 1.0, 2, 2), (2, 0.0, 7, 2), (2, 1.0, 7, 2)):
        history.note(due_s, 1.0, Answer(Fate.SERVED, count, place), ue)
    history.note(2.0, 1.0, Answer(Fate.REFUSED), 2)
    found = arrived(history)
    assert (found.first_by_target, found.last_by_target) == (1, 1)
    assert (found.out_of_order, found.refused, found.unanswered) == (1, 1, 0)
