"""Faults of a link prove that they happened, and a fault that did not happen is not believed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from outrider.demo import link_faults
from outrider.demo.fault import NotFired
from outrider.demo.link_faults import Link
from outrider.demo.stage import Stage


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class _World:
    """Three networks that only are listeners, with real links between them; who calls whom is kept talking."""

    def __init__(self, stage: Stage, ports: list[int]) -> None:
        self.stage = stage
        self._ports = ports
        self.echoed: dict[str, int] = {}

    async def talk(self, caller: str, callee: str) -> None:
        pairs = [(first.name, second.name) for first, second in self.stage.pairs]
        number = next(n for n, pair in enumerate(pairs) if set(pair) == {caller, callee})
        port = self._ports[4 * number + (0 if pairs[number][0] == callee else 2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name = caller + callee
        while True:
            writer.write(b"." * 100)
            self.echoed[name] = self.echoed.get(name, 0) + len(await reader.readexactly(100))
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_World]:
    monkeypatch.setattr(link_faults, "CUT_S", 0.3)
    monkeypatch.setattr(link_faults, "SLOW_S", 0.5)
    monkeypatch.setattr(link_faults, "SLOW_MS", 60.0)
    stage = Stage(tmp_path, rtt_ms=2.0, third=True)
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    end = {"host": "127.0.0.1", "controlPort": port, "bulkPort": port}
    yield _World(stage, await stage.link([end] * 6))
    server.close()
    assert stage.relay is not None
    await stage.relay.end()


@asynccontextmanager
async def _talking(world: _World, *ways: str) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(world.talk(way[0], way[1])) for way in ways]
    while not all(world.echoed.get(way) for way in ways):
        await asyncio.sleep(0.01)
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
async def test_a_cut_link_is_silent_and_the_others_are_not(world: _World, direction: str) -> None:
    async with _talking(world, "BC", "CB", "AB", "CA"):
        before = dict(world.echoed)
        assert (await Link(world.stage, "B-C").cut(direction)).startswith(f"{direction} cut; bytes that passed")
        for way in ("AB", "CA"):
            assert world.echoed[way] > before[way] + 200
        after = dict(world.echoed)
        while not all(world.echoed[way] > after[way] for way in after):
            await asyncio.sleep(0.01)


async def test_a_direction_is_cut_whoever_calls(world: _World) -> None:
    """Each round trip needs both directions, so of calls from either end none gets through."""
    async with _talking(world, "AC", "CA"):
        cutting = asyncio.create_task(Link(world.stage, "A-C").cut("forward"))
        await asyncio.sleep(0.15)
        cut = dict(world.echoed)
        await asyncio.sleep(0.1)
        assert world.echoed == cut
        await cutting


async def test_a_slow_link_is_slow_in_both_directions_and_fast_again_afterwards(world: _World) -> None:
    async with _talking(world, "AB", "BA"):
        assert "slow: forward" in await Link(world.stage, "A-B").slow()
        before = sum(world.echoed.values())
        await asyncio.sleep(0.2)
        assert sum(world.echoed.values()) - before > 400


async def test_a_slow_link_that_nothing_passes_has_not_fired(world: _World) -> None:
    async with _talking(world, "AC"):
        with pytest.raises(NotFired, match="slow"):
            await Link(world.stage, "A-B").slow()


async def test_a_cut_that_lets_bytes_pass_has_not_fired(world: _World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the order to the relay taken out."""
    link, order = Link(world.stage, "A-B"), world.stage.relay.order  # type: ignore[union-attr]

    async def deaf(do: str, **more: object) -> object:
        return await order("stats" if do == "cut" else do, **more)

    monkeypatch.setattr(world.stage.relay, "order", deaf)
    async with _talking(world, "AB"):
        with pytest.raises(NotFired, match="bytes passed"):
            await link.cut("forward")


async def test_a_link_may_be_cut_while_it_is_slow(world: _World) -> None:
    """Both speak with the one relay, at the same time."""
    async with _talking(world, "AB", "BA"), asyncio.timeout(10):
        slow, cut = await asyncio.gather(Link(world.stage, "A-B").slow(), Link(world.stage, "A-C").cut("both"))
        assert "slow: forward" in slow
        assert cut.startswith("both cut")
