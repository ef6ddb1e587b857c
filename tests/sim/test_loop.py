"""The virtual loop: time that leaps, processes that take turns, are stopped, and die between two callbacks."""

import asyncio
import time

import pytest

from outrider.sim.whole.loop import BEGIN_S, Stuck, VirtualLoop, context


@pytest.fixture
def loop():
    made = VirtualLoop("1")
    yield made
    made.end()


def test_a_day_passes_at_once(loop):
    begun_s = time.monotonic()
    loop.run_until_complete(asyncio.sleep(86_400))
    assert loop.time() - BEGIN_S == pytest.approx(86_400, abs=0.01)
    assert time.monotonic() - begun_s < 3_600


def test_callbacks_of_one_process_keep_their_order(loop):
    seen = []

    async def work():
        for i in range(50):
            loop.call_soon(seen.append, i)
        await asyncio.sleep(1)

    loop.run_until_complete(work())
    assert seen == list(range(50))


def _turns(seed):
    loop, seen = VirtualLoop(seed), []

    async def work(name):
        for _ in range(20):
            seen.append(name)
            await asyncio.sleep(0)

    async def both():
        tasks = [loop.create_task(work(name), context=context(name)) for name in "ab"]
        await asyncio.gather(*tasks)

    loop.run_until_complete(both())
    loop.end()
    return "".join(seen)


def test_which_process_is_next_is_drawn_from_the_seed():
    assert _turns("1") == _turns("1")
    assert len({_turns(str(seed)) for seed in range(8)}) > 4


def test_a_killed_process_runs_nothing_more_not_even_finally(loop):
    seen = []

    async def work():
        try:
            while True:
                seen.append("at work")
                await asyncio.sleep(1)
        finally:
            seen.append("finally")

    async def world():
        loop.create_task(work(), context=context("a"))
        await asyncio.sleep(2.5)
        loop.kill("a")
        await asyncio.sleep(10)

    loop.run_until_complete(world())
    assert seen == ["at work"] * 3


def test_a_stopped_process_goes_on_where_it_was_and_others_do_not_wait(loop):
    at_s = {}

    async def work(name):
        await asyncio.sleep(1)
        at_s[name] = loop.time() - BEGIN_S

    async def world():
        tasks = [loop.create_task(work(name), context=context(name)) for name in "ab"]
        loop.pause("a", loop.time() + 5)
        await asyncio.gather(*tasks)

    loop.run_until_complete(world())
    assert at_s["a"] == pytest.approx(6, abs=0.01)
    assert at_s["b"] == pytest.approx(1, abs=0.01)


def test_what_a_thread_does_takes_virtual_time_and_no_thread(loop):
    async def world():
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: loop.time())

    assert BEGIN_S < loop.run_until_complete(world()) < BEGIN_S + 1


def test_what_threads_tell_is_heard_in_their_order(loop):
    seen = []

    async def world():
        for i in range(20):
            loop.call_soon_threadsafe(seen.append, i)
        await asyncio.sleep(1)

    loop.run_until_complete(world())
    assert seen == list(range(20))


def test_waiting_for_what_never_comes_is_said(loop):
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
