"""The relay delays, limits, cuts, resets and heals real TCP connections."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from outrider.demo.relay import Rate, Relay

Links = Callable[..., Awaitable[Relay]]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LIMIT_S = 5.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def links() -> AsyncIterator[Links]:
    """Makes relays to an echo server, and ends them."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    relays: list[Relay] = []

    async def make(**options: float) -> Relay:
        relay = Relay(listen=("127.0.0.1", 0), connect=server.sockets[0].getsockname(), **options)  # type: ignore[arg-type]
        await relay.start()
        relays.append(relay)
        return relay

    yield make
    for relay in relays:
        await relay.stop()
    server.close()


@asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    yield reader, writer
    writer.close()


async def exchange(connection: Connection, data: bytes) -> bytes:
    reader, writer = connection
    writer.write(data)
    await writer.drain()
    return await asyncio.wait_for(reader.readexactly(len(data)), LIMIT_S)


async def silent(reader: asyncio.StreamReader, for_s: float = 0.1) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), for_s)
    except TimeoutError:
        return True
    return False


async def test_bytes_pass_unchanged_and_are_counted_in_each_direction(links: Links) -> None:
    relay = await links()
    async with connected(relay) as connection:
        data = bytes(range(256)) * 4096
        writing = asyncio.create_task(exchange(connection, data))
        assert await writing == data
    assert relay.forward_bytes == len(data)
    assert relay.backward_bytes == len(data)


async def test_a_round_trip_takes_both_delays(links: Links) -> None:
    relay = await links(delay_ms=30)
    loop = asyncio.get_running_loop()
    async with connected(relay) as connection:
        started = loop.time()
        await exchange(connection, b"x")
        assert loop.time() - started >= 0.06


async def test_the_delay_does_not_limit_the_throughput(links: Links) -> None:
    relay = await links(delay_ms=100)
    data = bytes(4 * 1024 * 1024)
    async with connected(relay) as (reader, writer):
        writer.write(data)
        # A relay that waited for each piece of 64 KiB would need 12.8 s.
        assert await asyncio.wait_for(reader.readexactly(len(data)), LIMIT_S) == data


async def test_the_rate_limit_holds(links: Links) -> None:
    relay = await links(bytes_per_s=200_000)
    loop = asyncio.get_running_loop()
    async with connected(relay) as connection:
        started = loop.time()
        await exchange(connection, bytes(40_000))
        assert loop.time() - started >= 0.2


async def test_directions_that_share_a_link_share_its_rate(links: Links) -> None:
    one, other = await links(), await links()
    rate = Rate(200_000)
    one.limit("forward", rate)
    other.limit("forward", rate)
    loop = asyncio.get_running_loop()
    async with connected(one) as to_one, connected(other) as to_other:
        started = loop.time()
        await asyncio.gather(exchange(to_one, bytes(30_000)), exchange(to_other, bytes(30_000)))
        assert loop.time() - started >= 0.3


async def test_a_link_that_is_full_takes_no_more_so_that_what_is_small_does_not_stand_behind_seconds(
    links: Links,
) -> None:
    bulk, small = await links(), await links()
    rate = Rate(1_000_000)
    for relay in (bulk, small):
        relay.limit("forward", rate)
    async with connected(bulk) as (_, writer), connected(small) as connection:
        writer.write(bytes(4_000_000))  # four seconds of the link
        await exchange(connection, b"first")
        assert bulk.forward_bytes < 1_000_000


async def test_a_limit_that_is_lifted_is_gone(links: Links) -> None:
    relay = await links(bytes_per_s=1)
    relay.limit("both", None)
    async with connected(relay) as connection:
        assert await exchange(connection, bytes(100_000)) == bytes(100_000)


async def test_a_cut_direction_is_silent_and_delivers_everything_after_heal(links: Links) -> None:
    relay = await links()
    async with connected(relay) as (reader, writer):
        assert await exchange((reader, writer), b"before") == b"before"
        relay.cut("backward")
        writer.write(b"during")
        assert await silent(reader)
        await relay.heal()
        assert await asyncio.wait_for(reader.readexactly(6), LIMIT_S) == b"during"


async def test_a_cut_of_one_direction_leaves_the_other(links: Links) -> None:
    relay = await links()
    async with connected(relay) as (reader, writer):
        relay.cut("backward")
        writer.write(b"12345")
        assert await silent(reader)
        assert relay.forward_bytes == 5
        assert relay.backward_bytes == 0


async def test_a_connection_made_during_a_cut_works_after_heal(links: Links) -> None:
    relay = await links()
    relay.cut()
    async with connected(relay) as (reader, writer):
        writer.write(b"late")
        assert await silent(reader)
        await relay.heal()
        assert await asyncio.wait_for(reader.readexactly(4), LIMIT_S) == b"late"


async def test_a_reset_breaks_connections_and_refuses_new_ones_until_heal(links: Links) -> None:
    relay = await links()
    async with connected(relay) as connection:
        await exchange(connection, b"x")
        await relay.reset()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(connection[0].readexactly(1), LIMIT_S)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", relay.port)
    await relay.heal()
    async with connected(relay) as connection:
        assert await exchange(connection, b"again") == b"again"


async def test_the_end_of_a_stream_passes_after_its_bytes(links: Links) -> None:
    relay = await links(delay_ms=20)
    async with connected(relay) as (reader, writer):
        writer.write(b"last words")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), LIMIT_S) == b"last words"


async def test_an_unknown_direction_is_refused(links: Links) -> None:
    relay = await links()
    with pytest.raises(ValueError, match="forward, backward or both"):
        relay.cut("sideways")  # type: ignore[arg-type]


async def test_the_process_obeys_orders_and_ends_with_its_input(links: Links) -> None:
    inner = await links()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outrider.demo.relay", "--listen", "127.0.0.1:0", "--connect", f"127.0.0.1:{inner.port}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    async def order(**order: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(process.stdout.readline(), LIMIT_S))
        return answer

    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), LIMIT_S))
    reader, writer = await asyncio.open_connection("127.0.0.1", ready["ports"][0])
    assert await exchange((reader, writer), b"hello") == b"hello"
    stats = await order(do="stats")
    assert (stats["done"], stats["bytes"]) == ("stats", [{"forward": 5, "backward": 5}])
    assert "error" in await order(do="delay"), "a delay has to say which"
    assert (await order(do="delay", delayMs="20"))["slowestMs"] == [{"forward": 0.0, "backward": 0.0}]
    assert await exchange((reader, writer), b"later") == b"later"
    [slowest] = (await order(do="stats"))["slowestMs"]
    assert min(slowest.values()) >= 20
    assert "error" in await order(do="dance")
    assert (await order(do="cut", direction="both"))["done"] == "cut"
    writer.write(b"x")
    assert await silent(reader)
    writer.close()
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), LIMIT_S) == 0
